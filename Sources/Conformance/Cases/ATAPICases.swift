// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// A CD-ROM drive: packets, sense data, the disc.
enum ATAPICases {
  static let all: [ConformanceCase] = drive + disc + refused + empty

  private static let blocks = UInt32(MachineKind.discBytes / 2048)

  /// A started drive and a page for its data.
  private struct Drive {
    let hba: HBAUnderTest
    let buffer: UInt64
    var context: CaseContext { hba.context }

    init(_ context: CaseContext) throws {
      hba = try HBAUnderTest(started: context)
      buffer = try context.allocate(256 << 10)
      // A unit attention, if there is one, goes to the first command after a reset.
      for _ in 0..<3 where try !perform(ATAPIPacket.testUnitReady).isGood { try hba.restart() }
    }

    /// Does a packet, whatever comes of it.
    func perform(
      _ packet: ATAPIPacket, byteCount: UInt32 = 0, usesDMA: Bool = false, limit: UInt16 = 0xFFFE
    ) throws -> HBAUnderTest.Outcome {
      var command = ATACommand(ATAOpcode.packet)
      command.features = usesDMA ? 1 : 0
      command.lba = usesDMA ? 0 : UInt64(limit) << 8
      return try hba.perform(command, AHCIBuffer(address: buffer, byteCount: byteCount), packet: packet)
    }

    /// Does a packet that must succeed, and returns as many bytes as it moved.
    func succeed(
      _ packet: ATAPIPacket, byteCount: UInt32 = 0, usesDMA: Bool = false, limit: UInt16 = 0xFFFE
    ) throws -> [UInt8] {
      context.bus.fill(buffer, byteCount: UInt64(byteCount), 0)
      let outcome = try perform(packet, byteCount: byteCount, usesDMA: usesDMA, limit: limit)
      try context.expect(
        outcome.isGood,
        "packet \(CaseContext.hexadecimal(packet.low & 0xFF)) succeeds, having PxTFD "
          + CaseContext.hexadecimal(outcome.taskFile))
      return context.bus.load(buffer, count: Int(min(outcome.byteCount, byteCount)))
    }

    /// Does a packet that must end in CHECK CONDITION with given sense data.
    func refuse(_ packet: ATAPIPacket, byteCount: UInt32 = 2048, key: UInt8, code: UInt8) throws {
      let outcome = try perform(packet, byteCount: byteCount)
      let name = CaseContext.hexadecimal(packet.low & 0xFF)
      try context.expect(
        outcome.failed, "packet \(name) fails, having PxTFD \(CaseContext.hexadecimal(outcome.taskFile))")
      try context.expect(outcome.error >> 4, key, "sense key in the error register")
      try hba.restart()
      let sense = try succeed(ATAPIPacket.requestSense(byteCount: 18), byteCount: 18)
      try context.expect(sense.count, 18, "bytes of sense data")
      try context.expect(sense[2] & 0xF, key, "sense key of packet \(name)")
      try context.expect(sense[12], code, "additional sense code of packet \(name)")
    }
  }

