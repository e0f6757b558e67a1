// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

@Suite struct LoopTests {
  // MARK: Bottom halves

  @Test(arguments: usableMonitors) func bottomHalfScheduledTwiceRunsOnce(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let work = CountingWork(loop: loop)
    work.schedule()
    work.schedule()
    loop.runOnce(mayBlock: false)
    #expect(work.runs.load(ordering: .relaxed) == 1)
    #expect(!loop.runOnce(mayBlock: false))
  }

  @Test(arguments: usableMonitors) func bottomHalfMayScheduleItselfForTheNextRound(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let work = CountingWork(loop: loop)
    work.onRun = { if work.runs.load(ordering: .relaxed) < 3 { work.schedule() } }
    work.schedule()
    for expected in 1...3 {
      loop.runOnce(mayBlock: false)
      #expect(work.runs.load(ordering: .relaxed) == expected)
    }
    #expect(!loop.runOnce(mayBlock: false))
  }

  @Test(arguments: usableMonitors) func bottomHalvesRunInTheOrderInWhichTheyWereScheduled(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    var order: [Int] = []
    let work = (0..<5).map { index in
      let half = CountingWork(loop: loop)
      half.onRun = { order.append(index) }
      return half
    }
    for index in [3, 1, 4, 0, 2] { work[index].schedule() }
    loop.runOnce(mayBlock: false)
    #expect(order == [3, 1, 4, 0, 2])
  }

  @Test(arguments: usableMonitors) func cancelledBottomHalfDoesNotRunAndMayBeScheduledAgain(monitor: LoopMonitor) throws
  {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let work = CountingWork(loop: loop)
    work.schedule()
    work.cancel()
    loop.runOnce(mayBlock: false)
    #expect(work.runs.load(ordering: .relaxed) == 0)
    work.schedule()
    loop.runOnce(mayBlock: false)
    #expect(work.runs.load(ordering: .relaxed) == 1)
  }

  @Test(arguments: usableMonitors) func cancelledBottomHalfMayGoAwayAtOnce(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    var order: [Int] = []
    var work: [CountingWork?] = (0..<3).map { index in
      let half = CountingWork(loop: loop)
      half.onRun = { order.append(index) }
      return half
    }
    for half in work { half?.schedule() }
    weak let gone = work[1]
    work[1]?.cancel()
    work[1] = nil
    #expect(gone == nil)
    loop.runOnce(mayBlock: false)
    #expect(order == [0, 2])
  }

  @Test(arguments: [0, 1, 2], usableMonitors)
  func bottomHalfMayCancelOthersOfItsRound(cancelled: Int, monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    var order: [Int] = []
    let work = (0..<4).map { index in
      let half = CountingWork(loop: loop)
      half.onRun = { order.append(index) }
      return half
    }
    let last = CountingWork(loop: loop)
    last.onRun = { order.append(4) }
    work[0].onRun = {
      order.append(0)
      work[cancelled + 1].cancel()
      last.schedule()
    }
    work.forEach { $0.schedule() }
    while loop.runOnce(mayBlock: false) {}
    #expect(order == [0, 1, 2, 3, 4].filter { $0 != cancelled + 1 })
  }

  @Test(arguments: usableMonitors) func nestedRoundRunsTheBottomHalvesThatTheOuterRoundHadTaken(monitor: LoopMonitor)
    throws
  {
    // The first waits in a nested round for what the second does: without this a drain inside a bottom half would hang.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let first = CountingWork(loop: loop)
    let second = CountingWork(loop: loop)
    var ranInside = false
    first.onRun = {
      loop.runOnce(mayBlock: false)
      ranInside = second.runs.load(ordering: .relaxed) == 1
    }
    first.schedule()
    second.schedule()
    loop.runOnce(mayBlock: false)
    #expect(ranInside)
    #expect(!loop.runOnce(mayBlock: false))
  }

  // MARK: Waking

  @Test(arguments: usableMonitors) func foreignThreadWakesASleepingLoop(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let asleep = DispatchGate()
    loop.setSleepHooks(before: { asleep.open() }, after: {})
    let work = CountingWork(loop: loop)
    work.onRun = { loop.stop() }
    let thread = try HostThread(name: "other") {
      asleep.wait()
      work.schedule()
    }
    loop.run()
    thread.join()
    #expect(work.runs.load(ordering: .relaxed) == 1)
  }

  @Test(arguments: usableMonitors) func awakeLoopIsNotWrittenTo(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let work = CountingWork(loop: loop)
    for _ in 0..<10 {
      work.schedule()
      loop.runOnce(mayBlock: false)
    }
    #expect(loop.wakeStatistics.notifications == 10)
    #expect(loop.wakeStatistics.eventWrites == 0)
  }

  @Test(arguments: usableMonitors) func policyAlwaysWritesEveryTime(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", wakePolicy: .always, monitor: monitor)
    let work = CountingWork(loop: loop)
    for _ in 0..<10 {
      work.schedule()
      loop.runOnce(mayBlock: false)
    }
    #expect(loop.wakeStatistics.eventWrites == 10)
  }

