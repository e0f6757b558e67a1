// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Accelerators

/// What a line is read as, or the text behind FAIL.
private func parse(_ line: String) -> Result<QTestCommand, QTestFailure> {
  Array(line.utf8).withUnsafeBufferPointer { line in
    do throws(QTestFailure) { return .success(try QTestParser.parse(line)) } catch { return .failure(error) }
  }
}

private func failure(_ line: String) -> String? {
  if case .failure(let failure) = parse(line) { return failure.text }
  return nil
}

@Suite struct ParserTests {
  private static let commands: [(String, QTestCommand)] = [
    ("endianness", .endianness),
    ("inb 0x3f8", .portRead(port: 0x3f8, width: 1)),
    ("inw 1016", .portRead(port: 0x3f8, width: 2)),
    ("inl 01770", .portRead(port: 0x3f8, width: 4)),
    ("outb 0xffff 0x1ff", .portWrite(port: 0xffff, width: 1, value: 0x1ff)),
    ("outw 0 -1", .portWrite(port: 0, width: 2, value: .max)),
    ("outl 0xcf8 0x8000fa24", .portWrite(port: 0xcf8, width: 4, value: 0x8000_fa24)),
    ("readb 0", .memoryRead(address: 0, width: 1)),
    ("readw -4", .memoryRead(address: UInt64.max - 3, width: 2)),
    ("readl +0XABC", .memoryRead(address: 0xabc, width: 4)),
    ("readq 18446744073709551615", .memoryRead(address: .max, width: 8)),
    ("writeb 1 2", .memoryWrite(address: 1, width: 1, value: 2)),
    ("writew 0x1 0x2", .memoryWrite(address: 1, width: 2, value: 2)),
    ("writel 00 07", .memoryWrite(address: 0, width: 4, value: 7)),
    ("writeq -1 -1", .memoryWrite(address: .max, width: 8, value: .max)),
    ("read 0x1000 0x200", .blockRead(address: 0x1000, byteCount: 0x200, .hexadecimal)),
    ("b64read 0 0", .blockRead(address: 0, byteCount: 0, .base64)),
    ("write 0x10 2 0xabcd", .blockWrite(address: 0x10, byteCount: 2, 13..<19, .hexadecimal)),
    ("b64write 0 3 QUJD", .blockWrite(address: 0, byteCount: 3, 13..<17, .base64)),
    ("memset 0x0 0x0 0x00", .fill(address: 0, byteCount: 0, value: 0)),
    ("memset 0 -1 0x1a5", .fill(address: 0, byteCount: .max, value: 0xa5)),
    ("clock_step", .clockStep(nil)),
    ("clock_step 100", .clockStep(100)),
    ("clock_set 0x10", .clockSet(16)),
    ("irq_intercept_in ioapic", .interceptInputs(17..<23)),
    ("irq_intercept_out /machine/peripheral/x", .interceptOutputs(18..<39)),
    ("irq_intercept_out ioapic unnamed-gpio-out", .interceptOutputs(18..<24)),
    ("set_irq_in ioapic unnamed-gpio-in 5 1", .setInput(11..<17, number: 5, asserted: true)),
    ("  readb   7  ", .memoryRead(address: 7, width: 1)),
  ]

  @Test(arguments: commands.indices) func readsEveryCommand(_ index: Int) {
    let (line, command) = Self.commands[index]
    #expect(parse(line) == .success(command), "\(line)")
  }

  private static let refusals: [(String, String)] = [
    ("", "Unknown command ''"),
    ("nop", "Unknown command 'nop'"),
    ("READB 0", "Unknown command 'READB'"),
    ("read\t0 1", "Unknown command 'read?0'"),
    ("readb", "readb takes 1 argument"),
    ("readb 1 2", "readb takes 1 argument"),
    ("writel 1", "writel takes 2 arguments"),
    ("clock_step 1 2", "clock_step takes 0 to 1 argument"),
    ("write 1 2", "write takes 3 arguments"),
    ("readb x", "'x' is not a number"),
    ("readb 0x", "'0x' is not a number"),
    ("readb 08", "'08' is not a number"),
    ("readb -", "'-' is not a number"),
    ("readb --1", "'--1' is not a number"),
    ("readb 1k", "'1k' is not a number"),
    ("readb 18446744073709551616", "'18446744073709551616' has more than 64 bits"),
    ("inb 0x10000", "port 0x10000 is beyond 0xffff"),
    ("read 0xfffffffffffffff0 0x11", "the range wraps around the address space"),
    ("memset 1 -1 0", ""),
    ("memset 2 -1 0", "the range wraps around the address space"),
    ("read 0 0x2000001", "33554433 bytes are more than a request moves; 33554432 are the most"),
    ("b64read 0 -1", "18446744073709551615 bytes are more than a request moves; 33554432 are the most"),
    ("clock_step -1", "time does not go back"),
    ("clock_set 0x8000000000000000", "time does not go back"),
    ("set_irq_in ioapic in 24 1", "there is no input 24"),
    ("module_load a b", "there are no modules to load"),
    ("rtas get 1 2 3 4", "a PC has no run-time abstraction services"),
  ]

