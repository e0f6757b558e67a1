// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Virtqueues that are right: registers, rings, notifications, interrupts.
enum VirtioQueueCases {
  private typealias Common = VirtioUnderTest.Common
  private typealias Feature = VirtioBlockFeature
  private typealias Segment = VirtioUnderTest.Segment

  static let all: [ConformanceCase] = registers + rings + interrupts

  private static let registers: [ConformanceCase] = [
    ConformanceCase(
      "virtio/queue-size", "Queue 0 has a size that is a power of two, at most 32768", "virtio 1.3 §2.7, §4.1.4.3.1",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.reset()
      device.write16(Common.queueSelect, 0)
      let size = device.read16(Common.queueSize)
      try context.expect(size > 0 && size & (size - 1) == 0 && size <= 32768, "the size \(size) is a power of two")
    },
    ConformanceCase(
      "virtio/absent-queue", "A queue that there is not has size 0, and ignores writes",
      "virtio 1.3 §4.1.4.3.1; known failure 13",
      .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for index in [device.read16(Common.queueCount), 1023, 1024, 0xFFFF] {
        device.write16(Common.queueSelect, index)
        try context.expect(device.read16(Common.queueSize), 0, "queue_size of queue \(index)")
        device.write64(Common.descriptors, 0x1000)
        device.write16(Common.queueEnable, 1)
      }
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/queue-addresses-read-back", "The ring addresses of a queue read back as they were written, by halves",
      "virtio 1.3 §4.1.4.3, §4.1.3", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      device.write16(Common.queueSelect, 0)
      for (offset, value): (UInt64, UInt64) in [(32, 0x12_3456_7000), (40, 0x9A_BCDE_F010), (48, 0x5_1234_5004)] {
        device.write64(offset, value)
        try context.expect(device.read64(offset), value, "register \(offset)")
      }
      try device.reset()
    },
    ConformanceCase(
      "virtio/queue-size-shrinks", "The driver may make a queue smaller", "virtio 1.3 §4.1.5.1.3", .virtio, shares: true
    ) { context in
      for size: UInt16 in [4, 16, 128] {
        let device = try VirtioUnderTest(started: context, size: size)
        device.write16(Common.queueSelect, 0)
        try context.expect(device.read16(Common.queueSize), size, "queue_size")
        // More requests than the ring has places, so that it wraps.
        for _ in 0..<(size * 2 + 1) { try device.checkAlive() }
      }
    },
    ConformanceCase(
      "virtio/queue-starts-disabled", "A queue is disabled until the driver enables it", "virtio 1.3 §4.1.4.3.1",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      device.write16(Common.queueSelect, 0)
      try context.expect(device.read16(Common.queueEnable), 0, "queue_enable")
    },
    ConformanceCase(
      "virtio/queue-fixed-while-live", "Changing the size or the addresses of a live queue does no harm",
      "virtio 1.3 §4.1.4.3.2; known failure 12 (CVE-2026-5747)", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      device.write16(Common.queueSelect, 0)
      device.write16(Common.queueSize, 0x8000)
      device.write64(Common.descriptors, 0xFFFF_FFFF_FFFF_F000)
      device.write64(Common.device, 0x7FFF_F000)
      device.publish(0)
      device.kick()
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/odd-queue-sizes", "Sizes that are 0, no power of two or too large do no harm",
      "virtio 1.3 §4.1.4.3.2; known failure 13 (CVE-2017-17381)", .virtio
    ) { context in
      for size: UInt16 in [0, 3, 1000, 0x8000, 0xFFFF] {
        let device = try VirtioUnderTest(context)
        try device.negotiate()
        device.write16(Common.queueSelect, 0)
        device.write16(Common.queueSize, size)
        let memory = try context.allocate(1 << 20)
        device.write64(Common.descriptors, memory)
        device.write64(Common.driver, memory + (600 << 10))
        device.write64(Common.device, memory + (700 << 10))
        device.write16(Common.queueEnable, 1)
        device.setStatus(0xF)
        device.kick()
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/queue-size-stays-a-power-of-two",
      "The size of a queue reads back as a power of two or 0, whatever was written", "virtio 1.3 §4.1.4.3.1", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      device.write16(Common.queueSelect, 0)
      for size: UInt16 in [3, 100, 255] {
        device.write16(Common.queueSize, size)
        let seen = device.read16(Common.queueSize)
        try context.expect(seen & (seen &- 1) == 0, "\(seen) is a power of two or 0, having written \(size)")
      }
      try device.reset()
    },
    ConformanceCase(
      "virtio/early-notification", "A notification before DRIVER_OK is not served, and does no harm",
      "virtio 1.3 §2.1.2 (no buffer is consumed before DRIVER_OK); known failure 14", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      try device.setUpQueue()
      let status = try device.makeStatus()
      device.writeChain([
        Segment(address: try device.makeHeader(type: VirtioBlockType.flush, sector: 0), byteCount: 16),
        Segment(address: status, byteCount: 1, isWritten: true),
      ])
      device.publish(0)
      device.kick()
      try context.expectStays("nothing is used before DRIVER_OK") { !device.hasUsed }
    },
    ConformanceCase(
      "virtio/notification-after-reset", "A notification after a reset does no harm, and touches no memory",
      "virtio 1.3 §2.4.1; known failure 14", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      try device.checkAlive()
      try device.reset()
      device.publish(0)
      device.kick()
      context.pause(milliseconds: 5)
      try context.expect(!device.hasUsed, "nothing is used after the reset")
    },
    ConformanceCase(
      "virtio/odd-notifications", "Notifications with other numbers and widths do no harm",
      "virtio 1.3 §4.1.4.4, §4.1.5.2; known failure 13 (CVE-2011-2512)", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard let block = device.blocks[2] else { try context.skip("no notification structure") }
      for value: UInt16 in [1, 2, 0x7FFF, 0x8000, 0xFFFF] { context.bus.mmioWrite16(device.notifyAddress(), value) }
      for offset in [0, 1, 2, 3, block.byteCount - 2, block.byteCount - 1] {
        context.bus.mmioWrite8(block.address + offset, 0xFF)
        context.bus.mmioWrite16(block.address + offset, 0xFFFF)
        context.bus.mmioWrite32(block.address + offset, 0xFFFF_FFFF)
        context.bus.mmioWrite64(block.address + offset, .max)
        _ = context.bus.mmioRead32(block.address + offset)
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
  ]

  private static let rings: [ConformanceCase] = [
    ConformanceCase(
      "virtio/ring-wraps", "The ring wraps, past the 16 bits of its indices", "virtio 1.3 §2.7.6, §2.7.8", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context, size: 256)
      let status = try device.makeStatus()
      let header = try device.makeHeader(type: VirtioBlockType.flush, sector: 0)
      for index in 0..<UInt16(128) {
        device.writeChain(
          [Segment(address: header, byteCount: 16), Segment(address: status, byteCount: 1, isWritten: true)],
          first: index * 2)
      }
      // All places of the available ring name a head, so that publishing is one write of the index.
      context.bus.store(device.available + 4, (0..<256).flatMap { [UInt8($0 % 128 * 2), 0] })
      for round in 0..<520 {
        device.availableIndex &+= 128
        context.bus.ramWrite16(device.available + 2, device.availableIndex)
        device.kick()
        let end = device.availableIndex
        try context.wait(until: "round \(round) is used") { context.bus.ramRead16(device.used + 2) == end }
      }
      try context.expect(context.bus.ramRead8(status), 0, "status byte")
    },
    ConformanceCase(
      "virtio/many-in-flight", "As many requests as the ring holds, announced at once, all end, each with its own data",
      "virtio 1.3 §2.7.13", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, size: 128)
      let buffer = try context.allocate(32 * 512)
      var statuses: [UInt64] = []
      for index in 0..<UInt16(32) {
        let status = try device.makeStatus()
        statuses.append(status)
        let header = try device.makeHeader(type: VirtioBlockType.read, sector: UInt64(index) * 5)
        device.writeChain(
          [
            Segment(address: header, byteCount: 16),
            Segment(address: buffer + UInt64(index) * 512, byteCount: 512, isWritten: true),
            Segment(address: status, byteCount: 1, isWritten: true),
          ], first: index * 4)
        device.publish(index * 4)
      }
      device.kick()
      var heads: Set<UInt32> = []
      for _ in 0..<32 {
        let element = try device.takeUsed()
        try context.expect(heads.insert(element.head).inserted, "head \(element.head) comes once")
        try context.expect(element.byteCount, 513, "used length of head \(element.head)")
      }
      for index in 0..<32 {
        try context.expect(context.bus.ramRead8(statuses[index]), 0, "status \(index)")
        let start = UInt64(index) * 2560
        try context.expect(
          context.bus.load(buffer + UInt64(index) * 512, count: 512), MachineKind.pattern(start..<(start + 512)),
          "data \(index)")
      }
    },
    ConformanceCase(
      "virtio/chain-in-any-order", "A chain may run through the table in any order", "virtio 1.3 §2.7.5", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(512)
      let status = try device.makeStatus()
      let flags = VirtioUnderTest.Flags.self
      device.writeDescriptor(
        9, try device.makeHeader(type: VirtioBlockType.read, sector: 3), 16, flags: flags.next, next: 2)
      device.writeDescriptor(2, buffer, 512, flags: flags.next | flags.write, next: 63)
      device.writeDescriptor(63, status, 1, flags: flags.write)
      device.publish(9)
      device.kick()
      try context.expect(try device.takeUsed().head, 9, "head in the used ring")
      try context.expect(context.bus.ramRead8(status), 0, "status byte")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "the data")
    },
    ConformanceCase(
      "virtio/indirect-tables", "A request in an indirect table is served", "virtio 1.3 §2.7.5.3", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~0)
      guard device.has(Feature.indirectDescriptors) else { try context.skip("INDIRECT_DESC is not offered") }
      let buffer = try context.allocate(1024)
      let status = try device.makeStatus()
      let table = try context.allocate(4096)
      device.writeChain(
        [
          Segment(address: try device.makeHeader(type: VirtioBlockType.read, sector: 4), byteCount: 16),
          Segment(address: buffer + 512, byteCount: 512, isWritten: true),
          Segment(address: buffer, byteCount: 512, isWritten: true),
          Segment(address: status, byteCount: 1, isWritten: true),
        ], table: table)
      device.writeDescriptor(0, table, 64, flags: VirtioUnderTest.Flags.indirect)
      device.publish(0)
      device.kick()
      try context.expect(try device.takeUsed().byteCount, 1025, "used length")
      try context.expect(context.bus.ramRead8(status), 0, "status byte")
      try context.expect(
        context.bus.load(buffer + 512, count: 512), MachineKind.pattern(2048..<2560), "the first sector")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(2560..<3072), "the second sector")
    },
    ConformanceCase(
      "virtio/indirect-write-flag-is-ignored", "The write flag of a descriptor that points to a table is ignored",
      "virtio 1.3 §2.7.5.3.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~0)
      guard device.has(Feature.indirectDescriptors) else { try context.skip("INDIRECT_DESC is not offered") }
      let status = try device.makeStatus()
      let table = try context.allocate(4096)
      device.writeChain(
        [
          Segment(address: try device.makeHeader(type: VirtioBlockType.flush, sector: 0), byteCount: 16),
          Segment(address: status, byteCount: 1, isWritten: true),
        ], table: table)
      let flags = VirtioUnderTest.Flags.self
      device.writeDescriptor(0, table, 32, flags: flags.indirect | flags.write)
      device.publish(0)
      device.kick()
      _ = try device.takeUsed()
      try context.expect(context.bus.ramRead8(status), 0, "status byte")
    },
    ConformanceCase(
      "virtio/two-queues", "Both queues of a disk serve requests, in any order", "virtio 1.3 §5.2.2", .virtioTwoQueues,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate(~VirtioBlockFeature.eventIndex)
      try device.setUpQueue(1)
      device.setStatus(0xF)
      try context.expect(try device.read(3, byteCount: 512, queue: 1), MachineKind.pattern(1536..<2048), "by queue 1")
      try VirtioUnderTest(started: context).checkAlive()
    },
  ]

  /// A started device whose queue 0 has vector 0, and whose configuration changes have vector 1.
  static func withVectors(
    _ context: CaseContext, features: UInt64 = VirtioUnderTest.plainFeatures
  ) throws -> (device: VirtioUnderTest, queue: MessageInterrupt, configuration: MessageInterrupt) {
    let device = try VirtioUnderTest(context)
    guard let msix = device.msix, msix.entryCount >= 2, let first = context.bus.allocateInterrupt(processor: 0),
      let second = context.bus.allocateInterrupt(processor: 0)
    else { try context.skip("no MSI-X with two vectors") }
    msix.enable()
    msix.program(0, first)
    msix.program(1, second)
    try device.negotiate(features)
    device.write16(Common.configurationVector, 1)
    try context.expect(device.read16(Common.configurationVector), 1, "config_msix_vector")
    try device.setUpQueue(vector: 0)
    device.setStatus(0xF)
    return (device, first, second)
  }

  private static let interrupts: [ConformanceCase] = [
    ConformanceCase(
      "virtio/used-buffer-message", "A used buffer sends the queue's message, and no other",
      "virtio 1.3 §4.1.5.3, §2.7.7.2",
      .virtio
    ) { context in
      let (device, queue, configuration) = try withVectors(context)
      let seen = (context.bus.interruptCount(queue), context.bus.interruptCount(configuration))
      try device.checkAlive()
      try context.wait(until: "the message comes") { context.bus.interruptCount(queue) != seen.0 }
      try context.expect(context.bus.interruptCount(configuration), seen.1, "messages of configuration changes")
    },
    ConformanceCase(
      "virtio/no-interrupt-flag", "A driver that sets NO_INTERRUPT gets no message without EVENT_IDX",
      "virtio 1.3 §2.7.7.2",
      .virtio
    ) { context in
      let (device, queue, _) = try withVectors(context)
      // Without EVENT_IDX this is no event, whatever it says.
      context.bus.ramWrite16(device.available + 4 + 2 * UInt64(device.size), 0x7000)
      context.bus.ramWrite16(device.available, 1)
      let seen = context.bus.interruptCount(queue)
      try device.checkAlive()
      context.pause(milliseconds: 5)
      try context.expect(context.bus.interruptCount(queue), seen, "messages with the flag set")
      context.bus.ramWrite16(device.available, 0)
      try device.checkAlive()
      try context.wait(until: "the message comes with the flag clear") { context.bus.interruptCount(queue) != seen }
    },
    ConformanceCase(
      "virtio/event-index", "With EVENT_IDX a message comes exactly when used_event is passed",
      "virtio 1.3 §2.7.7.2, §2.7.8",
      .virtio
    ) { context in
      let (device, queue, _) = try withVectors(context, features: ~Feature.indirectDescriptors)
      guard device.has(Feature.eventIndex) else { try context.skip("EVENT_IDX is not offered") }
      let usedEvent = device.available + 4 + 2 * UInt64(device.size)
      var seen = context.bus.interruptCount(queue)
      try device.checkAlive()
      try context.wait(until: "used_event 0: the first buffer sends a message") {
        context.bus.interruptCount(queue) != seen
      }
      seen = context.bus.interruptCount(queue)
      context.bus.ramWrite16(usedEvent, 2)
      try device.checkAlive()
      context.pause(milliseconds: 5)
      try context.expect(context.bus.interruptCount(queue), seen, "messages of the second buffer, with used_event 2")
      try device.checkAlive()
      try context.wait(until: "used_event 2: the third buffer sends a message") {
        context.bus.interruptCount(queue) != seen
      }
    },
    ConformanceCase(
      "virtio/avail-event", "With EVENT_IDX an idle device asks to be notified of the next buffer",
      "virtio 1.3 §2.7.10.2",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~Feature.indirectDescriptors)
      guard device.has(Feature.eventIndex) else { try context.skip("EVENT_IDX is not offered") }
      for count in UInt16(1)...3 {
        try device.checkAlive()
        let availEvent = device.used + 4 + 8 * UInt64(device.size)
        try context.wait(until: "avail_event is \(count)") { context.bus.ramRead16(availEvent) == count }
      }
    },
    ConformanceCase(
      "virtio/masked-vector-is-held", "A message of a masked entry is held back until it is unmasked",
      "PCI 3.0 §6.8.3.5",
      .virtio
    ) { context in
      let (device, queue, _) = try withVectors(context)
      guard let msix = device.msix else { try context.skip("no MSI-X") }
      let configuration = context.topology.configuration
      let place = device.entry.function.address
      guard let capability = PCICases.capabilities(context, place).first(where: { $0.identifier == 0x11 }) else {
        return
      }
      let control = configuration.read16(place, capability.offset + 2)
      configuration.write16(place, capability.offset + 2, control | 0x4000)
      let seen = context.bus.interruptCount(queue)
      try device.checkAlive()
      context.pause(milliseconds: 5)
      try context.expect(context.bus.interruptCount(queue), seen, "messages while the function is masked")
      configuration.write16(place, capability.offset + 2, control)
      try context.wait(until: "the held message comes") { context.bus.interruptCount(queue) != seen }
      try context.expect(msix.holds(0, queue), "the entry still holds its message")
    },
    ConformanceCase(
      "virtio/interrupt-status-clears", "Without MSI-X the interrupt status shows a used buffer once",
      "virtio 1.3 §4.1.4.5",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      device.msix?.disable()
      _ = device.interruptStatus
      try device.checkAlive()
      var seen: UInt8 = 0
      try context.wait(until: "ISR shows the used buffer") {
        seen |= device.interruptStatus
        return seen & 1 != 0
      }
      try context.expect(seen, mask: 3, 1, "ISR after a used buffer")
      try context.expect(device.interruptStatus, 0, "ISR after it was read")
    },
    ConformanceCase(
      "virtio/absent-vector", "A vector that there is not reads back as none", "virtio 1.3 §4.1.5.1.2.1", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      device.msix?.enable()
      device.write16(Common.configurationVector, 0x7FE)
      try context.expect(device.read16(Common.configurationVector), 0xFFFF, "config_msix_vector")
      device.write16(Common.queueSelect, 0)
      device.write16(Common.queueVector, 0x7FE)
      try context.expect(device.read16(Common.queueVector), 0xFFFF, "queue_msix_vector")
      device.msix?.disable()
      try device.reset()
    },
  ]
}
