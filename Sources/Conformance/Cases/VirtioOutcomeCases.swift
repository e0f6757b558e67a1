// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What a device may touch of a request, and how much it says it wrote.
enum VirtioOutcomeCases {
  private typealias Feature = VirtioBlockFeature
  private typealias Segment = VirtioUnderTest.Segment
  private typealias Flags = VirtioUnderTest.Flags

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/indirect-after-descriptors", "Descriptors of the table may come before the one of an indirect table",
      "virtio 1.3 §2.7.5.3.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~Feature.eventIndex)
      guard device.has(Feature.indirectDescriptors) else { try context.skip("INDIRECT_DESC is not offered") }
      let buffer = try context.allocate(512)
      let status = try device.makeStatus()
      let table = try context.allocate(4096)
      device.writeChain(
        [
          Segment(address: buffer, byteCount: 512, isWritten: true),
          Segment(address: status, byteCount: 1, isWritten: true),
        ], table: table)
      let header = try device.makeHeader(type: VirtioBlockType.read, sector: 3)
      device.writeDescriptor(0, header, 7, flags: Flags.next, next: 5)
      device.writeDescriptor(5, header + 7, 9, flags: Flags.next, next: 2)
      device.writeDescriptor(2, table, 32, flags: Flags.indirect)
      device.publish(0)
      device.kick()
      try context.expect(try device.takeUsed().head, 0, "head in the used ring")
      try context.expect(context.bus.ramRead8(status), VirtioBlockStatus.ok, "status")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "the data")
    },
    ConformanceCase(
      "virtio/readable-is-not-written",
      "A read whose data is readable, or a write whose data is writable, moves nothing",
      "virtio 1.3 §2.7.5.1; known failure 23", .virtio
    ) { context in
      for type in [VirtioBlockType.read, VirtioBlockType.write] {
        let device = try VirtioUnderTest(started: context)
        let bytes = context.randomBytes(512)
        let buffer = try context.allocate(bytes)
        device.writeChain([
          Segment(address: try device.makeHeader(type: type, sector: 3), byteCount: 16),
          Segment(address: buffer, byteCount: 512, isWritten: type == VirtioBlockType.write),
          Segment(address: try device.makeStatus(), byteCount: 1, isWritten: true),
        ])
        device.publish(0)
        device.kick()
        try context.wait(until: "the device answers or breaks") { device.hasUsed || device.isBroken }
        if type == VirtioBlockType.read {
          try context.expect(context.bus.load(buffer, count: 512), bytes, "the buffer that is readable only")
        }
        try VirtioUnderTest(started: context).checkAlive()
      }
    },
    ConformanceCase(
      "virtio/used-length-of-failures", "The used length of a request that fails counts no byte that was not written",
      "virtio 1.3 §2.7.8.2; known failure 15 (CVE-2024-8612)", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for type: UInt32 in [VirtioBlockType.read, 0xDEAD] {
        let buffer = try context.allocate(1024)
        context.bus.fill(buffer, byteCount: 1024, 0xA5)
        let done = try device.perform(
          type: type, sector: device.lastSector + 1, [Segment(address: buffer, byteCount: 1024, isWritten: true)])
        try context.expect(done.status != VirtioBlockStatus.ok, "the request of type \(type) fails")
        let written = context.bus.load(buffer, count: 1024).prefix { $0 != 0xA5 }.count
        try context.expect(
          done.usedByteCount <= written,
          "a request of type \(type) that has written \(written) bytes from its first on does not say "
            + "\(done.usedByteCount)")
      }
    },
    ConformanceCase(
      "virtio/zone-requests", "Without ZONED, requests about zones end with UNSUPP", "virtio 1.3 §5.2.6.2", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for type: UInt32 in [15, 16, 18, 20, 22, 24, 26] {
        let buffer = try context.allocate(4096)
        // A report is written by the device, data to append is read by it.
        let data = Segment(address: buffer, byteCount: 4096, isWritten: type != 15)
        let done = try device.perform(type: type, sector: 0, type <= 16 ? [data] : [])
        try context.expect(done.status, VirtioBlockStatus.unsupported, "status of type \(type)")
      }
      try device.checkAlive()
    },
  ]
}
