// SPDX-License-Identifier: Apache-2.0

/// A timer of a loop.
open class LoopTimer {
  /// The loop that fires it.
  public unowned let loop: EventLoop
  /// When it fires, in nanoseconds of `HostClock`; nil while it is not armed.
  public private(set) final var deadline: UInt64?

  /// Makes a timer that is not armed.
  public init(loop: EventLoop) { self.loop = loop }

  /// Fires once at a time of `HostClock`, or soon if that has passed; replaces an earlier time. Loop thread. The loop
  /// keeps the timer until it has fired or is cancelled.
  public final func arm(atNanoseconds deadline: UInt64) {
    loop.preconditionOnLoop()
    if self.deadline == nil { loop.timers.append(self) }
    self.deadline = deadline
  }

  /// Does not fire any more. Loop thread.
  public final func cancel() {
    guard deadline != nil else { return }
    deadline = nil
    loop.timers.removeAll { $0 === self }
  }

  /// The time has come. Loop thread; may arm the timer again.
  open func fired() {}
}
