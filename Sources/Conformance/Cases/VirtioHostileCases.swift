// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Rings that no driver would write. A device that meets one sets DEVICE_NEEDS_RESET (virtio 1.3 §2.1.2), touches
/// nothing else, and works again after a reset.
enum VirtioHostileCases {
  private typealias Common = VirtioUnderTest.Common
  private typealias Flags = VirtioUnderTest.Flags
  private typealias Segment = VirtioUnderTest.Segment

  static let all: [ConformanceCase] = breaking + harmless

  /// A device with a valid request in descriptors 0 to 2, which the case then spoils; 3 and up are free.
  private static func prepared(_ context: CaseContext, features: UInt64) throws -> VirtioUnderTest {
    let device = try VirtioUnderTest(started: context, features: features)
    let buffer = try context.allocate(4096)
    device.writeChain([
      Segment(address: try device.makeHeader(type: VirtioBlockType.read, sector: 0), byteCount: 16),
      Segment(address: buffer, byteCount: 512, isWritten: true),
      Segment(address: try device.makeStatus(), byteCount: 1, isWritten: true),
    ])
    return device
  }

  /// A case whose ring must break the device: `spoil` writes what is wrong, and may publish something else than head 0.
  private static func breaks(
    _ id: String, _ title: String, _ section: String, features: UInt64 = VirtioUnderTest.plainFeatures,
    _ spoil: @escaping @Sendable (CaseContext, VirtioUnderTest) throws -> Void
  ) -> ConformanceCase {
    ConformanceCase("virtio/\(id)", title, "virtio 1.3 §2.1.2; \(section)", .virtio) { context in
      let device = try prepared(context, features: features)
      let before = device.availableIndex
      try spoil(context, device)
      if device.availableIndex == before { device.publish(0) }
      device.kick()
      try context.wait(until: "the device sets DEVICE_NEEDS_RESET") { device.isBroken }
      try VirtioUnderTest(started: context).checkAlive()
    }
  }

  /// A case whose ring may break the device, or be answered with an error; in the end a reset must help.
  private static func survives(
    _ id: String, _ title: String, _ section: String, features: UInt64 = VirtioUnderTest.plainFeatures,
    _ spoil: @escaping @Sendable (CaseContext, VirtioUnderTest) throws -> Void
  ) -> ConformanceCase {
    ConformanceCase("virtio/\(id)", title, section, .virtio) { context in
      let device = try prepared(context, features: features)
      let before = device.availableIndex
      try spoil(context, device)
      if device.availableIndex == before { device.publish(0) }
      device.kick()
      context.pause(milliseconds: 5)
      try VirtioUnderTest(started: context).checkAlive()
    }
  }

