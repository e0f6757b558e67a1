// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem
import Machine

/// A timer of the main loop that does nothing but wake it: what keeps a machine's loop from sleeping for ever where nobody
/// tells it of work.
///
/// A PC's main loop always has some: its real-time clock turns over at each second and at the half of it (MC146818A, time
/// base and square wave), a display is refreshed, a busy guest causes other work.
public final class Heartbeat: Device {
  /// Nanoseconds between the turns of a real-time clock.
  public static let realTimeClockNs: UInt64 = 500_000_000
  /// Nanoseconds between the refreshes of a display that somebody looks at (QEMU's default interval).
  public static let displayRefreshNs: UInt64 = 30_000_000

  private let periodNs: UInt64
  private var timer: Timer?

  private final class Timer: LoopTimer {
    private let periodNs: UInt64
    init(loop: EventLoop, periodNs: UInt64) {
      self.periodNs = periodNs
      super.init(loop: loop)
    }
    /// At the next whole period of the clock, as a clock's turns do not depend on who looks at it.
    func arm() { arm(atNanoseconds: (HostClock.nanoseconds / periodNs + 1) * periodNs) }
    override func fired() { arm() }
  }

  /// Makes a timer that fires every `periodNs` nanoseconds, at least 1, as long as it is part of a machine.
  public init(name: String, periodNs: UInt64) {
    precondition(periodNs > 0)
    self.periodNs = periodNs
    super.init(name: name)
  }

  public override func added(to machine: Machine) {
    let timer = Timer(loop: machine.mainLoop, periodNs: periodNs)
    timer.arm()
    self.timer = timer
  }

  public override func shutdown() {
    timer?.cancel()
    timer = nil
  }
}
