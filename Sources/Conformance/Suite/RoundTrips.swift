// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem

/// How long a qtest round trip takes: the same register read, again and again, by the same client.
public enum RoundTrips {
  /// Names what is read: the identifiers of the AHCI controller.
  private static let selector: UInt32 = 0x8000_FA00
  private static let warmUpCount = 200

  /// Starts a machine without disks and times `count` reads of four bytes from a port of its PCI host bridge.
  /// - Returns: the median in nanoseconds.
  /// - Precondition: `count` is at least 1.
  public static func medianNanoseconds(_ target: QTestTarget, count: Int) throws(TransportError) -> UInt64 {
    precondition(count > 0)
    let folder = try TemporaryFolder()
    let connection = try QTestLauncher(target).launch(try MachineKind.bare.prepare(in: folder))
    let client = connection.client
    try client.portWrite(0xCF8, selector, byteCount: 4)
    for _ in 0..<warmUpCount { _ = try client.portRead(0xCFC, byteCount: 4) }
    var times: [UInt64] = []
    times.reserveCapacity(count)
    for _ in 0..<count {
      let start = HostClock.nanoseconds
      _ = try client.portRead(0xCFC, byteCount: 4)
      times.append(HostClock.nanoseconds - start)
    }
    times.sort()
    return times[count / 2]
  }
}