  private static let drive: [ConformanceCase] = [
    ConformanceCase(
      "atapi/signature", "A CD-ROM drive has the signature of an ATAPI device", "AHCI 1.3.1 §3.3.9; ACS-3 §4.3.3", .cd,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try context.expect(hba.engine.read(AHCIPortRegister.signature), AHCISignature.atapi, "PxSIG")
    },
    ConformanceCase(
      "atapi/identify-packet", "IDENTIFY PACKET DEVICE names a CD-ROM drive with packets of 12 bytes, by PIO",
      "ACS-3 §7.13",
      .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.hba.succeed(
        ATACommand(ATAOpcode.identifyPacket), AHCIBuffer(address: drive.buffer, byteCount: 512))
      try context.expect(outcome.interruptStatus, 3, "PxIS")
      try context.expect(context.bus.ramRead16(drive.buffer), mask: 0xDF03, 0x8500, "word 0")
    },
    ConformanceCase(
      "atapi/identify-is-aborted", "A CD-ROM drive aborts IDENTIFY DEVICE and shows its signature", "ACS-3 §7.12, §4.3",
      .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.hba.refuse(
        ATACommand(ATAOpcode.identify), AHCIBuffer(address: drive.buffer, byteCount: 512))
      try context.expect(outcome.error, mask: 4, 4, "ABRT")
      try context.expect(drive.hba.engine.receivedLBA >> 8 & 0xFFFF, 0xEB14, "LBA mid and high")
    },
    ConformanceCase(
      "atapi/inquiry", "INQUIRY names a removable CD-ROM device with printable names", "SPC-3 §6.4.2; MMC-5 §6.9", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      let data = try drive.succeed(ATAPIPacket.inquiry(byteCount: 36), byteCount: 36)
      try context.expect(data.count, 36, "bytes of data")
      try context.expect(data[0], 5, "peripheral device type")
      try context.expect(data[1], mask: 0x80, 0x80, "RMB")
      try context.expect(data[3], mask: 0xF, 2, "response data format")
      try context.expect(
        data[8...].allSatisfy { (0x20...0x7E).contains($0) }, "vendor, product and revision are printable")
    },
    ConformanceCase(
      "atapi/allocation-length", "A reply is cut at the allocation length", "SPC-3 §4.3.4.6; known failure 48", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      for length: UInt8 in [1, 5, 20] {
        context.bus.fill(drive.buffer, byteCount: 64, 0xA5)
        let outcome = try drive.perform(ATAPIPacket.inquiry(byteCount: length), byteCount: 64)
        try context.expect(outcome.isGood, "INQUIRY for \(length) bytes succeeds")
        let bytes = context.bus.load(drive.buffer, count: 64)
        // Data moves in words, so that an odd length may bring one byte more.
        let moved = (Int(length) + 1) & ~1
        try context.expect(bytes[moved...].allSatisfy { $0 == 0xA5 }, "no byte comes past \(moved)")
      }
    },
    ConformanceCase(
      "atapi/test-unit-ready", "TEST UNIT READY succeeds with a disc, without data", "MMC-5 §6.45", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.perform(ATAPIPacket.testUnitReady)
      try context.expect(outcome.isGood, "TEST UNIT READY succeeds")
      try context.expect(outcome.byteCount, 0, "PRDBC")
    },
    ConformanceCase(
      "atapi/request-sense-when-good", "REQUEST SENSE after a good command reports no sense, in the fixed format",
      "SPC-3 §6.27, §4.5.3", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      _ = try drive.succeed(ATAPIPacket.testUnitReady)
      let sense = try drive.succeed(ATAPIPacket.requestSense(byteCount: 18), byteCount: 18)
      try context.expect(sense.count, 18, "bytes of sense data")
      try context.expect(sense[0] & 0x7F, 0x70, "response code")
      try context.expect(sense[2] & 0xF, 0, "sense key")
    },
    ConformanceCase(
      "atapi/sense-is-reported-once", "Sense data is gone once it has been reported", "SPC-3 §4.5.1, §6.27", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      try drive.refuse(ATAPIPacket(0xFF), key: 5, code: 0x20)
      let sense = try drive.succeed(ATAPIPacket.requestSense(byteCount: 18), byteCount: 18)
      try context.expect(sense[2] & 0xF, 0, "sense key of the second REQUEST SENSE")
    },
    ConformanceCase(
      "atapi/check-condition-error-byte", "CHECK CONDITION shows the sense key in the error register, without ABRT",
      "ACS-3 §6.3; SFF-8020i §7.2", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.perform(ATAPIPacket(0xFF), byteCount: 2048)
      try context.expect(outcome.failed, "the packet fails")
      try context.expect(outcome.error, 0x50, "error register")
    },
    ConformanceCase(
      "atapi/mode-sense-capabilities", "MODE SENSE(10) gives the capabilities page", "MMC-5 §6.13", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      let data = try drive.succeed(ATAPIPacket(0x5A).with(2, 0x2A).with(8, 64), byteCount: 64)
      try context.expect(data.count >= 10, "there is a header and a page")
      try context.expect(data[8] & 0x3F, 0x2A, "page code")
    },
    ConformanceCase(
      "atapi/get-configuration", "GET CONFIGURATION gives the profile list", "MMC-5 §6.6, §5.3.1", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let data = try drive.succeed(ATAPIPacket(0x46).with(8, 64), byteCount: 64)
      try context.expect(data.count >= 12, "there is a header and a feature")
      try context.expect(UInt16(data[8]) << 8 | UInt16(data[9]), 0, "code of the first feature")
    },
    ConformanceCase(
      "atapi/event-status", "GET EVENT STATUS NOTIFICATION answers a poll, and refuses to wait", "MMC-5 §6.7", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      let data = try drive.succeed(ATAPIPacket(0x4A).with(1, 1).with(4, 0x10).with(8, 8), byteCount: 8)
      try context.expect(data.count >= 4, "there is a header")
      try context.expect(data[2] & 7, 4, "notification class")
      try drive.refuse(ATAPIPacket(0x4A).with(4, 0x10).with(8, 8), byteCount: 8, key: 5, code: 0x24)
    },
    ConformanceCase(
      "atapi/prevent-eject", "A disc whose removal is prevented is not ejected", "MMC-5 §6.14, §6.42", .cd
    ) { context in
      let drive = try Drive(context)
      _ = try drive.succeed(ATAPIPacket(0x1E).with(4, 1))
      let outcome = try drive.perform(ATAPIPacket(0x1B).with(4, 2))
      try context.expect(outcome.failed, "START STOP UNIT with eject fails")
      try drive.hba.restart()
      _ = try drive.succeed(ATAPIPacket(0x1E))
      _ = try drive.succeed(ATAPIPacket.testUnitReady)
    },
    ConformanceCase(
      "atapi/device-reset", "DEVICE RESET ends with the signature, and the drive answers afterwards", "ACS-3 §7.6", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      _ = try drive.hba.perform(ATACommand(0x08))
      try context.expect(drive.hba.engine.receivedLBA >> 8 & 0xFFFF, 0xEB14, "LBA mid and high")
      try drive.hba.restart()
      _ = try Drive(context).succeed(ATAPIPacket.testUnitReady)
    },
  ]

