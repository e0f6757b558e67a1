// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Reading and writing sectors by every command that does.
enum ATADataCases {
  static let all: [ConformanceCase] =
    transfers.map(readCase) + transfers.map(writeCase) + transfers.map(pastEndCase) + addressing

  /// A pair of commands that move sectors.
  private struct Transfer {
    var name: String
    var read: UInt8
    var write: UInt8
    var section: String
    /// PxIS of a read and of a write of more than one sector.
    var readEvents: UInt32
    var writeEvents: UInt32
    var isQueued: Bool { ATACommand.isQueued(read) }
  }

  private static let registerFIS = AHCIPortInterrupt.registerFIS
  private static let both = AHCIPortInterrupt.registerFIS | AHCIPortInterrupt.pioSetup
  private static let deviceBits = AHCIPortInterrupt.deviceBits

  private static let transfers = [
    Transfer(
      name: "pio", read: 0x20, write: 0x30, section: "ACS-3 §7.28, §7.67", readEvents: both, writeEvents: both),
    Transfer(
      name: "pio-ext", read: 0x24, write: 0x34, section: "ACS-3 §7.29, §7.68", readEvents: both, writeEvents: both),
    Transfer(
      name: "dma", read: 0xC8, write: 0xCA, section: "ACS-3 §7.21, §7.58", readEvents: registerFIS,
      writeEvents: registerFIS),
    Transfer(
      name: "dma-ext", read: 0x25, write: 0x35, section: "ACS-3 §7.22, §7.59", readEvents: registerFIS,
      writeEvents: registerFIS),
    Transfer(
      name: "queued", read: 0x60, write: 0x61, section: "ACS-3 §7.23, §7.61", readEvents: deviceBits,
      writeEvents: deviceBits),
  ]

  private static func readCase(_ one: Transfer) -> ConformanceCase {
    ConformanceCase(
      "ata/read-\(one.name)",
      "Command \(CaseContext.hexadecimal(one.read)) reads 1, 2 and 64 sectors with the right events",
      "\(one.section); AHCI 1.3.1 §5.6", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(64 * 512)
      for count: UInt16 in [1, 2, 64] {
        context.bus.fill(buffer, byteCount: 64 * 512, 0)
        let byteCount = UInt32(count) * 512
        let outcome = try hba.succeed(
          ATACommand(one.read, lba: 100, count: count), AHCIBuffer(address: buffer, byteCount: byteCount))
        try context.expect(outcome.interruptStatus, one.readEvents, "PxIS of \(count) sectors")
        try context.expect(outcome.error, 0, "error register")
        if !one.isQueued { try context.expect(outcome.byteCount, byteCount, "PRDBC") }
        try context.expect(
          context.bus.load(buffer, count: Int(byteCount)), MachineKind.pattern(51200..<(51200 + UInt64(byteCount))),
          "the data of \(count) sectors")
      }
    }
  }

  private static func writeCase(_ one: Transfer) -> ConformanceCase {
    ConformanceCase(
      "ata/write-\(one.name)", "Command \(CaseContext.hexadecimal(one.write)) writes 1, 2 and 64 sectors and no other",
      "\(one.section); AHCI 1.3.1 §5.6", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let first = 10_000 + UInt64(one.write) * 100
      for count: UInt16 in [1, 2, 64] {
        try hba.writeSectors(first - 1, [UInt8](repeating: 0x11, count: 66 * 512))
        let bytes = context.randomBytes(Int(count) * 512)
        let buffer = try context.allocate(bytes)
        let outcome = try hba.succeed(
          ATACommand(one.write, lba: first, count: count),
          AHCIBuffer(address: buffer, byteCount: UInt32(bytes.count), writes: true))
        let isOnePIO = one.writeEvents == both && count == 1
        try context.expect(
          outcome.interruptStatus, isOnePIO ? registerFIS : one.writeEvents, "PxIS of \(count) sectors")
        if !one.isQueued { try context.expect(outcome.byteCount, UInt32(bytes.count), "PRDBC") }
        let rest = [UInt8](repeating: 0x11, count: (65 - Int(count)) * 512)
        try context.expect(
          try hba.readSectors(first - 1, 66), [UInt8](repeating: 0x11, count: 512) + bytes + rest,
          "the sectors around \(count) written ones")
      }
    }
  }

