// SPDX-License-Identifier: Apache-2.0
import CLinux
import EventLoop
import Glibc
import HostSystem
import Synchronization
import Tracing

/// Starts the threads of a pool; a base class, so that tests can refuse.
class WorkerStarter: @unchecked Sendable {
  /// Starts a thread that runs `body`.
  func start(_ body: @escaping @Sendable () -> Void) throws(SystemError) -> HostThread {
    try HostThread(name: "io worker", body)
  }
}

/// One thread of a pool: a slot, reused when the thread has ended. Guarded by the pool's lock.
struct Worker {
  // Taken out of the idle list, to look at the queue.
  var isCalled = false
  // Link in the idle or the unused list.
  var next: UnsafeMutablePointer<Worker>?
  // nil until the thread that started it has stored it.
  var thread: HostThread?
  // It ended before its thread was stored here.
  var hasEnded = false
}

/// Threads that take operations from one queue, in order, and perform them.
///
/// Whoever queues operations wakes or starts one worker at most, and each worker sees to the next before it takes its own:
/// the loop's thread would spend longer on a row of wakes than the disk needs. Measured with random reads of 4 KiB, that
/// is 5 to 10 % more at depth 16 and 64, and more robust on busy processors than workers that give way to others once
/// (sched_yield) before they sleep; workers that spin before they sleep cost 20 % on two processors. The worker that fell
/// asleep last is woken first, so that those too many stay idle and end. The methods are for the loop thread, where
/// nothing else is said.
final class WorkerPool: @unchecked Sendable {
  private let limits: ThreadPoolLimits
  private let port: FilePort
  private let starter: WorkerStarter
  private let completions: BottomHalf
  private let slots: UnsafeMutablePointer<Worker>
  // One for each slot. 1: look at `isCalled`. Set by whoever called the worker, cleared by the worker before it sleeps; one
  // ring too many does no harm.
  private let bells: UnsafeMutablePointer<UInt32>
  // Operations done and not taken by the loop thread: a stack linked through `next`, that workers push to.
  private let completed = Atomic<UInt>(0)

  // All below: guarded by `lock`, which the loop thread and the workers hold for a few instructions.
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  // The last worker has ended. Waited for by `end`, signalled by that worker.
  private let allEnded = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var queue = OperationQueue()
  private var queuedCount = 0
  private var idle: UnsafeMutablePointer<Worker>?
  private var unused: UnsafeMutablePointer<Worker>?
  // Workers that were called or are being started, and have not come to the queue.
  private var comingCount = 0
  // No thread could be started since operations were queued last.
  private var isStartRefused = false
  // Threads that have ended and are not joined. The next that ends joins those before it.
  private var ended: [HostThread] = []
  private var isEnding = false
  private var counts = ThreadPoolStatistics()

  init(limits: ThreadPoolLimits, port: FilePort, starter: WorkerStarter, completions: BottomHalf) {
    self.limits = limits
    self.port = port
    self.starter = starter
    self.completions = completions
    slots = .allocate(capacity: limits.workersMax)
    slots.initialize(repeating: Worker(), count: limits.workersMax)
    bells = .allocate(capacity: limits.workersMax)
    bells.initialize(repeating: 0, count: limits.workersMax)
    pthread_mutex_init(lock, nil)
    pthread_cond_init(allEnded, nil)
    for index in (0..<limits.workersMax).reversed() { pushUnused(slots + index) }
  }

  /// Workers keep the pool alive, so there are none.
  deinit {
    pthread_cond_destroy(allEnded)
    pthread_mutex_destroy(lock)
    allEnded.deallocate()
    lock.deallocate()
    slots.deinitialize(count: limits.workersMax)
    slots.deallocate()
    bells.deallocate()
  }

  /// Any thread.
  var statistics: ThreadPoolStatistics {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    return counts
  }

  // MARK: Work in

  /// Queues operations and sees to it that there are workers for them, as far as the limits allow.
  /// - Returns: operations that will never be done, since there is no worker and none can be started.
  func submit(_ batch: inout OperationQueue, count: Int) -> OperationQueue {
    pthread_mutex_lock(lock)
    queue.append(all: &batch)
    queuedCount += count
    counts.handovers += 1
    isStartRefused = false
    let helper = recruit()
    pthread_mutex_unlock(lock)
    guard let helper else { return OperationQueue() }
    return summon(helper)
  }

  /// Starts the workers that are always there. Where that fails, operations will try again.
  func startLeast() {
    pthread_mutex_lock(lock)
    let first = limits.workersMin > 0 ? reserve() : nil
    pthread_mutex_unlock(lock)
    if let first { _ = summon(first) }
  }

