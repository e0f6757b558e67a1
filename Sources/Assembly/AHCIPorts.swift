// SPDX-License-Identifier: Apache-2.0
import AHCI

/// Which drive is on which port of the AHCI controller.
enum AHCIPorts {
  /// The controller's ports.
  static let all = 0...AHCIController.portCount - 1

  /// Gives each AHCI drive its port: the one it names, or else the first that no drive names or has.
  /// - Returns: a port for each of `drives`, in their order; nil for drives that are not on the controller.
  static func assign(_ drives: [DriveConfiguration]) throws(UsageError) -> [Int?] {
    let count = drives.count { $0.interface == .ahci }
    guard count <= AHCIController.portCount else {
      throw UsageError(
        "--drive: if=ahci: \(count) drives do not fit on the controller's \(AHCIController.portCount) ports; "
          + "use if=virtio for the others")
    }
    var owners: [Int: String] = [:]
    for drive in drives where drive.interface == .ahci {
      guard let port = drive.port else { continue }
      guard all.contains(port) else {
        throw UsageError("--drive: port=\(port) of drive \(drive.id): there are ports 0 to \(all.upperBound)")
      }
      if let owner = owners[port] {
        throw UsageError("--drive: port=\(port) of drive \(drive.id) is taken by drive \(owner); choose another port")
      }
      owners[port] = drive.id
    }
    var ports: [Int?] = []
    for drive in drives {
      guard drive.interface == .ahci else {
        ports.append(nil)
        continue
      }
      // There are as many ports as drives at least, so one is free.
      let port = drive.port ?? all.first { owners[$0] == nil }
      if let port { owners[port] = drive.id }
      ports.append(port)
    }
    return ports
  }
}
