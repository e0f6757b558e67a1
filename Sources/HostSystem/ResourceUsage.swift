// SPDX-License-Identifier: Apache-2.0
import CLinux

/// What the process has used so far, as the kernel accounts it.
public struct ResourceUsage: Sendable {
  /// CPU time in user mode, microseconds, all threads.
  public var userMicroseconds: UInt64 = 0
  /// CPU time in the kernel, microseconds, all threads.
  public var systemMicroseconds: UInt64 = 0
  /// Largest resident size so far, KiB.
  public var residentMaxKiB: UInt64 = 0

  /// Reads the figures of the process now.
  public init() { clinux_usage(0, &userMicroseconds, &systemMicroseconds, &residentMaxKiB) }

  /// Reads the CPU times of the calling thread now.
  public static func ofThisThread() -> ResourceUsage {
    var usage = ResourceUsage()
    clinux_usage(1, &usage.userMicroseconds, &usage.systemMicroseconds, &usage.residentMaxKiB)
    return usage
  }
}
