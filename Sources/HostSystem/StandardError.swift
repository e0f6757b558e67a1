// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Lines for the person who started the process.
public enum StandardError {
  /// Writes one line; a stream that is closed or full loses it. Any thread.
  public static func print(_ line: String) {
    var bytes = Array((line + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { clinux_write(STDERR_FILENO, $0.baseAddress!, $0.count) }
      if count == -Int(EINTR) { continue }
      if count <= 0 { return }
      bytes = bytes.dropFirst(count)
    }
  }
}
