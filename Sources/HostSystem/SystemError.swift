// SPDX-License-Identifier: Apache-2.0
// HostSystem: every system call of the process, with one policy for EINTR and errno. It knows nothing of guests.
import CLinux
import Glibc

/// A failed system call: which one, and the errno it gave.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The errno value, positive.
  public let code: Int32
  /// The call that failed, as its manual page names it.
  public let operation: String

  /// Records that `operation` failed with errno `code` (positive).
  public init(_ operation: String, code: Int32) {
    self.code = code
    self.operation = operation
  }

  /// The text of an errno value (`strerror`).
  public static func text(of code: Int32) -> String { String(cString: strerror(code)) }

  /// The operation and its error text.
  public var description: String { "\(operation): \(SystemError.text(of: code))" }
}

/// Turns the result of a shim (negative errno on failure) into a value or a thrown error; repeats it on EINTR.
@inlinable
public func checked<T: SignedInteger>(_ operation: StaticString, _ call: () -> T) throws(SystemError) -> T {
  while true {
    let result = call()
    if result >= 0 { return result }
    if result != T(-EINTR) { throw SystemError("\(operation)", code: Int32(-result)) }
  }
}