  /// Takes back an operation that no worker has taken.
  /// - Returns: whether it was there.
  func remove(_ operation: UnsafeMutablePointer<IOOperation>) -> Bool {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    guard queue.remove(operation) else { return false }
    queuedCount -= 1
    return true
  }

  /// Ends and joins all workers, which finish what is queued before. Nothing is submitted any more.
  func end() {
    pthread_mutex_lock(lock)
    isEnding = true
    // From here on nobody goes to sleep any more.
    while let worker = callIdle() { ring(worker) }
    while counts.workers > 0 { pthread_cond_wait(allEnded, lock) }
    // Complete: a worker is counted until it has stored the thread of the one that it started.
    let threads = ended
    ended = []
    pthread_mutex_unlock(lock)
    for thread in threads { thread.join() }
  }

  // MARK: Work out

  /// Moves what is done to the end of `list`, oldest first.
  func takeCompleted(into list: inout OperationQueue) {
    // Acquire: pairs with the release in `complete`. The stack holds the youngest first, and is turned round.
    var stack = UnsafeMutablePointer<IOOperation>(bitPattern: completed.exchange(0, ordering: .acquiring))
    var inOrder = OperationQueue()
    while let operation = stack {
      stack = operation.pointee.next
      inOrder.prepend(operation)
    }
    list.append(all: &inOrder)
  }

  /// Hands an operation that is done to the loop. Worker.
  @inline(__always)
  private func complete(_ operation: UnsafeMutablePointer<IOOperation>) {
    let pointer = UInt(bitPattern: operation)
    var head = completed.load(ordering: .relaxed)
    while true {
      operation.pointee.next = UnsafeMutablePointer(bitPattern: head)
      // Release: pairs with the acquiring exchange in `takeCompleted`.
      let (isDone, now) = completed.compareExchange(expected: head, desired: pointer, ordering: .releasing)
      if isDone { break }
      head = now
    }
    // Where the stack was not empty, whoever pushed its first operation announces both.
    if head == 0 { completions.schedule() }
  }

  // MARK: The life of a worker

  private func run(_ me: UnsafeMutablePointer<Worker>) {
    pthread_mutex_lock(lock)
    comingCount -= 1
    if counts.workers < limits.workersMin && !isEnding, let next = reserve() { summonUnlocked(next) }
    repeat { performQueued() } while waitForCall(me)
    finishLocked(me)
  }

  /// Performs operations until none is queued. Called and returns with the lock held.
  private func performQueued() {
    while !queue.isEmpty {
      // This one is for us. Help for the others is sent for before it is taken, so that nobody overtakes us afterwards.
      comingCount += 1
      if let helper = recruit() { summonUnlocked(helper) }
      comingCount -= 1
      guard let operation = queue.takeFirst() else { return }
      queuedCount -= 1
      port.taken(operation)
      pthread_mutex_unlock(lock)
      Tracing.record(.submitted, request: operation.pointee.request)
      operation.perform(through: port)
      complete(operation)
      pthread_mutex_lock(lock)
    }
  }

  /// Sleeps until there may be work. Called and returns with the lock held.
  /// - Returns: false where the worker is to end.
  private func waitForCall(_ me: UnsafeMutablePointer<Worker>) -> Bool {
    if isEnding { return false }
    if limits.idleNs == 0 && counts.workers > limits.workersMin { return false }
    pushIdle(me)
    var wasLong = false
    while !me.pointee.isCalled {
      let mayEnd = counts.workers > limits.workersMin
      if wasLong && mayEnd {
        removeIdle(me)
        return false
      }
      // With the lock held, so before any ring for a call that comes after this.
      clinux_store32_ordered(bell(of: me), 0)
      pthread_mutex_unlock(lock)
      wasLong = listen(me, timeoutNs: mayEnd ? limits.idleNs : nil)
      pthread_mutex_lock(lock)
    }
    me.pointee.isCalled = false
    comingCount -= 1
    return true
  }

  /// Leaves the pool, and gives the lock back.
  private func finishLocked(_ me: UnsafeMutablePointer<Worker>) {
    let before = ended
    ended = []
    counts.workers -= 1
    if let thread = me.pointee.thread {
      retire(me, thread)
    } else {
      me.pointee.hasEnded = true
    }
    if counts.workers == 0 && isEnding { pthread_cond_signal(allEnded) }
    pthread_mutex_unlock(lock)
    for thread in before { thread.join() }
  }

  // MARK: Waking and starting

  /// A worker that is to be woken, or started.
  private struct Recruit {
    var worker: UnsafeMutablePointer<Worker>
    var isNew: Bool
  }

