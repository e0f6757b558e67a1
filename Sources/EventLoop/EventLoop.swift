// SPDX-License-Identifier: Apache-2.0
// EventLoop: one loop a thread: descriptors, bottom halves, timers, batches, adaptive polling, the wake protocol and the
// loop's ring. It knows nothing of disks or devices.
import CLinux
import Glibc
import HostSystem
import Synchronization

/// An event loop: one thread that sleeps until a descriptor, a timer or another thread has work for it.
///
/// A round runs bottom halves, timers and completions; where there were none it polls memory, then sleeps, and handles
/// what woke it. Everything that a round does is one batch, so whatever it causes is submitted together at its end.
/// "Loop thread" means the thread inside `run` or `runOnce`, or, between rounds, the one that owns the loop. Callbacks
/// may call `runOnce` again (a nested round).
public final class EventLoop: @unchecked Sendable {
  /// For logs and thread names.
  public let name: String
  /// Longest time in nanoseconds that a round polls before it sleeps; 0 (the default) for never. Set before `run`.
  public var pollNsMax: UInt64 = 0 {
    didSet { polling = AdaptivePolling(nsMax: pollNsMax) }
  }

  /// How long a loop sleeps at most while the kernel does not take the ring's entries.
  private static let ringRetryNs: UInt64 = 1_000_000

  private let notifier: LoopNotifier
  // Bottom halves that are scheduled and have not run: a stack that any thread pushes to, taken whole by the loop thread.
  private let pending = Atomic<UInt>(0)
  private let stopping = Atomic<Bool>(false)
  // The thread in a round, 0 between rounds. Written by the loop thread, compared by any.
  private let runner = Atomic<UInt>(0)
  private let closures = Mutex<[@Sendable () -> Void]>([])
  private var closureRunner: ClosureRunner!

  // All below: loop thread only.
  private let monitor = PollMonitor()
  private var readers: [Int32: ReaderHandler] = [:]
  var timers: [LoopTimer] = []
  private var batchDepth = 0
  private var deferred: [Unmanaged<DeferredCall>] = []
  private var deferredNext = 0
  private var polling = AdaptivePolling(nsMax: 0)
  private var sharedRing: LoopRing?
  private var ringHandler: RingHandler?
  private var beforeSleep: () -> Void = {}
  private var afterSleep: () -> Void = {}

  /// Runs the closures handed to `execute`, in order.
  private final class ClosureRunner: BottomHalf, @unchecked Sendable {
    override func run() {
      let work = loop.closures.withLock { queue in
        let all = queue
        queue = []
        return all
      }
      for closure in work { closure() }
    }
  }

  /// Takes the signal of other threads; what they queued is run by the round itself.
  private final class NotifierHandler: DescriptorHandler {
    private let notifier: LoopNotifier
    init(notifier: LoopNotifier) {
      self.notifier = notifier
      super.init(descriptor: notifier.event.number)
    }
    override func ready() { notifier.accept() }
  }

  /// Wakes the loop for completions of its ring.
  private final class RingHandler: DescriptorHandler {
    private unowned(unsafe) let ring: LoopRing
    init(ring: LoopRing, descriptor: Int32) {
      self.ring = ring
      super.init(descriptor: descriptor, isPollable: true)
    }
    override func ready() { _ = ring.reap() }
    override func poll() -> Bool { ring.reap() }
  }

  /// Makes a loop; it runs on the thread that calls `run`.
  public init(name: String, wakePolicy: WakePolicy = .elided) throws(SystemError) {
    self.name = name
    notifier = try LoopNotifier(policy: wakePolicy)
    closureRunner = ClosureRunner(loop: self)
    monitor.add(NotifierHandler(notifier: notifier))
  }

  /// Counts of the wake protocol. Any thread.
  public var wakeStatistics: WakeStatistics { notifier.statistics }

  // MARK: Running

  /// Runs until `stop`.
  public func run() {
    while !stopping.exchange(false, ordering: .acquiringAndReleasing) { runOnce(mayBlock: true) }
  }

