// SPDX-License-Identifier: Apache-2.0
// Image locks between processes, with QEMU's own tools as the other side.
import Glibc
import HostSystem
import Testing

@testable import Block

private let qemuIO = "/usr/bin/qemu-io"
private let qemuImg = "/usr/bin/qemu-img"

/// A program that runs beside the test; what it prints is read line by line, and its input stays open until it is closed.
private final class Program {
  private var process = pid_t()
  private var input: Int32
  private let output: Int32

  init(_ arguments: [String]) throws {
    var toChild: [Int32] = [0, 0]
    var fromChild: [Int32] = [0, 0]
    #expect(pipe(&toChild) == 0 && pipe(&fromChild) == 0)
    for end in [toChild[1], fromChild[0]] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
    posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
    posix_spawn_file_actions_adddup2(&actions, fromChild[1], 2)
    for end in [toChild[0], fromChild[1]] { posix_spawn_file_actions_addclose(&actions, end) }
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    let result = posix_spawn(&process, arguments[0], &actions, nil, &words, environ)
    close(toChild[0])
    close(fromChild[1])
    input = toChild[1]
    output = fromChild[0]
    if result != 0 { throw SystemError("posix_spawn", code: result) }
  }

  func write(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    #expect(Glibc.write(input, bytes, bytes.count) == bytes.count)
  }

  /// Reads until the text has come, or until the program's output ends.
  @discardableResult
  func read(until text: String? = nil) -> String {
    var bytes: [UInt8] = []
    var byte: UInt8 = 0
    while Glibc.read(output, &byte, 1) == 1 {
      bytes.append(byte)
      if let text, bytes.count >= text.utf8.count, bytes.suffix(text.utf8.count) == Array(text.utf8)[...] { break }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Ends its input, and waits for it.
  /// - Returns: its exit status.
  func finish() -> Int32 {
    if input >= 0 { close(input) }
    input = -1
    read()
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    return status >> 8 & 0xff
  }

  deinit {
    if input >= 0 { close(input) }
    close(output)
  }
}

@Suite(.enabled(if: access(qemuIO, X_OK) == 0 && access(qemuImg, X_OK) == 0, "qemu-utils is not installed"))
struct LockTests {
  private func error(_ path: String, readOnly: Bool) -> ImageError? {
    do throws(ImageError) {
      _ = try ImageFile.open(path: path, cache: .writeback, readOnly: readOnly)
      return nil
    } catch { return error }
  }

  private func run(_ arguments: [String]) throws -> (status: Int32, output: String) {
    let program = try Program(arguments)
    let output = program.read()
    return (program.finish(), output)
  }

  @Test func imageThatQEMUWritesIsRefused() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(65536))
    let qemu = try Program([qemuIO, "-f", "raw", file.path])
    qemu.read(until: "qemu-io> ")
    #expect(error(file.path, readOnly: false) == .locked(path: file.path, forWriting: true))
    #expect(error(file.path, readOnly: true) == .locked(path: file.path, forWriting: false))
    qemu.write("quit")
    #expect(qemu.finish() == 0)
    #expect(error(file.path, readOnly: false) == nil)
  }

  @Test func imageThatQEMUReadsMayBeRead() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(65536))
    let qemu = try Program([qemuIO, "-r", "-f", "raw", file.path])
    qemu.read(until: "qemu-io> ")
    #expect(error(file.path, readOnly: true) == nil)
    qemu.write("quit")
    #expect(qemu.finish() == 0)
  }

  @Test func imageThatWeWriteIsRefusedByQEMU() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(65536))
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    for arguments in [
      [qemuIO, "-f", "raw", "-c", "write 0 512", file.path], [qemuImg, "resize", "-f", "raw", file.path, "128K"],
    ] {
      let (status, output) = try run(arguments)
      #expect(status != 0)
      #expect(output.contains("lock"))
    }
    _ = consume image
    #expect(file.bytes == TemporaryFile.pattern(65536))
    // A child that another test starts at this moment has our descriptor, and so the lock, until it executes its program.
    let triesMax = 100
    let isFree = try (0..<triesMax).contains { _ in
      try run([qemuIO, "-f", "raw", "-c", "write -P 7 0 512", file.path]).status == 0
    }
    #expect(isFree)
    #expect(file.bytes[0] == 7)
  }

  @Test func imageThatWeReadIsReadButNotWrittenByQEMU() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(65536))
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: true)
    #expect(try run([qemuImg, "info", file.path]).status == 0)
    #expect(try run([qemuIO, "-r", "-f", "raw", "-c", "read 0 512", file.path]).status == 0)
    let (status, output) = try run([qemuIO, "-f", "raw", "-c", "write 0 512", file.path])
    #expect(status != 0)
    #expect(output.contains("lock"))
    _ = consume image
  }
}