  private static let disc: [ConformanceCase] = [
    ConformanceCase(
      "atapi/read-capacity", "READ CAPACITY gives the last block and 2048 bytes", "MMC-5 §6.19", .cd, shares: true
    ) { context in
      let data = try Drive(context).succeed(ATAPIPacket.readCapacity, byteCount: 8)
      try context.expect(data, bigEndian(blocks - 1) + bigEndian(2048), "the reply")
    },
    ConformanceCase(
      "atapi/read-dma", "READ(10) by DMA brings the disc's data with a register FIS alone",
      "MMC-5 §6.15; AHCI 1.3.1 §5.6.2",
      .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.perform(ATAPIPacket.read10(block: 5, count: 20), byteCount: 40960, usesDMA: true)
      try context.expect(outcome.interruptStatus, 1, "PxIS")
      try context.expect(outcome.byteCount, 40960, "PRDBC")
      try context.expect(context.bus.load(drive.buffer, count: 40960), MachineKind.pattern(10240..<51200), "the data")
    },
    ConformanceCase(
      "atapi/read-pio", "READ(10) by PIO brings the same data, whatever the byte count limit",
      "MMC-5 §6.15; ACS-3 §7.18",
      .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      for limit: UInt16 in [0xFFFE, 0xF000, 2048, 512, 1000] {
        let data = try drive.succeed(ATAPIPacket.read10(block: 3, count: 3), byteCount: 6144, limit: limit)
        try context.expect(data, MachineKind.pattern(6144..<12288), "the data with limit \(limit)")
      }
    },
    ConformanceCase(
      "atapi/read-pio-events", "READ(10) by PIO ends with a PIO setup and a register FIS", "AHCI 1.3.1 §5.6.3", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.perform(ATAPIPacket.read10(block: 0, count: 1), byteCount: 2048)
      try context.expect(outcome.interruptStatus, 3, "PxIS")
      try context.expect(outcome.byteCount, 2048, "PRDBC")
    },
    ConformanceCase(
      "atapi/read12", "READ(12) reads as READ(10) does", "MMC-5 §6.16", .cd, shares: true
    ) { context in
      let packet = ATAPIPacket(0xA8).with(5, 9).with(9, 2)
      let data = try Drive(context).succeed(packet, byteCount: 4096, usesDMA: true)
      try context.expect(data, MachineKind.pattern(18432..<22528), "the data")
    },
    ConformanceCase(
      "atapi/read-nothing", "READ(10) of 0 blocks succeeds without data", "MMC-5 §6.15", .cd, shares: true
    ) { context in
      let outcome = try Drive(context).perform(ATAPIPacket.read10(block: 0, count: 0), byteCount: 2048)
      try context.expect(outcome.isGood, "READ(10) succeeds")
      try context.expect(outcome.byteCount, 0, "PRDBC")
    },
    ConformanceCase(
      "atapi/read-cd-nothing", "READ CD of 0 blocks with a byte count limit of 0 succeeds", "MMC-5 §6.20", .cd,
      shares: true
    ) { context in
      let outcome = try Drive(context).perform(ATAPIPacket(0xBE), limit: 0)
      try context.expect(outcome.isGood, "READ CD succeeds")
    },
    ConformanceCase(
      "atapi/read-cd-user-data", "READ CD of user data reads as READ(10) does", "MMC-5 §6.20", .cd, shares: true
    ) { context in
      let packet = ATAPIPacket(0xBE).with(5, 4).with(8, 1).with(9, 0x10)
      let data = try Drive(context).succeed(packet, byteCount: 2048)
      try context.expect(data, MachineKind.pattern(8192..<10240), "the data")
    },
    ConformanceCase(
      "atapi/read-cd-raw", "READ CD of whole sectors brings 2352 bytes with the user data at 16", "MMC-5 §6.20", .cd,
      shares: true
    ) { context in
      let packet = ATAPIPacket(0xBE).with(5, 4).with(8, 1).with(9, 0xF8)
      let data = try Drive(context).succeed(packet, byteCount: 2352)
      try context.expect(data.count, 2352, "bytes of data")
      try context.expect(Array(data[16..<2064]), MachineKind.pattern(8192..<10240), "the user data")
    },
    ConformanceCase(
      "atapi/read-toc", "READ TOC names one data track and the lead-out", "MMC-5 §6.26", .cd, shares: true
    ) { context in
      let data = try Drive(context).succeed(ATAPIPacket(0x43).with(8, 20), byteCount: 20)
      try context.expect(data.count, 20, "bytes of data")
      try context.expect([data[0], data[1], data[2], data[3]], [0, 18, 1, 1], "length, first and last track")
      try context.expect(data[5] & 0x0F, 4, "control of track 1: data")
      try context.expect(data[14], 0xAA, "the second descriptor is the lead-out")
      try context.expect(Array(data[16..<20]), bigEndian(blocks), "where the lead-out begins")
    },
    ConformanceCase(
      "atapi/read-last-block", "The last block is readable", "MMC-5 §6.15", .cd, shares: true
    ) { context in
      let data = try Drive(context).succeed(ATAPIPacket.read10(block: blocks - 1, count: 1), byteCount: 2048)
      let end = MachineKind.discBytes
      try context.expect(data, MachineKind.pattern((end - 2048)..<end), "the data")
    },
    ConformanceCase(
      "atapi/read-past-end", "READ(10) past the end fails with sense 5/21h, and nothing is read",
      "MMC-5 §6.15; known failure 48",
      .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      for (block, count) in [(blocks, UInt16(1)), (blocks - 1, 2), (0xFFFF_FFFF, 1), (0xFFFF_FFFF, 0xFFFF)] {
        try drive.refuse(ATAPIPacket.read10(block: block, count: count), byteCount: 65536, key: 5, code: 0x21)
      }
    },
    ConformanceCase(
      "atapi/read-buffer-too-short",
      "A read into regions that are too short writes no byte past them; the drive works on",
      "AHCI 1.3.1 §6.1.5; known failures 39, 48 (CVE-2020-29443)", .cd
    ) { context in
      let drive = try Drive(context)
      for usesDMA in [false, true] {
        context.bus.fill(drive.buffer, byteCount: 8192, 0xA5)
        var command = ATACommand(ATAOpcode.packet)
        command.features = usesDMA ? 1 : 0
        command.lba = usesDMA ? 0 : 0xFFFE << 8
        drive.hba.issue(
          command, AHCIBuffer(address: drive.buffer, byteCount: 512), packet: ATAPIPacket.read10(block: 0, count: 4))
        context.pause(milliseconds: 20)
        try context.expect(
          context.bus.load(drive.buffer + 512, count: 7680), [UInt8](repeating: 0xA5, count: 7680),
          "the rest of the page")
        _ = try Drive(context).succeed(ATAPIPacket.testUnitReady)
      }
    },
  ]

