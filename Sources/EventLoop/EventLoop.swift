// SPDX-License-Identifier: Apache-2.0
// EventLoop: one loop a thread: descriptors, bottom halves, timers, batches, adaptive polling, the wake protocol and the
// loop's ring. It knows nothing of disks or devices.
import CLinux
import Glibc
import HostSystem
import Synchronization
import Tracing

/// An event loop: one thread that sleeps until a descriptor, a timer or another thread has work for it.
///
/// A round runs bottom halves, timers and completions; where there were none it polls memory, then sleeps, and handles
/// what woke it. Everything that a round does is one batch, so whatever it causes is submitted together at its end.
/// "Loop thread" means the thread inside `run`, `runOnce` or between `claim` and `release`, or, where no thread is, the one
/// that owns the loop. Callbacks may call `runOnce` again (a nested round). A program with a main loop of its own drives
/// the same rounds step by step (HostLoop.swift).
public final class EventLoop: @unchecked Sendable {
  /// For logs and thread names.
  public let name: String
  /// Longest time in nanoseconds that a round polls before it sleeps; 0 (the default) for never. Set before `run`.
  public var pollNsMax: UInt64 = 0 {
    didSet { polling = AdaptivePolling(nsMax: pollNsMax) }
  }

  /// Rounds in a row that polling may serve before the loop looks at every descriptor again.
  private static let polledRoundsMax = 64
  /// How long a loop sleeps at most while the ring needs a look without anything that would wake the loop for it.
  private static let ringRetryNs: UInt64 = 1_000_000

  /// Who enters the kernel for what a vCPU queues.
  public let submission: SubmissionThread
  let notifier: LoopNotifier
  // Bottom halves that are scheduled and have not run: a stack that any thread pushes to, taken whole by the loop thread.
  let pending = Atomic<UInt>(0)
  let stopping = Atomic<Bool>(false)
  // The thread that the loop belongs to, 0 for none. Written by that thread, compared by any.
  private let owner = Atomic<UInt>(0)
  let closures = Mutex<[@Sendable () -> Void]>([])
  var closureRunner: ClosureRunner!
  let watchList = WatchList()
  // Made with the loop and kept, because any thread may ask it to drop a descriptor.
  let epollMonitor: EpollMonitor?

  // All below: loop thread only.
  var monitor: DescriptorMonitor
  // The ring may still complete entries of a monitor that is out of use.
  var retiredMonitors: [DescriptorMonitor] = []
  /// Why the loop does not use the monitor that it was made with any more; nil while it does.
  public internal(set) var fallbackReason: String?
  // What a host loop polls, from `prepare` to `check`.
  var hostDescriptors: [pollfd] = []
  var readers: [Int32: ReaderHandler] = [:]
  var timers: [LoopTimer] = []
  // Bottom halves taken from `pending` that have not run, oldest first, linked by `nextPending`.
  var readyFirst: UInt = 0
  var readyLast: UInt = 0
  var batchDepth = 0
  var deferred: [Unmanaged<DeferredCall>] = []
  var deferredNext = 0
  var polling = AdaptivePolling(nsMax: 0)
  private var polledRounds = 0
  // Handlers are between `pollBegin` and `pollEnd`.
  private var isPolling = false
  var sharedRing: LoopRing?
  var ringHandler: RingHandler?
  private var beforeSleep: () -> Void = {}
  private var afterSleep: () -> Void = {}
  // While the loop sleeps, other threads may own what belongs to the loop thread.
  private(set) var isLent = false

