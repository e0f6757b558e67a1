// SPDX-License-Identifier: Apache-2.0
// The wake protocol under stress: many threads, random delays at each step, no timers. Each piece of work is waited for, so
// one lost wakeup and nothing moves any more. Tools/models proves the same of a model; it also knows processors that delay
// stores, which those that run this test need not do.
import CURing
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

/// The threads of a test that go in step. Loop thread, once they run.
private final class Step: @unchecked Sendable {
  var slots: [Slot] = []
  private var count = 0

  func seen(_ more: Int) {
    count += more
    if count < slots.count { return }
    count = 0
    slots.forEach { $0.gate.open() }
  }
}

/// What one thread has handed to the loop and the loop has not seen, and where the thread waits for it.
private final class Slot: Sendable {
  let name: String
  let posted = Atomic<Int>(0)
  let seen = Atomic<Int>(0)
  private let unseen = Atomic<Int>(0)
  private let isWaiting = Atomic<Bool>(false)
  let gate = DispatchGate()
  // Where the threads go in step: opens the gates of all when the last has been seen.
  private let step: Step?

  init(name: String, step: Step?) {
    self.name = name
    self.step = step
  }

  /// Before the work is announced. Its own thread.
  func post(thenWaits: Bool) {
    posted.add(1, ordering: .relaxed)
    if thenWaits { isWaiting.store(true, ordering: .relaxed) }
    // Release: pairs with the exchange in `take`.
    unseen.add(1, ordering: .releasing)
  }

  /// Takes whatever was posted, as a bottom half does. Loop thread.
  func take() {
    let count = unseen.exchange(0, ordering: .acquiringAndReleasing)
    if count > 0 { noteSeen(count) }
  }

  /// Takes one piece, of which each has a completion of its own. Loop thread.
  func takeOne() {
    unseen.subtract(1, ordering: .acquiringAndReleasing)
    noteSeen(1)
  }

  private func noteSeen(_ count: Int) {
    seen.add(count, ordering: .relaxed)
    if let step {
      step.seen(count)
    } else if unseen.load(ordering: .relaxed) == 0 && isWaiting.exchange(false, ordering: .relaxed) {
      gate.open()
    }
  }
}

/// Takes from the slots of all threads that schedule it.
private final class SlotWork: BottomHalf, @unchecked Sendable {
  var slots: [Slot] = []
  override func run() { slots.forEach { $0.take() } }
}

private final class SlotCall: DeferredCall {
  let slot: Slot
  init(loop: EventLoop, slot: Slot) {
    self.slot = slot
    super.init(loop: loop)
  }
  override func run() { slot.take() }
}

/// Entries of the ring; the token is the slot's place.
private final class SlotClient: RingClient {
  var slots: [Slot] = []
  override func completed(token: UInt64, result: Int32) { slots[Int(token)].takeOne() }
}

/// A loop without timers, threads that hand it work, and one that interrupts them all.
private final class Stress: @unchecked Sendable {
  static let watchdogSeconds = 60

  let loop: EventLoop
  let ring: LoopRing?
  private let roundsPerThread: Int
  /// Each thread waits, in each round, until all have been seen; otherwise it waits for its own, in every second round.
  private let isInStep: Bool
  private let lock = LentLock()
  private let client = SlotClient()
  private var clientNumber: UInt64 = 0
  private let interrupter = Interrupter()
  private let isLost = Atomic<Bool>(false)
  // The loop thread has the lock and the loop; vCPUs before that would take the loop for their own.
  private let isReady = DispatchGate()
  private let done = DispatchGate()
  private var slots: [Slot] = []
  private let step = Step()
  private var bodies: [(name: String, body: @Sendable () -> Void)] = []
  // The loop's rounds that may sleep; loop thread.
  private(set) var sleeps = 0

