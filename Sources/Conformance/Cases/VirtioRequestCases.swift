// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Requests of a virtio disk that are well-formed rings: what is done, what is refused, and with which status.
enum VirtioRequestCases {
  private typealias Feature = VirtioBlockFeature
  private typealias Segment = VirtioUnderTest.Segment
  private static let discard: UInt32 = 11
  private static let writeZeroes: UInt32 = 13
  private static let discardFeature: UInt64 = 1 << 13
  private static let writeZeroesFeature: UInt64 = 1 << 14

  static let all: [ConformanceCase] = data + refused + ranges + faults

  private static let data: [ConformanceCase] = [
    ConformanceCase(
      "virtio/read", "A read brings the disk's sectors, and the used length counts them and the status",
      "virtio 1.3 §5.2.6, §2.7.8.2; known failure 15", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for count: UInt32 in [1, 2, 64] {
        let buffer = try context.allocate(UInt64(count) * 512)
        let done = try device.perform(
          type: VirtioBlockType.read, sector: 7, [Segment(address: buffer, byteCount: count * 512, isWritten: true)])
        try context.expect(done.status, 0, "status")
        try context.expect(done.usedByteCount, count * 512 + 1, "used length")
        try context.expect(
          context.bus.load(buffer, count: Int(count) * 512), MachineKind.pattern(3584..<(3584 + UInt64(count) * 512)),
          "the data")
      }
    },
    ConformanceCase(
      "virtio/write", "A write changes just its sectors; its used length is 1", "virtio 1.3 §5.2.6, §2.7.8.2", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      _ = try device.write(5000, [UInt8](repeating: 0x11, count: 10 * 512))
      let bytes = context.randomBytes(4 * 512)
      let done = try device.write(5003, bytes)
      try context.expect(done.status, 0, "status")
      try context.expect(done.usedByteCount, 1, "used length")
      let around = [UInt8](repeating: 0x11, count: 3 * 512)
      try context.expect(try device.read(5000, byteCount: 5120), around + bytes + around, "the sectors around")
    },
    ConformanceCase(
      "virtio/many-segments", "A request of many data descriptors moves all of them",
      "virtio 1.3 §5.2.6, §2.7.4; known failure 25",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(40 * 512)
      let buffer = try context.allocate(bytes)
      let pieces = (0..<40).map { Segment(address: buffer + $0 * 512, byteCount: 512) }
      try context.expect(
        try device.perform(type: VirtioBlockType.write, sector: 5100, pieces).status, 0, "status of the write")
      let back = try context.allocate(UInt64(bytes.count))
      let places = (0..<40).map { Segment(address: back + $0 * 512, byteCount: 512, isWritten: true) }
      let done = try device.perform(type: VirtioBlockType.read, sector: 5100, places)
      try context.expect(done.usedByteCount, UInt32(bytes.count) + 1, "used length of the read")
      try context.expect(context.bus.load(back, count: bytes.count), bytes, "the data")
    },
    ConformanceCase(
      "virtio/odd-segments", "Data may be cut anywhere: segments of 1, 510, 3 and 1022 bytes", "virtio 1.3 §2.7.4.1",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(4096)
      var segments: [Segment] = []
      var offset: UInt64 = 0
      for count: UInt32 in [1, 510, 3, 1022] {
        segments.append(Segment(address: buffer + offset, byteCount: count, isWritten: true))
        offset += UInt64(count)
      }
      try context.expect(try device.perform(type: VirtioBlockType.read, sector: 20, segments).status, 0, "status")
      try context.expect(context.bus.load(buffer, count: 1536), MachineKind.pattern(10240..<11776), "the data")
    },
    ConformanceCase(
      "virtio/header-split", "The header may be split over descriptors", "virtio 1.3 §2.7.4.1; known failure 24",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let header = try device.makeHeader(type: VirtioBlockType.read, sector: 3)
      let buffer = try context.allocate(512)
      let status = try device.makeStatus()
      let done = try device.perform(
        chain: [
          Segment(address: header, byteCount: 3), Segment(address: header + 3, byteCount: 9),
          Segment(address: header + 12, byteCount: 4), Segment(address: buffer, byteCount: 512, isWritten: true),
          Segment(address: status, byteCount: 1, isWritten: true),
        ], status: status)
      try context.expect(done.status, 0, "status")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "the data")
    },
    ConformanceCase(
      "virtio/header-with-data", "Header and data, or data and status, may share a descriptor", "virtio 1.3 §2.7.4.1",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(512)
      let request = try device.makeHeader(type: VirtioBlockType.write, sector: 5200)
      context.bus.store(request + 16, bytes)
      let status = try device.makeStatus()
      var done = try device.perform(
        chain: [Segment(address: request, byteCount: 528), Segment(address: status, byteCount: 1, isWritten: true)],
        status: status)
      try context.expect(done.status, 0, "status of the write")
      let reply = try context.allocate(4096)
      context.bus.ramWrite8(reply + 512, 0xFF)
      done = try device.perform(
        chain: [
          Segment(address: try device.makeHeader(type: VirtioBlockType.read, sector: 5200), byteCount: 16),
          Segment(address: reply, byteCount: 513, isWritten: true),
        ], status: reply + 512)
      try context.expect(done.status, 0, "status of the read")
      try context.expect(context.bus.load(reply, count: 512), bytes, "the data")
    },
    ConformanceCase(
      "virtio/flush", "A flush succeeds, with nothing but the status written", "virtio 1.3 §5.2.6.2", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      _ = try device.write(5300, context.randomBytes(512))
      let done = try device.perform(type: VirtioBlockType.flush)
      try context.expect(done.status, 0, "status")
      try context.expect(done.usedByteCount, 1, "used length")
    },
    ConformanceCase(
      "virtio/priority-is-ignored", "The priority field of the header changes nothing",
      "virtio 1.3 §5.2.6.3 (ioprio)",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let header = try device.makeHeader(type: VirtioBlockType.read, sector: 3)
      context.bus.ramWrite32(header + 4, 0xFFFF_FFFF)
      let buffer = try context.allocate(512)
      let status = try device.makeStatus()
      let done = try device.perform(
        chain: [
          Segment(address: header, byteCount: 16), Segment(address: buffer, byteCount: 512, isWritten: true),
          Segment(address: status, byteCount: 1, isWritten: true),
        ], status: status)
      try context.expect(done.status, 0, "status")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "the data")
    },
    ConformanceCase(
      "virtio/get-id", "GET_ID gives the serial number and a 0 behind it, in no more than 20 bytes",
      "virtio 1.3 §5.2.6", .virtioSerial,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(64)
      context.bus.fill(buffer, byteCount: 64, 0xA5)
      let done = try device.perform(
        type: VirtioBlockType.getID, [Segment(address: buffer, byteCount: 20, isWritten: true)])
      try context.expect(done.status, 0, "status")
      let bytes = context.bus.load(buffer, count: 64)
      let serial = Array(MachineKind.serial.utf8)
      try context.expect(Array(bytes[..<serial.count]), serial, "the serial number")
      try context.expect(bytes[serial.count], 0, "the byte behind it")
      try context.expect(bytes[20...].allSatisfy { $0 == 0xA5 }, "no byte past the 20th is written")
    },
    ConformanceCase(
      "virtio/get-id-lengths", "GET_ID into 1, 19 or 64 bytes writes no more than 20 and no more than there are",
      "virtio 1.3 §5.2.6.1; known failure 27", .virtioSerial, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for count: UInt32 in [1, 19, 64] {
        let buffer = try context.allocate(128)
        context.bus.fill(buffer, byteCount: 128, 0xA5)
        let done = try device.perform(
          type: VirtioBlockType.getID, [Segment(address: buffer, byteCount: count, isWritten: true)])
        try context.expect(done.status <= 2, "the status \(done.status) is one that there is")
        let bytes = context.bus.load(buffer, count: 128)
        try context.expect(
          bytes[Int(min(count, 20))...].allSatisfy { $0 == 0xA5 }, "\(count): nothing behind is written")
      }
    },
    ConformanceCase(
      "virtio/last-sector", "The last sector can be read and written", "virtio 1.3 §5.2.6, §5.2.6.1; known failure 21",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(512)
      try context.expect(try device.write(device.lastSector, bytes).status, 0, "status of the write")
      try context.expect(try device.read(device.lastSector, byteCount: 512), bytes, "the data")
    },
    ConformanceCase(
      "virtio/random-load", "Random reads and writes agree with a model of the disk", "virtio 1.3 §5.2.6", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let area: UInt64 = 6000
      var model = [UInt8](repeating: 0, count: 64 * 512)
      try context.expect(try device.write(area, model).status, 0, "status of the first write")
      for _ in 0..<60 {
        let first = Int.random(in: 0..<60, using: &context.random)
        let count = Int.random(in: 1...4, using: &context.random)
        if Bool.random(using: &context.random) {
          let bytes = context.randomBytes(count * 512)
          try context.expect(try device.write(area + UInt64(first), bytes).status, 0, "status of a write")
          model.replaceSubrange((first * 512)..<((first + count) * 512), with: bytes)
        } else {
          let seen = try device.read(area + UInt64(first), byteCount: count * 512)
          try context.expect(seen, Array(model[(first * 512)..<((first + count) * 512)]), "sectors from \(first) on")
        }
      }
    },
  ]

  private static let refused: [ConformanceCase] = [
    ConformanceCase(
      "virtio/unknown-type", "A request of an unknown type ends with UNSUPP", "virtio 1.3 §5.2.6; known failure 28",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for type: UInt32 in [0xDEAD, 0x7FFF_FFFF, 99] {
        try context.expect(
          try device.perform(type: type).status, VirtioBlockStatus.unsupported, "status of type \(type)")
      }
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/scsi-is-not-done", "A SCSI passthrough request ends with UNSUPP or IOERR",
      "virtio 1.3 §5.2.6.3; known failure 29 (CVE-2026-48914)", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(8192)
      let done = try device.perform(
        type: 2,
        [Segment(address: buffer, byteCount: 4096), Segment(address: buffer + 4096, byteCount: 4096, isWritten: true)])
      try context.expect(done.status == 1 || done.status == 2, "the status is IOERR or UNSUPP, not \(done.status)")
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/past-end", "Requests past the end end with IOERR, and wrap nowhere",
      "virtio 1.3 §5.2.6, §5.2.6.1; known failure 21",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(1024)
      for sector: UInt64 in [device.lastSector, device.lastSector + 1, 1 << 55, 1 << 63, .max, .max - 1] {
        for type in [VirtioBlockType.read, VirtioBlockType.write] {
          let done = try device.perform(
            type: type, sector: sector,
            [Segment(address: buffer, byteCount: 1024, isWritten: type == VirtioBlockType.read)])
          try context.expect(done.status, VirtioBlockStatus.ioError, "status of type \(type) at \(sector)")
        }
      }
      try context.expect(try device.read(0, byteCount: 1024), MachineKind.pattern(0..<1024), "sectors 0 and 1")
    },
    ConformanceCase(
      "virtio/partial-sectors", "Data that is no whole number of sectors ends with IOERR, without any I/O",
      "virtio 1.3 §5.2.6, §5.2.6.1; known failure 20 (CVE-2011-1750)", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(context.randomBytes(1024))
      for count: UInt32 in [1, 511, 513, 1023] {
        for type in [VirtioBlockType.read, VirtioBlockType.write] {
          let done = try device.perform(
            type: type, sector: 4, [Segment(address: buffer, byteCount: count, isWritten: type == VirtioBlockType.read)]
          )
          try context.expect(done.status, VirtioBlockStatus.ioError, "status of type \(type) with \(count) bytes")
        }
      }
      try context.expect(try device.read(4, byteCount: 1024), MachineKind.pattern(2048..<3072), "sectors 4 and 5")
    },
    ConformanceCase(
      "virtio/read-only-refuses", "A read-only disk answers writes with IOERR, and keeps its bytes",
      "virtio 1.3 §5.2.6.2; known failure 22", .virtioReadOnly, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      try context.expect(
        try device.write(3, context.randomBytes(512)).status, VirtioBlockStatus.ioError, "status of a write")
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/read-only-flushes", "A read-only disk answers a flush", "virtio 1.3 §5.2.6; known failure 22",
      .virtioReadOnly, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(Feature.flush) else { try context.skip("FLUSH is not offered") }
      try context.expect(try device.perform(type: VirtioBlockType.flush).status, 0, "status of a flush")
    },
  ]

  /// A segment list of a discard or write-zeroes request.
  private static func ranges(_ context: CaseContext, _ list: [(UInt64, UInt32, UInt32)]) throws -> [Segment] {
    let buffer = try context.allocate(UInt64(list.count) * 16)
    for (index, one) in list.enumerated() {
      context.bus.ramWrite64(buffer + UInt64(index) * 16, one.0)
      context.bus.ramWrite64(buffer + UInt64(index) * 16 + 8, UInt64(one.1) | UInt64(one.2) << 32)
    }
    return [Segment(address: buffer, byteCount: UInt32(list.count) * 16)]
  }

  private static let ranges: [ConformanceCase] = [
    ConformanceCase(
      "virtio/write-zeroes", "WRITE_ZEROES leaves zeroes, and nothing else changed", "virtio 1.3 §5.2.6.2", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(writeZeroesFeature) else { try context.skip("WRITE_ZEROES is not offered") }
      _ = try device.write(7000, [UInt8](repeating: 0x11, count: 6 * 512))
      for flags: UInt32 in [0, 1] {
        _ = try device.write(7002, [UInt8](repeating: 0x22, count: 1024))
        let done = try device.perform(type: writeZeroes, try ranges(context, [(7002, 2, flags)]))
        try context.expect(done.status, 0, "status with flags \(flags)")
        let around = [UInt8](repeating: 0x11, count: 1024)
        try context.expect(
          try device.read(7000, byteCount: 3072), around + [UInt8](repeating: 0, count: 1024) + around,
          "the sectors with flags \(flags)")
      }
    },
    ConformanceCase(
      "virtio/discard", "DISCARD succeeds, and leaves the sectors around alone", "virtio 1.3 §5.2.6.2", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(discardFeature) else { try context.skip("DISCARD is not offered") }
      _ = try device.write(7100, [UInt8](repeating: 0x11, count: 24 * 512))
      let done = try device.perform(type: discard, try ranges(context, [(7108, 8, 0)]))
      try context.expect(done.status, 0, "status")
      let around = [UInt8](repeating: 0x11, count: 8 * 512)
      try context.expect(try device.read(7100, byteCount: 4096), around, "the sectors before")
      try context.expect(try device.read(7116, byteCount: 4096), around, "the sectors behind")
    },
    ConformanceCase(
      "virtio/discard-unmap-flag", "DISCARD with the unmap flag ends with UNSUPP",
      "virtio 1.3 §5.2.6.2; known failure 26", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(discardFeature) else { try context.skip("DISCARD is not offered") }
      let done = try device.perform(type: discard, try ranges(context, [(7108, 8, 1)]))
      try context.expect(done.status, VirtioBlockStatus.unsupported, "status")
    },
    ConformanceCase(
      "virtio/range-reserved-flags", "Unknown flags of a range end with UNSUPP",
      "virtio 1.3 §5.2.6.2; known failure 26", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for (type, feature) in [(discard, discardFeature), (writeZeroes, writeZeroesFeature)] where device.has(feature) {
        let done = try device.perform(type: type, try ranges(context, [(7108, 8, 0x8000_0000)]))
        try context.expect(done.status, VirtioBlockStatus.unsupported, "status of type \(type)")
      }
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/range-past-end", "Ranges past the end end with IOERR, and wrap nowhere",
      "virtio 1.3 §5.2.6; known failure 26",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for (type, feature) in [(discard, discardFeature), (writeZeroes, writeZeroesFeature)] where device.has(feature) {
        for (sector, count): (UInt64, UInt32) in [
          (device.lastSector, 2), (device.lastSector + 1, 1), (.max, 2), (.max - 7, 8),
        ] {
          let done = try device.perform(type: type, try ranges(context, [(sector, count, 0)]))
          try context.expect(done.status, VirtioBlockStatus.ioError, "status of type \(type) at \(sector)")
        }
      }
      try context.expect(try device.read(0, byteCount: 1024), MachineKind.pattern(0..<1024), "sectors 0 and 1")
    },
    ConformanceCase(
      "virtio/range-too-long", "A range of more sectors than the limits allow is refused",
      "virtio 1.3 §5.2.5; known failure 26",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(writeZeroesFeature) else { try context.skip("WRITE_ZEROES is not offered") }
      let done = try device.perform(type: writeZeroes, try ranges(context, [(0, 0xFFFF_FFFF, 0)]))
      try context.expect(done.status == 1 || done.status == 2, "the status is IOERR or UNSUPP, not \(done.status)")
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/range-too-many", "More ranges than the limit allows are refused", "virtio 1.3 §5.2.6.1; known failure 26",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(discardFeature) else { try context.skip("DISCARD is not offered") }
      let most = Int(context.bus.mmioRead32(device.deviceConfiguration + 40))
      guard most < 64 else { try context.skip("the limit is \(most)") }
      let list = (0...most).map { (UInt64(7200 + $0 * 8), UInt32(8), UInt32(0)) }
      let done = try device.perform(type: discard, try ranges(context, list))
      try context.expect(done.status == 1 || done.status == 2, "the status is IOERR or UNSUPP, not \(done.status)")
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/range-partial",
      "A range list that is no multiple of 16 bytes is refused, or breaks the device until a reset",
      "virtio 1.3 §5.2.6.1; known failure 26", .virtio
    ) { context in
      for count: UInt32 in [1, 15] {
        let device = try VirtioUnderTest(started: context)
        guard device.has(discardFeature) else { try context.skip("DISCARD is not offered") }
        let list = try ranges(context, [(7200, 8, 0)])
        let status = try device.makeStatus()
        device.writeChain([
          Segment(address: try device.makeHeader(type: discard, sector: 0), byteCount: 16),
          Segment(address: list[0].address, byteCount: count), Segment(address: status, byteCount: 1, isWritten: true),
        ])
        device.publish(0)
        device.kick()
        try context.wait(until: "\(count) bytes are refused") { device.hasUsed || device.isBroken }
        try context.expect(
          context.bus.ramRead8(status) != VirtioBlockStatus.ok, "the status of \(count) bytes is not OK")
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/range-read-only", "A read-only disk refuses WRITE_ZEROES, and keeps its bytes under DISCARD too",
      "virtio 1.3 §5.2.6.2; known failure 22", .virtioReadOnly, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let done = try device.perform(type: writeZeroes, try ranges(context, [(3, 1, 0)]))
      try context.expect(done.status == 1 || done.status == 2, "WRITE_ZEROES: IOERR or UNSUPP, not \(done.status)")
      _ = try device.perform(type: discard, try ranges(context, [(0, 64, 0)]))
      try context.expect(try device.read(0, byteCount: 32768), MachineKind.pattern(0..<32768), "the first 64 sectors")
    },
  ]

  private static let faults: [ConformanceCase] = [
    ConformanceCase(
      "virtio/host-write-error", "A write that fails on the host ends with IOERR, and the next one works",
      "virtio 1.3 §5.2.6",
      .virtioFaults
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(512)
      try context.expect(try device.write(5000, bytes).status, VirtioBlockStatus.ioError, "status of the first write")
      try context.expect(try device.write(5000, bytes).status, 0, "status of the second write")
      try context.expect(try device.read(5000, byteCount: 512), bytes, "what was written")
    },
    ConformanceCase(
      "virtio/host-flush-error", "A flush that fails on the host ends with IOERR, and the next one works",
      "virtio 1.3 §5.2.6.2",
      .virtioFaults
    ) { context in
      let device = try VirtioUnderTest(started: context)
      _ = try device.write(5000, context.randomBytes(512))
      try context.expect(try device.write(5000, context.randomBytes(512)).status, 0, "status of the second write")
      try context.expect(
        try device.perform(type: VirtioBlockType.flush).status, VirtioBlockStatus.ioError, "status of the first flush")
      try context.expect(try device.perform(type: VirtioBlockType.flush).status, 0, "status of the second flush")
    },
    ConformanceCase(
      "virtio/stopped-write-is-retried",
      "With werror=stop a failing write is not answered, and ends well when the machine is continued",
      "QEMU's error policies", .virtioStop
    ) { context in
      guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(512)
      let status = try device.makeStatus()
      device.writeChain([
        Segment(address: try device.makeHeader(type: VirtioBlockType.write, sector: 5000), byteCount: 16),
        Segment(address: try context.allocate(bytes), byteCount: 512),
        Segment(address: status, byteCount: 1, isWritten: true),
      ])
      device.publish(0)
      device.kick()
      try monitor.waitForEvent("STOP")
      try context.expect(!device.hasUsed, "nothing is used while the machine is stopped")
      try monitor.execute("cont")
      try monitor.waitForEvent("RESUME")
      _ = try device.takeUsed()
      try context.expect(context.bus.ramRead8(status), 0, "status of the write")
      try context.expect(try device.read(5000, byteCount: 512), bytes, "what was written")
    },
  ]
}
