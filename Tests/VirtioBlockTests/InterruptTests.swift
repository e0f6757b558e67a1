// SPDX-License-Identifier: Apache-2.0
// When the device interrupts, and how (virtio 1.3 §2.7.7, §2.7.10, §4.1.5).
import Testing

@testable import VirtioBlock

@Suite struct InterruptTests {
  private func enableMSIX(_ kit: DriverKit) {
    for vector in 0..<UInt64(2) {
      let entry = DriverKit.msixBAR + vector * 16
      kit.machine.memorySpace.write(entry, width: 4, value: 0xfee0_0000)
      kit.machine.memorySpace.write(entry + 4, width: 4, value: 0)
      kit.machine.memorySpace.write(entry + 8, width: 4, value: 0x40 + vector)
      kit.machine.memorySpace.write(entry + 12, width: 4, value: 0)
    }
    var offset = Int(kit.device.configurationRead(offset: 0x34, width: 1))
    while offset != 0, kit.device.configurationRead(offset: offset, width: 1) != 0x11 {
      offset = Int(kit.device.configurationRead(offset: offset + 1, width: 1))
    }
    kit.device.configurationWrite(offset: offset + 2, width: 2, value: 0x8000)
  }

  private func start(_ kit: DriverKit, features: UInt64) throws {
    enableMSIX(kit)
    kit.negotiate(features)
    kit.write(16, 2, 0)
    kit.setUpQueue(0, vector: 1)
    kit.status = 0xf
    kit.loop.runUntilIdle()
  }

  @Test func completionSendsTheQueuesVector() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1)
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    #expect(kit.interrupts.messages.isEmpty)
    kit.completeOne()
    #expect(kit.interrupts.messages.map(\.data) == [0x41])
  }

  @Test func brokenDeviceSendsTheConfigurationVector() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1)
    try kit.makeAvailable(99)
    kit.kick()
    #expect(kit.interrupts.messages.map(\.data) == [0x40])
  }

  @Test func aDiskOfAnotherLengthChangesTheConfiguration() throws {
    let kit = try DriverKit()
    // Before a driver is there nobody is told.
    try kit.backend.resize(to: 32 * 512)
    #expect(kit.read(0x1000, 1) == 0 && kit.read(0x2000, 8) == 32)
    try kit.start()
    let generation = kit.read(21, 1)
    try kit.backend.resize(to: 128 * 512)
    #expect(kit.read(0x2000, 8) == 128)
    #expect(kit.read(21, 1) != generation)
    #expect(kit.interrupts.line.values.contains(true))
    #expect(kit.read(0x1000, 1) == 3)
    #expect(!kit.interrupts.line.values.contains(true))
    // The queue serves the new end at once, and nothing beyond it.
    try kit.submit(RequestType.read, sector: 127, data: [.writable(DriverKit.data, 512)])
    #expect(kit.driver.held.count == 1)
    kit.completeAll()
    try kit.backend.resize(to: 64 * 512)
    try kit.submit(RequestType.read, sector: 64, data: [.writable(DriverKit.data, 512)])
    #expect(kit.driver.held.isEmpty)
  }

  @Test func aDiskOfAnotherLengthSendsTheConfigurationVector() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1)
    try kit.backend.resize(to: 128 * 512)
    #expect(kit.interrupts.messages.map(\.data) == [0x40])
    // The bit is set with MSI-X too, but no line (§4.1.4.5.1).
    #expect(!kit.interrupts.line.values.contains(true))
    #expect(kit.read(0x1000, 1) == 2)
    #expect(kit.read(0x1000, 1) == 0)
  }

  @Test func noNumberOfChangesHidesOneFromTheGeneration() throws {
    // §4.1.4.3.1: the register has 8 bits, and the disk may change more often before the guest looks.
    let kit = try DriverKit()
    try kit.start()
    #expect(kit.read(0x2000, 8) == 64)
    let generation = kit.read(21, 1)
    for count in UInt64(1)...256 { try kit.backend.resize(to: (64 + count) * 512) }
    #expect(kit.read(0x2000, 4) == 320)
    #expect(kit.read(21, 1) != generation)
    // Who has read it all sees the same until the next change.
    let later = kit.read(21, 1)
    #expect(kit.read(0x2000, 8) == 320)
    #expect(kit.read(21, 1) == later)
  }

  @Test func withoutMSIXTheLineFollowsTheInterruptStatus() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(kit.interrupts.line.values.contains(true))
    #expect(kit.read(0x1000, 1) == 1)
    #expect(!kit.interrupts.line.values.contains(true))
    #expect(kit.read(0x1000, 1) == 0)
  }

  @Test func noInterruptFlagSparesTheInterrupt() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1)
    try kit.memory.store(UInt16(1), at: kit.available())
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(kit.interrupts.messages.isEmpty)
    #expect(try kit.takeUsed() != nil)
  }

  @Test func eventIndexInterruptsExactlyWhenItIsCrossed() throws {
    // §2.7.7.1: used_event 0 wants the first, used_event 2 the third.
    let kit = try DriverKit()
    try start(kit, features: Feature.version1 | Feature.eventIndex)
    let usedEvent = kit.available() + 4 + UInt64(kit.entries) * 2
    func one() throws {
      try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
      kit.completeOne()
    }
    try one()
    #expect(kit.interrupts.messages.count == 1)
    try kit.memory.store(UInt16(2), at: usedEvent)
    try one()
    #expect(kit.interrupts.messages.count == 1)
    try one()
    #expect(kit.interrupts.messages.count == 2)
  }

  @Test func idleQueueAsksToBeRungForTheNextChain() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1 | Feature.eventIndex)
    let availableEvent = kit.used() + 4 + UInt64(kit.entries) * 8
    for round in 1...3 {
      try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
      kit.completeOne()
      #expect(try kit.memory.load(UInt16.self, at: availableEvent) == UInt16(round))
    }
  }

  @Test func completionsOfOneRoundCostOneInterrupt() throws {
    let kit = try DriverKit()
    try start(kit, features: Feature.version1)
    for index in 0..<UInt64(4) {
      try kit.submit(RequestType.getID, sector: 0, data: [.writable(DriverKit.data, 20)], index: index)
    }
    let before = kit.interrupts.messages.count
    for index in 0..<UInt64(3) {
      let header = try kit.header(RequestType.getID, sector: 0, index: index)
      try kit.makeAvailable(
        try kit.writeChain([.readable(header, 16), .writable(DriverKit.data, 20), .writable(DriverKit.statuses, 1)]))
    }
    kit.kick()
    #expect(kit.interrupts.messages.count == before + 1)
  }
}
