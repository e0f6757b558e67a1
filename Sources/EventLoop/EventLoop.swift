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

  /// Rounds in a row that polling may serve before the loop looks at every descriptor again.
  private static let polledRoundsMax = 64
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
  // Bottom halves taken from `pending` that have not run, oldest first, linked by `nextPending`.
  private var readyFirst: UInt = 0
  private var readyLast: UInt = 0
  private var batchDepth = 0
  private var deferred: [Unmanaged<DeferredCall>] = []
  private var deferredNext = 0
  var polling = AdaptivePolling(nsMax: 0)
  private var polledRounds = 0
  // Handlers are between `pollBegin` and `pollEnd`.
  private var isPolling = false
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
    // A nested round must not wait for what its callers have deferred, so it runs that first, in a batch of its own; what
    // the caller waits for may be done then, so that counts as progress.
    let outerDepth = batchDepth
    batchDepth = 1
    var progress = deferredNext < deferred.count
    endBatch()
    defer {
      batchDepth = outerDepth
      runner.store(outer, ordering: .relaxed)
    }
    progress = runQueuedWork() || progress
    if mayBlock && !progress { return waitForWork() }
    // While the loop polls, handlers may have turned off their notifications, so a look at descriptors is not enough.
    if isPolling { progress = eachPollable { $0.poll() } || progress }
    if monitor.wait(timeoutNs: 0) { progress = dispatch() || progress }
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
    guard pollNsMax > 0 else { return sleepAndDispatch(since: nil) }
    let start = HostClock.nanoseconds
    guard polling.ns > 0 && poll(until: start &+ polling.ns) else {
      polledRounds = 0
      return sleepAndDispatch(since: start)
    }
    polledRounds += 1
    guard polledRounds >= Self.polledRoundsMax else { return true }
    // Polling that always finds work must not keep the loop from descriptors that cannot be polled.
    polledRounds = 0
    if monitor.wait(timeoutNs: 0) { _ = dispatch() }
    return true
  }

  /// - Parameter start: when the loop ran out of work, where adaptive polling wants to learn how long that lasted.
  private func sleepAndDispatch(since start: UInt64?) -> Bool {
    if isPolling && endPolling() { return true }
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
      // Before the hook and the handlers, whose own time says nothing about how long polling would have taken.
      if let start { polling.eventCame(after: HostClock.nanoseconds &- start) }
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
    pending.load(ordering: .relaxed) != 0 || readyFirst != 0 || stopping.load(ordering: .relaxed)
  }

  /// Looks for work in memory until there is some or the time is over. Where there was some, the handlers stay in their
  /// polling state for the next round: only a loop that goes to sleep needs notifications.
  private func poll(until deadline: UInt64) -> Bool {
    if !isPolling {
      isPolling = true
      eachPollable { handler in
        handler.pollBegin()
        return false
      }
    }
    var found = false
    repeat {
      clinux_pause()
      found = eachPollable { $0.poll() }
      if hasPendingWork { found = runQueuedWork() || found }
      if found { return true }
    } while !stopping.load(ordering: .relaxed) && HostClock.nanoseconds < min(deadline, timerDeadline)
    return endPolling()
  }

  /// Turns notifications on again.
  /// - Returns: whether there was work that had come without one.
  private func endPolling() -> Bool {
    isPolling = false
    return eachPollable { $0.pollEnd() }
  }

  /// Asks each pollable handler, in one batch. By index, because a handler may remove others, which are not asked any more.
  @discardableResult @inline(__always)
  private func eachPollable(_ body: (DescriptorHandler) -> Bool) -> Bool {
    beginBatch()
    defer { endBatch() }
    var found = false
    var index = 0
    while index < monitor.pollable.count {
      found = body(monitor.pollable[index]) || found
      index += 1
    }
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
      // Release: pairs with the acquiring exchange in `takePending`.
      let (isDone, now) = pending.compareExchange(expected: head, desired: pointer, ordering: .releasing)
      if isDone { break }
      head = now
    }
    notifier.notify()
  }

  /// Runs what is scheduled now. The list belongs to the loop, not to this call: a nested round that one of them runs
  /// goes on with the rest, so nobody waits in it for work that an outer round has already taken.
  private func runPending() -> Bool {
    takePending()
    var progress = false
    while let work = Self.bottomHalf(readyFirst) {
      progress = true
      work._withUnsafeGuaranteedRef {
        readyFirst = $0.nextPending
        if readyFirst == 0 { readyLast = 0 }
        // Before the run: whoever schedules from here on gets another run.
        _ = $0.isScheduled.exchange(false, ordering: .acquiringAndReleasing)
        $0.run()
      }
    }
    return progress
  }

  /// Moves what any thread has scheduled to the end of the loop's own list, in the order in which it was scheduled.
  private func takePending() {
    if pending.load(ordering: .relaxed) == 0 { return }
    // Acquire: pairs with the release in `schedule`. The stack holds the youngest first, and is turned round.
    var stack = pending.exchange(0, ordering: .acquiring)
    let youngest = stack
    var oldest: UInt = 0
    while let work = Self.bottomHalf(stack) {
      work._withUnsafeGuaranteedRef {
        let next = $0.nextPending
        $0.nextPending = oldest
        oldest = stack
        stack = next
      }
    }
    if let last = Self.bottomHalf(readyLast) {
      last._withUnsafeGuaranteedRef { $0.nextPending = oldest }
    } else {
      readyFirst = oldest
    }
    readyLast = youngest
  }

  /// Unlinks a bottom half that has not run. Loop thread; a thread that schedules it at the same time may win or lose.
  func unschedule(_ work: BottomHalf) {
    preconditionOnLoop()
    takePending()
    let wanted = UInt(bitPattern: Unmanaged.passUnretained(work).toOpaque())
    var before: UInt = 0
    var current = readyFirst
    while current != wanted, let other = Self.bottomHalf(current) {
      before = current
      current = other._withUnsafeGuaranteedRef { $0.nextPending }
    }
    if current != wanted { return }
    if let other = Self.bottomHalf(before) {
      other._withUnsafeGuaranteedRef { $0.nextPending = work.nextPending }
    } else {
      readyFirst = work.nextPending
    }
    if readyLast == wanted { readyLast = before }
    _ = work.isScheduled.exchange(false, ordering: .acquiringAndReleasing)
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
    for timer in due {
      // One that fired before it may have cancelled this one, or armed it for later.
      guard let deadline = timer.deadline, deadline <= now else { continue }
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
