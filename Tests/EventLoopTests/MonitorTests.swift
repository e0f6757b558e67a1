// SPDX-License-Identifier: Apache-2.0
// What every monitor does alike, on real descriptors.
import CLinux
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

/// Counts calls, and does what the test says.
private final class CountingHandler: DescriptorHandler, @unchecked Sendable {
  let calls = Atomic<Int>(0)
  /// The loop has seen the removal.
  let gone = Atomic<Bool>(false)
  var onReady: () -> Void = {}
  override func ready() {
    calls.add(1, ordering: .sequentiallyConsistent)
    onReady()
  }
  var count: Int { calls.load(ordering: .sequentiallyConsistent) }
}

@Suite struct MonitorTests {
  private func settle(_ loop: EventLoop) { while loop.runOnce(mayBlock: false) {} }

  @Test(arguments: usableMonitors) func choiceIsTaken(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    #expect(loop.monitorInUse == monitor)
    #expect(loop.fallbackReason == nil)
  }

  @Test func autoTakesTheBestThatWorks() throws {
    let loop = try EventLoop(name: "test", monitor: .auto)
    #expect(loop.monitorInUse == (usableMonitors.contains(.ioUring) ? .ioUring : .epoll))
  }

  @Test(arguments: usableMonitors) func inputThatIsLeftIsReportedAgain(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let event = try EventDescriptor()
    let handler = CountingHandler(descriptor: event.number)
    loop.add(handler)
    event.signal()
    for round in 1...3 {
      while handler.count < round { loop.runOnce(mayBlock: true) }
    }
    event.consume()
    settle(loop)
    let calls = handler.count
    #expect(!loop.runOnce(mayBlock: false))
    #expect(handler.count == calls)
    loop.remove(handler)
  }

  @Test(arguments: usableMonitors) func eventsMayChangeWhileWatched(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let event = try EventDescriptor()
    let handler = CountingHandler(descriptor: event.number)
    loop.add(handler)
    settle(loop)
    #expect(handler.count == 0)
    // An eventfd can always be written to.
    loop.change(handler, events: Int16(POLLOUT))
    while handler.count == 0 { loop.runOnce(mayBlock: true) }
    loop.change(handler, events: Int16(POLLIN))
    // One event may have been on its way.
    loop.runOnce(mayBlock: false)
    let calls = handler.count
    settle(loop)
    #expect(handler.count == calls)
    event.signal()
    while handler.count == calls { loop.runOnce(mayBlock: true) }
    loop.remove(handler)
  }

  @Test(arguments: usableMonitors) func removedHandlerMayBeAddedAgain(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let event = try EventDescriptor()
    let handler = CountingHandler(descriptor: event.number)
    event.signal()
    for round in 1...20 {
      loop.add(handler)
      if round % 3 == 0 { loop.runOnce(mayBlock: false) }
      loop.remove(handler)
      let calls = handler.count
      settle(loop)
      #expect(handler.count == calls)
    }
    loop.add(handler)
    let calls = handler.count
    while handler.count == calls { loop.runOnce(mayBlock: true) }
    loop.remove(handler)
  }

  @Test(arguments: usableMonitors) func descriptorNumberMayBeUsedAgainAtOnce(monitor: LoopMonitor) throws {
    // Closed inside the callback, and the number taken by another descriptor with another handler, over and over; a copy
    // keeps the first one open and readable.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let first = try EventDescriptor()
    let number = clinux_fcntl(first.number, F_DUPFD, 500)
    var events = [first]
    var handler = CountingHandler(descriptor: number)
    let rounds = 50
    var round = 0
    var renew: () -> Void = {}
    renew = {
      loop.remove(handler)
      guard let event = try? EventDescriptor() else { return }
      // Closes what had the number.
      #expect(dup2(event.number, number) == number)
      events.append(event)
      round += 1
      handler = CountingHandler(descriptor: number)
      handler.onReady = renew
      loop.add(handler)
      if round < rounds { event.signal() }
    }
    handler.onReady = renew
    loop.add(handler)
    first.signal()
    while round < rounds { loop.runOnce(mayBlock: true) }
    settle(loop)
    #expect(round == rounds)
    #expect(handler.count == 0)
    loop.remove(handler)
    handler.onReady = {}
    renew = {}
    close(number)
  }

  @Test(arguments: usableMonitors)
  func copyOfADescriptorThatAnotherThreadRemovedKeepsNothingBusy(monitor: LoopMonitor) throws {
    // The descriptor is closed right after its removal, and lives on in a copy that stays readable.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let event = try EventDescriptor()
    let number = dup(event.number)
    let handler = CountingHandler(descriptor: number)
    loop.add(handler)
    settle(loop)
    let done = CountingWork(loop: loop)
    loop.claim()
    let thread = try HostThread(name: "remover") {
      loop.remove(handler)
      close(number)
      event.signal()
      done.schedule()
    }
    thread.join()
    while done.runs.load(ordering: .relaxed) == 0 { loop.runOnce(mayBlock: true) }
    settle(loop)
    #expect(handler.count == 0)
    #expect(!loop.runOnce(mayBlock: false))
    loop.release()
  }

  @Test(arguments: usableMonitors) func additionByAnotherThreadWakesTheLoop(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let asleep = DispatchGate()
    loop.setSleepHooks(before: { asleep.open() }, after: {})
    let event = try EventDescriptor()
    event.signal()
    let handler = CountingHandler(descriptor: event.number)
    handler.onReady = {
      event.consume()
      loop.stop()
    }
    loop.claim()
    let thread = try HostThread(name: "adder") {
      asleep.wait()
      loop.add(handler)
    }
    loop.run()
    thread.join()
    loop.release()
    #expect(handler.count == 1)
    loop.remove(handler)
  }

