// SPDX-License-Identifier: Apache-2.0

/// One measured figure, beside its peer where one ran in the same run.
public struct BenchResult: Encodable, Sendable {
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

  private enum CodingKeys: String, CodingKey {
    case id, value, unit, peer, ratio
    case peerValue = "peer_value"
  }
}

/// The middle of some measurements.
func median(_ values: [Double]) -> Double {
  precondition(!values.isEmpty)
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