  @Test(arguments: refusals.indices) func refusesWithAReason(_ index: Int) {
    let (line, text) = Self.refusals[index]
    #expect(failure(line) ?? "" == text, "\(line)")
  }

  @Test func repeatsOnlyAPrintableShortWord() {
    let text = failure(String(repeating: "\u{1}é", count: 100)) ?? ""
    #expect(text.hasPrefix("Unknown command '???"))
    #expect(text.utf8.count < 100)
    #expect(text.allSatisfy { $0.isASCII })
  }
}

@Suite struct TextTests {
  @Test(arguments: [
    ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
    ("foobar", "Zm9vYmFy"),
  ]) func base64IsTheOneOfRFC4648(_ plain: String, _ encoded: String) {
    var output: [UInt8] = []
    QTestText.append(base64: Array(plain.utf8), to: &output)
    #expect(String(decoding: output, as: UTF8.self) == encoded)
    #expect(QTestText.decode(base64: Array(encoded.utf8)) == Array(plain.utf8))
  }

  @Test(arguments: ["Z", "Zg", "Zg=", "Zg===", "Zh==", "Z===", "====", "Zm9v=", "Zm=v", "Zm9-", "Zm 9", "=m9v"])
  func oddBase64IsRefused(_ text: String) { #expect(QTestText.decode(base64: Array(text.utf8)) == nil) }

  @Test func everyByteSurvivesBothEncodings() {
    let bytes = (0..<256).map { UInt8($0) }
    var base64: [UInt8] = []
    QTestText.append(base64: bytes, to: &base64)
    #expect(QTestText.decode(base64: base64) == bytes)
    var digits = Array("0x".utf8)
    QTestText.append(hexadecimal: bytes, to: &digits)
    #expect(QTestText.decode(hexadecimal: digits, byteCountMax: 256) == bytes)
    #expect(QTestText.decode(hexadecimal: digits, byteCountMax: 3) == [0, 1, 2])
  }

  @Test(arguments: ["", "0", "x", "00", "0x1", "0xg0", "1x00", "0x 0"])
  func oddDigitsAreRefused(_ text: String) {
    #expect(QTestText.decode(hexadecimal: Array(text.utf8), byteCountMax: 9) == nil)
  }

  @Test func numbersHaveTheirDigitsOrMore() {
    func text(_ value: UInt64, _ digits: Int) -> String {
      var output: [UInt8] = []
      QTestText.append(value, digits: digits, to: &output)
      return String(decoding: output, as: UTF8.self)
    }
    #expect(text(0, 4) == "0x0000")
    #expect(text(0x1234_5678, 4) == "0x12345678")
    #expect(text(.max, 16) == "0xffffffffffffffff")
  }
}

@Suite struct LineTests {
  private func lines(_ pieces: [String]) -> [String] {
    var buffer = QTestLines()
    var found: [String] = []
    for piece in pieces {
      Array(piece.utf8).withUnsafeBytes { buffer.append($0) }
      while true {
        let next = buffer.next()
        if next == .nothing { break }
        guard case .line(let range) = next else {
          found.append("too long")
          continue
        }
        found.append(buffer.withLine(range) { String(decoding: $0, as: UTF8.self) })
      }
    }
    return found
  }

  @Test func linesComeWholeHoweverTheyAreCut() {
    #expect(lines(["a", "b\nc\r\n\n", "d"]) == ["ab", "c", ""])
    #expect(lines(["one\ntwo\nthr", "ee\n"]) == ["one", "two", "three"])
    #expect(lines(["\r\n"]) == [""])
  }

  @Test func lineThatIsTooLongIsDroppedAsItComes() {
    var buffer = QTestLines()
    let piece = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 20)
    for _ in 0..<(QTestLimit.lineBytesMax >> 20) + 5 {
      piece.withUnsafeBytes { buffer.append($0) }
      #expect(buffer.next() == .nothing)
      #expect(buffer.byteCount <= QTestLimit.lineBytesMax)
    }
    #expect(buffer.byteCount == 0)
    Array("xx\nendianness\n".utf8).withUnsafeBytes { buffer.append($0) }
    #expect(buffer.next() == .tooLong)
    guard case .line(let range) = buffer.next() else {
      Issue.record("the line behind is lost")
      return
    }
    #expect(buffer.withLine(range) { String(decoding: $0, as: UTF8.self) } == "endianness")
  }
}
