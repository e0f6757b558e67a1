// SPDX-License-Identifier: Apache-2.0
import Assembly
import CLinux
import Glibc
import HostSystem
import Tracing

/// A trace of a run on its way to a file (`--trace FILE`).
final class TraceRecording {
  private let path: String
  private let file: OwnedDescriptor

  /// Opens the file, so that a mistake in its name is told before the run; what it holds stays until the end.
  init(path: String) throws {
    self.path = path
    do throws(SystemError) {
      file = try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT)
    } catch {
      throw SetupError("--trace \(path): \(SystemError.text(of: error.code))")
    }
  }

  /// Begins to record.
  func start() { Tracing.start() }

  /// Ends the recording and writes it.
  /// - Returns: what was recorded, as a line for the user.
  func finish() throws -> String {
    Tracing.stop()
    return try write(Tracing.collect())
  }

  /// Writes a trace that was recorded elsewhere.
  /// - Returns: what it holds, as a line for the user.
  func write(_ trace: Trace) throws -> String {
    // A pipe or a terminal has no length to be cut.
    _ = clinux_ftruncate(file.number, 0)
    do throws(TraceWriteError) {
      try trace.writeChromeTrace(to: file.number)
    } catch {
      throw SetupError("--trace \(path): \(SystemError.text(of: error.code))")
    }
    let drops = trace.droppedCount == 0 ? "none dropped" : "\(trace.droppedCount) dropped for lack of room"
    return "trace: \(trace.eventCount) events of \(trace.threads.count) threads in \(path), \(drops)"
  }
}
