// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import HostSystem
import Synchronization

@testable import Conformance

/// The machine's side of a socket: answers each line as a closure says, until that says nil or the client goes away.
final class ScriptedServer: Sendable {
  private let thread: HostThread
  private let recorder: Recorder
  private let clientEnd: DescriptorSlot

  init(_ answer: @escaping @Sendable (String) -> [String]?) throws {
    let ends = try DescriptorSlot.pair()
    clientEnd = ends.near
    let recorder = Recorder()
    self.recorder = recorder
    thread = try HostThread(name: "server") {
      guard let server = ends.far.take() else { return }
      let serverEnd = server.number
      var buffer: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = recv(serverEnd, &chunk, chunk.count, 0)
        guard count > 0 else { return }
        buffer += chunk[..<count]
        while let end = buffer.firstIndex(of: 10) {
          let line = String(decoding: buffer[..<end], as: UTF8.self)
          buffer.removeSubrange(...end)
          recorder.note(line)
          guard let pieces = answer(line) else { return }
          // Each piece by a send of its own, so that a client sees replies in parts.
          for piece in pieces { _ = Glibc.send(serverEnd, piece, piece.utf8.count, Int32(MSG_NOSIGNAL)) }
        }
      }
    }
  }

  private final class Recorder: Sendable {
    private let lines = Mutex<[String]>([])
    func note(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
  }

  /// The client's end; the taker owns it.
  func takeSocket() -> OwnedDescriptor { clientEnd.take()! }

  func makeClient(replySeconds: Int = 20) -> QTestClient {
    QTestClient(taking: takeSocket(), replySeconds: replySeconds)
  }

  /// The lines that came, once the client is gone.
  func finish() -> [String] {
    thread.join()
    return recorder.all
  }
}

/// A machine of nothing but RAM behind the protocol.
final class MemoryMachine: Sendable {
  private let memory = Mutex([UInt64: UInt8]())

  /// The reply to a line; nil ends the connection.
  func answer(_ line: String) -> String? {
    let words = line.split(separator: " ")
    func number(_ index: Int) -> UInt64 {
      let word = words[index]
      return word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) ?? 0 : UInt64(word) ?? 0
    }
    let widths: [Character: UInt64] = ["b": 1, "w": 2, "l": 4, "q": 8]
    switch words[0] {
    case "endianness": return "OK little"
    case "readb", "readw", "readl", "readq":
      let bytes = load(number(1), widths[words[0].last ?? "b"] ?? 1)
      return "OK 0x" + String(bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }, radix: 16)
    case "writeb", "writew", "writel", "writeq":
      let value = number(2)
      store(number(1), (0..<(widths[words[0].last ?? "b"] ?? 1)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) })
      return "OK"
    case "memset":
      store(number(1), [UInt8](repeating: UInt8(number(3)), count: Int(number(2))))
      return "OK"
    case "write":
      let digits = Array(words[3].dropFirst(2))
      store(
        number(1), stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...($0 + 1)]), radix: 16) ?? 0 }
      )
      return "OK"
    case "b64read": return "OK " + Data(load(number(1), number(2))).base64EncodedString()
    case "inb", "inw", "inl": return "OK 0xffff"
    case "vanish": return nil
    default: return "OK"
    }
  }

  private func load(_ address: UInt64, _ count: UInt64) -> [UInt8] {
    memory.withLock { memory in (0..<count).map { memory[address + $0] ?? 0 } }
  }

  private func store(_ address: UInt64, _ bytes: [UInt8]) {
    memory.withLock { memory in
      for (index, byte) in bytes.enumerated() { memory[address + UInt64(index)] = byte }
    }
  }

  func makeServer() throws -> ScriptedServer {
    try ScriptedServer { line in self.answer(line).map { [$0 + "\n"] } }
  }
}

/// Writes a text file.
func writeFile(_ path: String, _ text: String) throws { try writeWholeFile(path, Array(text.utf8)) }
