// SPDX-License-Identifier: Apache-2.0
// Another project's client: the qemu.qmp package, and its shell.
import Glibc
import HostSystem
import Machine
import Testing

/// The Python that has the package: SPINDLE_PYTHON, or the first one in PATH.
private let python = getenv("SPINDLE_PYTHON").map { String(cString: $0) } ?? "python3"

/// Runs a program to its end.
/// - Returns: its exit status, -1 where it could not be started; and what it printed.
private func run(_ arguments: [String]) -> (status: Int32, output: String) {
  let path = "/var/tmp/spindle-python-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
  defer { unlink(path) }
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  posix_spawn_file_actions_adddup2(&actions, 1, 2)
  var words = arguments.map { strdup($0) } + [nil]
  defer { words.forEach { free($0) } }
  var process: pid_t = 0
  guard posix_spawnp(&process, arguments[0], &actions, nil, &words, environ) == 0 else { return (-1, "") }
  var status: Int32 = 0
  while waitpid(process, &status, 0) < 0, errno == EINTR {}
  let output = (try? readWholeFile(path)).map { String(decoding: $0, as: UTF8.self) } ?? ""
  return (status, output)
}

private let hasPackage = run([python, "-c", "import qemu.qmp"]).status == 0

@Suite(.enabled(if: hasPackage, "the Python package qemu.qmp is not installed")) struct PythonClientTests {
  /// Tools/qmp-client, from where this file is.
  private static let client =
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    + "/Tools/qmp-client"

  @Test(arguments: [[], ["--shell"]])
  func thePackageAndItsShellTalkToAMachine(options: [String]) throws {
    let path = "/var/tmp/spindle-qmp-py-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    let machine = try RunningMachine(socket: path)
    let (status, output) = run([python, Self.client, path] + options)
    #expect(status == 0, "\(output)")
    // The client has asked for the end; where it has failed, the machine must not outlive the test.
    if status != 0 { machine.assembled.machine.requestShutdown(.signal(15)) }
    #expect(machine.end() == .hostRequest)
  }
}
