// SPDX-License-Identifier: Apache-2.0

/// One measured figure, beside its peer where one ran in the same run.
public struct BenchResult: Sendable {
  /// Device / operation / block size / depth.
  public var id: String
  /// The figure.
  public var value: Double
  /// What it counts.
  public var unit: String
  /// Who it is compared with.
  public var peer: String?
  /// The peer's figure, median of the rounds.
  public var peerValue: Double?
  /// Median of the rounds' ratios; larger is better for us, whatever the unit.
  public var ratio: Double?

  /// The result as a JSON object.
  public var json: String {
    var members = ["\"id\": \"\(id)\"", "\"value\": \(plain(value))", "\"unit\": \"\(unit)\""]
    if let peer { members.append("\"peer\": \"\(peer)\"") }
    if let peerValue { members.append("\"peer_value\": \(plain(peerValue))") }
    if let ratio { members.append("\"ratio\": \(plain(ratio))") }
    return "{\(members.joined(separator: ", "))}"
  }

  private func plain(_ number: Double) -> String {
    number >= 1000 ? "\(Int(number.rounded()))" : "\((number * 1000).rounded() / 1000)"
  }
}

/// The middle of some measurements.
func median(_ values: [Double]) -> Double {
  precondition(!values.isEmpty)
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