  @Test(arguments: usableMonitors) func anyOrderOfChangesByManyThreadsEndsAsTheLastOnesSay(monitor: LoopMonitor) throws
  {
    // Threads add, change, remove and close while the loop runs; each handler notes calls after its removal was seen.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let threadCount = 3
    let rounds = 400
    let late = Atomic<Int>(0)
    let running = Atomic<Int>(threadCount)
    // Before the first thread runs: a loop that nobody has claimed belongs to whoever calls.
    loop.claim()
    let threads = try (0..<threadCount).map { index in
      try HostThread(name: "changer-\(index)") {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<rounds {
          guard let event = try? EventDescriptor() else { continue }
          let handler = CountingHandler(descriptor: event.number)
          handler.onReady = { [unowned handler] in
            if handler.gone.load(ordering: .sequentiallyConsistent) { late.add(1, ordering: .relaxed) }
          }
          loop.add(handler)
          if Bool.random(using: &random) { event.signal() }
          if Bool.random(using: &random) { loop.change(handler, events: Int16(POLLOUT)) }
          if Bool.random(using: &random) { loop.change(handler, events: Int16(POLLIN)) }
          loop.remove(handler)
          if Bool.random(using: &random) {
            loop.add(handler)
            loop.remove(handler)
          }
          // After this has run on the loop, nothing of the handler may be called any more.
          let seen = DispatchGate()
          loop.execute {
            handler.gone.store(true, ordering: .sequentiallyConsistent)
            seen.open()
          }
          if Bool.random(using: &random) { seen.wait() }
        }
        if running.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 { loop.stop() }
      }
    }
    loop.run()
    threads.forEach { $0.join() }
    settle(loop)
    loop.release()
    #expect(late.load(ordering: .sequentiallyConsistent) == 0)
    var watched = 0
    loop.watchList.forEach { _ in watched += 1 }
    // The notifier's, and the ring's where the loop does not sleep in it.
    #expect(watched == 1)
  }

  @Test(arguments: usableMonitors) func manyDescriptorsAreAllServed(monitor: LoopMonitor) throws {
    // More than one epoll_wait returns, and more than the ring has entries.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let events = try (0..<300).map { _ in try EventDescriptor() }
    let handlers = events.map { event in
      let handler = CountingHandler(descriptor: event.number)
      handler.onReady = { event.consume() }
      return handler
    }
    for turn in 1...2 {
      handlers.forEach(loop.add)
      events.forEach { $0.signal() }
      while handlers.contains(where: { $0.count < turn }) { loop.runOnce(mayBlock: true) }
      settle(loop)
      #expect(handlers.allSatisfy { $0.count == turn })
      handlers.forEach(loop.remove)
    }
    #expect(!loop.runOnce(mayBlock: false))
  }

  @Test(arguments: usableMonitors) func timerEndsASleepAndNotBeforeItsTime(monitor: LoopMonitor) throws {
    final class Timer: LoopTimer {
      var firedAt: UInt64 = 0
      override func fired() { firedAt = HostClock.nanoseconds }
    }
    let loop = try EventLoop(name: "test", monitor: monitor)
    let timer = Timer(loop: loop)
    // Below a millisecond, which the monitors' older system calls could not wait for.
    let deadline = HostClock.nanoseconds + 300_000
    timer.arm(atNanoseconds: deadline)
    while timer.firedAt == 0 { loop.runOnce(mayBlock: true) }
    #expect(timer.firedAt >= deadline)
  }

  @Test(arguments: usableMonitors) func regularFileIsAlwaysReady(monitor: LoopMonitor) throws {
    // epoll cannot watch one: the loop goes on with ppoll, and says so. Standard input may be such a file.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let file = try OwnedDescriptor.open("/proc/self/maps", flags: O_RDONLY)
    let event = try EventDescriptor()
    let other = CountingHandler(descriptor: event.number)
    loop.add(other)
    let handler = CountingHandler(descriptor: file.number)
    loop.add(handler)
    while handler.count == 0 { loop.runOnce(mayBlock: true) }
    #expect(loop.monitorInUse == (monitor == .epoll ? .poll : monitor))
    #expect((loop.fallbackReason != nil) == (monitor == .epoll))
    event.signal()
    while other.count == 0 { loop.runOnce(mayBlock: true) }
    loop.remove(handler)
    loop.remove(other)
  }

  @Test(arguments: usableMonitors) func loopGoesOnWhenItsMonitorIsGivenUp(monitor: LoopMonitor) throws {
    if monitor == .poll { return }
    let loop = try EventLoop(name: "test", monitor: monitor)
    let events = try (0..<3).map { _ in try EventDescriptor() }
    let handlers = events.map { CountingHandler(descriptor: $0.number) }
    handlers.forEach(loop.add)
    settle(loop)
    events[0].signal()
    // Inside a callback, the worst moment.
    handlers[0].onReady = {
      events[0].consume()
      if loop.monitorInUse != .poll { loop.fallBack("asked for by the test") }
      events[1].signal()
    }
    handlers[1].onReady = { events[1].consume() }
    while handlers[1].count == 0 { loop.runOnce(mayBlock: true) }
    #expect(loop.monitorInUse == .poll)
    loop.execute { events[2].signal() }
    while handlers[2].count == 0 { loop.runOnce(mayBlock: true) }
    #expect(handlers.map(\.count) == [1, 1, 1])
    handlers.forEach(loop.remove)
  }
}
