// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// The machine's own time, which clocks and timers show to the guest, from 0 at its start.
///
/// It runs with the host's monotonic clock while the machine runs, or moves only when it is told to (qtest). Block
/// requests do not depend on it. Everything here is called with the machine lock held.
public final class MachineClock {
  /// Where time comes from.
  public enum Source: Sendable {
    /// It runs as the host's does, while the machine runs.
    case host
    /// It stands until `advance` or `set` moves it.
    case told
  }

  /// Where time comes from; chosen while the machine is assembled, before any timer is armed.
  public var source = Source.host
  // What a clock that stands shows; of a clock that runs, what it showed when it last started.
  private var shown: UInt64 = 0
  // `HostClock` when it last started; nil while it stands.
  private var startedAt: UInt64?
  private var timers: [MachineTimer] = []
  private let alarm: ClockAlarm
  /// Most timers that one move of a told clock fires at their own times.
  private static let firingsMax = 100_000
  private let rearm: ClockRearm

  init(loop: EventLoop) {
    alarm = ClockAlarm(loop: loop)
    rearm = ClockRearm(loop: loop)
    alarm.clock = self
    rearm.clock = self
  }

  // MARK: Time

  /// Nanoseconds since the machine began, without the time in which it was stopped.
  public var nanoseconds: UInt64 { shown + (startedAt.map { HostClock.nanoseconds - $0 } ?? 0) }

  /// The machine runs from here on. A clock that is told does not move by that.
  func start() {
    guard source == .host, startedAt == nil else { return }
    startedAt = HostClock.nanoseconds
    timersChanged()
  }

  /// The machine stands from here on; its timers wait with it.
  func stop() {
    shown = nanoseconds
    startedAt = nil
    timersChanged()
  }

  /// Moves a clock that is told to `time`, firing every timer on the way at its own time; it never goes back.
  /// - Returns: the time it shows then.
  @discardableResult
  public func set(nanoseconds time: UInt64) -> UInt64 {
    precondition(source == .told, "this clock runs by itself")
    var firings = 0
    while let next = firstTimer, let deadline = next.deadline, deadline <= time {
      firings += 1
      // A guest's periodic timer must not make a jump over years last for years: it misses turns then.
      shown = firings < Self.firingsMax ? max(shown, deadline) : max(shown, time)
      fire(next)
    }
    shown = max(shown, time)
    return shown
  }

  /// Moves a clock that is told by `step` nanoseconds, or without it to the next timer (nowhere where none is armed).
  /// - Returns: the time it shows then.
  @discardableResult
  public func advance(by step: UInt64?) -> UInt64 {
    guard let step else { return set(nanoseconds: nextDeadline ?? shown) }
    let (time, overflows) = shown.addingReportingOverflow(step)
    return set(nanoseconds: overflows ? .max : time)
  }

  // MARK: Timers

  /// When the first timer fires; nil while none is armed.
  public var nextDeadline: UInt64? { firstTimer?.deadline }

  private var firstTimer: MachineTimer? { timers.min { ($0.deadline ?? .max) < ($1.deadline ?? .max) } }

  fileprivate func add(_ timer: MachineTimer) {
    if !timers.contains(where: { $0 === timer }) { timers.append(timer) }
    timersChanged()
  }

  fileprivate func remove(_ timer: MachineTimer) {
    timers.removeAll { $0 === timer }
    timersChanged()
  }

  private func fire(_ timer: MachineTimer) {
    timers.removeAll { $0 === timer }
    timer.fire()
  }

  fileprivate func alarmRang() {
    let now = nanoseconds
    while let next = firstTimer, let deadline = next.deadline, deadline <= now { fire(next) }
    armAlarm()
  }

  private func timersChanged() {
    guard source == .host else { return }
    // A vCPU's thread may not touch the loop's timers.
    if alarm.loop.isOnLoop { armAlarm() } else { rearm.schedule() }
  }

  fileprivate func armAlarm() {
    guard let startedAt, let deadline = nextDeadline else { return alarm.cancel() }
    let ahead = deadline > shown ? deadline - shown : 0
    alarm.arm(atNanoseconds: startedAt + ahead)
  }
}

/// A timer of the machine's clock. Machine lock held for everything.
open class MachineTimer {
  /// The clock it goes by.
  public unowned let clock: MachineClock
  /// When it fires; nil while it is not armed.
  public private(set) final var deadline: UInt64?

  /// Makes a timer that is not armed.
  public init(clock: MachineClock) { self.clock = clock }

  /// Fires once at a time of the clock, or soon if that has passed; replaces an earlier time. The clock keeps the timer
  /// until it has fired or is cancelled.
  public final func arm(atNanoseconds deadline: UInt64) {
    let now = clock.nanoseconds
    // A clock that was told the end of time has no later moment.
    if now == .max { return cancel() }
    // Later than now, so that a timer that arms itself lets time go on.
    self.deadline = max(deadline, now + 1)
    clock.add(self)
  }

  /// Does not fire any more.
  public final func cancel() {
    guard deadline != nil else { return }
    deadline = nil
    clock.remove(self)
  }

  /// The time has come. On the main loop's thread; may arm the timer again.
  open func fired() {}

  fileprivate final func fire() {
    deadline = nil
    fired()
  }
}

/// Wakes the main loop for the earliest timer.
private final class ClockAlarm: LoopTimer {
  unowned var clock: MachineClock?
  override func fired() { clock?.alarmRang() }
}

/// Has the alarm armed on the loop's thread.
private final class ClockRearm: BottomHalf, @unchecked Sendable {
  // The clock lives as long as the machine, which outlives its loop's rounds.
  unowned var clock: MachineClock?
  override func run() { clock?.armAlarm() }
}
