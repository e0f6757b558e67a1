// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What a virtio disk offers before anything was agreed on, and what follows from what was.
enum VirtioNegotiationCases {
  private typealias Common = VirtioUnderTest.Common
  private typealias Feature = VirtioBlockFeature
  private typealias Segment = VirtioUnderTest.Segment

  private static let discard: UInt64 = 1 << 13
  private static let writeZeroes: UInt64 = 1 << 14
  private static let ringPacked: UInt64 = 1 << 34
  private static let ringReset: UInt64 = 1 << 40
  /// Offset of queue_reset in the common configuration.
  private static let queueReset: UInt64 = 58

  /// Bits that mean something to a driver of version 1 of a disk (§5.2.3, §6): those of a disk but for its legacy ones,
  /// and those of all devices but for SR_IOV, which needs a capability that these machines do not ask for.
  private static let defined: UInt64 = {
    let bits = [1, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29, 32, 33, 34, 35, 36, 38, 39, 40, 41]
    return bits.reduce(0) { $0 | 1 << UInt64($1) }
  }()

  /// Fields of the device configuration (§5.2.4): offset, bytes, and the feature that they depend on.
  private static let fields: [(offset: UInt64, byteCount: Int, feature: UInt64)] = [
    (0, 8, 0), (8, 4, Feature.sizeMax), (12, 4, Feature.segmentsMax), (16, 4, 1 << 4), (20, 4, Feature.blockSize),
    (24, 8, Feature.topology), (34, 2, Feature.multipleQueues), (36, 12, discard), (48, 9, writeZeroes),
  ]

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/features-are-defined", "Every feature that is offered is one that the specification defines for a disk",
      "virtio 1.3 §2.2.2, §4.1.4.3.1, §5.2.5.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      let offered = device.offeredFeatures()
      try context.expect(offered & ~defined, 0, "features that are not defined")
      for select: UInt32 in [2, 3] {
        device.write32(Common.deviceFeatureSelect, select)
        try context.expect(device.read32(Common.deviceFeature), 0, "features with select \(select)")
      }
      try context.expect(
        offered & Feature.configWriteCache == 0 || offered & Feature.flush != 0, "CONFIG_WCE comes with FLUSH")
    },
    ConformanceCase(
      "virtio/configuration-is-there-early",
      "The device configuration can be read before any feature was agreed on, and stays the same after that",
      "virtio 1.3 §2.5.2", .virtioTwoQueues, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.reset()
      let offered = device.offeredFeatures()
      let sectors = context.bus.mmioRead32(device.deviceConfiguration)
      try context.expect(UInt64(sectors), MachineKind.diskBytes / 512, "capacity with status 0")
      let early = configuration(device, offered)
      try device.negotiate(~0)
      for (field, before) in zip(fields, early) where before != nil {
        try context.expect(read(device, field.offset, field.byteCount), before ?? [], "field at \(field.offset)")
      }
    },
    ConformanceCase(
      "virtio/configuration-padding", "The unused bytes of the device configuration are 0", "virtio 1.3 §5.2.5.2",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context, features: ~0)
      try context.expect(context.bus.mmioRead8(device.deviceConfiguration + 33), 0, "unused0")
      guard device.has(writeZeroes) else { try context.skip("WRITE_ZEROES is not offered") }
      try context.expect(read(device, 57, 3), [0, 0, 0], "unused1")
    },
    ConformanceCase(
      "virtio/no-flush-means-writethrough", "With CONFIG_WCE but not FLUSH agreed on, writeback begins as 0",
      "virtio 1.3 §5.2.5.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate(Feature.configWriteCache)
      guard device.has(Feature.configWriteCache) else { try context.skip("CONFIG_WCE is not offered") }
      try context.expect(context.bus.mmioRead8(device.deviceConfiguration + 32), 0, "writeback after FEATURES_OK")
    },
    ConformanceCase(
      "virtio/packed-ring-odd-id",
      "Packed descriptors with an identifier past the queue do no harm, whether the device knows that layout or not",
      "virtio 1.3 §2.8.6, §2.2.2; known failure 10", .virtio
    ) { try packedRing($0) },
    ConformanceCase(
      "virtio/queue-reset",
      "With RING_RESET agreed on, a queue is reset alone and set up again; without it the register means nothing",
      "virtio 1.3 §2.6.1, §4.1.4.3.1", .virtio, shares: true
    ) { try resetQueue($0) },
    ConformanceCase(
      "virtio/generation-of-many-changes",
      "The generation has changed after any number of changes, when a driver has read what changed",
      "virtio 1.3 §4.1.4.3.1", .virtioResizable
    ) { context in
      guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
      let device = try VirtioUnderTest(started: context)
      _ = context.bus.mmioRead32(device.deviceConfiguration)
      let generation = device.read8(Common.generation)
      // As many as the register has values, with no look at it in between.
      for count in UInt64(1)...256 {
        try monitor.execute(
          "block_resize", #"{"device":"drive0","size":\#(MachineKind.diskBytes + 512 * count)}"#)
      }
      try context.wait(until: "the capacity is the last one") {
        UInt64(context.bus.mmioRead32(device.deviceConfiguration)) == MachineKind.diskBytes / 512 + 256
      }
      try context.expect(device.read8(Common.generation) != generation, "the generation has changed")
    },
  ]

  private static func read(_ device: VirtioUnderTest, _ offset: UInt64, _ byteCount: Int) -> [UInt8] {
    (0..<UInt64(byteCount)).map { device.bus.mmioRead8(device.deviceConfiguration + offset + $0) }
  }

  /// The fields whose feature is offered.
  private static func configuration(_ device: VirtioUnderTest, _ offered: UInt64) -> [[UInt8]?] {
    fields.map { field in
      offered & field.feature == field.feature ? read(device, field.offset, field.byteCount) : nil
    }
  }

  private static func resetQueue(_ context: CaseContext) throws {
    let device = try VirtioUnderTest(started: context, features: ~Feature.eventIndex)
    try device.checkAlive()
    device.write16(Common.queueSelect, 0)
    try context.expect(device.read16(queueReset), 0, "queue_reset")
    device.write16(queueReset, 1)
    guard device.has(ringReset) else {
      try context.expect(
        device.read16(Common.queueEnable), 1, "queue_enable, with a register that is not there written")
      return try device.checkAlive()
    }
    try context.wait(until: "queue_reset and queue_enable read 0") {
      device.read16(queueReset) == 0 && device.read16(Common.queueEnable) == 0
    }
    device.publish(0)
    device.kick()
    context.pause(milliseconds: 5)
    try context.expect(!device.hasUsed, "nothing of the queue that was reset is used")
    try device.setUpQueue()
    try context.expect(device.read16(queueReset), 0, "queue_reset with the queue enabled")
    try device.checkAlive()
  }

  private static func packedRing(_ context: CaseContext) throws {
    let device = try VirtioUnderTest(context)
    try device.reset()
    let offered = device.offeredFeatures()
    device.setStatus(1)
    device.setStatus(3)
    device.setDriverFeatures(offered & VirtioUnderTest.plainFeatures | Feature.version1 | ringPacked)
    device.setStatus(0xB)
    try device.setUpQueue()
    let header = try device.makeHeader(type: VirtioBlockType.flush, sector: 0)
    // In the packed layout the identifier stands where a split ring has the flags, and the flags where it has `next`:
    // bit 7 makes a descriptor available, bit 0 continues it, bit 1 lets the device write.
    device.writeDescriptor(0, header, 16, flags: 0xFFFF, next: 0x81)
    device.writeDescriptor(1, try device.makeStatus(), 1, flags: 0xFFFF, next: 0x82)
    device.setStatus(0xF)
    device.kick()
    context.pause(milliseconds: 5)
    if offered & ringPacked == 0 {
      try context.expect(
        context.bus.ramRead16(device.used + 2), 0, "index of the used ring of a device with split rings")
    }
    try VirtioUnderTest(started: context).checkAlive()
  }
}