  /// Makes a loop; it runs on the thread that calls `run`.
  /// - Parameters:
  ///   - monitor: how it watches descriptors; `.auto` takes the best that works.
  ///   - isHosted: a host loop will drive it (HostLoop.swift).
  ///   - submission: who enters the kernel for what a vCPU queues; `.vcpu` goes with monitors that do not sleep in the
  ///     ring, so `.auto` takes epoll then.
  /// - Throws: what eventfd, epoll_create1 or io_uring_setup said; `.auto` and `.poll` need only the eventfd.
  public init(
    name: String, wakePolicy: WakePolicy = .elided, monitor: LoopMonitor = .poll, isHosted: Bool = false,
    submission: SubmissionThread = .loop
  ) throws(SystemError) {
    precondition(submission == .loop || monitor != .ioUring, "a loop that sleeps in its ring submits itself")
    self.name = name
    self.submission = submission
    notifier = try LoopNotifier(policy: wakePolicy)
    epollMonitor = try Self.makeEpoll(monitor, watchList)
    self.monitor = epollMonitor ?? PollMonitor(list: watchList)
    closureRunner = ClosureRunner(loop: self)
    if monitor == .ioUring || (monitor == .auto && submission == .loop) {
      try useRing(isRequired: monitor == .ioUring, isHosted: isHosted)
    }
    add(NotifierHandler(notifier: notifier))
  }

  /// Counts of the wake protocol. Any thread.
  public var wakeStatistics: WakeStatistics { notifier.statistics }

  /// When other threads wake the loop. Any thread.
  public var wakePolicy: WakePolicy { notifier.policy }

  // MARK: Whose it is

  /// Makes the calling thread the loop thread until `release`, also between rounds. Threads that call `run` need not.
  public func claim() {
    let previous = owner.exchange(UInt(pthread_self()), ordering: .relaxed)
    precondition(previous == 0 || previous == UInt(pthread_self()), "loop \(name) belongs to another thread")
  }

  /// Ends `claim`.
  public func release() { owner.store(0, ordering: .relaxed) }

  /// Whether the calling thread is the loop thread, or no thread is.
  public var isOnLoop: Bool {
    let current = owner.load(ordering: .relaxed)
    return current == 0 || current == UInt(pthread_self())
  }

  /// States that the caller must be the loop thread.
  public func preconditionOnLoop() { precondition(isOnLoop, "not on the thread of loop \(name)") }

  /// Called around each sleep that may block; whoever `before` lets in (by giving back the machine lock) may use what
  /// belongs to the loop thread until `after` returns. Set between rounds.
  public func setSleepHooks(before: @escaping () -> Void, after: @escaping () -> Void) {
    beforeSleep = before
    afterSleep = after
    isLent = true
  }

  /// Ends `setSleepHooks`.
  public func removeSleepHooks() {
    beforeSleep = {}
    afterSleep = {}
    isLent = false
  }

  // MARK: Running

  /// Runs until `stop`.
  public func run() {
    let outer = owner.exchange(UInt(pthread_self()), ordering: .relaxed)
    defer { owner.store(outer, ordering: .relaxed) }
    while !stopping.exchange(false, ordering: .acquiringAndReleasing) { runOnce(mayBlock: true) }
  }

