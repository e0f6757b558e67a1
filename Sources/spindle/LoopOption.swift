// SPDX-License-Identifier: Apache-2.0
import Assembly
import EventLoop
import HostSystem

/// The value of `--loop`.
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
}
