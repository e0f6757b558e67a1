// SPDX-License-Identifier: Apache-2.0

/// Lines of a table: the first column is flush left, the others are flush right.
public struct BenchTable: Sendable {
  /// Characters of each column.
  public var widths: [Int]

  /// A table of columns of these widths.
  public init(widths: [Int]) { self.widths = widths }

  /// One line; cells that are wider than their column push the rest.
  public func row(_ cells: [String]) -> String {
    zip(cells, widths).enumerated().map { index, cell in
      let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
      return index == 0 ? cell.0 + padding : padding + cell.0
    }.joined(separator: " ")
  }

  /// A number without decimals, or a dash where there is none.
  public static func whole(_ number: Double?) -> String { number.map { "\(Int($0.rounded()))" } ?? "-" }

  /// A number with two decimals, or a dash where there is none.
  public static func fraction(_ number: Double?) -> String {
    guard let number else { return "-" }
    let hundredths = Int((number * 100).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }
}
