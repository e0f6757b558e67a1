// SPDX-License-Identifier: Apache-2.0
import Assembly
import EventLoop
import HostSystem

/// The values of `--loop`, `--wake` and `--submit`.
enum LoopOption {
  static func monitor(_ text: String) throws(UsageError) -> LoopMonitor {
    guard let monitor = LoopMonitor(rawValue: text) else {
      let names = LoopMonitor.allCases.map(\.rawValue).joined(separator: ", ")
      throw UsageError("--loop \(text): unknown; choose one of \(names)")
    }
    if monitor == .ioUring || monitor == .epoll {
      do throws(SystemError) { _ = try EventLoop(name: "probe", monitor: monitor) } catch {
        throw UsageError("--loop \(text): \(error); --loop auto takes the best that works")
      }
    }
    return monitor
  }

  static func wakePolicy(_ text: String) throws(UsageError) -> WakePolicy {
    guard let policy = WakePolicy(rawValue: text) else {
      throw UsageError("--wake \(text): unknown; choose one of always, elided, never")
    }
    return policy
  }

  static func submission(_ text: String) throws(UsageError) -> SubmissionThread {
    guard let thread = SubmissionThread(rawValue: text) else {
      throw UsageError("--submit \(text): unknown; choose loop or vcpu")
    }
    return thread
  }
}
