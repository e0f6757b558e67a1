// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Accelerators

/// Numbers that look random and are the same in every run (SplitMix64).
private struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

@Suite(.timeLimit(.minutes(5))) struct HostileTests {
  private static let words = [
    "read", "write", "readl", "writeq", "b64read", "b64write", "memset", "outl", "inl", "outb", "clock_step",
    "clock_set",
    "set_irq_in", "irq_intercept_in", "irq_intercept_out", "ioapic", "pic", "ahci", "endianness", "module_load", "rtas",
    "0", "1", "-1", "0x", "0xcf8", "0xcfc", "0x8000fa24", "0xe0000004", "0xe0010014", "0xffffffffffffffff",
    "18446744073709551616", "07", "09", "=", "QUJD", "QUJ=", "0xabcd", "\u{0}", "\t", "é",
  ]

  /// A line of the protocol's own words in any order, or of any bytes.
  private func line(_ random: inout Seeded) -> [UInt8] {
    if random.next() % 4 == 0 {
      return (0..<random.next() % 80).map { _ in UInt8(truncatingIfNeeded: random.next()) }.filter { $0 != 10 }
    }
    let count = Int(random.next() % 6)
    return Array((0...count).map { _ in Self.words.randomElement(using: &random) ?? "" }.joined(separator: " ").utf8)
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func anyLineIsAnsweredByOKOrFAIL(_ seed: UInt64) throws {
    let kit = try QTestKit()
    kit.startAHCI()
    kit.startVirtio()
    var random = Seeded(state: seed)
    for _ in 0..<2000 {
      let line = line(&random)
      kit.client.send(line + [UInt8(ascii: "\n")])
      let answer = try #require(kit.client.answer(), "\(String(decoding: line, as: UTF8.self))")
      try #require(answer.hasPrefix("OK") || answer.hasPrefix("FAIL "), "\(answer)")
    }
    #expect(kit.client.ask("endianness") == "OK little")
    kit.finish()
  }

  @Test func halfLinesAndSilenceLeaveTheMachineAlone() throws {
    let kit = try QTestKit()
    for byte in "write 0x1000 1 0x5a".utf8 { kit.client.send([byte]) }
    #expect(try kit.onLoop { (try? kit.machine.memory.load(UInt8.self, at: 0x1000)) } == 0)
    #expect(kit.client.ask("") == "OK")
    // Half a line at the end is not a request.
    kit.client.send("write 0x1000 1 0x77".utf8)
    kit.client.endSending()
    #expect(kit.client.line() == nil)
    #expect(kit.join() == .hostRequest)
    #expect(try kit.machine.memory.load(UInt8.self, at: 0x1000) == 0x5a)
  }

  @Test func lineWithoutEndIsNotKept() throws {
    let kit = try QTestKit()
    let piece = [UInt8](repeating: UInt8(ascii: "0"), count: 1 << 20)
    kit.client.send("write 0 1 0x".utf8)
    for _ in 0..<(QTestLimit.lineBytesMax >> 20) + 2 { kit.client.send(piece) }
    #expect(kit.client.ask("") == "FAIL the line is longer than \(QTestLimit.lineBytesMax) bytes")
    #expect(kit.client.ask("endianness") == "OK little")
    kit.finish()
  }
}