  /// Ends `run` after the round it is in. Any thread.
  public func stop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    notifier.notify()
  }

  /// One round; sleeps at most once, and only where there was nothing to do. Loop thread; nests.
  /// - Returns: whether anything was done.
  @discardableResult
  public func runOnce(mayBlock: Bool) -> Bool {
    let outer = enterRound()
    defer { leaveRound(outer) }
    var progress = outer.hadDeferred
    progress = runQueuedWork() || progress
    if mayBlock && !progress { return waitForWork() }
    // While the loop polls, handlers may have turned off their notifications, so a look at descriptors is not enough.
    if isPolling { progress = eachPollable { $0.poll() } || progress }
    return look() || progress
  }

  /// What a round found when it began.
  struct OuterRound {
    var owner: UInt
    var batchDepth: Int
    var hadDeferred: Bool
  }

  /// Begins a round. A nested one must not wait for what its callers have deferred, so it runs that first, in a batch of its
  /// own; what the caller waits for may be done then, so that counts as progress.
  func enterRound() -> OuterRound {
    preconditionOnLoop()
    let previous = owner.exchange(UInt(pthread_self()), ordering: .relaxed)
    let outer = OuterRound(owner: previous, batchDepth: batchDepth, hadDeferred: deferredNext < deferred.count)
    batchDepth = 1
    endBatch()
    return outer
  }

  func leaveRound(_ outer: OuterRound) {
    batchDepth = outer.batchDepth
    owner.store(outer.owner, ordering: .relaxed)
  }

  /// Bottom halves, expired timers and completions.
  func runQueuedWork() -> Bool {
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
    _ = look()
    return true
  }

  /// - Parameter start: when the loop ran out of work, where adaptive polling wants to learn how long that lasted.
  private func sleepAndDispatch(since start: UInt64?) -> Bool {
    if isPolling && endPolling() { return true }
    notifier.prepareToSleep()
    // Work that came before this is seen here; a thread that queues later sees that we may sleep, and writes the eventfd.
    applyChanges()
    let timeout = hasWork ? 0 : nextTimeout()
    monitor.prepare(timeoutNs: timeout)
    if timeout == 0 {
      monitor.wait(timeoutNs: 0)
    } else {
      // Before others are let in, so that what they queue for the sleeping loop comes after it.
      Tracing.record(.sleeping, value: Tracing.tag(of: notifier))
      beforeSleep()
      monitor.wait(timeoutNs: timeout)
      Tracing.record(.woken, value: Tracing.tag(of: notifier))
      // Before the hook and the handlers, whose own time says nothing about how long polling would have taken.
      if let start { polling.eventCame(after: HostClock.nanoseconds &- start) }
      afterSleep()
    }
    notifier.finishSleep()
    let progress = collectAndDispatch()
    return runQueuedWork() || progress
  }

  /// Handles what is ready now, without a wait. Handing over to the kernel takes its time, so others are let in meanwhile.
  private func look() -> Bool {
    applyChanges()
    monitor.prepare(timeoutNs: 0)
    let lends = isLent && monitor.handsOver
    if lends { beforeSleep() }
    monitor.wait(timeoutNs: 0)
    if lends { afterSleep() }
    return collectAndDispatch()
  }

  func collectAndDispatch() -> Bool {
    beginBatch()
    defer { endBatch() }
    monitor.collect()
    return dispatchReady()
  }

  /// Whether there is something that a sleep must not delay.
  var hasWork: Bool {
    hasPendingWork || watchList.hasReady || deferredNext < deferred.count || sharedRing?.hasCompletions == true
  }

  private var hasPendingWork: Bool {
    pending.load(ordering: .relaxed) != 0 || readyFirst != 0 || stopping.load(ordering: .relaxed)
  }

  /// Nanoseconds until the loop has to wake by itself; nil for never.
  func nextTimeout() -> UInt64? {
    var timeout: UInt64?
    if !timers.isEmpty {
      let now = HostClock.nanoseconds
      let deadline = timerDeadline
      timeout = deadline > now ? deadline - now : 0
    }
    if let sharedRing, sharedRing.needsRetry || mustVisit(sharedRing) {
      timeout = min(timeout ?? .max, Self.ringRetryNs)
    }
    return timeout
  }

  /// After a fallback from a monitor whose ring nobody can watch from outside, the loop looks after it now and then.
  private func mustVisit(_ ring: LoopRing) -> Bool {
    fallbackReason != nil && ring.descriptor == nil && ring.inFlightCount > ring.monitorEntries
      && monitor.kind != .ioUring
  }

  // MARK: Adaptive polling

  /// Looks for work in memory until there is some or the time is over. Where there was some, the handlers stay in their
  /// polling state for the next round: only a loop that goes to sleep needs notifications.
  private func poll(until deadline: UInt64) -> Bool {
    sharedRing?.submit()
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

  /// Asks each pollable handler, and the ring, in one batch. By index, because a handler may remove others, which are not
  /// asked any more.
  @discardableResult @inline(__always)
  private func eachPollable(_ body: (DescriptorHandler) -> Bool) -> Bool {
    beginBatch()
    defer { endBatch() }
    var found = sharedRing?.reap() ?? false
    var index = 0
    while index < watchList.pollable.count {
      let handler = watchList.pollable[index]
      // Another thread may have removed it, and the loop has not come to that.
      if handler.wanted.load(ordering: .acquiring) != 0 { found = body(handler) || found }
      index += 1
    }
    return found
  }
}
