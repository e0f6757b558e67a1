// SPDX-License-Identifier: Apache-2.0
import EventLoop
import GuestMemory
import HostSystem
import Machine
import Testing

@testable import Accelerators

/// Registers that note accesses and answer with the address.
private final class Notes: RegisterBlock {
  var accesses: [String] = []
  override func read(offset: UInt64, width: Int) -> UInt64 {
    accesses.append("r\(width)+\(offset)")
    return 0x8877_6655_4433_2211 >> (8 * (offset % 8))
  }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    accesses.append("w\(width)+\(offset)=\(String(value, radix: 16))")
  }
}

private let ramEnd = QTestKit.ramBytes

@Suite(.timeLimit(.minutes(2))) struct ServerTests {
  private let notes = Notes()

  /// A machine with registers right behind RAM, and at a port.
  private func makeKit() throws -> QTestKit {
    try QTestKit { [notes] machine in
      machine.lock.withLock {
        _ = machine.memorySpace.map(notes, at: ramEnd, byteCount: 0x100)
        _ = machine.portSpace.map(notes, at: 0x500, byteCount: 8)
      }
    }
  }

  /// What the registers were asked since the last call.
  private func taken(_ kit: QTestKit) throws -> [String] {
    try kit.onLoop { [notes] in
      defer { notes.accesses = [] }
      return notes.accesses
    }
  }

  @Test func answersHaveTheProtocolsForm() throws {
    let kit = try makeKit()
    let client = kit.client
    #expect(client.ask("endianness") == "OK little")
    #expect(client.ask("nonsense") == "FAIL Unknown command 'nonsense'")
    #expect(client.ask("") == "FAIL Unknown command ''")
    #expect(client.ask("writel 0x1000 0xdeadBEEF") == "OK")
    #expect(client.ask("readl 0x1000") == "OK 0x00000000deadbeef")
    #expect(client.ask("readb 0x1003") == "OK 0x00000000000000de")
    #expect(client.ask("readw 0x1001") == "OK 0x000000000000adbe")
    #expect(client.ask("writeq 0x1003 -2") == "OK")
    #expect(client.ask("readq 0x1003") == "OK 0xfffffffffffffffe")
    #expect(client.ask("inb 0x700") == "OK 0x00ff")
    #expect(client.ask("inw 0x700") == "OK 0xffff")
    #expect(client.ask("inl 0x700") == "OK 0xffffffff")
    #expect(client.ask("outb 0x700 1") == "OK")
    #expect(client.ask("readl 0xd0000000") == "OK 0x0000000000000000")
    #expect(client.ask("readq 0xfffffffffffffffc") == "OK 0x0000000000000000")
    kit.finish()
  }

  @Test func blocksGoBothWaysInBothEncodings() throws {
    let kit = try makeKit()
    let client = kit.client
    #expect(client.ask("write 0x2000 4 0x0102ABcd") == "OK")
    #expect(client.ask("read 0x2000 6") == "OK 0x0102abcd0000")
    #expect(client.ask("write 0x2000 4 0xff") == "OK")
    #expect(client.ask("read 0x2000 4") == "OK 0xff000000")
    #expect(client.ask("write 0x2000 1 0x112233") == "OK")
    #expect(client.ask("read 0x2000 4") == "OK 0x11000000")
    #expect(client.ask("b64write 0x2000 3 QUJD") == "OK")
    #expect(client.ask("b64read 0x2000 4") == "OK QUJDAA==")
    #expect(client.ask("memset 0x2001 2 0x15a") == "OK")
    #expect(client.ask("read 0x2000 4") == "OK 0x415a5a00")
    #expect(client.ask("memset 0x0 0x0 0x00") == "OK")
    #expect(client.ask("read 0 0") == "OK 0x")
    #expect(client.ask("b64read 0 0") == "OK ")
    #expect(client.ask("write 0 1 ff") == "FAIL the data are not 0x and two hexadecimal digits for each byte")
    #expect(client.ask("b64write 0 3 QUJ") == "FAIL the data are not padded base64")
    #expect(client.ask("b64write 0 2 QUJD") == "FAIL the data are 3 bytes, not 2")
    kit.finish()
  }

  @Test func largeBlockSurvivesTheWayThereAndBack() throws {
    let kit = try makeKit()
    let bytes = (0..<262_144).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
    var text: [UInt8] = []
    QTestText.append(base64: bytes, to: &text)
    let encoded = String(decoding: text, as: UTF8.self)
    #expect(kit.client.ask("b64write 0x100000 \(bytes.count) \(encoded)") == "OK")
    #expect(kit.client.ask("b64read 0x100000 \(bytes.count)") == "OK \(encoded)")
    #expect(kit.client.bytes(0x10_0000, bytes.count) == bytes)
    kit.finish()
  }

  @Test func registersSeeAlignedAccessesOfTheirWidth() throws {
    let kit = try makeKit()
    let client = kit.client
    #expect(client.ask("readl \(ramEnd + 4)") == "OK 0x0000000088776655")
    #expect(client.ask("readq \(ramEnd)") == "OK 0x8877665544332211")
    #expect(client.ask("writeq \(ramEnd + 8) 0x1122334455667788") == "OK")
    #expect(try taken(kit) == ["r4+4", "r8+0", "w8+8=1122334455667788"])
    #expect(client.ask("readl \(ramEnd + 1)") == "OK 0x0000000055443322")
    #expect(try taken(kit) == ["r1+1", "r2+2", "r1+4"])
    #expect(client.ask("read \(ramEnd + 2) 11") == "OK 0x3344556677881122334455")
    #expect(try taken(kit) == ["r2+2", "r4+4", "r4+8", "r1+12"])
    #expect(client.ask("write \(ramEnd) 8 0x0102030405060708") == "OK")
    #expect(client.ask("memset \(ramEnd + 4) 6 0xab") == "OK")
    #expect(try taken(kit) == ["w4+0=4030201", "w4+4=8070605", "w4+4=abababab", "w2+8=abab"])
    #expect(client.ask("outw 0x502 0x12345") == "OK")
    #expect(client.ask("inl 0x504") == "OK 0x88776655")
    #expect(try taken(kit) == ["w2+2=2345", "r4+4"])
    kit.finish()
  }

  @Test func rangeOverRAMAndRegistersIsTakenPieceByPiece() throws {
    let kit = try makeKit()
    let client = kit.client
    #expect(client.ask("write \(ramEnd - 2) 4 0xaabbccdd") == "OK")
    #expect(try taken(kit) == ["w2+0=ddcc"])
    #expect(client.ask("readl \(ramEnd - 2)") == "OK 0x000000002211bbaa")
    #expect(client.ask("read \(ramEnd - 2) 4") == "OK 0xaabb1122")
    #expect(client.ask("writel \(ramEnd - 1) 0x44332211") == "OK")
    #expect(try taken(kit) == ["r2+0", "r2+0", "w2+0=3322", "w1+2=44"])
    #expect(client.ask("read \(ramEnd + 0xfe) 4") == "OK 0x77880000")
    kit.finish()
  }

  @Test func hugeFillIsRefusedWhereItIsNotRAM() throws {
    let kit = try makeKit()
    #expect(kit.client.ask("memset 0 -1 1")?.hasPrefix("FAIL ") == true)
    #expect(kit.client.ask("memset 0 \(ramEnd) 0x77") == "OK")
    #expect(kit.client.ask("readq \(ramEnd - 8)") == "OK 0x7777777777777777")
    kit.finish()
  }

  @Test func clockMovesOnlyWhenTold() throws {
    let kit = try makeKit()
    let client = kit.client
    #expect(client.ask("clock_step") == "OK 0")
    #expect(client.ask("clock_step 100") == "OK 100")
    #expect(client.ask("clock_set 5") == "OK 100")
    #expect(client.ask("clock_set 0x1000") == "OK 4096")
    #expect(client.ask("clock_step 0x7fffffffffffffff") == "OK 9223372036854779903")
    kit.finish()
  }

  @Test func requestsOfOneWriteAreAnsweredInOrder() throws {
    let kit = try makeKit()
    let count = 20_000
    let requests = (0..<count).map { "writel 0x1000 \($0)\nreadl 0x1000\n" }.joined()
    nonisolated(unsafe) let client = kit.client
    // Sent from elsewhere, as the answers have to be read meanwhile.
    let sender = try HostThread(name: "sender") { client.send(requests.utf8) }
    for index in 0..<count {
      let answers = [kit.client.answer(), kit.client.answer()]
      try #require(answers[0] == "OK" && answers[1].flatMap { UInt64($0.dropFirst(5), radix: 16) } == UInt64(index))
    }
    sender.join()
    kit.finish()
  }

  @Test func clientThatDoesNotReadStopsTheServerAndNotTheMachine() throws {
    let kit = try makeKit()
    // Answers of 64 MiB in all, far more than any buffer on the way.
    kit.client.send((0..<64).map { _ in "read 0 0x80000\n" }.joined().utf8)
    try kit.wait { kit.server.waitingBytes > 0 }
    #expect(try kit.onLoop { kit.server.waitingBytes } < QTestLimit.outputBytesMax + (2 << 20))
    for _ in 0..<64 { #expect(kit.client.answer()?.utf8.count == 5 + 0x10_0000) }
    #expect(kit.client.ask("endianness") == "OK little")
    kit.finish()
  }
}