  private static let breaking: [ConformanceCase] = [
    breaks(
      "loop-to-itself", "A descriptor whose next is itself breaks the device",
      "§2.7.5.2; known failure 1 (CVE-2019-9547)"
    ) {
      _, device in
      device.writeDescriptor(0, device.table, 16, flags: Flags.next, next: 0)
    },
    breaks("loop-of-two", "A chain that comes back breaks the device", "§2.7.5.2; known failure 1") { context, device in
      let buffer = try context.allocate(512)
      device.writeDescriptor(1, buffer, 512, flags: Flags.next | Flags.write, next: 2)
      device.writeDescriptor(2, buffer, 512, flags: Flags.next | Flags.write, next: 1)
    },
    breaks("next-out-of-range", "A next that is no descriptor breaks the device", "§2.7.5; known failure 4") {
      _, device in
      device.writeDescriptor(0, device.table, 16, flags: Flags.next, next: device.size)
    },
    breaks("head-out-of-range", "A head that is no descriptor breaks the device", "§2.7.6; known failure 4") {
      _, device in
      device.publish(65535)
    },
    breaks(
      "avail-jump", "An available index that jumps by more than the queue breaks the device", "§2.7.6; known failure 7"
    ) {
      context, device in
      context.bus.ramWrite16(device.available + 2, device.size + 1)
      device.availableIndex = device.size + 1
    },
    breaks(
      "huge-length", "A descriptor of 4 GiB less one byte breaks the device", "§2.7.5; known failure 3 (CVE-2016-7422)"
    ) {
      context, device in
      device.writeDescriptor(1, try context.allocate(512), .max, flags: Flags.next | Flags.write, next: 2)
    },
    breaks(
      "nested-indirect", "An indirect table inside an indirect table breaks the device", "§2.7.5.3.1; known failure 5",
      features: ~0
    ) {
      context, device in
      let table = try context.allocate(4096)
      device.writeDescriptor(0, table + 256, 32, flags: Flags.indirect, table: table)
      device.writeDescriptor(0, table, 16, flags: Flags.indirect)
    },
    breaks(
      "indirect-odd-length", "An indirect table of a length that is no multiple of 16 breaks the device",
      "§2.7.5.3.1; known failure 5", features: ~0
    ) {
      context, device in
      device.writeDescriptor(0, try context.allocate(4096), 33, flags: Flags.indirect)
    },
    breaks(
      "indirect-empty", "An indirect table of length 0 breaks the device", "§2.7.5.3.1; known failure 5", features: ~0
    ) {
      context, device in
      device.writeDescriptor(0, try context.allocate(4096), 0, flags: Flags.indirect)
    },
    breaks(
      "indirect-next-out-of-range", "A next past the end of an indirect table breaks the device",
      "§2.7.5.3; known failure 5", features: ~0
    ) {
      context, device in
      let table = try context.allocate(4096)
      device.writeDescriptor(0, table + 512, 16, flags: Flags.next, next: 2, table: table)
      device.writeDescriptor(0, table, 32, flags: Flags.indirect)
    },
    breaks(
      "readable-after-writable", "A readable descriptor behind a writable one breaks the device",
      "§2.7.4.2; known failure 23"
    ) {
      context, device in
      let buffer = try context.allocate(512)
      device.writeDescriptor(1, buffer, 512, flags: Flags.next | Flags.write, next: 3)
      device.writeDescriptor(3, buffer, 512, flags: Flags.next, next: 2)
    },
    breaks("no-status", "A request without a writable descriptor breaks the device", "§5.2.6; known failures 16, 23") {
      _, device in
      device.writeDescriptor(0, device.table, 16)
    },
    breaks("no-header", "A request without a readable descriptor breaks the device", "§5.2.6; known failure 16") {
      context, device in
      device.writeDescriptor(0, try context.allocate(512), 512, flags: Flags.write)
    },
    breaks("short-header", "A header of less than 16 bytes breaks the device", "§5.2.6; known failure 24") {
      context, device in
      device.writeDescriptor(0, try context.allocate(512), 8, flags: Flags.next, next: 2)
    },
    ConformanceCase(
      "virtio/broken-tells-the-driver", "A device that breaks reports it as a configuration change",
      "virtio 1.3 §2.1.2 (a device that sets DEVICE_NEEDS_RESET after DRIVER_OK must notify); known failure 63", .virtio
    ) { context in
      let device = try prepared(context, features: VirtioUnderTest.plainFeatures)
      _ = device.interruptStatus
      device.publish(65535)
      device.kick()
      try context.wait(until: "the device sets DEVICE_NEEDS_RESET") { device.isBroken }
      try context.wait(until: "ISR shows a configuration change") { device.interruptStatus & 2 != 0 }
    },
    ConformanceCase(
      "virtio/broken-stays-broken", "A broken device serves nothing until it is reset",
      "virtio 1.3 §2.1.2; known failure 63", .virtio
    ) { context in
      let device = try prepared(context, features: VirtioUnderTest.plainFeatures)
      device.publish(65535)
      device.kick()
      try context.wait(until: "the device sets DEVICE_NEEDS_RESET") { device.isBroken }
      context.bus.ramWrite16(device.available + 4, 0)
      device.publish(0)
      device.kick()
      context.pause(milliseconds: 5)
      try context.expect(!device.hasUsed, "nothing is used")
      try VirtioUnderTest(started: context).checkAlive()
    },
  ]

