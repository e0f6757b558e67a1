// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct VirtqueueTests {
  private func makeQueue(_ bus: FakeMachine, size: UInt16 = 4, usesEventIndex: Bool) throws -> SplitVirtqueue<
    FakeMachine
  > {
    let bytes = SplitVirtqueue<FakeMachine>.byteCount(size: size)
    let memory = try #require(bus.allocate(byteCount: bytes, alignment: 16))
    return SplitVirtqueue(bus: bus, memory: memory, size: size, usesEventIndex: usesEventIndex)
  }

  @Test(arguments: [1, 2, 4, 128, 32768] as [UInt16])
  func areasAreAlignedAndDoNotOverlap(size: UInt16) {
    let bus = FakeMachine()
    let queue = SplitVirtqueue(bus: bus, memory: 0x10_0000, size: size, usesEventIndex: true)
    #expect(queue.descriptorTable % 16 == 0 && queue.availRing % 2 == 0 && queue.usedRing % 4 == 0)
    #expect(queue.availRing >= queue.descriptorTable + 16 * UInt64(size))
    #expect(queue.usedRing >= queue.availRing + 6 + 2 * UInt64(size))
    let end = queue.usedRing + 6 + 8 * UInt64(size)
    #expect(0x10_0000 + SplitVirtqueue<FakeMachine>.byteCount(size: size) == end)
  }

  @Test func whatIsPushedIsInvisibleUntilItIsPublished() throws {
    let bus = FakeMachine()
    var queue = try makeQueue(bus, usesEventIndex: false)
    queue.push(2)
    queue.push(3)
    #expect(bus.ramRead16(queue.availRing + 2) == 0)
    let isWanted = queue.publish()
    #expect(isWanted)
    #expect(bus.ramRead16(queue.availRing + 2) == 2)
    #expect(bus.ramRead16(queue.availRing + 4) == 2 && bus.ramRead16(queue.availRing + 6) == 3)
    let isWantedAgain = queue.publish()
    #expect(!isWantedAgain)
  }

  @Test func theDevicesFlagSuppressesNotifications() throws {
    let bus = FakeMachine()
    var queue = try makeQueue(bus, usesEventIndex: false)
    bus.ramWrite16(queue.usedRing, 1)
    queue.push(0)
    let isWanted = queue.publish()
    #expect(!isWanted)
  }

  /// The rule of virtio 1.3 §2.7.10.1: notify when the index passes avail_event.
  @Test(arguments: [(0, true), (1, true), (2, false), (0xFFFF, false)] as [(UInt16, Bool)])
  func theDevicesEventDecidesAboutNotifications(event: UInt16, isWanted: Bool) throws {
    let bus = FakeMachine()
    var queue = try makeQueue(bus, usesEventIndex: true)
    bus.ramWrite16(queue.usedRing + 4 + 8 * 4, event)
    queue.push(0)
    queue.push(1)
    let wants = queue.publish()
    #expect(wants == isWanted)
  }

  @Test func indicesWrapAround() throws {
    let bus = FakeMachine()
    var queue = try makeQueue(bus, size: 2, usesEventIndex: false)
    for turn in 0..<70_000 {
      let head = UInt16(turn & 1)
      queue.push(head)
      _ = queue.publish()
      let index = UInt16(truncatingIfNeeded: turn)
      bus.ramWrite32(queue.usedRing + 4 + 8 * UInt64(index & 1), UInt32(head))
      bus.ramWrite16(queue.usedRing + 2, index &+ 1)
      let count = queue.refresh(outstanding: 1)
      try #require(count == 1)
      let used = queue.pop()
      try #require(used.head == UInt32(head))
    }
    #expect(queue.usedIndex == UInt16(truncatingIfNeeded: 70_000))
  }

  @Test func aUsedIndexBeyondWhatIsOutstandingBreaksTheQueue() throws {
    let bus = FakeMachine()
    var queue = try makeQueue(bus, usesEventIndex: false)
    queue.push(0)
    _ = queue.publish()
    bus.ramWrite16(queue.usedRing + 2, 2)
    let count = queue.refresh(outstanding: 1)
    #expect(count == 0)
    #expect(queue.isBroken)
  }

  @Test func interruptsAreAskedForByEventOrFlag() throws {
    let bus = FakeMachine()
    let byEvent = try makeQueue(bus, usesEventIndex: true)
    byEvent.requestInterrupt(afterUses: 3)
    #expect(bus.ramRead16(byEvent.availRing + 4 + 2 * 4) == 2)
    let byFlag = try makeQueue(bus, usesEventIndex: false)
    byFlag.suppressInterrupts()
    #expect(bus.ramRead16(byFlag.availRing) == 1)
    byFlag.requestInterrupt()
    #expect(bus.ramRead16(byFlag.availRing) == 0)
  }
}
