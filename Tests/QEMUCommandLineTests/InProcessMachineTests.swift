// SPDX-License-Identifier: Apache-2.0
// Machines on threads of this process: how they begin and end.
import Assembly
import Glibc
import HostSystem
import QEMUCommandLine
import Testing

@Suite struct InProcessMachineTests {
  /// A fresh image of 1 MiB; it is removed with this object.
  private final class Image {
    let path: String

    init() throws {
      var template = Array("/tmp/spindle-machine-XXXXXX".utf8CString)
      let number = mkstemp(&template)
      try #require(number >= 0)
      path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      try #require(ftruncate(number, 1 << 20) == 0)
      close(number)
    }

    deinit { unlink(path) }

    var words: [String] { ["-drive", "file=\(path),format=raw,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0"] }
  }

  private func ask(_ socket: borrowing OwnedDescriptor, _ line: String) -> String {
    var bytes = Array((line + "\n").utf8)
    guard send(socket.number, &bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { return "" }
    var answer: [UInt8] = []
    var byte: UInt8 = 0
    while recv(socket.number, &byte, 1, 0) == 1, byte != 10 { answer.append(byte) }
    return String(decoding: answer, as: UTF8.self)
  }

  @Test func clientDrivesTheMachine() throws {
    let machine = try InProcessMachine(["-M", "q35", "-m", "32"])
    if let socket = machine.takeQTestSocket() {
      #expect(ask(socket, "writel 0x100000 0x12345678") == "OK")
      #expect(ask(socket, "readb 0x100003") == "OK 0x0000000000000012")
    } else {
      Issue.record("no socket")
    }
    if machine.takeQTestSocket() != nil { Issue.record("a second socket") }
    machine.end()
  }

  @Test func machineThatHasEndedLetsGoOfItsImage() throws {
    let image = try Image()
    let first = try InProcessMachine(image.words)
    #expect(throws: (any Error).self) { try InProcessMachine(image.words) }
    first.end()
    try InProcessMachine(image.words).end()
  }

  @Test func machineWhoseClientHasGoneEndsAtOnce() throws {
    let machine = try InProcessMachine([])
    // The socket is closed at the end of the condition's body.
    if let socket = machine.takeQTestSocket() { #expect(ask(socket, "endianness") == "OK little") }
    machine.end()
  }

  @Test func mistakesAreThrownWithTheirLine() {
    #expect(throws: UsageError.self) { try InProcessMachine(["-warp"]) }
    let words = ["-drive", "file=/nonexistent/disk,format=raw,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0"]
    do {
      _ = try InProcessMachine(words)
      Issue.record("a machine without its image")
    } catch {
      #expect("\(error)".contains("/nonexistent/disk"))
    }
  }
}
