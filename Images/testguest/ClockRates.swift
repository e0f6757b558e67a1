// SPDX-License-Identifier: Apache-2.0
import CGuest

/// How fast the time-stamp counter and the local APIC's timer run.
struct ClockRates {
  /// Ticks of the time-stamp counter in a millisecond, which is its rate in kHz.
  var ticksPerMs: UInt64
  /// Counts of the local APIC's timer in a millisecond, behind its divider.
  var timerPerMs: UInt64

  private static let nsPerMs: UInt64 = 1_000_000

  /// Ticks of the time-stamp counter that take so many nanoseconds, at least. The time is shorter than an hour.
  func ticks(in nanoseconds: UInt64) -> UInt64 {
    let rest = nanoseconds % ClockRates.nsPerMs
    return nanoseconds / ClockRates.nsPerMs * ticksPerMs + (rest * ticksPerMs + ClockRates.nsPerMs - 1)
      / ClockRates.nsPerMs
  }

  /// The time-stamp counter's value as nanoseconds.
  func nanoseconds(of ticks: UInt64) -> UInt64 {
    ticks / ticksPerMs * ClockRates.nsPerMs + ticks % ticksPerMs * ClockRates.nsPerMs / ticksPerMs
  }

  /// What the timer has to count for so many ticks, at least; as much as it can where that is too much.
  func timerCount(in ticks: UInt64) -> UInt32 {
    let rest = ticks % ticksPerMs
    let count = ticks / ticksPerMs * timerPerMs + (rest * timerPerMs + ticksPerMs - 1) / ticksPerMs
    return UInt32(min(count, UInt64(UInt32.max)))
  }

  // MARK: Finding them

  /// The rates that the hypervisor states, or else what the interval timer says; nil where there is neither.
  static func find() -> ClockRates? { stated() ?? measured() }

  /// CPUID leaves of a hypervisor, and the one of them that states the rates in kHz (as VMware and KVM define it).
  private static let hypervisorLeaf: UInt32 = 0x4000_0000
  private static let ratesLeaf: UInt32 = 0x4000_0010
  private static let hypervisorBit: UInt32 = 1 << 31

  private static func stated() -> ClockRates? {
    guard cguest_cpuid(1).ecx & hypervisorBit != 0, cguest_cpuid(hypervisorLeaf).eax >= ratesLeaf else {
      return nil
    }
    let rates = cguest_cpuid(ratesLeaf)
    return checked(ticksPerMs: UInt64(rates.eax), timerPerMs: UInt64(rates.ebx) / UInt64(CGUEST_TIMER_DIVIDER))
  }

  /// Rates that nobody has are a mistake of whoever states or measures them: 10 MHz to 100 GHz, 100 kHz to 100 GHz.
  private static func checked(ticksPerMs: UInt64, timerPerMs: UInt64) -> ClockRates? {
    guard ticksPerMs >= 10_000, ticksPerMs <= 100_000_000, timerPerMs >= 100, timerPerMs <= 100_000_000 else {
      return nil
    }
    return ClockRates(ticksPerMs: ticksPerMs, timerPerMs: timerPerMs)
  }

  // MARK: The interval timer (8254), channel 2, whose gate and output are bits of port 0x61

  private enum IntervalTimer {
    static let channel2: UInt16 = 0x42
    static let command: UInt16 = 0x43
    static let control: UInt16 = 0x61
    /// Channel 2, low byte then high byte, mode 0: the output is low until the count is over.
    static let countOnce: UInt8 = 0xB0
    static let gate: UInt8 = 1 << 0
    static let speaker: UInt8 = 1 << 1
    static let output: UInt8 = 1 << 5
    static let hertz: UInt64 = 1_193_182
    /// 50 ms, so that the time an access takes does not count.
    static let count: UInt64 = 59_659
    /// More reads than fit into the time on any machine.
    static let readsMax = 10_000_000
  }

  private static func measured() -> ClockRates? {
    let control = cguest_in8(IntervalTimer.control) & ~(IntervalTimer.speaker | IntervalTimer.output)
    cguest_out8(IntervalTimer.control, control | IntervalTimer.gate)
    cguest_out8(IntervalTimer.command, IntervalTimer.countOnce)
    cguest_out8(IntervalTimer.channel2, UInt8(truncatingIfNeeded: IntervalTimer.count))
    cguest_stop_watchdog()
    cguest_out8(IntervalTimer.channel2, UInt8(truncatingIfNeeded: IntervalTimer.count >> 8))
    cguest_start_timer(UInt32.max)
    let start = cguest_time_stamp()
    // A machine without the timer reads as all ones, and one that never ends is none either.
    guard cguest_in8(IntervalTimer.control) & IntervalTimer.output == 0 else {
      return nil
    }
    var reads = 0
    while cguest_in8(IntervalTimer.control) & IntervalTimer.output == 0 {
      reads += 1
      if reads == IntervalTimer.readsMax {
        return nil
      }
    }
    let left = cguest_timer_left()
    let ticks = cguest_time_stamp() &- start
    cguest_start_watchdog()
    let perMs = { (counts: UInt64) in counts * IntervalTimer.hertz / (IntervalTimer.count * 1000) }
    return checked(ticksPerMs: perMs(ticks), timerPerMs: perMs(UInt64(UInt32.max - left)))
  }
}