  init(_ monitor: LoopMonitor, _ policy: WakePolicy, isInStep: Bool, roundsPerThread: Int) throws {
    self.roundsPerThread = roundsPerThread
    self.isInStep = isInStep
    if monitor == .ioUring {
      // As the loop itself takes a ring for monitor, but one that takes its time.
      loop = try EventLoop(name: "stress", wakePolicy: policy)
      let kernel = try KernelRing(entries: LoopRing.entryCount, attempts: RingSetup.forSleepersInTheRing)
      ring = loop.installAsMonitor(SlowRing(kernel, seed: 71))
    } else {
      loop = try EventLoop(name: "stress", wakePolicy: policy, monitor: monitor)
      ring = try? loop.install(SlowRing(KernelRing(entries: LoopRing.entryCount), seed: 71))
    }
    loop.monitor = SlowMonitor(loop.monitor, seed: 72)
    if let ring { clientNumber = ring.register(client) }
  }

  private func makeSlot(_ kind: String) -> Slot {
    slots.append(Slot(name: "\(kind) \(slots.count)", step: isInStep ? step : nil))
    return slots.last!
  }

  /// Adds a thread that does its rounds, and waits for what it has handed over in some of them, and in the last.
  /// - Parameter handOver: posts to the slot, and announces it; told whether the thread is going to wait.
  private func addThread(_ slot: Slot, _ handOver: @escaping @Sendable (_ waits: Bool, inout Delays) -> Void) {
    let seed = UInt64(slots.count)
    let body: @Sendable () -> Void = { [self] in
      interrupter.include()
      var delays = Delays(seed: seed)
      for round in 1...roundsPerThread where !isLost.load(ordering: .relaxed) {
        let waits = isInStep || delays.next() & 1 == 0 || round == roundsPerThread
        // What comes while the loop is still busy with another thread's is what it may miss.
        if isInStep { delays.pauseLonger() }
        handOver(waits, &delays)
        delays.pause()
        if waits { slot.gate.wait() }
      }
    }
    bodies.append((slot.name, body))
  }

  /// Threads that schedule one bottom half between them, without any lock.
  func addSchedulers(_ count: Int) {
    let work = SlotWork(loop: loop)
    for _ in 0..<count {
      let slot = makeSlot("scheduler")
      work.slots.append(slot)
      addThread(slot) { waits, delays in
        slot.post(thenWaits: waits)
        delays.pause()
        work.schedule()
      }
    }
  }

  func addExecutor() {
    let slot = makeSlot("executor")
    addThread(slot) { [loop] waits, delays in
      slot.post(thenWaits: waits)
      delays.pause()
      loop.execute { slot.take() }
    }
  }

  /// A thread that defers a call in each exit, as a vCPU does for a used ring, under the lock.
  func addDeferringVCPU() {
    let slot = makeSlot("deferring vcpu")
    // Used by the thread under the lock, and by the loop.
    nonisolated(unsafe) let call = SlotCall(loop: loop, slot: slot)
    addThread(slot) { [self] waits, delays in
      lock.lock()
      delays.pause()
      slot.post(thenWaits: waits)
      loop.beginBatch()
      call.deferToBatchEnd()
      loop.endBatch()
      delays.pause()
      lock.unlock()
    }
  }

  /// A thread that queues an entry on the loop's ring in each exit, under the lock; where there is no ring, it defers.
  func addQueuingVCPU() {
    guard let ring else { return addDeferringVCPU() }
    // Used under the lock, as by the loop.
    nonisolated(unsafe) let sharedRing = ring
    let place = UInt64(slots.count)
    let slot = makeSlot("queuing vcpu")
    addThread(slot) { [self] waits, delays in
      lock.lock()
      while !sharedRing.hasRoom && !isLost.load(ordering: .relaxed) {
        lock.unlock()
        sched_yield()
        lock.lock()
      }
      delays.pause()
      if sharedRing.hasRoom {
        slot.post(thenWaits: waits)
        loop.beginBatch()
        let entry = sharedRing.takeEntry()
        io_uring_prep_nop(entry)
        sharedRing.enqueue(entry, client: clientNumber, token: place)
        loop.endBatch()
      }
      delays.pause()
      lock.unlock()
    }
  }

