// SPDX-License-Identifier: Apache-2.0
import Machine

/// The power management timer: 24 bits that count at 3.579545 MHz (ACPI 6.5, section 4.8.3.3), and the status that is set
/// whenever their highest bit changes. Machine lock held for everything.
struct PowerTimer {
  /// Counts in a second.
  static let frequencyHz: UInt64 = 3_579_545
  private static let nsPerSecond: UInt64 = 1_000_000_000
  private static let valueMask: UInt64 = 0xff_ffff
  /// Counts between two changes of the highest bit.
  private static let halfBits: UInt64 = 23

  // Half periods of the counter, since the machine began, at the time when the status was last clear.
  private var clearedAt: UInt64 = 0

  /// Counts since the machine began.
  static func ticks(atNanoseconds time: UInt64) -> UInt64 {
    let product = time.multipliedFullWidth(by: frequencyHz)
    return nsPerSecond.dividingFullWidth((product.high, product.low)).quotient
  }

  /// When the counter reaches `ticks`; the end of time where that is later.
  static func nanoseconds(atTicks ticks: UInt64) -> UInt64 {
    let product = ticks.multipliedFullWidth(by: nsPerSecond)
    guard product.high < frequencyHz else { return .max }
    let (quotient, remainder) = frequencyHz.dividingFullWidth((product.high, product.low))
    return remainder == 0 || quotient == .max ? quotient : quotient + 1
  }

  /// What the guest reads.
  static func value(atNanoseconds time: UInt64) -> UInt32 { UInt32(ticks(atNanoseconds: time) & valueMask) }

  /// Whether the highest bit has changed since the status was cleared.
  func hasOverflowed(atNanoseconds time: UInt64) -> Bool {
    Self.ticks(atNanoseconds: time) >> Self.halfBits != clearedAt
  }

  /// The guest clears the status.
  mutating func clear(atNanoseconds time: UInt64) { clearedAt = Self.ticks(atNanoseconds: time) >> Self.halfBits }

  /// When the highest bit changes next after the status was cleared.
  var nextOverflow: UInt64 { Self.nanoseconds(atTicks: (clearedAt + 1) << Self.halfBits) }
}
