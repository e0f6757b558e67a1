// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What goes on while requests are in flight: memory that changes under the device, notifications that are left out,
/// a machine that stops; and bytes on the disk that look like something else.
enum VirtioRaceCases {
  private typealias Segment = VirtioUnderTest.Segment
  private typealias Feature = VirtioBlockFeature

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/changed-in-flight", "What a driver changes in a request after the device has fetched it changes nothing",
      "virtio 1.3 §3.3.1; known failure 11 (FreeBSD-SA-24:17)", .virtioSlow
    ) { try changeInFlight($0) },
    ConformanceCase(
      "virtio/notified-when-asked", "A driver that notifies only when the ring's flags ask for it loses no request",
      "virtio 1.3 §2.7.10.2; known failure 18", .virtioThread, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      try readOnRequest(device) {
        let flags = context.bus.ramRead16(device.used)
        try context.expect(flags <= 1, "the flags \(flags) of the used ring are 0 or 1")
        return flags == 0
      }
    },
    ConformanceCase(
      "virtio/notified-at-event", "A driver that notifies only when avail_event is passed loses no request",
      "virtio 1.3 §2.7.10.2; known failure 18", .virtioThread, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~Feature.indirectDescriptors)
      guard device.has(Feature.eventIndex) else { try context.skip("EVENT_IDX is not offered") }
      // One buffer at a time is made available, so the event is passed where it is the one before.
      try readOnRequest(device) {
        try context.expect(context.bus.ramRead16(device.used), 0, "flags of the used ring with EVENT_IDX")
        return device.availableIndex &- 1 == context.bus.ramRead16(availableEvent(device))
      }
    },
    ConformanceCase(
      "virtio/foreign-header",
      "A header of an image format in sector 0 is data like any other, before and after a reset",
      "virtio 1.3 §5.2.6; known failure 32 (CVE-2026-27211)", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = qcow2Header
      try context.expect(try device.write(0, bytes).status, VirtioBlockStatus.ok, "status of the write")
      try context.expect(try device.read(0, byteCount: 512), bytes, "sector 0")
      let again = try VirtioUnderTest(started: context)
      let capacity = context.bus.mmioRead32(again.deviceConfiguration)
      try context.expect(UInt64(capacity), MachineKind.diskBytes / 512, "sectors after a reset")
      try context.expect(try again.read(0, byteCount: 512), bytes, "sector 0 after a reset")
      try again.checkAlive()
    },
    ConformanceCase(
      "virtio/stopped-queue-is-retried",
      "A write of queue 1 that has stopped the machine ends in queue 1 when it is continued; queue 0 works on",
      "QEMU's error policies; virtio 1.3 §5.2.2; known failure 33 (QEMU ea0736d7f8)", .virtioTwoQueuesStop
    ) { try retryOnQueueOne($0) },
  ]

  // MARK: Changed in flight

  private static func availableEvent(_ device: VirtioUnderTest) -> UInt64 {
    device.used + 4 + 8 * UInt64(device.size)
  }

  private static func changeInFlight(_ context: CaseContext) throws {
    let device = try VirtioUnderTest(started: context, features: ~Feature.indirectDescriptors)
    guard device.has(Feature.eventIndex) else { try context.skip("EVENT_IDX is not offered, which shows the fetch") }
    // Uses up what the slow disk takes at once, so that what follows waits.
    _ = try device.write(9000, [UInt8](repeating: 1, count: 4096))
    let bytes = context.randomBytes(512)
    let header = try device.makeHeader(type: VirtioBlockType.write, sector: 9100)
    let status = try device.makeStatus()
    device.writeChain([
      Segment(address: header, byteCount: 16), Segment(address: try context.allocate(bytes), byteCount: 512),
      Segment(address: status, byteCount: 1, isWritten: true),
    ])
    device.publish(0)
    device.kick()
    try context.wait(until: "the device fetches the request") {
      context.bus.ramRead16(availableEvent(device)) == device.availableIndex
    }
    let other = try context.allocate(context.randomBytes(4096))
    device.writeDescriptor(0, other, .max, flags: VirtioUnderTest.Flags.next, next: 0)
    device.writeDescriptor(1, other, 4096, flags: VirtioUnderTest.Flags.write)
    device.writeDescriptor(2, MachineKind.memoryBytes, .max, flags: VirtioUnderTest.Flags.write)
    context.bus.ramWrite64(header + 8, 9300)
    try context.expect(!device.hasUsed, "the request is in flight while it is changed")
    _ = try device.takeUsed()
    try context.expect(context.bus.ramRead8(status), VirtioBlockStatus.ok, "status of the write, where it was to be")
    let again = try VirtioUnderTest(started: context)
    try context.expect(try again.read(9100, byteCount: 512), bytes, "the sector that was to be written")
    try context.expect(
      try again.read(9300, byteCount: 4096), [UInt8](repeating: 0, count: 4096), "the sectors that were not")
  }

  // MARK: Notifications

  /// Keeps a few reads in flight, one made available as one ends, and notifies only where `isAsked`. The disk has a
  /// thread of its own, so that it asks while requests are made available.
  private static func readOnRequest(_ device: VirtioUnderTest, _ isAsked: () throws -> Bool) throws {
    let slotCount: UInt16 = 4
    let readCount: UInt16 = 1000
    let context = device.context
    let buffers = try context.allocate(512 * UInt64(slotCount))
    var headers: [UInt64] = []
    var sectors = [UInt64](repeating: 0, count: Int(slotCount))
    for slot in 0..<slotCount {
      headers.append(try device.makeHeader(type: VirtioBlockType.read, sector: 0))
      device.writeChain(
        [
          Segment(address: headers[Int(slot)], byteCount: 16),
          Segment(address: buffers + 512 * UInt64(slot), byteCount: 512, isWritten: true),
          Segment(address: try device.makeStatus(), byteCount: 1, isWritten: true),
        ], first: slot * 4)
    }
    func issue(_ slot: Int, sector: UInt64) throws {
      sectors[slot] = sector
      context.bus.ramWrite64(headers[slot] + 8, sector)
      device.publish(UInt16(slot) * 4)
      if try isAsked() { device.kick() }
    }
    for slot in 0..<slotCount { try issue(Int(slot), sector: UInt64(slot)) }
    for count in 0..<readCount {
      let head = try device.takeUsed().head
      let slot = Int(head / 4)
      guard head % 4 == 0, slot < slotCount else { throw ConformanceFailure("expected a head in use, saw \(head)") }
      let start = sectors[slot] * 512
      try context.expect(
        context.bus.load(buffers + 512 * UInt64(slot), count: 512), MachineKind.pattern(start..<start + 512),
        "sector \(sectors[slot])")
      if count + slotCount < readCount { try issue(slot, sector: UInt64(count + slotCount)) }
    }
  }

  // MARK: Other bytes

  /// The first sector of an image in QEMU's format: version 3, 64 KiB clusters, 1 TiB.
  private static let qcow2Header: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 512)
    bytes.replaceSubrange(0..<8, with: [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3])
    bytes[23] = 16
    bytes[26] = 1
    bytes[103] = 104
    return bytes
  }()

  // MARK: Two queues

  private static func retryOnQueueOne(_ context: CaseContext) throws {
    guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
    let first = try VirtioUnderTest(context)
    try first.negotiate()
    try first.setUpQueue(0)
    let second = try VirtioUnderTest(context)
    try second.setUpQueue(1)
    first.setStatus(0xF)
    let bytes = context.randomBytes(512)
    let status = try second.makeStatus()
    second.writeChain([
      Segment(address: try second.makeHeader(type: VirtioBlockType.write, sector: 5000), byteCount: 16),
      Segment(address: try context.allocate(bytes), byteCount: 512),
      Segment(address: status, byteCount: 1, isWritten: true),
    ])
    second.publish(0)
    second.kick(1)
    try monitor.waitForEvent("STOP")
    try context.expect(!first.hasUsed && !second.hasUsed, "nothing is used while the machine is stopped")
    try monitor.execute("cont")
    try monitor.waitForEvent("RESUME")
    _ = try second.takeUsed()
    try context.expect(context.bus.ramRead8(status), VirtioBlockStatus.ok, "status of the write")
    try context.expect(!first.hasUsed, "queue 0 has used nothing")
    try context.expect(try first.read(5000, byteCount: 512), bytes, "what was written, by queue 0")
    try context.expect(
      try second.read(3, byteCount: 512, queue: 1), MachineKind.pattern(1536..<2048), "sector 3, by queue 1")
  }
}
