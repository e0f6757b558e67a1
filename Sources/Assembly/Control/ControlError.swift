// SPDX-License-Identifier: Apache-2.0

/// Why a machine does not do what its user asks of it while it runs, as one line for the user.
public struct ControlError: Error, Equatable, CustomStringConvertible, Sendable {
  /// What programs tell errors apart by, with the names of QEMU's monitor.
  public enum Kind: String, Sendable {
    /// Anything without a name of its own.
    case generic = "GenericError"
    /// There is no such command, or not now.
    case commandNotFound = "CommandNotFound"
    /// There is no such device.
    case deviceNotFound = "DeviceNotFound"
  }

  /// What programs go by.
  public let kind: Kind
  /// The line.
  public let description: String

  /// Says what is wrong.
  public init(_ description: String, kind: Kind = .generic) {
    self.kind = kind
    self.description = description
  }

  /// There is no device or drive of this name.
  public static func noDevice(_ name: String) -> ControlError {
    ControlError("Device '\(name)' not found", kind: .deviceNotFound)
  }

  /// The guest has locked the drive's tray; it has been asked to open it.
  public static func locked(_ name: String) -> ControlError {
    ControlError("Device '\(name)' is locked and force was not specified, wait for tray to open and try again")
  }
}
