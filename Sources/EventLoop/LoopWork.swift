// SPDX-License-Identifier: Apache-2.0
// What a loop runs beside its descriptors: bottom halves and closures of any thread, timers, and what was put off to the
// end of a batch.
import HostSystem
import Synchronization

/// Runs the closures handed to `execute`, in order.
final class ClosureRunner: BottomHalf, @unchecked Sendable {
  override func run() {
    let work = loop.closures.withLock { queue in
      let all = queue
      queue = []
      return all
    }
    for closure in work { closure() }
  }
}

extension EventLoop {
  // MARK: Bottom halves

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
  func runPending() -> Bool {
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

  // MARK: Timers

  var timerDeadline: UInt64 { timers.reduce(UInt64.max) { min($0, $1.deadline ?? .max) } }

  func fireTimers() -> Bool {
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

  // MARK: Batches. Loop thread, or one that the loop thread has lent its state to.

  /// Whether a batch is open.
  public var isInBatch: Bool { batchDepth > 0 }

  /// Begins a batch; batches nest.
  public func beginBatch() { batchDepth += 1 }

  /// Ends a batch. The outermost end runs what was deferred, and what that defers in turn.
  public func endBatch() {
    if batchDepth == 1 && deferredNext < deferred.count && mayRunDeferred { runDeferred() }
    batchDepth -= 1
    if batchDepth == 0 && submission == .vcpu && !isOnLoop { submitFromVCPU() }
  }

  /// What the kernel does not take now is the loop's to try again, and it has to hear of it.
  private func submitFromVCPU() {
    guard let sharedRing, sharedRing.queuedCount > 0 else { return }
    sharedRing.submit()
    if sharedRing.queuedCount > 0 { notifier.notify() }
  }

  /// What a vCPU has deferred is for the loop thread, which has been woken.
  private var mayRunDeferred: Bool { !isLent || isOnLoop }

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

  /// Runs `call` once at the end of the outermost batch, or at once where none is open; see `DeferredCall`.
  public func deferToBatchEnd(_ call: DeferredCall) {
    if call.isDeferred { return }
    let isOurs = mayRunDeferred
    if batchDepth == 0 && isOurs {
      call.run()
      return
    }
    call.isDeferred = true
    deferred.append(Unmanaged.passUnretained(call))
    // The lost wakeup of QEMU's AHCI: what a vCPU has queued for submission must not wait for the loop's next timer.
    if !isOurs { notifier.notifySubmission() }
  }
}
