// SPDX-License-Identifier: Apache-2.0
// A test program's side of a machine that is a process of its own: starts it as QEMU's test programs do, and speaks qtest
// and QMP with it. Imports nothing of Spindle: what is tested is what strangers see.
import Foundation
import Glibc
import Testing

/// What went wrong between the test and its machine.
struct Trouble: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A folder of a test's own; it goes with this object.
final class Folder {
  let path: String

  init() throws {
    var template = Array(("/var/tmp/spindle-qemu-" + String(repeating: "X", count: 6)).utf8CString)
    guard mkdtemp(&template) != nil else { throw Trouble("mkdtemp: \(errno)") }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The path of a file in it.
  func file(_ name: String) -> String { "\(path)/\(name)" }

  /// Makes a sparse image.
  func image(_ name: String = "disk.img", byteCount: UInt64 = 64 << 20) throws -> String {
    let path = file(name)
    guard FileManager.default.createFile(atPath: path, contents: nil), truncate(path, Int(byteCount)) == 0 else {
      throw Trouble("cannot make \(path)")
    }
    return path
  }

  /// Writes a text file.
  func text(_ name: String, _ text: String) throws -> String {
    let path = file(name)
    try text.write(toFile: path, atomically: false, encoding: .utf8)
    return path
  }
}

/// The bytes of a part of a file.
func fileBytes(_ path: String, at offset: UInt64, count: Int) throws -> [UInt8] {
  let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
  try handle.seek(toOffset: offset)
  return Array(try handle.read(upToCount: count) ?? Data())
}

/// A process that a shell starts, as QEMU's test programs start theirs.
final class ShellProcess {
  /// The program: SPINDLE_QEMU, or the one that was built beside this test's bundle.
  static let program: String = {
    if let path = getenv("SPINDLE_QEMU") { return String(cString: path) }
    let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return (bundle as NSString).deletingLastPathComponent + "/qemu/qemu-system-x86_64"
  }()
  private static let endSecondsMax = 30

  let folder: Folder
  private let identifier: pid_t
  /// As waitpid(2) has it; nil while it runs.
  private(set) var status: Int32?

  /// - Parameters:
  ///   - variable: NAME=VALUE, which it finds in its environment.
  ///   - isChildOfTheShell: the process is the shell, and the program a child of it.
  init(_ options: String, folder: Folder, variable: String? = nil, isChildOfTheShell: Bool = false) throws {
    self.folder = folder
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    for (number, name) in [(Int32(1), "stdout"), (2, "stderr")] {
      posix_spawn_file_actions_addopen(&actions, number, folder.file(name), O_WRONLY | O_CREAT | O_APPEND, 0o600)
    }
    // A thread of the test runner may block signals; the child must not inherit that.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    let command = "\(variable.map { "env \($0) " } ?? "")\(Self.program) \(options)"
    let line = ["/bin/sh", "-c", isChildOfTheShell ? "\(command) & wait" : "exec \(command)"]
    var words = line.map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    var child: pid_t = 0
    let result = posix_spawn(&child, "/bin/sh", &actions, &attributes, &words, environ)
    identifier = child
    guard result == 0 else {
      status = 0
      throw Trouble("cannot start a shell: \(result)")
    }
  }

  deinit {
    if isRunning { end(SIGKILL) }
  }

  var isRunning: Bool {
    collect(WNOHANG)
    return status == nil
  }

  /// Sends a signal and waits for the end.
  /// - Returns: the exit status, or minus the signal that ended it.
  @discardableResult func end(_ signal: Int32 = SIGTERM) -> Int32 {
    if isRunning { kill(identifier, signal) }
    return waitForEnd()
  }

  /// Waits until the process ends by itself; one that does not is killed.
  @discardableResult func waitForEnd() -> Int32 {
    var waitedMs = 0
    while isRunning && waitedMs < Self.endSecondsMax * 1000 {
      usleep(1000)
      waitedMs += 1
    }
    if status == nil {
      kill(identifier, SIGKILL)
      collect(0)
    }
    let status = status ?? 0
    return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
  }

  private func collect(_ options: Int32) {
    guard status == nil else { return }
    var value: Int32 = 0
    var result: pid_t
    repeat { result = waitpid(identifier, &value, options) } while result < 0 && errno == EINTR
    if result == identifier { status = value }
  }

  var standardOutput: String { (try? String(contentsOfFile: folder.file("stdout"), encoding: .utf8)) ?? "" }
  var standardError: String { (try? String(contentsOfFile: folder.file("stderr"), encoding: .utf8)) ?? "" }
}

/// A connected stream socket on which lines come and go.
final class LineSocket {
  private static let waitSeconds = 30
  private let number: Int32
  private var received: [UInt8] = []
  private var head = 0

  init(taking number: Int32) {
    self.number = number
    var limit = timeval(tv_sec: Self.waitSeconds, tv_usec: 0)
    setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit {
    // Another test's machine may have been started between accept and fcntl below, and hold the socket too.
    shutdown(number, Int32(SHUT_RDWR))
    close(number)
  }

  func send(_ text: String) throws {
    var bytes = Array((text + "\n").utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.send(number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard count > 0 else { throw Trouble("send: \(errno)") }
      bytes = bytes.dropFirst(count)
    }
  }

  /// The next line; nil where the other side has closed the connection.
  func line() throws -> String? {
    var searched = head
    while true {
      if let end = received[searched...].firstIndex(of: 10) {
        let line = String(decoding: received[head..<end], as: UTF8.self)
        head = end + 1
        if head == received.count { (received, head) = ([], 0) }
        return line
      }
      searched = received.count
      var chunk = [UInt8](repeating: 0, count: 65536)
      let count = recv(number, &chunk, chunk.count, 0)
      if count < 0 && errno == EINTR { continue }
      if count == 0 || count < 0 && errno == ECONNRESET { return nil }
      guard count > 0 else { throw Trouble("no line within \(Self.waitSeconds) s") }
      received += chunk[..<count]
    }
  }
}

/// A socket of the test at which its machine arrives.
final class ListeningSocket {
  private let number: Int32
  let path: String

  init(_ path: String) throws {
    self.path = path
    unlink(path)
    number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8).prefix($0.count - 1)) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, listen(number, 1) == 0 else { throw Trouble("\(path): \(errno)") }
  }

  deinit { close(number) }

  /// Waits for the machine, or for its end.
  func accept(from process: ShellProcess) throws -> LineSocket {
    for _ in 0..<1000 {
      var entry = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
      if poll(&entry, 1, 50) > 0 {
        let client = Glibc.accept(number, nil, nil)
        guard client >= 0 else { throw Trouble("accept: \(errno)") }
        _ = fcntl(client, F_SETFD, FD_CLOEXEC)
        return LineSocket(taking: client)
      }
      guard process.isRunning else { throw Trouble("the machine has ended: \(process.standardError)") }
    }
    throw Trouble("the machine does not connect")
  }
}
