// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem

/// How long a qtest round trip takes: the same register read, again and again, by the same client.
public enum RoundTrips {
  /// Names what is read: the identifiers of the AHCI controller.
  private static let selector: UInt32 = 0x8000_FA00
  private static let warmUpCount = 200

  /// The machines take turns this often, so that a busy moment of the host does not fall to one of them only.
  private static let turns = 5

  /// What was measured, in nanoseconds.
  public struct Figures: Sendable {
    /// The median of the target.
    public var median: UInt64
    /// That of the machine beside it, where there is one.
    public var peerMedian: UInt64?
  }

  /// Starts machines without disks and times `count` reads of four bytes from a port of their PCI host bridge.
  /// - Precondition: `count` is at least 5.
  public static func compare(
    _ target: QTestTarget, with peer: QTestTarget?, count: Int
  ) throws(TransportError) -> Figures {
    precondition(count >= turns)
    let ours = try Reader(target)
    let other: Reader? = if let peer { try Reader(peer) } else { nil }
    var times: [UInt64] = []
    var otherTimes: [UInt64] = []
    for _ in 0..<turns {
      times += try ours.times(count / turns)
      if let other { otherTimes += try other.times(count / turns) }
    }
    return Figures(median: median(times), peerMedian: other == nil ? nil : median(otherTimes))
  }

  private static func median(_ times: [UInt64]) -> UInt64 { times.sorted()[times.count / 2] }

  /// A machine whose register is read.
  private final class Reader {
    private let connection: QTestConnection
    private let folder: TemporaryFolder

    init(_ target: QTestTarget) throws(TransportError) {
      folder = try TemporaryFolder()
      connection = try QTestLauncher(target).launch(try MachineKind.bare.prepare(in: folder))
      try connection.client.portWrite(0xCF8, selector, byteCount: 4)
    }

    func times(_ count: Int) throws(TransportError) -> [UInt64] {
      let client = connection.client
      for _ in 0..<warmUpCount { _ = try client.portRead(0xCFC, byteCount: 4) }
      var times: [UInt64] = []
      times.reserveCapacity(count)
      for _ in 0..<count {
        let start = HostClock.nanoseconds
        _ = try client.portRead(0xCFC, byteCount: 4)
        times.append(HostClock.nanoseconds - start)
      }
      return times
    }
  }
}
