// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The memory-mapped transport: registers, interrupts, queues that are taken back.
enum VirtioMMIOCases {
  private typealias Register = MMIOUnderTest.Register

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/mmio-identity", "The memory-mapped registers begin with the magic value, version 2 and the device's type",
      "virtio 1.3 §4.2.2.1", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(context)
      try context.expect(device[Register.magic], MMIOUnderTest.magic, "MagicValue")
      try context.expect(device[Register.version], 2, "Version")
      try context.expect(device[Register.deviceID], 2, "DeviceID")
    },
    ConformanceCase(
      "virtio/mmio-features", "The memory-mapped features show by halves, VERSION_1 and FLUSH among them",
      "virtio 1.3 §4.2.2, §6.2", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(context)
      try device.reset()
      try context.expect(device.offeredFeatures(1), mask: 1, 1, "features 32 and up")
      try context.expect(device.offeredFeatures(0), mask: 1 << 9, 1 << 9, "features: FLUSH")
    },
    ConformanceCase(
      "virtio/mmio-features-beyond-are-zero", "Words of memory-mapped features past the first four are 0",
      "virtio 1.3 §4.2.2", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(context)
      try device.reset()
      try context.expect(device.offeredFeatures(1), mask: 1, 1, "features 32 and up")
      for half: UInt32 in [4, 7, 0x8000_0000, 0xFFFF_FFFF] {
        try context.expect(device.offeredFeatures(half), 0, "features with select \(half)")
      }
    },
    ConformanceCase(
      "virtio/mmio-read", "A read ends, and InterruptStatus shows it until the driver acknowledges it",
      "virtio 1.3 §4.2.2.1, §4.2.3.4", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(started: context)
      try context.expect(device[Register.interruptStatus], 0, "InterruptStatus before")
      for _ in 0..<3 {
        try device.checkAlive()
        try context.wait(until: "InterruptStatus shows the used buffer") { device[Register.interruptStatus] != 0 }
        try context.expect(device[Register.interruptStatus], 1, "InterruptStatus, read again")
        device[Register.interruptAcknowledge] = 2
        try context.expect(device[Register.interruptStatus], 1, "InterruptStatus, another bit acknowledged")
        device[Register.interruptAcknowledge] = 1
        try context.expect(device[Register.interruptStatus], 0, "InterruptStatus, acknowledged")
      }
    },
    ConformanceCase(
      "virtio/mmio-reset", "A reset clears InterruptStatus and the queues' ready bits, and the disk comes up again",
      "virtio 1.3 §4.2.2.1, §2.4.1", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(started: context)
      try device.checkAlive()
      try context.wait(until: "InterruptStatus shows the used buffer") { device[Register.interruptStatus] != 0 }
      try device.reset()
      try context.expect(device[Register.interruptStatus], 0, "InterruptStatus after the reset")
      device[Register.queueSelect] = 0
      try context.expect(device[Register.queueReady], 0, "QueueReady after the reset")
      try MMIOUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/mmio-queue-not-ready", "A queue that is not ready is not looked at", "virtio 1.3 §4.2.2.1", .virtioMMIO,
      shares: true
    ) { context in
      let device = try MMIOUnderTest(context)
      try device.negotiate()
      try device.setUpQueue(ready: false)
      device[Register.status] = 0xF
      _ = try device.submitRead(3)
      context.pause(milliseconds: 20)
      try context.expect(!device.hasUsed, "nothing is used")
      try MMIOUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/mmio-queue-taken-back",
      "A queue whose ready bit the driver has cleared is not looked at any more, and can be set up again",
      "virtio 1.3 §4.2.2.1, §4.2.2.2", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(started: context)
      try device.checkAlive()
      device[Register.queueReady] = 0
      try context.wait(until: "QueueReady reads 0") { device[Register.queueReady] == 0 }
      let late = try device.submitRead(3)
      context.pause(milliseconds: 20)
      try context.expect(!device.hasUsed, "nothing is used while the queue is not ready")
      try context.expect(context.bus.ramRead8(late + 512), VirtioBlockStatus.unwritten, "status byte of the request")
      try context.expect(device[Register.status], 0xF, "status")
      try device.setUpQueue()
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/mmio-absent-queue", "A queue that there is not has the size 0", "virtio 1.3 §4.2.2; known failure 13",
      .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(started: context)
      for index: UInt32 in [2, 1023, 1024, 0xFFFF] {
        device[Register.queueSelect] = index
        try context.expect(device[Register.queueSizeMax], 0, "QueueSizeMax of queue \(index)")
        device[Register.queueNotify] = index
      }
      try device.checkAlive()
    },
    ConformanceCase(
      "virtio/mmio-configuration", "The device configuration reads by bytes, words and halves of the capacity",
      "virtio 1.3 §4.2.2, §5.2.4", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(context)
      let place = device.base + Register.configuration
      let sectors = UInt32(MachineKind.diskBytes / 512)
      try context.expect(context.bus.mmioRead32(place), sectors, "capacity's low half")
      try context.expect(context.bus.mmioRead32(place + 4), 0, "capacity's high half")
      for byte in UInt64(0)..<4 {
        let expected = UInt8(truncatingIfNeeded: sectors >> (8 * UInt32(byte)))
        try context.expect(context.bus.mmioRead8(place + byte), expected, "byte \(byte) of the capacity")
      }
      let generation = device[Register.generation]
      _ = context.bus.mmioRead32(place)
      try context.expect(device[Register.generation], generation, "ConfigGeneration, with nothing changed")
    },
    ConformanceCase(
      "virtio/mmio-broken-tells-the-driver", "A device that breaks shows a configuration change in InterruptStatus",
      "virtio 1.3 §2.1.2, §4.2.2.1; known failure 63", .virtioMMIO, shares: true
    ) { context in
      let device = try MMIOUnderTest(started: context)
      device.publish(65535)
      try context.wait(until: "the device sets DEVICE_NEEDS_RESET") { device.isBroken }
      try context.wait(until: "InterruptStatus shows it") { device[Register.interruptStatus] & 2 != 0 }
      try MMIOUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "virtio/mmio-resize", "A disk that is resized shows another ConfigGeneration, and a configuration change",
      "virtio 1.3 §4.2.2.1, §5.2.6.2", .virtioMMIO
    ) { context in
      guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
      let device = try MMIOUnderTest(started: context)
      let place = device.base + Register.configuration
      _ = context.bus.mmioRead32(place)
      let generation = device[Register.generation]
      try monitor.execute("block_resize", #"{"device":"drive0","size":\#(MachineKind.diskBytes * 2)}"#)
      try context.wait(until: "the capacity is the new one") {
        UInt64(context.bus.mmioRead32(place)) == MachineKind.diskBytes * 2 / 512
      }
      try context.expect(device[Register.generation] != generation, "ConfigGeneration has changed")
      try context.wait(until: "InterruptStatus shows it") { device[Register.interruptStatus] & 2 != 0 }
      try device.checkAlive()
    },
  ]
}
