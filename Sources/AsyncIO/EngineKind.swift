// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// The engines that there are, best first.
public enum EngineKind: String, CaseIterable, Sendable {
  /// `IOUringEngine`.
  case ioUring = "io_uring"
  /// `LinuxAIOEngine`.
  case linuxAIO = "linux-aio"
  /// `ThreadPoolEngine`.
  case threads

  /// Takes a name as users write it; `native` is QEMU's for Linux AIO.
  public init?(name: String) {
    if name == "native" {
      self = .linuxAIO
    } else if let kind = EngineKind(rawValue: name) {
      self = kind
    } else {
      return nil
    }
  }

  /// Makes such an engine on a loop. Loop thread, or before the loop runs.
  /// - Throws: what the kernel said (`EngineAvailability` has the words).
  public func makeEngine(on loop: EventLoop, limits: ThreadPoolLimits = ThreadPoolLimits()) throws(SystemError)
    -> IOEngine
  {
    switch self {
    case .ioUring: return try IOUringEngine(loop: loop)
    case .linuxAIO: return try LinuxAIOEngine(loop: loop)
    case .threads: return ThreadPoolEngine(loop: loop, limits: limits)
    }
  }
}
