// SPDX-License-Identifier: Apache-2.0

/// Where a monitor's client is.
public enum MonitorAddress: Equatable, Sendable {
  /// A program listens at this path.
  case connectUnix(path: String)
  /// The monitor listens at this path.
  case listenUnix(path: String, waits: Bool)
  /// A program listens at this port of 127.0.0.1.
  case connectLoopback(port: UInt16)
  /// The monitor listens at this port of 127.0.0.1.
  case listenLoopback(port: UInt16, waits: Bool)
  /// Standard input and output.
  case standardIO
  /// A connected socket that the process was given; the monitor closes it.
  case descriptor(Int32)
}