  private static func pastEndCase(_ one: Transfer) -> ConformanceCase {
    ConformanceCase(
      "ata/past-end-\(one.name)",
      "Command \(CaseContext.hexadecimal(one.read)) reads the last sector, and fails past it",
      "\(one.section) (IDNF or ABRT); known failure 46", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(1024)
      try hba.succeed(ATACommand(one.read, lba: hba.lastSector, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
      for (sector, count) in [(hba.lastSector + 1, UInt16(1)), (hba.lastSector, 2)] {
        let outcome = try hba.refuse(
          ATACommand(one.read, lba: sector, count: count),
          AHCIBuffer(address: buffer, byteCount: UInt32(count) * 512))
        try context.expect(one.isQueued || outcome.error & 0x14 != 0, "IDNF or ABRT is set")
        try hba.restart()
        if one.isQueued { try hba.resetPort() }
      }
      try hba.checkAlive()
    }
  }

  private static let addressing: [ConformanceCase] = [
    ConformanceCase(
      "ata/write-past-end-changes-nothing", "A write that begins on the disk and ends past it fails",
      "ACS-3 §7.59; known failure 46", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(context.randomBytes(1024))
      let outcome = try hba.refuse(
        ATACommand(ATAOpcode.writeDMAExt, lba: hba.lastSector, count: 2),
        AHCIBuffer(address: buffer, byteCount: 1024, writes: true))
      try context.expect(outcome.error & 0x14 != 0, "IDNF or ABRT is set")
      try hba.restart()
      try context.expect(try hba.readSectors(0, 1), MachineKind.pattern(0..<512), "sector 0")
    },
    ConformanceCase(
      "ata/lba-does-not-wrap", "All 48 bits of an address count: high ones fail instead of wrapping",
      "ACS-3 §7.22; known failure 46", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      for sector: UInt64 in [1 << 28, 1 << 32, 1 << 40, 1 << 47, (1 << 48) - 1] {
        try hba.refuse(
          ATACommand(ATAOpcode.readDMAExt, lba: sector, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
        try hba.restart()
      }
      try context.expect(context.bus.load(buffer, count: 512), [UInt8](repeating: 0, count: 512), "the buffer")
    },
    ConformanceCase(
      "ata/count-zero-is-65536", "A count of 0 stands for 65536 sectors with 48-bit commands",
      "ACS-3 §7.22; known failure 46", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let byteCount: UInt32 = 65536 * 512
      let buffer = try context.allocate(UInt64(byteCount))
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 0), AHCIBuffer(address: buffer, byteCount: byteCount))
      try context.expect(outcome.byteCount, byteCount, "PRDBC")
      try context.expect(context.bus.load(buffer + 512, count: 512), MachineKind.pattern(512..<1024), "sector 1")
    },
    ConformanceCase(
      "ata/count-zero-is-256", "A count of 0 stands for 256 sectors with 28-bit commands",
      "ACS-3 §7.21; known failure 46",
      .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(256 * 512)
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readDMA, lba: 0, count: 0), AHCIBuffer(address: buffer, byteCount: 256 * 512))
      try context.expect(outcome.byteCount, 256 * 512, "PRDBC")
      try context.expect(context.bus.load(buffer, count: 256 * 512), MachineKind.pattern(0..<131_072), "the data")
    },
    ConformanceCase(
      "ata/device-nibble", "Bits 27:24 of a 28-bit address are in the device register", "ACS-3 §7.21", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      var command = ATACommand(ATAOpcode.readDMA, lba: 5, count: 1)
      try hba.succeed(command, AHCIBuffer(address: buffer, byteCount: 512))
      // Sector 5 + 2^24 is past the end of this disk.
      command.device |= 1
      try hba.refuse(command, AHCIBuffer(address: buffer, byteCount: 512))
      try hba.restart()
      try hba.checkAlive()
    },
    ConformanceCase(
      "ata/forced-unit-access", "WRITE DMA FUA EXT and a queued write with FUA write their data",
      "ACS-3 §7.60, §7.61", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var queued = ATACommand(ATAOpcode.writeQueued, lba: 21_001, count: 1)
      queued.device |= ATACommand.forcedUnitAccess
      var commands = [queued]
      if hba.port.identity?.hasForcedUnitAccess == true {
        commands.append(ATACommand(ATAOpcode.writeDMAFUAExt, lba: 21_001, count: 1))
      }
      for command in commands {
        let bytes = context.randomBytes(512)
        let buffer = try context.allocate(bytes)
        try hba.succeed(command, AHCIBuffer(address: buffer, byteCount: 512, writes: true))
        try context.expect(try hba.readSectors(21_001, 1), bytes, "sector 21001")
      }
    },
    ConformanceCase(
      "ata/multiple-sectors", "SET MULTIPLE MODE lets READ MULTIPLE and WRITE MULTIPLE move blocks of sectors",
      "ACS-3 §7.27, §7.46, §7.65", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var mode = ATACommand(0xC6)
      mode.count = 8
      try hba.succeed(mode)
      let bytes = context.randomBytes(20 * 512)
      let buffer = try context.allocate(bytes)
      try hba.succeed(
        ATACommand(0x39, lba: 22_000, count: 20),
        AHCIBuffer(address: buffer, byteCount: UInt32(bytes.count), writes: true))
      context.bus.fill(buffer, byteCount: UInt64(bytes.count), 0)
      try hba.succeed(
        ATACommand(0x29, lba: 22_000, count: 20), AHCIBuffer(address: buffer, byteCount: UInt32(bytes.count)))
      try context.expect(context.bus.load(buffer, count: bytes.count), bytes, "the data by READ MULTIPLE EXT")
    },
    ConformanceCase(
      "ata/verify", "READ VERIFY succeeds on the disk, without data, and fails past its end", "ACS-3 §7.32, §7.33",
      .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for opcode: UInt8 in [0x40, 0x42] {
        try context.expect(try hba.succeed(ATACommand(opcode, lba: 0, count: 8)).byteCount, 0, "PRDBC")
      }
      try hba.refuse(ATACommand(0x42, lba: hba.lastSector + 1, count: 1))
      try hba.restart()
    },
  ]
}
