// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Conformance

@Suite struct QTestClientTests {
  /// What a request ends in.
  private func kind<T>(_ body: () throws(TransportError) -> T) -> TransportError.Kind? {
    do {
      _ = try body()
      return nil
    } catch {
      return error.kind
    }
  }

  @Test func requestsAreLinesOfTheProtocol() throws {
    let server = try ScriptedServer { line in
      line.hasPrefix("in") || line.hasPrefix("read")
        ? ["OK 0x12\n"] : line.hasPrefix("b64") ? ["OK AQID\n"] : line == "endianness" ? ["OK little\n"] : ["OK\n"]
    }
    do {
      let client = server.makeClient()
      try client.checkByteOrder()
      #expect(try client.portRead(0xCFC, byteCount: 2) == 0x12)
      try client.portWrite(0xCF8, 0x8000_0000, byteCount: 4)
      #expect(try client.read(0xE000_0010, byteCount: 4) == 0x12)
      try client.write(0, 0xFFFF_FFFF_FFFF_FFFF, byteCount: 8)
      try client.fill(0x100000, byteCount: 0, 0)
      try client.write(0x1000, [0x0A, 0xFF])
      #expect(try client.readBytes(0x1000, count: 3) == [1, 2, 3])
      #expect(client.requestCount == 8)
    }
    #expect(
      server.finish() == [
        "endianness", "inw 0xcfc", "outl 0xcf8 0x80000000", "readl 0xe0000010", "writeq 0x0 0xffffffffffffffff",
        "memset 0x100000 0x0 0x0", "write 0x1000 0x2 0x0aff", "b64read 0x1000 0x3",
      ])
  }

  @Test func repliesInPiecesAreJoined() throws {
    let server = try ScriptedServer { _ in ["O", "K 0", "x1", "f\n"] }
    #expect(try server.makeClient().read(0, byteCount: 1) == 0x1F)
    _ = server.finish()
  }

  @Test func interruptLinesAreKeptAside() throws {
    let server = try ScriptedServer { _ in ["IRQ raise 10\nIRQ low", "er 10\nOK 0x1\nIRQ raise 3\n"] }
    let client = server.makeClient()
    #expect(try client.read(0, byteCount: 1) == 1)
    #expect(
      client.interruptChanges == [.init(line: 10, isRaised: true), .init(line: 10, isRaised: false)])
    #expect(try client.read(0, byteCount: 1) == 1)
    #expect(client.interruptChanges.count == 5)
  }

  @Test(arguments: [
    "OK", "OK ", "OK 0x", "OK 0xG", "OK 0xFF", "OK 12", "OK 0x1 2", "OK 0x100", "OKAY 0x1", "ok 0x1", "", "\u{0}",
    "OK 0x00000000000000001", "IRQ raise x", "IRQ up 3", "IRQ raise",
  ])
  func otherRepliesAreRefused(reply: String) throws {
    let server = try ScriptedServer { _ in [reply + "\n"] }
    let client = server.makeClient()
    #expect(kind { () throws(TransportError) in try client.read(0, byteCount: 1) } == .badReply)
  }

  @Test(arguments: ["OK", "OK AQI", "OK AQID====", "OK AQ=D", "OK AQIDBA==", "OK A-ID", "OK AQID ", "OK AQI D"])
  func otherBase64IsRefused(reply: String) throws {
    let server = try ScriptedServer { _ in [reply + "\n"] }
    let client = server.makeClient()
    #expect(kind { () throws(TransportError) in try client.readBytes(0, count: 3) } == .badReply)
  }

  @Test func refusedRequestLeavesTheConnectionWorking() throws {
    let server = try ScriptedServer { line in line.hasPrefix("inb") ? ["FAIL Unknown command 'inb'\n"] : ["OK 0x7\n"] }
    let client = server.makeClient()
    #expect(kind { () throws(TransportError) in try client.portRead(0, byteCount: 1) } == .refused)
    #expect(try client.read(0, byteCount: 1) == 7)
    #expect(try client.send(line: "inb 0") == "FAIL Unknown command 'inb'")
  }

  @Test func serverThatVanishesIsReported() throws {
    let server = try ScriptedServer { line in line == "writeb 0x1 0x2" ? nil : ["OK\n"] }
    let client = server.makeClient()
    try client.write(0, 0, byteCount: 1)
    #expect(kind { () throws(TransportError) in try client.write(1, 2, byteCount: 1) } == .closed)
    #expect(kind { () throws(TransportError) in try client.write(1, 2, byteCount: 1) } == .closed)
  }

  @Test func replyWithoutItsEndTimesOut() throws {
    let server = try ScriptedServer { _ in ["OK 0x1"] }
    let client = server.makeClient(replySeconds: 1)
    #expect(kind { () throws(TransportError) in try client.read(0, byteCount: 1) } == .timedOut)
  }

  @Test func endlessReplyIsRefused() throws {
    let long = String(repeating: "x", count: 1 << 20)
    let server = try ScriptedServer { _ in [String](repeating: long, count: 5) }
    let client = server.makeClient()
    #expect(kind { () throws(TransportError) in try client.read(0, byteCount: 1) } == .badReply)
  }
}
