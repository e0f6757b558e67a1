// SPDX-License-Identifier: Apache-2.0
import Glibc

/// From percentages to places: each nine of a percentage (90, 99, 99.9) takes the same room.
struct PercentileScale {
  /// The percentages with a number on the axis, without the maximum.
  let marks: [Double]
  /// Where the curves begin.
  private let lowest: Double
  /// The place of the maximum, in nines.
  private let maximum: Double

  /// The percentages an axis may show.
  private static let usual = [0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999]
  /// How far behind the last percentage the maximum stands, in nines.
  private static let maximumDistance = 0.8

  /// A scale for points of these percentages, each 0 to 100.
  init(_ percents: [Double]) {
    let inside = percents.filter { $0 < 100 }
    let least = inside.min() ?? 50
    let largest = inside.max() ?? 50
    // Curves are seldom asked for below the median; where they are, the axis begins at zero.
    let start = least < 50 ? 0.0 : 50
    // The last mark is the first that no point lies beyond, up to the largest mark there is.
    let end = PercentileScale.usual.first { $0 >= largest && $0 > start } ?? PercentileScale.usual.last!
    marks = PercentileScale.usual.filter { $0 >= start && $0 <= end }
    lowest = PercentileScale.nines(start)
    maximum = max(PercentileScale.nines(end), PercentileScale.nines(largest)) + PercentileScale.maximumDistance
  }

  /// How many nines a percentage has: 1 for 90, 2 for 99. 100 has none that are finite, and must not be asked for.
  private static func nines(_ percent: Double) -> Double { -log10(max(1 - percent / 100, 1e-9)) }

  /// Where a percentage is between the left end of the axis (0) and the maximum (1).
  func fraction(_ percent: Double) -> Double {
    let place = percent >= 100 ? maximum : min(PercentileScale.nines(percent), maximum)
    return max(0, (place - lowest) / (maximum - lowest))
  }

  static func text(_ percent: Double) -> String {
    percent == percent.rounded() ? "p\(Int(percent))" : "p\(percent)"
  }
}

/// A logarithmic scale of whole decades.
struct DecadeScale {
  /// The powers of ten at the lower and the upper end, in nanoseconds; the upper one is larger.
  let low: Int
  let high: Int

  /// The decades that hold these latencies in nanoseconds, none of which is 0.
  init(_ values: [UInt64]) {
    let least = values.min() ?? 1000
    let largest = values.max() ?? 1_000_000
    low = DecadeScale.digits(least) - 1
    // A value that is a power of ten itself needs no decade above it.
    let whole = DecadeScale.power(DecadeScale.digits(largest) - 1) == largest
    high = max(low + 1, DecadeScale.digits(largest) - (whole ? 1 : 0))
  }

  private static func digits(_ value: UInt64) -> Int { "\(value)".count }

  /// A power of ten as an integer, or the largest one.
  static func power(_ exponent: Int) -> UInt64 {
    (0..<exponent).reduce(1) { product, _ in product.multipliedReportingOverflow(by: 10).overflow ? .max : product * 10
    }
  }

  /// Where a latency is between the lower end (0) and the upper end (1).
  func fraction(_ nanoseconds: UInt64) -> Double {
    min(max((log10(Double(max(nanoseconds, 1))) - Double(low)) / Double(high - low), 0), 1)
  }
}
