// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

@Suite struct AdaptivePollingTests {
  @Test func growsToCatchEventsThatComeALittleLater() {
    var polling = AdaptivePolling(nsMax: 100_000)
    polling.eventCame(after: 30_000)
    #expect(polling.ns >= 30_000)
    #expect(polling.ns <= 100_000)
  }

  @Test func staysWhereEventsComeInTime() {
    var polling = AdaptivePolling(nsMax: 100_000)
    polling.eventCame(after: 30_000)
    let before = polling.ns
    polling.eventCame(after: 10)
    #expect(polling.ns == before)
  }

  @Test func oneSlowEventDoesNotSwitchItOffForGood() {
    var polling = AdaptivePolling(nsMax: 100_000)
    polling.eventCame(after: 30_000)
    let before = polling.ns
    polling.eventCame(after: 5_000_000)
    #expect(polling.ns == before / 2)
    polling.eventCame(after: 30_000)
    #expect(polling.ns == before)
  }

  @Test func onlySlowEventsSwitchItOffAndAFastOneStartsItAgain() {
    var polling = AdaptivePolling(nsMax: 100_000)
    polling.eventCame(after: 100_000)
    for _ in 0..<10 { polling.eventCame(after: 5_000_000) }
    #expect(polling.ns == 0)
    polling.eventCame(after: 1_000)
    #expect(polling.ns == AdaptivePolling.nsStart)
  }

  @Test func neverPollsWithALimitOfZero() {
    var polling = AdaptivePolling(nsMax: 0)
    polling.eventCame(after: 1)
    #expect(polling.ns == 0)
  }
}

/// Work that is always found by polling, and never through the descriptor.
private final class BusyHandler: DescriptorHandler, @unchecked Sendable {
  var onPoll: () -> Bool = { true }
  var isRemoved = false
  override func poll() -> Bool {
    #expect(!isRemoved)
    return onPoll()
  }
  override func pollEnd() -> Bool {
    #expect(!isRemoved)
    return false
  }
}

@Suite struct PollingLoopTests {
  private let loop: EventLoop
  private let event: EventDescriptor

  /// A loop that polls for so long that only finding work ends it.
  init() throws {
    loop = try EventLoop(name: "test")
    loop.pollNsMax = 3_600_000_000_000
    loop.polling.eventCame(after: loop.pollNsMax)
    event = try EventDescriptor()
  }

  private final class MemoryHandler: DescriptorHandler, @unchecked Sendable {
    var hasWork = true
    var polls = 0
    var began = 0
    var ended = 0
    override func poll() -> Bool {
      polls += 1
      return hasWork
    }
    override func pollBegin() { began += 1 }
    override func pollEnd() -> Bool {
      ended += 1
      return false
    }
  }

  @Test func eventThatComesSoonMakesTheLoopFindTheNextOneInMemory() throws {
    let loop = try EventLoop(name: "test")
    loop.pollNsMax = 10_000_000_000
    let handler = MemoryHandler(descriptor: event.number, isPollable: true)
    loop.add(handler)
    event.signal()
    loop.runOnce(mayBlock: true)
    event.consume()
    #expect(handler.polls == 0)
    loop.runOnce(mayBlock: true)
    #expect(handler.polls == 1)
    loop.remove(handler)
  }

  @Test func notificationsStayOffFromRoundToRoundUntilTheLoopSleeps() throws {
    let handler = MemoryHandler(descriptor: event.number, isPollable: true)
    loop.add(handler)
    for round in 1...3 {
      loop.runOnce(mayBlock: true)
      #expect(handler.polls == round)
    }
    #expect(handler.began == 1)
    #expect(handler.ended == 0)
    handler.hasWork = false
    var endedBeforeSleep = 0
    loop.setSleepHooks(before: { endedBeforeSleep = handler.ended }, after: {})
    event.signal()
    loop.pollNsMax = 1
    loop.runOnce(mayBlock: true)
    #expect(endedBeforeSleep == 1)
    #expect(handler.ended == 1)
    loop.remove(handler)
  }

  @Test func roundThatDoesNotBlockStillLooksWhereNotificationsAreOff() throws {
    let handler = MemoryHandler(descriptor: event.number, isPollable: true)
    loop.add(handler)
    loop.runOnce(mayBlock: true)
    #expect(loop.runOnce(mayBlock: false))
    #expect(handler.polls == 2)
    // A loop that always has other work looks too.
    let work = CountingWork(loop: loop)
    work.schedule()
    loop.runOnce(mayBlock: true)
    #expect(handler.polls == 3)
    loop.remove(handler)
  }

  @Test func timeThatIsOverEndsPollingBeforeTheSleep() throws {
    let loop = try EventLoop(name: "test")
    loop.pollNsMax = 1
    loop.polling.eventCame(after: 1)
    let handler = MemoryHandler(descriptor: event.number, isPollable: true)
    handler.hasWork = false
    loop.add(handler)
    event.signal()
    loop.runOnce(mayBlock: true)
    #expect(handler.began == 1)
    #expect(handler.ended == 1)
    loop.remove(handler)
  }

  @Test func bottomHalfOfAnotherThreadIsNoticedWhilePollingAndNeedsNoWakeup() throws {
    let work = CountingWork(loop: loop)
    let polls = DispatchGate()
    let handler = BusyHandler(descriptor: event.number, isPollable: true)
    var isFirst = true
    handler.onPoll = {
      if isFirst { polls.open() }
      isFirst = false
      return false
    }
    loop.add(handler)
    let thread = try HostThread(name: "other") {
      polls.wait()
      work.schedule()
    }
    loop.runOnce(mayBlock: true)
    thread.join()
    #expect(work.runs.load(ordering: .relaxed) == 1)
    #expect(loop.wakeStatistics.eventWrites == 0)
    loop.remove(handler)
  }

  @Test func descriptorThatCannotBePolledIsServedBesidePollingThatAlwaysFindsWork() throws {
    let handler = BusyHandler(descriptor: event.number, isPollable: true)
    loop.add(handler)
    let other = try EventDescriptor()
    var served = false
    loop.addReader(other.number) {
      other.consume()
      served = true
    }
    other.signal()
    var rounds = 0
    while !served && rounds < 10_000 {
      loop.runOnce(mayBlock: true)
      rounds += 1
    }
    #expect(served)
    loop.remove(handler)
    loop.removeReader(other.number)
  }

  @Test func handlerThatAnotherRemovesWhilePollingIsNotAskedAnyMore() throws {
    let events = try [EventDescriptor(), EventDescriptor()]
    let handlers = events.map { BusyHandler(descriptor: $0.number, isPollable: true) }
    for index in 0..<2 {
      let loop = loop
      handlers[index].onPoll = {
        loop.remove(handlers[1 - index])
        handlers[1 - index].isRemoved = true
        return true
      }
      loop.add(handlers[index])
    }
    loop.runOnce(mayBlock: true)
    #expect(handlers.filter(\.isRemoved).count == 1)
    for handler in handlers where !handler.isRemoved { loop.remove(handler) }
  }
}
