// SPDX-License-Identifier: Apache-2.0

/// Durations as people write them. Integers only, so that every duration has a text.
public enum TimeText {
  struct Unit: Equatable {
    var name: String
    var nanoseconds: UInt64
    /// The shortest duration that is written in this unit.
    var from: UInt64
  }

  /// The units of time from the smallest. Minutes and hours begin late: "90 s" is read faster than "1.5 min".
  static let units = [
    Unit(name: "ns", nanoseconds: 1, from: 0),
    Unit(name: "\u{b5}s", nanoseconds: 1000, from: 1000),
    Unit(name: "ms", nanoseconds: 1_000_000, from: 1_000_000),
    Unit(name: "s", nanoseconds: second, from: second),
    Unit(name: "min", nanoseconds: 60 * second, from: 600 * second),
    Unit(name: "h", nanoseconds: hour, from: 10 * hour),
  ]
  static let second: UInt64 = 1_000_000_000
  static let hour: UInt64 = 3600 * second
  /// Between a number and its unit: a space at which no line is broken.
  private static let space = "\u{a0}"

  /// A duration with three digits that count, rounded, and its unit: "12.3 µs", "430 ms".
  public static func text(_ nanoseconds: UInt64) -> String {
    let index = units.lastIndex { nanoseconds >= $0.from } ?? 0
    let number = threeDigits(nanoseconds, units[index].nanoseconds)
    // 999.96 µs is rounded up into the next unit.
    if number == "1000", index < 3 { return "1" + space + units[index + 1].name }
    return number + space + units[index].name
  }

  /// A quotient rounded to three digits that count, without zeros at its end.
  private static func threeDigits(_ number: UInt64, _ unit: UInt64) -> String {
    let factor: UInt64 = number / unit < 10 ? 100 : number / unit < 100 ? 10 : 1
    // The parts are taken apart first, because the number times the factor may be more than 64 bits hold.
    let rest = (number % unit * factor + unit / 2) / unit
    return decimal(number / unit + rest / factor, rest % factor, of: factor)
  }

  /// A duration in a unit, cut to three decimals, without zeros at its end.
  static func exact(_ nanoseconds: UInt64, _ unit: Unit) -> String {
    let rest = nanoseconds % unit.nanoseconds
    return decimal(nanoseconds / unit.nanoseconds, rest * 1000 / unit.nanoseconds, of: 1000)
      + space + unit.name
  }

  /// `whole` and `fraction` of a power of ten, without zeros at its end.
  private static func decimal(_ whole: UInt64, _ fraction: UInt64, of power: UInt64) -> String {
    if fraction == 0 { return "\(whole)" }
    var digits = "\(power + fraction)".dropFirst()
    while digits.last == "0" { digits.removeLast() }
    return "\(whole).\(digits)"
  }
}

/// The places on a linear time axis that get a number.
struct TimeTicks {
  /// Nanoseconds between two ticks: 1, 2 or 5 times a power of ten, or a step that suits minutes and hours.
  let step: UInt64

  /// The smallest step that gives at most `count` parts of `range`.
  init(range: UInt64, atMost count: Int) {
    let count = UInt64(max(count, 1))
    let wanted = range / count + (range % count == 0 ? 0 : 1)
    step = TimeTicks.steps.first { $0 >= wanted } ?? UInt64(Int64.max)
  }

  /// Every step an axis may have, from a nanosecond to centuries.
  static let steps: [UInt64] = {
    func decades(of unit: UInt64, below limit: UInt64) -> [UInt64] {
      var result: [UInt64] = []
      var decade = unit
      while decade < limit {
        result += [decade, 2 * decade, 5 * decade].filter { $0 < limit }
        decade *= 10
      }
      return result
    }
    return decades(of: 1, below: 30 * TimeText.second) + [30, 60, 120, 300, 600, 1800].map { $0 * TimeText.second }
      + decades(of: TimeText.hour, below: 1_000_000 * TimeText.hour)
  }()

  /// The multiples of the step within a signed range of nanoseconds around zero.
  func offsets(from low: Int64, to high: Int64) -> [Int64] {
    guard low <= high, let step = Int64(exactly: step) else { return [] }
    let first = low / step + (low > 0 && low % step != 0 ? 1 : 0)
    let last = high / step - (high < 0 && high % step != 0 ? 1 : 0)
    return first <= last ? (first...last).map { $0 * step } : []
  }

  /// The number at a tick. `largest` is the largest of the axis: all of its numbers have the unit that suits it.
  func text(_ offset: Int64, largest: UInt64, plus: Bool = false) -> String {
    if offset == 0 { return "0" }
    let unit = TimeText.units.last { unit in
      guard largest >= unit.nanoseconds else { return false }
      // Minutes and hours have no tenths.
      return unit.nanoseconds > TimeText.second
        ? (2 * step).isMultiple(of: unit.nanoseconds) : step >= unit.nanoseconds / 10
    }
    let sign = offset < 0 ? "\u{2212}" : plus ? "+" : ""
    return sign + TimeText.exact(offset.magnitude, unit ?? TimeText.units[0])
  }
}