  private static func bigEndian(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

  private static let refused: [ConformanceCase] = [
    ConformanceCase(
      "atapi/unknown-operation", "An operation code that there is not gives sense 5/20h", "SPC-3 §4.5.6", .cd,
      shares: true
    ) { context in
      let drive = try Drive(context)
      for opcode: UInt8 in [0x02, 0x2E, 0xC0, 0xFF] { try drive.refuse(ATAPIPacket(opcode), key: 5, code: 0x20) }
    },
    ConformanceCase(
      "atapi/write-is-refused", "WRITE(10) to a CD-ROM drive is refused", "MMC-5 §4.2", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      let outcome = try drive.perform(ATAPIPacket(0x2A).with(8, 1), byteCount: 2048)
      try context.expect(outcome.failed, "WRITE(10) fails")
    },
    ConformanceCase(
      "atapi/disk-commands-are-aborted", "A CD-ROM drive aborts the commands that read and write a disk's sectors",
      "ACS-3 §4.3", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      for opcode: UInt8 in [0x20, 0x24, 0x25, 0x30, 0x35, 0xC8, 0xCA] {
        let outcome = try drive.hba.refuse(
          ATACommand(opcode, lba: 0, count: 1),
          AHCIBuffer(address: drive.buffer, byteCount: 512, writes: [0x30, 0x35, 0xCA].contains(opcode)))
        try context.expect(outcome.error, mask: 4, 4, "ABRT of command \(CaseContext.hexadecimal(opcode))")
        try drive.hba.restart()
      }
    },
    ConformanceCase(
      "atapi/native-max-is-aborted", "READ NATIVE MAX ADDRESS on a CD-ROM drive is aborted",
      "ATA8-ACS §7 (READ NATIVE MAX ADDRESS); known failure 47 (CVE-2015-6855)", .cd, shares: true
    ) { context in
      let drive = try Drive(context)
      for opcode in [ATAOpcode.readNativeMax, ATAOpcode.readNativeMaxExt] { try drive.hba.abort(ATACommand(opcode)) }
    },
    ConformanceCase(
      "atapi/unknown-page", "MODE SENSE of a page that there is not gives sense 5/24h", "SPC-3 §6.10", .cd, shares: true
    ) { context in
      try Drive(context).refuse(ATAPIPacket(0x5A).with(2, 0x1F).with(8, 64), byteCount: 64, key: 5, code: 0x24)
    },
    ConformanceCase(
      "atapi/random-packets", "Packets of random bytes do no harm; the drive works after a reset",
      "MMC-5 §4.2; known failure 48 (CVE-2015-5154)", .cd
    ) { context in
      let drive = try Drive(context)
      for _ in 0..<100 {
        var packet = ATAPIPacket(UInt8.random(in: 0...255, using: &context.random))
        packet.high = context.random.next()
        packet.low = packet.low & 0xFF | context.random.next() << 8
        // A drive may eject, or fall asleep for good; those have cases of their own.
        if packet.low & 0xFF == 0x1B { continue }
        _ = try drive.perform(packet, byteCount: 65536, usesDMA: Bool.random(using: &context.random))
        try drive.hba.resetPort()
      }
      let data = try Drive(context).succeed(ATAPIPacket.read10(block: 5, count: 1), byteCount: 2048)
      try context.expect(data, MachineKind.pattern(10240..<12288), "block 5")
    },
  ]

  private static let empty: [ConformanceCase] = [
    ConformanceCase(
      "atapi/no-disc", "Without a disc TEST UNIT READY, READ(10) and READ CAPACITY give sense 2/3Ah", "MMC-5 §F.2",
      .cdEmpty,
      shares: true
    ) { context in
      let drive = try Drive(context)
      for packet in [
        ATAPIPacket.testUnitReady, ATAPIPacket.read10(block: 0, count: 1), ATAPIPacket.readCapacity,
        ATAPIPacket(0x43).with(8, 20),
      ] {
        try drive.refuse(packet, key: 2, code: 0x3A)
      }
    },
    ConformanceCase(
      "atapi/no-disc-answers", "Without a disc INQUIRY, MODE SENSE and REQUEST SENSE still answer",
      "SPC-3 §6.4; MMC-5 §4.2",
      .cdEmpty, shares: true
    ) { context in
      let drive = try Drive(context)
      try context.expect(try drive.succeed(ATAPIPacket.inquiry(byteCount: 36), byteCount: 36).count, 36, "INQUIRY")
      _ = try drive.succeed(ATAPIPacket(0x5A).with(2, 0x2A).with(8, 64), byteCount: 64)
      _ = try drive.succeed(ATAPIPacket.requestSense(byteCount: 18), byteCount: 18)
    },
    ConformanceCase(
      "atapi/no-disc-tray", "Without a disc the tray opens and closes", "MMC-5 §6.42; known failure 43", .cdEmpty
    ) { context in
      let drive = try Drive(context)
      _ = try drive.succeed(ATAPIPacket(0x1B).with(4, 2))
      _ = try drive.succeed(ATAPIPacket(0x1B).with(4, 3))
    },
    ConformanceCase(
      "atapi/no-disc-reset-in-flight", "Resets around commands of an empty drive do no harm",
      "AHCI 1.3.1 §10.4; known failure 43 (CVE-2020-25743)", .cdEmpty
    ) { context in
      for _ in 0..<8 {
        let hba = try HBAUnderTest(started: context)
        let buffer = try context.allocate(2048)
        var command = ATACommand(ATAOpcode.packet)
        command.features = 1
        hba.issue(
          command, AHCIBuffer(address: buffer, byteCount: 2048), packet: ATAPIPacket.read10(block: 0, count: 1))
        try hba.controller.reset()
      }
      _ = try Drive(context).succeed(ATAPIPacket.inquiry(byteCount: 36), byteCount: 36)
    },
  ]
}
