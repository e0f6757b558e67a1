// SPDX-License-Identifier: Apache-2.0
// Conformance: device conformance suites. A machine runs in another process (or another thread) and is driven over a
// qtest socket; the cases are guest-side code on `GuestDrivers`, so the same list judges Spindle and QEMU.

/// Why a machine behind a socket cannot be driven any more.
public struct TransportError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What kinds of failure there are.
  public enum Kind: Equatable, Sendable {
    /// The other side closed the connection.
    case closed
    /// No whole reply came in time.
    case timedOut
    /// A reply that the protocol does not know.
    case badReply
    /// The machine answered FAIL.
    case refused
    /// The machine could not be started, or ended by itself.
    case notRunning
    /// A system call of ours failed.
    case system
  }

  /// What kind of failure it is.
  public var kind: Kind
  /// One line for people: what was asked, and what came.
  public var description: String

  /// Describes a failure.
  public init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}