  private static let harmless: [ConformanceCase] = [
    survives(
      "zero-length-data", "A data descriptor of length 0 ends in no hang",
      "virtio 1.3 §2.7.5; known failure 2 (CVE-2023-5158)"
    ) {
      context, device in
      device.writeDescriptor(1, try context.allocate(512), 0, flags: Flags.next | Flags.write, next: 2)
    },
    survives(
      "zero-length-only", "A chain of one descriptor of length 0 ends in no hang",
      "virtio 1.3 §2.7.5; known failure 2 (CVE-2016-6490)"
    ) {
      _, device in
      device.writeDescriptor(0, device.table, 0)
    },
    survives(
      "zero-length-status", "A status descriptor of length 0 does no harm", "virtio 1.3 §5.2.6; known failure 24"
    ) {
      context, device in
      device.writeDescriptor(2, try context.allocate(512), 0, flags: Flags.write)
    },
    survives("lengths-past-4-gib", "Lengths that sum up past 4 GiB do no harm", "virtio 1.3 §2.7.5; known failure 3") {
      context, device in
      let buffer = try context.allocate(512)
      for index in UInt16(1)..<8 {
        device.writeDescriptor(index, buffer, 0x8000_0000, flags: Flags.next | Flags.write, next: index + 1)
      }
      device.writeDescriptor(8, buffer, 1, flags: Flags.write)
    },
    survives(
      "indirect-and-next", "A descriptor that is indirect and has a next does no harm",
      "virtio 1.3 §2.7.5.3.1; known failure 5", features: ~0
    ) {
      context, device in
      device.writeDescriptor(0, try context.allocate(4096), 32, flags: Flags.indirect | Flags.next, next: 1)
    },
    survives(
      "indirect-not-agreed", "An indirect table that was not agreed on does no harm",
      "virtio 1.3 §2.7.5.3.1; known failure 5"
    ) {
      context, device in
      device.writeDescriptor(0, try context.allocate(4096), 32, flags: Flags.indirect)
    },
    survives(
      "indirect-outside-memory", "An indirect table outside RAM does no harm", "virtio 1.3 §2.7.5.3; known failure 5",
      features: ~0
    ) {
      _, device in
      device.writeDescriptor(0, MachineKind.memoryBytes - 16, 64, flags: Flags.indirect)
    },
    survives(
      "data-past-end-of-memory", "Data that begins in RAM and ends outside does no harm",
      "virtio 1.3 §2.7; known failure 6"
    ) {
      _, device in
      device.writeDescriptor(1, MachineKind.memoryBytes - 256, 512, flags: Flags.next | Flags.write, next: 2)
    },
    survives("data-outside-memory", "Data outside RAM does no harm", "virtio 1.3 §2.7; known failure 6 (CVE-2018-1059)")
    { _, device in
      device.writeDescriptor(1, 0x7FFF_FFFF_F000, 512, flags: Flags.next | Flags.write, next: 2)
    },
    survives(
      "data-onto-own-registers", "Data on the device's own registers does not re-enter it",
      "known failure 19 (CVE-2024-3446)"
    ) {
      context, device in
      let place = device.blocks[1]?.address ?? 0
      device.writeDescriptor(1, place & ~0xFFF, 512, flags: Flags.next | Flags.write, next: 2)
    },
    survives(
      "head-twice", "A head made available twice while it is in flight does no harm",
      "virtio 1.3 §2.7.13; known failures 8, 9 (CVE-2026-45782)"
    ) {
      _, device in
      device.publish(0, 0, 0, 0)
    },
    ConformanceCase(
      "virtio/rings-outside-memory", "Rings outside RAM, or at its end, do no harm",
      "virtio 1.3 §2.7; known failure 17 (CVE-2020-13759)",
      .virtio
    ) { context in
      for place: UInt64 in [MachineKind.memoryBytes - 16, 0x7FFF_FFFF_F000, 0xFFFF_FFFF_FFFF_FFF0, 0xE000_0000] {
        for register in [Common.descriptors, Common.driver, Common.device] {
          let device = try VirtioUnderTest(context)
          try device.negotiate()
          device.write16(Common.queueSelect, 0)
          let memory = try context.allocate(16384)
          device.write64(Common.descriptors, memory)
          device.write64(Common.driver, memory + 8192)
          device.write64(Common.device, memory + 12288)
          device.write64(register, place)
          device.write16(Common.queueEnable, 1)
          device.setStatus(0xF)
          device.kick()
        }
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/rings-overlap",
      "Rings that lie over each other, so that the device changes what it reads, end in no hang",
      "virtio 1.3 §2.7, §2.7.6.1; known failures 7, 18", .virtio
    ) { context in
      let device = try prepared(context, features: VirtioUnderTest.plainFeatures)
      let (table, used) = (device.table, try context.allocate(4096))
      try device.negotiate()
      device.write16(Common.queueSelect, 0)
      device.write16(Common.queueSize, 16)
      device.write64(Common.descriptors, table)
      // The flags of the used ring are the index of the available one.
      device.write64(Common.driver, used + 0x100 - 2)
      device.write64(Common.device, used + 0x100)
      device.write16(Common.queueEnable, 1)
      device.setStatus(0xF)
      device.kick()
      context.pause(milliseconds: 5)
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/reset-in-flight", "After a reset with writes in flight the device touches neither rings nor buffers",
      "virtio 1.3 §2.4.1; known failure 31", .virtioSlow
    ) { context in
      let device = try VirtioUnderTest(started: context)
      // Uses up what the slow disk takes at once, so that what follows waits.
      _ = try device.write(9000, [UInt8](repeating: 1, count: 2048))
      let bytes = context.randomBytes(512)
      let data = try context.allocate(bytes)
      var statuses: [UInt64] = []
      for index in 0..<UInt16(4) {
        statuses.append(try device.makeStatus())
        device.writeChain(
          [
            Segment(
              address: try device.makeHeader(type: VirtioBlockType.write, sector: 9100 + UInt64(index)), byteCount: 16),
            Segment(address: data, byteCount: 512),
            Segment(address: statuses[Int(index)], byteCount: 1, isWritten: true),
          ], first: index * 4)
        device.publish(index * 4)
      }
      device.kick()
      try device.reset()
      context.bus.fill(device.used, byteCount: 512, 0)
      for status in statuses { context.bus.ramWrite8(status, 0x77) }
      context.bus.fill(data, byteCount: 512, 0xEE)
      context.pause(milliseconds: 700)
      for status in statuses { try context.expect(context.bus.ramRead8(status), 0x77, "a status byte after the reset") }
      try context.expect(context.bus.load(device.used, count: 512).allSatisfy { $0 == 0 }, "the used ring is untouched")
      let again = try VirtioUnderTest(started: context)
      try again.checkAlive()
      for index in UInt64(0)..<4 {
        let landed = try again.read(9100 + index, byteCount: 512)
        let isWhole = landed == bytes || landed.allSatisfy { $0 == 0 }
        try context.expect(isWhole, "sector \(9100 + index) holds all of the write or nothing of it")
      }
    },
    ConformanceCase(
      "virtio/random-rings", "Descriptors of random values do no harm; the device works after a reset",
      "virtio 1.3 §2.7; known failures 1 to 8", .virtio
    ) { context in
      for _ in 0..<60 {
        let device = try prepared(context, features: ~0)
        // A read's header, so that no random request writes the disk.
        for index in UInt16(1)..<16 {
          let bits = context.random.next()
          let address = bits & 3 == 0 ? context.random.next() : device.table + bits >> 8 & 0x3_FFFF
          device.writeDescriptor(
            index, address, UInt32(truncatingIfNeeded: bits >> 24) >> UInt32(bits >> 60), flags: UInt16(bits >> 2 & 7),
            next: UInt16(bits >> 5 & 0x1F))
        }
        device.publish(0, UInt16(context.random.next() & 0x3F))
        device.kick()
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
  ]
}