  @Test(arguments: [WakePolicy.elided, .always], usableMonitors)
  func noWorkOfManyThreadsIsEverLost(policy: WakePolicy, monitor: LoopMonitor) throws {
    // The loop has no timer: one lost wakeup and this never ends (the watchdog of the test run tells).
    let loop = try EventLoop(name: "test", wakePolicy: policy, monitor: monitor)
    let threadCount = 4
    let handovers = 5000
    let done = Atomic<Int>(0)
    let threads = try (0..<threadCount).map { index in
      try HostThread(name: "notifier-\(index)") {
        for _ in 0..<handovers {
          let gate = DispatchGate()
          loop.execute {
            gate.open()
            if done.add(1, ordering: .sequentiallyConsistent).newValue == threadCount * handovers { loop.stop() }
          }
          gate.wait()
        }
      }
    }
    loop.run()
    threads.forEach { $0.join() }
    #expect(done.load(ordering: .relaxed) == threadCount * handovers)
  }

  @Test(arguments: usableMonitors) func executedClosuresRunInOrder(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let order = Mutex<[Int]>([])
    for index in 0..<100 { loop.execute { order.withLock { $0.append(index) } } }
    while loop.runOnce(mayBlock: false) {}
    #expect(order.withLock { $0 } == Array(0..<100))
  }

  @Test(arguments: usableMonitors) func sleepHooksSurroundOnlyASleep(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    var calls: [String] = []
    loop.setSleepHooks(before: { calls.append("before") }, after: { calls.append("after") })
    loop.runOnce(mayBlock: false)
    #expect(calls.isEmpty)
    let event = try EventDescriptor()
    event.signal()
    loop.addReader(event.number) { event.consume() }
    loop.runOnce(mayBlock: true)
    #expect(calls == ["before", "after"])
    loop.removeReader(event.number)
  }

  // MARK: Descriptors

  @Test(arguments: usableMonitors) func handlerRemovedByAnotherInTheSameRoundIsNotCalled(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let events = try [EventDescriptor(), EventDescriptor()]
    var called: [Int] = []
    for index in 0..<2 {
      loop.addReader(events[index].number) {
        called.append(index)
        loop.removeReader(events[1 - index].number)
        events[index].consume()
      }
      events[index].signal()
    }
    loop.runOnce(mayBlock: false)
    #expect(called.count == 1)
  }

  @Test(arguments: usableMonitors) func handlerMayRemoveItselfAndCloseItsDescriptor(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    var event: EventDescriptor? = try EventDescriptor()
    let number = event!.number
    var calls = 0
    loop.addReader(number) {
      calls += 1
      loop.removeReader(number)
      event = nil
    }
    event?.signal()
    loop.runOnce(mayBlock: false)
    #expect(event == nil)
    #expect(!loop.runOnce(mayBlock: false))
    #expect(calls == 1)
  }

  @Test(arguments: usableMonitors) func nestedRoundInACallbackServesOthers(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let events = try [EventDescriptor(), EventDescriptor()]
    var inner = 0
    var outer = 0
    loop.addReader(events[0].number) {
      events[0].consume()
      outer += 1
      while inner == 0 { loop.runOnce(mayBlock: true) }
    }
    loop.addReader(events[1].number) {
      events[1].consume()
      inner += 1
    }
    events.forEach { $0.signal() }
    loop.runOnce(mayBlock: false)
    #expect(inner == 1)
    #expect(outer == 1)
    events.forEach { loop.removeReader($0.number) }
  }

  // MARK: Batches

  @Test(arguments: usableMonitors) func deferredCallRunsOnceAtTheOutermostEnd(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let call = CountingCall(loop: loop)
    loop.beginBatch()
    loop.beginBatch()
    loop.deferToBatchEnd(call)
    loop.deferToBatchEnd(call)
    loop.endBatch()
    #expect(call.runs == 0)
    loop.endBatch()
    #expect(call.runs == 1)
    loop.deferToBatchEnd(call)
    #expect(call.runs == 2)
  }

  @Test(arguments: usableMonitors) func whatDeferredCallsDeferRunsInTheSameEnd(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let second = CountingCall(loop: loop)
    let first = CountingCall(loop: loop)
    first.onRun = { loop.deferToBatchEnd(second) }
    loop.beginBatch()
    loop.deferToBatchEnd(first)
    loop.endBatch()
    #expect(second.runs == 1)
  }

  @Test(arguments: usableMonitors) func nestedRoundRunsWhatItsCallersHaveDeferred(monitor: LoopMonitor) throws {
    // A callback that waits for I/O in a nested round must not wait for a submission that its own batch puts off.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let call = CountingCall(loop: loop)
    loop.beginBatch()
    loop.deferToBatchEnd(call)
    // It counts as progress and there is no sleep: it may have been what the callback waits for.
    #expect(loop.runOnce(mayBlock: true))
    #expect(call.runs == 1)
    loop.deferToBatchEnd(call)
    #expect(call.runs == 1)
    loop.endBatch()
    #expect(call.runs == 2)
  }
}