  /// Ends `run` after the round it is in. Any thread.
  public func stop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    notifier.notify()
  }

  /// Whether the calling thread is in a round of this loop, or no thread is.
  public var isOnLoop: Bool {
    let current = runner.load(ordering: .relaxed)
    return current == 0 || current == UInt(pthread_self())
  }

  /// States that the caller must be the loop thread.
  public func preconditionOnLoop() { precondition(isOnLoop, "not on the thread of loop \(name)") }

  /// Called around each sleep that may block (the machine lock is given back for it). Set between rounds.
  public func setSleepHooks(before: @escaping () -> Void, after: @escaping () -> Void) {
    beforeSleep = before
    afterSleep = after
  }

  /// One round; sleeps at most once, and only where there was nothing to do. Loop thread; nests.
  /// - Returns: whether anything was done.
  @discardableResult
  public func runOnce(mayBlock: Bool) -> Bool {
    preconditionOnLoop()
    let outer = runner.exchange(UInt(pthread_self()), ordering: .relaxed)
    // A nested round must not wait for what its callers have deferred, so it runs that first, in a batch of its own.
    let outerDepth = batchDepth
    batchDepth = 1
    endBatch()
    defer {
      batchDepth = outerDepth
      runner.store(outer, ordering: .relaxed)
    }
    var progress = runQueuedWork()
    if mayBlock && !progress {
      progress = waitForWork()
    } else if monitor.wait(timeoutNs: 0) {
      progress = dispatch() || progress
    }
    return progress
  }

  /// Bottom halves, expired timers and completions.
  private func runQueuedWork() -> Bool {
    beginBatch()
    defer { endBatch() }
    var progress = runPending()
    progress = fireTimers() || progress
    return (sharedRing?.reap() ?? false) || progress
  }

  private func waitForWork() -> Bool {
    guard pollNsMax > 0 else { return sleepAndDispatch() }
    let start = HostClock.nanoseconds
    let progress = (polling.ns > 0 && poll(until: start &+ polling.ns)) || sleepAndDispatch()
    if progress { polling.eventCame(after: HostClock.nanoseconds &- start) }
    return progress
  }

  private func sleepAndDispatch() -> Bool {
    notifier.prepareToSleep()
    // Work that came before this is seen here; a thread that queues later sees that we may sleep, and writes the eventfd.
    let mustNotSleep = hasPendingWork || sharedRing?.hasCompletions == true
    let timeout = mustNotSleep ? 0 : nextTimeout()
    let isReady: Bool
    if timeout == 0 {
      isReady = monitor.wait(timeoutNs: 0)
    } else {
      beforeSleep()
      isReady = monitor.wait(timeoutNs: timeout)
      afterSleep()
    }
    notifier.finishSleep()
    let progress = isReady && dispatch()
    return runQueuedWork() || progress
  }

  private func dispatch() -> Bool {
    beginBatch()
    defer { endBatch() }
    return monitor.dispatch()
  }

  private var hasPendingWork: Bool {
    pending.load(ordering: .relaxed) != 0 || stopping.load(ordering: .relaxed)
  }

  /// Looks for work in memory until there is some or the time is over.
  private func poll(until deadline: UInt64) -> Bool {
    for handler in monitor.pollable { handler.pollBegin() }
    var found = false
    repeat {
      clinux_pause()
      beginBatch()
      for handler in monitor.pollable { found = handler.poll() || found }
      endBatch()
      if hasPendingWork { found = runQueuedWork() || found }
    } while !found && !stopping.load(ordering: .relaxed) && HostClock.nanoseconds < min(deadline, timerDeadline)
    beginBatch()
    for handler in monitor.pollable { found = handler.pollEnd() || found }
    endBatch()
    return found
  }

  // MARK: Work from other threads

  /// Runs `work` on the loop thread soon, after everything handed over before. Any thread; for control paths.
  public func execute(_ work: @escaping @Sendable () -> Void) {
    closures.withLock { $0.append(work) }
    schedule(closureRunner)
  }

  func schedule(_ work: BottomHalf) {
    // Acquire-release: pairs with the exchange in `runPending`, so that the run sees what was written before.
    if work.isScheduled.exchange(true, ordering: .acquiringAndReleasing) { return }
    let pointer = UInt(bitPattern: Unmanaged.passUnretained(work).toOpaque())
    var head = pending.load(ordering: .relaxed)
    while true {
      work.nextPending = head
      // Release: pairs with the acquiring exchange in `runPending`.
      let (isDone, now) = pending.compareExchange(expected: head, desired: pointer, ordering: .releasing)
      if isDone { break }
      head = now
    }
    notifier.notify()
  }

  private func runPending() -> Bool {
    if pending.load(ordering: .relaxed) == 0 { return false }
    // The stack holds the youngest first; turned round, work runs in the order in which it was scheduled.
    var stack = pending.exchange(0, ordering: .acquiring)
    var ordered: UInt = 0
    while let work = Self.bottomHalf(stack) {
      let next = work._withUnsafeGuaranteedRef { $0.nextPending }
      work._withUnsafeGuaranteedRef { $0.nextPending = ordered }
      ordered = stack
      stack = next
    }
    while let work = Self.bottomHalf(ordered) {
      work._withUnsafeGuaranteedRef {
        ordered = $0.nextPending
        // Before the run: whoever schedules from here on gets another run.
        _ = $0.isScheduled.exchange(false, ordering: .acquiringAndReleasing)
        if $0.isCancelled.exchange(false, ordering: .acquiringAndReleasing) { return }
        $0.run()
      }
    }
    return true
  }

  private static func bottomHalf(_ bits: UInt) -> Unmanaged<BottomHalf>? {
    UnsafeRawPointer(bitPattern: bits).map { Unmanaged<BottomHalf>.fromOpaque($0) }
  }

  // MARK: Descriptors. Loop thread.

  /// Watches a descriptor; the loop keeps the handler until it is removed.
  public func add(_ handler: DescriptorHandler) {
    preconditionOnLoop()
    monitor.add(handler)
  }

  /// Stops watching; nothing of the handler is called after this returns, and its descriptor may be closed.
  public func remove(_ handler: DescriptorHandler) {
    preconditionOnLoop()
    monitor.remove(handler)
  }

  /// Calls `handler` whenever `descriptor` is readable; for descriptors off the hot path.
  public func addReader(_ descriptor: Int32, _ handler: @escaping () -> Void) {
    let reader = ReaderHandler(descriptor: descriptor, handler)
    readers[descriptor] = reader
    add(reader)
  }

  /// Ends `addReader`.
  public func removeReader(_ descriptor: Int32) {
    if let reader = readers.removeValue(forKey: descriptor) { remove(reader) }
  }

  // MARK: Timers

  private var timerDeadline: UInt64 { timers.reduce(UInt64.max) { min($0, $1.deadline ?? .max) } }

  /// Nanoseconds until the loop has to wake by itself; nil for never.
  private func nextTimeout() -> UInt64? {
    var timeout: UInt64?
    if !timers.isEmpty {
      let now = HostClock.nanoseconds
      let deadline = timerDeadline
      timeout = deadline > now ? deadline - now : 0
    }
    if sharedRing?.needsRetry == true { timeout = min(timeout ?? .max, Self.ringRetryNs) }
    return timeout
  }

  private func fireTimers() -> Bool {
    if timers.isEmpty { return false }
    let now = HostClock.nanoseconds
    let due = timers.filter { $0.deadline.map { $0 <= now } ?? false }.sorted { $0.deadline! < $1.deadline! }
    for timer in due where timer.deadline != nil {
      timer.cancel()
      timer.fired()
    }
    return !due.isEmpty
  }

  // MARK: Batches. Loop thread.

  /// Whether a batch is open.
  public var isInBatch: Bool { batchDepth > 0 }

  /// Begins a batch; batches nest.
  public func beginBatch() { batchDepth += 1 }

  /// Ends a batch. The outermost end runs what was deferred, and what that defers in turn.
  public func endBatch() {
    if batchDepth == 1 { runDeferred() }
    batchDepth -= 1
  }

  /// The position is kept in the loop, so that a nested round that one of the calls runs goes on with the rest.
  private func runDeferred() {
    while deferredNext < deferred.count {
      let call = deferred[deferredNext]
      deferredNext += 1
      call._withUnsafeGuaranteedRef {
        $0.isDeferred = false
        $0.run()
      }
    }
    deferred.removeAll(keepingCapacity: true)
    deferredNext = 0
  }

  /// Runs `call` once at the end of the outermost batch, or at once where none is open.
  public func deferToBatchEnd(_ call: DeferredCall) {
    if call.isDeferred { return }
    if batchDepth == 0 {
      call.run()
      return
    }
    call.isDeferred = true
    deferred.append(Unmanaged.passUnretained(call))
  }

  // MARK: The ring

  /// The loop's ring, made when it is first asked for. Loop thread, or before the loop runs.
  public func ring() throws(SystemError) -> LoopRing {
    if let sharedRing { return sharedRing }
    return install(try KernelRing(entries: LoopRing.entryCount))
  }

  /// Gives the loop a ring whose kernel is `port`; for tests that play the kernel. Before anything asked for the ring.
  public func install(_ port: RingPort) -> LoopRing {
    precondition(sharedRing == nil, "the loop has a ring already")
    let ring = LoopRing(port: port, loop: self)
    sharedRing = ring
    if let descriptor = ring.descriptor {
      let handler = RingHandler(ring: ring, descriptor: descriptor)
      ringHandler = handler
      monitor.add(handler)
    }
    return ring
  }
}
