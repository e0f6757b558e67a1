// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// A process that we started and that ends with us: by SIGTERM, and by SIGKILL where that does not do.
final class ChildProcess {
  /// How long a process may take to end after SIGTERM.
  static let endMillisecondsMax = 3000
  /// How much of its standard error is shown.
  static let errorBytesMax = 2000

  private let identifier: pid_t
  private let outputPath: String
  private var status: Int32?

  /// Starts `words[0]`, found in PATH. Standard input is empty; both outputs go to a file at `outputPath`.
  init(_ words: [String], outputPath: String) throws(TransportError) {
    self.outputPath = outputPath
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    // A thread of ours may block signals; the child must not inherit that, or SIGTERM would not end it.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var arguments = words.map { strdup($0) } + [nil]
    var child: pid_t = 0
    let result = posix_spawnp(&child, words[0], &actions, &attributes, &arguments, environ)
    for argument in arguments { free(argument) }
    posix_spawn_file_actions_destroy(&actions)
    posix_spawnattr_destroy(&attributes)
    identifier = child
    guard result == 0 else {
      status = 0
      throw TransportError(.notRunning, "cannot start \(words[0]): \(SystemError.text(of: result))")
    }
  }

  deinit { end() }

  /// Whether it still runs.
  var isRunning: Bool {
    collect(options: WNOHANG)
    return status == nil
  }

  /// How it has ended, with what it wrote; nil while it runs.
  var epitaph: String? {
    guard !isRunning, let status else { return nil }
    let cause =
      status & 0x7F == 0 ? "exited with status \(status >> 8 & 0xFF)" : "was ended by signal \(status & 0x7F)"
    let said = output.isEmpty ? "it wrote nothing" : "it wrote: \(output)"
    return "the process \(cause); \(said)"
  }

  /// What it has written so far, at most `errorBytesMax` bytes of it, in one line, with `?` for what no terminal should get.
  var output: String {
    guard let bytes = try? readWholeFile(outputPath) else { return "" }
    let text = String(decoding: bytes.prefix(Self.errorBytesMax), as: UTF8.self)
      .split(whereSeparator: \.isNewline).joined(separator: "; ")
    var printable = String.UnicodeScalarView()
    for scalar in text.unicodeScalars { printable.append(scalar.value < 32 || scalar.value == 127 ? "?" : scalar) }
    return String(printable)
  }

  /// Waits until it has ended by itself, for at most `milliseconds`.
  func waitForEnd(milliseconds: Int) -> Bool {
    var waited = 0
    while isRunning {
      guard waited < milliseconds else { return false }
      usleep(1000)
      waited += 1
    }
    return true
  }

  /// Ends it, and waits until it is gone. It gets so many milliseconds to do that by itself.
  func end(graceMilliseconds: Int = ChildProcess.endMillisecondsMax) {
    guard isRunning else { return }
    kill(identifier, SIGTERM)
    if waitForEnd(milliseconds: graceMilliseconds) { return }
    kill(identifier, SIGKILL)
    collect(options: 0)
  }

  private func collect(options: Int32) {
    guard status == nil else { return }
    var value: Int32 = 0
    var result: pid_t
    repeat { result = waitpid(identifier, &value, options) } while result < 0 && errno == EINTR
    if result == identifier {
      status = value
    } else if result < 0 {
      // Somebody else has collected it; there is nothing left to end.
      status = 0
    }
  }
}
