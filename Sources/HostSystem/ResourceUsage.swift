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

  /// Resident memory of the process now without memory shared by memfd (guest RAM), KiB; 0 where /proc does not say.
  public static var residentWithoutGuestKiB: UInt64 {
    guard let bytes = try? readWholeFile("/proc/self/status") else { return 0 }
    var sum: UInt64 = 0
    for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
      // Anonymous memory and mapped files; RssShmem is left out.
      guard line.hasPrefix("RssAnon:") || line.hasPrefix("RssFile:") else { continue }
      let digits = line.filter { $0.isNumber }
      sum += UInt64(digits) ?? 0
    }
    return sum
  }

  /// Reads the CPU times of the calling thread now.
  public static func ofThisThread() -> ResourceUsage {
    var usage = ResourceUsage()
    clinux_usage(1, &usage.userMicroseconds, &usage.systemMicroseconds, &usage.residentMaxKiB)
    return usage
  }
}
