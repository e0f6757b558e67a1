// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Another program that measures the same, run by the shell.
public enum PeerTool {
  /// Whether a program is in PATH.
  public static func isInstalled(_ name: String) -> Bool {
    guard let path = getenv("PATH") else { return false }
    return String(cString: path).split(separator: ":").contains { access("\($0)/\(name)", X_OK) == 0 }
  }

  /// A word as the shell takes it literally.
  static func quoted(_ word: String) -> String {
    let escaped = word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
    return "'\(escaped)'"
  }

  /// What a command writes to standard output. Its standard error is dropped.
  /// - Throws: where it cannot be started, or exits with another status than 0.
  static func output(of command: String) throws(BenchError) -> String {
    guard let pipe = popen("\(command) 2>/dev/null", "r") else { throw BenchError("cannot start: \(command)") }
    var text = ""
    var line = [CChar](repeating: 0, count: 1 << 16)
    while fgets(&line, Int32(line.count), pipe) != nil {
      text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    guard pclose(pipe) == 0 else { throw BenchError("failed; run it by hand to see why: \(command)") }
    return text
  }
}