  /// Ends when each piece of work has been seen.
  /// - Returns: the state in which nothing moved any more; nil where all went well.
  func run() throws -> String? {
    client.slots = slots
    step.slots = slots
    let total = slots.count * roundsPerThread
    let loopThread = try HostThread(name: "loop") { [self] in runLoop(until: total) }
    isReady.wait()
    let threads = try bodies.map { try HostThread(name: $0.name, $0.body) }
    try interrupter.start(seed: 73)
    guard done.wait(secondsMax: Self.watchdogSeconds) else {
      let state = describe()
      // Those that can still end do. A loop that nothing wakes cannot, and is left behind.
      isLost.store(true, ordering: .sequentiallyConsistent)
      slots.forEach { $0.gate.open() }
      loop.notifier.event.signal()
      interrupter.stop()
      return state
    }
    interrupter.stop()
    loopThread.join()
    threads.forEach { $0.join() }
    return nil
  }

  private func runLoop(until total: Int) {
    interrupter.include()
    lock.lock()
    loop.claim()
    var delays = Delays(seed: 74)
    loop.setSleepHooks(
      before: { [self] in
        interrupter.hold()
        sleeps += 1
        delays.pause()
        lock.unlock()
        delays.pause()
      },
      after: { [self] in
        delays.pause()
        lock.lock()
        interrupter.letIn()
      })
    isReady.open()
    while slots.reduce(0, { $0 + $1.seen.load(ordering: .relaxed) }) < total && !isLost.load(ordering: .relaxed) {
      loop.runOnce(mayBlock: true)
      delays.pause()
      if lock.isContended {
        lock.unlock()
        sched_yield()
        lock.lock()
      }
    }
    loop.removeSleepHooks()
    loop.release()
    lock.unlock()
    done.open()
  }

  private func describe() -> String {
    var lines = slots.map {
      "\($0.name): \($0.posted.load(ordering: .relaxed)) posted, \($0.seen.load(ordering: .relaxed)) seen"
    }
    lines.append("\(loop.wakeStatistics)")
    lines.append("pending \(loop.pending.load(ordering: .relaxed)), sleeps \(sleeps)")
    if lock.tryLock() {
      lines.append("the lock is free; deferred \(loop.deferred.count), queued \(ring?.queuedCount ?? 0)")
      lines.append("in flight \(ring?.inFlightCount ?? 0), of the monitor \(ring?.monitorEntries ?? 0)")
      lock.unlock()
    } else {
      lines.append("the lock is held")
    }
    return lines.joined(separator: "\n")
  }
}

@Suite(.serialized) struct WakeStressTests {
  /// Many threads: the loop is kept busy, and has hardly found nothing to do when something comes.
  @Test(arguments: usableMonitors, [WakePolicy.elided, .always])
  func manyThreadsLoseNoWakeupOfALoopWithoutTimers(monitor: LoopMonitor, policy: WakePolicy) throws {
    let stress = try Stress(monitor, policy, isInStep: false, roundsPerThread: 6000)
    stress.addSchedulers(1)
    stress.addSchedulers(2)
    stress.addExecutor()
    stress.addDeferringVCPU()
    stress.addQueuingVCPU()
    try check(stress, policy)
  }

  /// Threads in step, so that no later work hides what the loop has missed; it sleeps all the time.
  @Test(arguments: usableMonitors, [WakePolicy.elided, .always])
  func threadsInStepLoseNoWakeup(monitor: LoopMonitor, policy: WakePolicy) throws {
    let stress = try Stress(monitor, policy, isInStep: true, roundsPerThread: 5000)
    stress.addSchedulers(1)
    stress.addExecutor()
    stress.addQueuingVCPU()
    try check(stress, policy)
  }

  private func check(_ stress: Stress, _ policy: WakePolicy) throws {
    if let state = try stress.run() {
      Issue.record("a wakeup is lost; the loop sleeps on:\n\(state)")
      return
    }
    let statistics = stress.loop.wakeStatistics
    // It has slept, and was woken by others: otherwise nothing was tried.
    #expect(stress.sleeps > 0)
    #expect(statistics.wakeups > 0)
    if policy == .always {
      #expect(statistics.eventWrites == statistics.notifications)
    } else {
      // No second write until the loop has taken the first.
      #expect(statistics.eventWrites <= statistics.wakeups + 1)
    }
    // No timer has helped.
    #expect(stress.loop.timers.isEmpty && stress.loop.nextTimeout() == nil)
  }
}
