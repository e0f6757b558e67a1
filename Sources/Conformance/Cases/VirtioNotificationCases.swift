// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Who is told of what: vectors, the interrupt status of both kinds, notifications that mean nothing.
enum VirtioNotificationCases {
  private typealias Common = VirtioUnderTest.Common
  private typealias Feature = VirtioBlockFeature
  private static let noVector = VirtioUnderTest.noVector
  private static let interruptStatusOfPCI: UInt16 = 1 << 3

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/vectors-map-and-unmap",
      "Every event can be mapped to every vector of the table and unmapped, and a reset unmaps all of them",
      "virtio 1.3 §4.1.5.1.2.1", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(context)
      guard let msix = device.msix else { try context.skip("no MSI-X") }
      msix.enable()
      try device.negotiate()
      device.write16(Common.queueSelect, 0)
      for register in [Common.configurationVector, Common.queueVector] {
        try context.expect(device.read16(register), noVector, "register \(register) after a reset")
        for vector in (0..<UInt16(msix.entryCount)).reversed() + [noVector, 0] {
          device.write16(register, vector)
          try context.expect(device.read16(register), vector, "register \(register), having written \(vector)")
        }
      }
      try device.reset()
      device.write16(Common.queueSelect, 0)
      for register in [Common.configurationVector, Common.queueVector] {
        try context.expect(device.read16(register), noVector, "register \(register) after a reset")
      }
      msix.disable()
    },
    ConformanceCase(
      "virtio/no-vector-no-message", "With MSI-X on, a queue without a vector interrupts nobody",
      "virtio 1.3 §4.1.5.3.1", .virtio
    ) { context in
      let (device, queue, configuration) = try VirtioQueueCases.withVectors(context)
      device.write16(Common.queueSelect, 0)
      device.write16(Common.queueVector, noVector)
      let seen = (context.bus.interruptCount(queue), context.bus.interruptCount(configuration))
      try device.checkAlive()
      context.pause(milliseconds: 5)
      try context.expect(context.bus.interruptCount(queue), seen.0, "messages of the vector that it had")
      try context.expect(context.bus.interruptCount(configuration), seen.1, "messages of configuration changes")
      try context.expect(interruptStatus(device), 0, "interrupt status of PCI")
      device.write16(Common.queueVector, 0)
      try device.checkAlive()
      try context.wait(until: "the message comes with the vector back") { context.bus.interruptCount(queue) != seen.0 }
    },
    ConformanceCase(
      "virtio/configuration-message",
      "With MSI-X on, a configuration change sets its bit of ISR and sends the message of its vector, and no other",
      "virtio 1.3 §4.1.4.5.1, §4.1.5.4, §2.1.2", .virtio
    ) { context in
      let (device, queue, configuration) = try VirtioQueueCases.withVectors(context)
      let seen = (context.bus.interruptCount(queue), context.bus.interruptCount(configuration))
      // A head that there is not breaks the device, which is a configuration change too.
      device.publish(65535)
      device.kick()
      try context.wait(until: "the message comes") { context.bus.interruptCount(configuration) != seen.1 }
      try context.expect(device.isBroken, "DEVICE_NEEDS_RESET is set when the message has come")
      try context.expect(device.interruptStatus, mask: 2, 2, "ISR when the message has come")
      try context.expect(context.bus.interruptCount(queue), seen.0, "messages of the queue")
    },
    ConformanceCase(
      "virtio/no-vector-no-configuration-message",
      "With MSI-X on, a configuration change without a vector interrupts nobody", "virtio 1.3 §4.1.5.4.1", .virtio
    ) { context in
      let (device, queue, configuration) = try VirtioQueueCases.withVectors(context)
      device.write16(Common.configurationVector, noVector)
      let seen = (context.bus.interruptCount(queue), context.bus.interruptCount(configuration))
      device.publish(65535)
      device.kick()
      try context.wait(until: "the device sets DEVICE_NEEDS_RESET") { device.isBroken }
      context.pause(milliseconds: 5)
      try context.expect(context.bus.interruptCount(configuration), seen.1, "messages of the vector that it had")
      try context.expect(context.bus.interruptCount(queue), seen.0, "messages of the queue")
      try context.expect(interruptStatus(device), 0, "interrupt status of PCI")
    },
    ConformanceCase(
      "virtio/pci-interrupt-status", "Without MSI-X the interrupt status of PCI shows whether ISR has a bit set",
      "virtio 1.3 §4.1.4.5.1; PCI 3.0 §6.2.3", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      device.msix?.disable()
      _ = device.interruptStatus
      try context.expect(interruptStatus(device), 0, "interrupt status of PCI before")
      try device.checkAlive()
      try context.wait(until: "the interrupt status of PCI is set") { interruptStatus(device) != 0 }
      try context.expect(device.interruptStatus, mask: 1, 1, "ISR after a used buffer")
      try context.expect(interruptStatus(device), 0, "interrupt status of PCI after ISR was read")
    },
    ConformanceCase(
      "virtio/event-index-ignores-flag", "With EVENT_IDX the flag NO_INTERRUPT holds back no message",
      "virtio 1.3 §2.7.7.2", .virtio
    ) { context in
      let (device, queue, _) = try VirtioQueueCases.withVectors(context, features: ~Feature.indirectDescriptors)
      guard device.has(Feature.eventIndex) else { try context.skip("EVENT_IDX is not offered") }
      let seen = context.bus.interruptCount(queue)
      context.bus.ramWrite16(device.available, 1)
      try device.checkAlive()
      try context.wait(until: "the first buffer sends its message") { context.bus.interruptCount(queue) != seen }
    },
    ConformanceCase(
      "virtio/spurious-notifications", "Notifications with nothing to take use nothing and break nothing",
      "virtio 1.3 §2.7.10.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      for _ in 0..<3 {
        for _ in 0..<50 { device.kick() }
        context.pause(milliseconds: 2)
        try context.expect(!device.hasUsed, "nothing is used")
        try context.expect(device.status, 0xF, "status")
        try device.checkAlive()
      }
    },
    ConformanceCase(
      "virtio/no-interrupt-after-reset", "After a reset neither ISR nor the interrupt status of PCI shows anything",
      "virtio 1.3 §2.4.1", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      device.msix?.disable()
      try device.checkAlive()
      try context.wait(until: "the interrupt status of PCI is set") { interruptStatus(device) != 0 }
      try device.reset()
      try context.expect(interruptStatus(device), 0, "interrupt status of PCI after the reset")
      try context.expect(device.interruptStatus, 0, "ISR after the reset")
    },
  ]

  /// The bit Interrupt Status of the function's status register (PCI 3.0 §6.2.3).
  private static func interruptStatus(_ device: VirtioUnderTest) -> UInt16 {
    device.context.topology.configuration.read16(device.entry.function.address, 6) & interruptStatusOfPCI
  }
}
