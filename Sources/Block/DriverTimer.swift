// SPDX-License-Identifier: Apache-2.0
import EventLoop

/// A driver's timer. Unlike other timers of a loop it may be armed by a vCPU's thread that the loop's state is lent to: the
/// loop is woken then, and arms it.
class DriverTimer: LoopTimer {
  private final class Rearm: BottomHalf, @unchecked Sendable {
    unowned(unsafe) var timer: DriverTimer!
    override func run() {
      guard let wanted = timer.wanted else { return }
      timer.wanted = nil
      timer.arm(atNanoseconds: wanted)
    }
  }

  private let rearm: Rearm
  // When the loop is to arm it. Guarded as the loop's state is.
  private var wanted: UInt64?

  override init(loop: EventLoop) {
    rearm = Rearm(loop: loop)
    super.init(loop: loop)
    rearm.timer = self
  }

  /// Fires once at a time of `HostClock`, or soon if that has passed; replaces an earlier time. Loop thread, or one that the
  /// loop's state is lent to.
  final func armSoon(atNanoseconds deadline: UInt64) {
    wanted = nil
    if loop.isOnLoop { return arm(atNanoseconds: deadline) }
    wanted = deadline
    rearm.schedule()
  }

  /// Does not fire any more. Loop thread, or one that the loop's state is lent to.
  final func disarm() {
    wanted = nil
    cancel()
  }

  /// Does not fire any more, and the loop knows nothing of it. Loop thread; before the timer goes.
  final func end() {
    disarm()
    rearm.cancel()
  }
}
