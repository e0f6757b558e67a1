// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// Work that runs on a loop's thread soon, once, however often it was scheduled before it ran.
///
/// Preallocated by its owner and not retained by the loop: the owner cancels it, or stops the loop, before letting go.
/// The base class of everything that is handed to a loop from another thread or put off to the end of a callback.
open class BottomHalf: @unchecked Sendable {
  /// The loop whose thread runs it.
  public unowned let loop: EventLoop
  // Claimed by the first scheduler since the last run (acquire-release: the runner sees what schedulers wrote before).
  final let isScheduled = Atomic<Bool>(false)
  // Link in the loop's pending list; owned by whoever set `isScheduled`, then by the loop.
  final var nextPending: UInt = 0

  /// Makes a bottom half for `loop`.
  public init(loop: EventLoop) { self.loop = loop }

  /// The work, on the loop's thread.
  open func run() {}

  /// Asks the loop to run this. Any thread, lock-free; wakes the loop where it sleeps.
  public final func schedule() { loop.schedule(self) }

  /// Takes back what was scheduled and has not run. Loop thread. The loop knows nothing of the object afterwards, unless
  /// another thread schedules it again.
  public final func cancel() {
    if isScheduled.load(ordering: .acquiring) { loop.unschedule(self) }
  }
}