  /// Finds a worker for queued operations where more are queued than workers are on their way. With the lock held; follow
  /// with `summon`.
  private func recruit() -> Recruit? {
    guard queuedCount > comingCount else { return nil }
    if let worker = callIdle() {
      counts.wakes += 1
      return Recruit(worker: worker, isNew: false)
    }
    return counts.workers < limits.workersMax && !isStartRefused ? reserve() : nil
  }

  /// Takes a slot for a new worker. With the lock held.
  private func reserve() -> Recruit? {
    guard let worker = unused else { return nil }
    unused = worker.pointee.next
    comingCount += 1
    counts.workers += 1
    counts.workersMost = max(counts.workersMost, counts.workers)
    return Recruit(worker: worker, isNew: true)
  }

  /// Wakes or starts a worker, without the lock: that takes a while. Any thread.
  /// - Returns: operations that nobody is left to perform, since it could not be started.
  private func summon(_ recruit: Recruit) -> OperationQueue {
    if recruit.isNew { return start(recruit.worker) }
    ring(recruit.worker)
    return OperationQueue()
  }

  /// Gives the lock back for `summon`. Worker: there is one then, so nothing is refused.
  private func summonUnlocked(_ recruit: Recruit) {
    pthread_mutex_unlock(lock)
    _ = summon(recruit)
    pthread_mutex_lock(lock)
  }

  private func start(_ worker: UnsafeMutablePointer<Worker>) -> OperationQueue {
    let number = worker - slots
    do throws(SystemError) {
      let thread = try starter.start { self.run(self.slots + number) }
      pthread_mutex_lock(lock)
      if worker.pointee.hasEnded { retire(worker, thread) } else { worker.pointee.thread = thread }
      pthread_mutex_unlock(lock)
      return OperationQueue()
    } catch {
      return startFailed(worker)
    }
  }

  /// Operations wait for the workers there are; where there are none, they are given back.
  private func startFailed(_ worker: UnsafeMutablePointer<Worker>) -> OperationQueue {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    isStartRefused = true
    comingCount -= 1
    counts.workers -= 1
    pushUnused(worker)
    var refused = OperationQueue()
    if counts.workers == 0 {
      refused.append(all: &queue)
      queuedCount = 0
    }
    return refused
  }

  /// Gives the slot of a worker that has ended back; its thread is to be joined. With the lock held.
  private func retire(_ worker: UnsafeMutablePointer<Worker>, _ thread: HostThread) {
    ended.append(thread)
    worker.pointee.thread = nil
    worker.pointee.hasEnded = false
    pushUnused(worker)
  }

  private func pushUnused(_ worker: UnsafeMutablePointer<Worker>) {
    worker.pointee.next = unused
    unused = worker
  }

  // MARK: Idle workers. With the lock held, but for the bell.

  private func pushIdle(_ worker: UnsafeMutablePointer<Worker>) {
    worker.pointee.next = idle
    idle = worker
    counts.idle += 1
  }

  private func removeIdle(_ worker: UnsafeMutablePointer<Worker>) {
    if idle == worker {
      idle = worker.pointee.next
    } else {
      var before = idle
      while let other = before, other.pointee.next != worker { before = other.pointee.next }
      before?.pointee.next = worker.pointee.next
    }
    counts.idle -= 1
  }

  /// Takes a worker out of the idle list, for its bell to be rung.
  private func callIdle() -> UnsafeMutablePointer<Worker>? {
    guard let worker = idle else { return nil }
    idle = worker.pointee.next
    worker.pointee.isCalled = true
    comingCount += 1
    counts.idle -= 1
    return worker
  }

  private func bell(of worker: UnsafeMutablePointer<Worker>) -> UnsafeMutablePointer<UInt32> {
    bells + (worker - slots)
  }

  /// Wakes a worker that was called. Any thread.
  private func ring(_ worker: UnsafeMutablePointer<Worker>) {
    // Pairs with the look at the bell that FUTEX_WAIT takes before it sleeps.
    clinux_store32_ordered(bell(of: worker), 1)
    _ = clinux_futex_wake(bell(of: worker), 1)
  }

  /// Worker: sleeps until its bell is rung, or something else wakes it.
  /// - Returns: whether the time is over.
  private func listen(_ me: UnsafeMutablePointer<Worker>, timeoutNs: UInt64?) -> Bool {
    guard let timeoutNs else {
      _ = clinux_futex_wait(bell(of: me), 0, nil)
      return false
    }
    let second: UInt64 = 1_000_000_000
    var timeout = timespec(tv_sec: Int(clamping: timeoutNs / second), tv_nsec: Int(timeoutNs % second))
    return clinux_futex_wait(bell(of: me), 0, &timeout) == -ETIMEDOUT
  }
}
