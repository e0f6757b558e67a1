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

  /// Reads the figures now.
  public init() { clinux_usage(&userMicroseconds, &systemMicroseconds, &residentMaxKiB) }
}
