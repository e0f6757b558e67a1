// SPDX-License-Identifier: Apache-2.0
// Bench: measures the way of a request and prints it beside peers measured in the same run. Ratios mean something;
// absolute figures depend on the host.

/// One measured figure, beside its peer where one ran in the same run.
public struct BenchResult: Encodable, Sendable {
  /// Device / operation / block size / depth; where there is a second peer, followed by its name.
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

  /// A figure without a peer.
  public init(id: String, value: Double, unit: String) {
    self.id = id
    self.value = value
    self.unit = unit
  }

  private enum CodingKeys: String, CodingKey {
    case id, value, unit, peer, ratio
    case peerValue = "peer_value"
  }
}

extension BenchResult {
  /// Figures of some rounds, of which more is better, beside those of a peer in the same rounds; without any of its there
  /// is no peer.
  init(id: String, rounds: [Double], unit: String, peer: String, peerRounds: [Double]) {
    self.init(id: id, value: median(rounds), unit: unit)
    if peerRounds.isEmpty { return }
    self.peer = peer
    peerValue = median(peerRounds)
    ratio = median(Self.ratios(rounds, peerRounds))
  }

  /// How much more of one thing than of another was done, round by round, beside the same of a peer.
  static func ofRatios(
    id: String, own: (numerators: [Double], denominators: [Double]), peer: String,
    peers: (numerators: [Double], denominators: [Double])
  ) -> BenchResult {
    BenchResult(
      id: id, rounds: ratios(own.numerators, own.denominators), unit: "ratio", peer: peer,
      peerRounds: ratios(peers.numerators, peers.denominators))
  }

  private static func ratios(_ numerators: [Double], _ denominators: [Double]) -> [Double] {
    zip(numerators, denominators).map { $0 / $1 }
  }
}

/// The middle of some measurements.
func median(_ values: [Double]) -> Double {
  precondition(!values.isEmpty)
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
