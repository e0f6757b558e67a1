// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// The process that started this one.
public struct ParentProcess: Sendable {
  private let identifier = getppid()

  /// Remembers who it is; for the begin of the process, since a parent that ends later is another's child no more.
  public init() {}

  /// Has the kernel send `signal` to this process when its parent ends (prctl(2), PR_SET_PDEATHSIG). For a parent that
  /// has ended already the signal comes at once. Any thread.
  public func endWithIt(by signal: Int32 = SIGTERM) throws(SystemError) {
    _ = try checked("prctl") { clinux_signal_with_parent(signal) }
    // It may have ended before the kernel knew of the wish.
    if getppid() != identifier { kill(getpid(), signal) }
  }
}
