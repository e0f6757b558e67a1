// SPDX-License-Identifier: Apache-2.0
import CLinux

/// The host's monotonic clock.
public enum HostClock {
  /// Nanoseconds since an arbitrary start, never going back. Any thread.
  @inlinable
  public static var nanoseconds: UInt64 { clinux_monotonic_ns() }
}
