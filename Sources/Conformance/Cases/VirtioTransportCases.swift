// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// virtio over PCI: capabilities, common configuration, status, features, device configuration.
enum VirtioTransportCases {
  private typealias Common = VirtioUnderTest.Common
  private typealias Feature = VirtioBlockFeature

  static let all: [ConformanceCase] = discovery + status + configuration + resizing

  private static let discovery: [ConformanceCase] = [
    ConformanceCase(
      "virtio/pci-identity",
      "The function has virtio's vendor, and device, subsystem and revision of a block device, modern or transitional",
      "virtio 1.3 §4.1.2.1, §4.1.2.3", .virtio, shares: true
    ) { context in
      let function = try context.entry(device: 4, function: 0).function
      try context.expect(function.vendor, 0x1AF4, "vendor")
      try context.expect(function.device == 0x1042 || function.device == 0x1001, "device is 1042h or 1001h")
      let subsystem = PCIConfiguration(bus: context.bus).read16(function.address, 0x2E)
      let revision = PCIConfiguration(bus: context.bus).read8(function.address, 0x08)
      if function.device == 0x1001 {
        try context.expect(subsystem, 2, "subsystem of a transitional device")
        try context.expect(revision, 0, "revision of a transitional device")
      } else {
        try context.expect(subsystem >= 0x40, "the subsystem \(subsystem) of another one is 40h or higher")
        try context.expect(revision >= 1, "the revision \(revision) of another one is 1 or higher")
      }
    },
    ConformanceCase(
      "virtio/capabilities",
      "There are capabilities of all types, with room for their structures, inside their registers",
      "virtio 1.3 §4.1.4, §4.1.4.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      for (type, least): (UInt8, UInt64) in [(1, 56), (2, 2), (3, 1), (4, 8)] {
        try context.expect(device.blocks[type]?.byteCount ?? 0 >= least, "block \(type) has at least \(least) bytes")
      }
      let configuration = context.topology.configuration
      let place = device.entry.function.address
      for capability in PCICases.capabilities(context, place) where capability.identifier == 0x09 {
        let type = configuration.read8(place, capability.offset + 3)
        let length = configuration.read8(place, capability.offset + 2)
        try context.expect(length >= (type == 2 || type == 5 ? 20 : 16), "cap_len \(length) of type \(type)")
        // The others say where they are differently, or are not known.
        guard (1...4).contains(type) else { continue }
        let index = Int(configuration.read8(place, capability.offset + 4))
        let end =
          UInt64(configuration.read32(place, capability.offset + 8))
          + UInt64(configuration.read32(place, capability.offset + 12))
        let register = device.entry.baseAddresses.first { $0.index == index }
        try context.expect(end <= register?.byteCount ?? 0, "the block of type \(type) lies inside BAR \(index)")
      }
    },
    ConformanceCase(
      "virtio/capability-alignment",
      "The common structure and the device configuration are aligned to 4 bytes, the notification structure to 2",
      "virtio 1.3 §4.1.4.3.1, §4.1.4.4.1, §4.1.4.6.1", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try context.expect((device.blocks[1]?.address ?? 1) & 3, 0, "address of the common structure")
      try context.expect((device.blocks[2]?.address ?? 1) & 1, 0, "address of the notification structure")
      try context.expect((device.blocks[4]?.address ?? 1) & 3, 0, "address of the device configuration")
      let multiplier = device.notifyMultiplier
      try context.expect(
        multiplier == 0 || multiplier & (multiplier - 1) == 0 && multiplier != 1,
        "the multiplier is even and a power of two, or 0")
    },
    ConformanceCase(
      "virtio/notification-in-range", "The notification address of every queue lies inside the structure",
      "virtio 1.3 §4.1.4.4.1", .virtioTwoQueues, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      guard let block = device.blocks[2] else { try context.skip("no notification structure") }
      for index in 0..<device.read16(Common.queueCount) {
        let address = device.notifyAddress(index)
        try context.expect(address + 2 <= block.address + block.byteCount, "the address of queue \(index) is inside")
      }
    },
  ]

  private static let status: [ConformanceCase] = [
    ConformanceCase(
      "virtio/status-after-reset", "The status is 0 at power on and after a reset",
      "virtio 1.3 §2.1, §2.4.1, §4.1.4.3.1",
      .virtio
    ) { context in
      let device = try VirtioUnderTest(context)
      try context.expect(device.status, 0, "status at power on")
      device.setStatus(3)
      try device.reset()
    },
    ConformanceCase(
      "virtio/status-reads-back", "The status reads back as it is set, step by step", "virtio 1.3 §2.1, §3.1.1",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      try device.setUpQueue()
      device.setStatus(0xF)
      try context.expect(device.status, 0xF, "status with DRIVER_OK")
      try device.reset()
      for value: UInt8 in [1, 3] {
        device.setStatus(value)
        try context.expect(device.status, value, "status")
      }
    },
    ConformanceCase(
      "virtio/offers-version-1", "VERSION_1 is offered", "virtio 1.3 §6.2", .virtio, shares: true
    ) { context in
      try context.expect(
        try VirtioUnderTest(context).offeredFeatures(), mask: Feature.version1, Feature.version1, "features")
    },
    ConformanceCase(
      "virtio/features-beyond-are-zero", "Feature words past the first four are 0", "virtio 1.3 §4.1.4.3.1", .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      for select: UInt32 in [4, 7, 0x8000_0000, 0xFFFF_FFFF] {
        device.write32(Common.deviceFeatureSelect, select)
        try context.expect(device.read32(Common.deviceFeature), 0, "features with select \(select)")
      }
    },
    ConformanceCase(
      "virtio/driver-features-read-back", "The driver's features read back as they were written",
      "virtio 1.3 §4.1.4.3.1",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.negotiate()
      device.write32(Common.driverFeatureSelect, 0)
      try context.expect(device.read32(Common.driverFeature), UInt32(truncatingIfNeeded: device.features), "word 0")
      device.write32(Common.driverFeatureSelect, 1)
      try context.expect(device.read32(Common.driverFeature), UInt32(device.features >> 32), "word 1")
    },
    ConformanceCase(
      "virtio/features-not-offered", "FEATURES_OK does not stick when the driver takes a feature that was not offered",
      "virtio 1.3 §2.2.2, §4.1.4.3.1; known failure 10", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      let offered = device.offeredFeatures()
      // The first of a disk that is not there, the packed ring, and one that no device has.
      let bits = [(0..<24).first { offered >> UInt64($0) & 1 == 0 }, 34, 63].compactMap { $0 }
      for bit in bits where offered >> UInt64(bit) & 1 == 0 {
        try device.reset()
        device.setStatus(1)
        device.setStatus(3)
        device.setDriverFeatures(Feature.version1 | 1 << UInt64(bit))
        device.setStatus(0xB)
        try context.expect(device.status, mask: 8, 0, "status, having taken bit \(bit)")
      }
    },
    ConformanceCase(
      "virtio/features-written-late", "Features that the driver writes after FEATURES_OK do no harm",
      "virtio 1.3 §3.1.1 (the driver must not)", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      device.setDriverFeatures(~0)
      try context.expect(device.status, mask: 0xF, 0xF, "status")
      device.setDriverFeatures(0)
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/negotiation-repeats", "The driver may negotiate again after a reset, with the same features or others",
      "virtio 1.3 §2.2.2",
      .virtio, shares: true
    ) { context in
      var before: UInt64?
      for mask in [VirtioUnderTest.plainFeatures, 0, ~0, ~0] {
        let device = try VirtioUnderTest(started: context, features: mask)
        try device.checkAlive()
        if mask == ~0, let before { try context.expect(device.features, before, "features, agreed on again") }
        before = mask == ~0 ? device.features : nil
      }
    },
    ConformanceCase(
      "virtio/reset-by-the-hundred", "Two hundred resets leave a device that works",
      "virtio 1.3 §2.4; known failure 52",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      for _ in 0..<200 {
        device.setStatus(0xF)
        try device.reset()
      }
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/reset-clears-queues", "A reset disables every queue and restores its size",
      "virtio 1.3 §2.4.1, §4.1.4.3.1",
      .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      try device.reset()
      device.write16(Common.queueSelect, 0)
      let size = device.read16(Common.queueSize)
      try device.negotiate()
      try device.setUpQueue(size: 8)
      device.setStatus(0xF)
      try device.reset()
      device.write16(Common.queueSelect, 0)
      try context.expect(device.read16(Common.queueEnable), 0, "queue_enable after the reset")
      try context.expect(device.read16(Common.queueSize), size, "queue_size after the reset")
    },
  ]

  private static let configuration: [ConformanceCase] = [
    ConformanceCase(
      "virtio/capacity", "The capacity counts sectors of 512 bytes, in one access or in two",
      "virtio 1.3 §5.2.4, §4.1.3.2",
      .virtio,
      shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      let base = device.deviceConfiguration
      let sectors = MachineKind.diskBytes / 512
      try context.expect(context.bus.mmioRead64(base), sectors, "capacity by 8 bytes")
      try context.expect(UInt64(context.bus.mmioRead32(base)), sectors, "capacity's low half")
      try context.expect(context.bus.mmioRead32(base + 4), 0, "capacity's high half")
    },
    ConformanceCase(
      "virtio/configuration-bytes-agree", "Bytes, words and double words of the device configuration agree",
      "virtio 1.3 §4.1.3, §2.5", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      let base = device.deviceConfiguration
      for offset in stride(from: UInt64(0), to: 24, by: 4) {
        let whole = context.bus.mmioRead32(base + offset)
        for byte in 0..<UInt64(4) {
          let seen = context.bus.mmioRead8(base + offset + byte)
          try context.expect(seen, UInt8(truncatingIfNeeded: whole >> (8 * UInt32(byte))), "byte \(offset + byte)")
        }
        let upper = context.bus.mmioRead16(base + offset + 2)
        try context.expect(upper, UInt16(whole >> 16), "word \(offset + 2)")
      }
    },
    ConformanceCase(
      "virtio/generation-is-stable", "The configuration's generation does not change while the configuration does not",
      "virtio 1.3 §2.5.1, §4.1.4.3.1", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let before = device.read8(Common.generation)
      _ = context.bus.mmioRead64(device.deviceConfiguration)
      try device.checkAlive()
      try context.expect(device.read8(Common.generation), before, "generation")
    },
    ConformanceCase(
      "virtio/configuration-is-read-only", "Writes to the read-only fields of the device configuration do nothing",
      "virtio 1.3 §2.5, §5.2.4; known failure 30", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for offset in stride(from: UInt64(0), to: 32, by: 4) {
        let before = context.bus.mmioRead32(device.deviceConfiguration + offset)
        context.bus.mmioWrite32(device.deviceConfiguration + offset, ~before)
        try context.expect(context.bus.mmioRead32(device.deviceConfiguration + offset), before, "field at \(offset)")
      }
    },
    ConformanceCase(
      "virtio/configuration-past-end", "Accesses past the end of the device configuration do no harm",
      "virtio 1.3 §4.1.4.6; known failure 30", .virtio
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard let block = device.blocks[4] else { try context.skip("no device configuration") }
      for offset in [block.byteCount - 1, block.byteCount, block.byteCount + 2, block.byteCount + 0x100] {
        _ = context.bus.mmioRead64(block.address + offset)
        _ = context.bus.mmioRead8(block.address + offset)
        context.bus.mmioWrite32(block.address + offset, 0xFFFF_FFFF)
      }
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/limits-are-sane",
      "Where they are offered, SEG_MAX is at least 1, BLK_SIZE a power of two, and MQ counts queues",
      "virtio 1.3 §5.2.4", .virtioTwoQueues, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      let offered = device.offeredFeatures()
      let base = device.deviceConfiguration
      if offered & Feature.segmentsMax != 0 {
        try context.expect(context.bus.mmioRead32(base + 12) >= 1, "seg_max is not 0")
      }
      if offered & Feature.blockSize != 0 {
        let size = context.bus.mmioRead32(base + 20)
        try context.expect(size >= 512 && size & (size - 1) == 0, "blk_size \(size) is a power of two of at least 512")
      }
      try context.expect(offered, mask: Feature.multipleQueues, Feature.multipleQueues, "features: MQ")
      try context.expect(context.bus.mmioRead16(base + 34), 2, "num_queues of the device configuration")
      try context.expect(device.read16(Common.queueCount) >= 2, "num_queues of the common configuration covers them")
    },
    ConformanceCase(
      "virtio/write-cache-toggles", "Where CONFIG_WCE is agreed on, writeback can be read, cleared and set",
      "virtio 1.3 §5.2.5; known failure 30", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      guard device.has(Feature.configWriteCache) else { try context.skip("CONFIG_WCE is not offered") }
      let place = device.deviceConfiguration + 32
      for value: UInt8 in [0, 1] {
        context.bus.mmioWrite8(place, value)
        try context.expect(context.bus.mmioRead8(place), value, "writeback")
        let bytes = context.randomBytes(512)
        try context.expect(try device.write(9000, bytes).status, 0, "status of a write with writeback \(value)")
        try context.expect(try device.read(9000, byteCount: 512), bytes, "what was written")
      }
    },
    ConformanceCase(
      "virtio/read-only-is-offered", "A read-only disk offers RO", "virtio 1.3 §5.2.3",
      .virtioReadOnly, shares: true
    ) { context in
      try context.expect(
        try VirtioUnderTest(context).offeredFeatures(), mask: Feature.readOnly, Feature.readOnly, "features")
    },
    ConformanceCase(
      "virtio/writable-offers-no-read-only", "A writable disk does not offer RO, but does offer FLUSH",
      "virtio 1.3 §5.2.3, §5.2.5.2",
      .virtio, shares: true
    ) { context in
      let mask = Feature.readOnly | Feature.flush
      try context.expect(try VirtioUnderTest(context).offeredFeatures(), mask: mask, Feature.flush, "features")
    },
  ]

  private static let resizing: [ConformanceCase] = [
    ConformanceCase(
      "virtio/resize",
      "A disk that is resized shows its new capacity, with a configuration change and a new generation",
      "virtio 1.3 §5.2.6.2, §4.1.4.3.1, §4.1.4.5.1", .virtioResizable
    ) { context in
      guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
      let device = try VirtioUnderTest(started: context)
      device.msix?.disable()
      _ = device.interruptStatus
      let generation = device.read8(Common.generation)
      try monitor.execute("block_resize", #"{"device":"drive0","size":\#(MachineKind.diskBytes * 2)}"#)
      try context.wait(until: "the capacity is the new one") {
        context.bus.mmioRead64(device.deviceConfiguration) == MachineKind.diskBytes * 2 / 512
      }
      try context.wait(until: "ISR shows a configuration change") { device.interruptStatus & 2 != 0 }
      try context.expect(device.read8(Common.generation) != generation, "the generation has changed")
      try device.checkAlive()
    }
  ]
}
