// SPDX-License-Identifier: Apache-2.0

/// Work that is put off to the end of the batch that a loop is in: submissions, used rings, interrupts. A vCPU that the
/// loop's state is lent to defers submissions only; for all else there are bottom halves.
///
/// Preallocated and owned by whoever defers it, for longer than it is deferred. Loop thread, or a thread that the sleeping
/// loop thread has lent the loop's state to (a vCPU that holds the machine lock).
open class DeferredCall {
  /// The loop that runs it.
  public final var loop: EventLoop { loopReference.takeUnretainedValue() }
  // Unmanaged, because this is on the hot path, where even a reference that is never released costs two atomic adds.
  @usableFromInline final let loopReference: Unmanaged<EventLoop>
  @usableFromInline final var isDeferred = false

  /// Makes a call for `loop`, which outlives it.
  public init(loop: EventLoop) { loopReference = Unmanaged.passUnretained(loop) }

  /// Runs this once at the end of the loop's outermost batch, or at once where none is open. Asked for by another thread, it
  /// runs in the loop's next round, and the loop is woken for it.
  @inlinable
  public final func deferToBatchEnd() {
    if isDeferred { return }
    loopReference._withUnsafeGuaranteedRef { $0.deferToBatchEnd(self) }
  }

  /// The work, on the loop thread, once for any number of `deferToBatchEnd` before it.
  open func run() {}
}
