// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem
import Tracing

/// Operations on files by threads that make calls which block: works with every file and every host (origin: QEMU's
/// thread pool).
///
/// Any number of operations on one descriptor run at the same time, on workers of the engine's own pool. They are taken
/// from one queue in the order in which they were submitted, each at the last moment before its first system call, so a
/// sequential stream reaches the kernel in order (the discussion of AIO on qemu-devel in April 2008). The order of
/// completions is open, and a flush is no barrier: who needs order waits for completions.
public final class ThreadPoolEngine: IOEngine {
  /// Most operations that are queued before they are handed to the workers without waiting for the end of the batch.
  public static let handoverMax = 4

  // Unmanaged, because even a reference that is never released costs atomic adds on the hot path; given back by `deinit`.
  private let pool: Unmanaged<WorkerPool>
  private let completions: Completions
  private let handover: Handover
  private let rest: Rest
  // Submitted in this batch and not handed to the workers, oldest first.
  private var queued = OperationQueue()
  private var queuedCount = 0
  // Done, and being delivered, oldest first. The engine's and not a call's, so that a nested round goes on with the rest.
  private var due = OperationQueue()

  private final class Completions: BottomHalf, @unchecked Sendable {
    var engine: Unmanaged<ThreadPoolEngine>?
    override func run() { engine.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.takeCompleted() } }
  }

  private final class Handover: DeferredCall {
    var engine: Unmanaged<ThreadPoolEngine>?
    override func run() { engine.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.handOver() } }
  }

  /// Delivers, in a nested round, what an outer round has not come to.
  private final class Rest: DeferredCall {
    var engine: Unmanaged<ThreadPoolEngine>?
    override func run() { engine.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.deliverDue() } }
  }

  /// Makes an engine; its workers are started when there is something to do, but for `workersMin`.
  /// - Parameter port: the calls that workers make.
  public convenience init(
    loop: EventLoop, limits: ThreadPoolLimits = ThreadPoolLimits(), port: FilePort = KernelFilePort()
  ) {
    self.init(loop: loop, limits: limits, port: port, starter: WorkerStarter())
  }

  init(loop: EventLoop, limits: ThreadPoolLimits, port: FilePort, starter: WorkerStarter) {
    completions = Completions(loop: loop)
    handover = Handover(loop: loop)
    rest = Rest(loop: loop)
    pool = .passRetained(WorkerPool(limits: limits, port: port, starter: starter, completions: completions))
    super.init(deliveringOn: loop)
    let this = Unmanaged.passUnretained(self)
    completions.engine = this
    handover.engine = this
    rest.engine = this
    pool._withUnsafeGuaranteedRef { $0.startLeast() }
  }

  /// Its owner has closed it; ends the workers where that was forgotten with nothing in flight.
  deinit {
    pool._withUnsafeGuaranteedRef { $0.end() }
    completions.cancel()
    pool.release()
  }

  public override var name: String { "threads" }

  /// Counts of the pool. Any thread.
  public var statistics: ThreadPoolStatistics { pool._withUnsafeGuaranteedRef { $0.statistics } }

  public override func submit(_ operation: UnsafeMutablePointer<IOOperation>) {
    began(operation)
    Tracing.record(.queued, request: operation.pointee.request, value: TraceQueueing.named.rawValue)
    queued.append(operation)
    queuedCount += 1
    if queuedCount >= Self.handoverMax { handOver() } else { handover.deferToBatchEnd() }
  }

  /// What no worker has taken ends at once; what one has taken completes as it does.
  public override func cancel(_ operation: UnsafeMutablePointer<IOOperation>) {
    if queued.remove(operation) {
      queuedCount -= 1
    } else if !pool._withUnsafeGuaranteedRef({ $0.remove(operation) }) {
      return
    }
    finishLater(operation, -ECANCELED)
  }

  public override func close() {
    super.close()
    pool._withUnsafeGuaranteedRef { $0.end() }
    // A worker announces its completion after it has made it visible, so one may be announced that is delivered already.
    completions.cancel()
  }

  private func handOver() {
    if queued.isEmpty { return }
    var batch = queued
    let count = queuedCount
    queued = OperationQueue()
    queuedCount = 0
    var refused = pool._withUnsafeGuaranteedRef { $0.submit(&batch, count: count) }
    while let operation = refused.takeFirst() { finishLater(operation, -EAGAIN) }
  }

  // MARK: From the workers

  private func takeCompleted() {
    pool._withUnsafeGuaranteedRef { $0.takeCompleted(into: &due) }
    deliverDue()
  }

  /// What completes meanwhile waits for the next round, so completions that keep coming do not keep the loop from its
  /// other work.
  private func deliverDue() {
    if due.isEmpty { return }
    rest.deferToBatchEnd()
    while let operation = due.takeFirst() { finish(operation) }
  }
}
