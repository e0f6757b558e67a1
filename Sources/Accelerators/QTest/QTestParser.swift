// SPDX-License-Identifier: Apache-2.0

/// Reads lines of the qtest protocol, strictly: a line is a command with as many arguments as it has, all of them right,
/// or it is answered by FAIL and nothing happens.
///
/// Words are parted by spaces; a carriage return before the line's end is not part of the line. Nothing here knows a
/// machine, and nothing allocates but the text of a failure.
struct QTestParser {
  /// What a command's arguments are.
  private enum Form {
    case endianness
    case portRead(Int), portWrite(Int), memoryRead(Int), memoryWrite(Int)
    case blockRead(QTestEncoding), blockWrite(QTestEncoding)
    case fill, clockStep, clockSet, interceptInputs, interceptOutputs, setInput
    /// A command of QEMU's that this machine has nothing for.
    case refused(String)
  }

  private struct Verb {
    let name: [UInt8]
    /// How many arguments it takes.
    let arguments: ClosedRange<Int>
    let form: Form

    init(_ name: String, _ arguments: ClosedRange<Int>, _ form: Form) {
      self.name = Array(name.utf8)
      self.arguments = arguments
      self.form = form
    }
  }

  // The frequent ones first.
  private static let verbs: [Verb] = [
    Verb("readl", 1...1, .memoryRead(4)), Verb("writel", 2...2, .memoryWrite(4)),
    Verb("read", 2...2, .blockRead(.hexadecimal)), Verb("write", 3...3, .blockWrite(.hexadecimal)),
    Verb("inl", 1...1, .portRead(4)), Verb("outl", 2...2, .portWrite(4)),
    Verb("inw", 1...1, .portRead(2)), Verb("outw", 2...2, .portWrite(2)),
    Verb("inb", 1...1, .portRead(1)), Verb("outb", 2...2, .portWrite(1)),
    Verb("readb", 1...1, .memoryRead(1)), Verb("writeb", 2...2, .memoryWrite(1)),
    Verb("readw", 1...1, .memoryRead(2)), Verb("writew", 2...2, .memoryWrite(2)),
    Verb("readq", 1...1, .memoryRead(8)), Verb("writeq", 2...2, .memoryWrite(8)),
    Verb("clock_step", 0...1, .clockStep), Verb("clock_set", 1...1, .clockSet),
    Verb("b64read", 2...2, .blockRead(.base64)), Verb("b64write", 3...3, .blockWrite(.base64)),
    Verb("memset", 3...3, .fill), Verb("endianness", 0...0, .endianness),
    Verb("irq_intercept_in", 1...1, .interceptInputs), Verb("irq_intercept_out", 1...2, .interceptOutputs),
    Verb("set_irq_in", 4...4, .setInput),
    Verb("module_load", 2...2, .refused("there are no modules to load")),
    Verb("rtas", 5...5, .refused("a PC has no run-time abstraction services")),
  ]

  /// Words that any command has at most; further ones make a line wrong.
  private static let wordsMax = 6

  let line: UnsafeBufferPointer<UInt8>
  private var next = 0

  private init(_ line: UnsafeBufferPointer<UInt8>) { self.line = line }

  /// Reads one line, without its end.
  static func parse(_ line: UnsafeBufferPointer<UInt8>) throws(QTestFailure) -> QTestCommand {
    var parser = QTestParser(line)
    return try parser.parse()
  }

  // MARK: Words

  /// The next word; nil at the end of the line.
  private mutating func word() -> Range<Int>? {
    let space = UInt8(ascii: " ")
    while next < line.count, line[next] == space { next += 1 }
    let start = next
    while next < line.count, line[next] != space { next += 1 }
    return start < next ? start..<next : nil
  }

  private mutating func argument() throws(QTestFailure) -> Range<Int> {
    // Their count has been checked.
    guard let word = word() else { throw QTestFailure("an argument is missing") }
    return word
  }

  private func matches(_ range: Range<Int>, _ name: [UInt8]) -> Bool {
    range.count == name.count && name.indices.allSatisfy { line[range.lowerBound + $0] == name[$0] }
  }

  /// A word as an answer may repeat it: not too long, and printable.
  static func echo(_ bytes: some Collection<UInt8>) -> String {
    let shown = bytes.prefix(QTestLimit.echoBytesMax).map { (0x20..<0x7f).contains($0) ? $0 : UInt8(ascii: "?") }
    return String(decoding: shown, as: UTF8.self) + (bytes.count > shown.count ? "..." : "")
  }

  // MARK: Commands

  private mutating func parse() throws(QTestFailure) -> QTestCommand {
    let name = word() ?? 0..<0
    guard let verb = Self.verbs.first(where: { matches(name, $0.name) }) else {
      throw QTestFailure("Unknown command '\(Self.echo(line[name]))'")
    }
    let rest = next
    var count = 0
    while count < Self.wordsMax, word() != nil { count += 1 }
    next = rest
    guard verb.arguments.contains(count) else {
      let (low, high) = (verb.arguments.lowerBound, verb.arguments.upperBound)
      let wanted = low == high ? "\(low)" : "\(low) to \(high)"
      throw QTestFailure("\(Self.echo(verb.name)) takes \(wanted) argument\(high == 1 ? "" : "s")")
    }
    return try command(verb.form, hasArguments: count > 0)
  }

  private mutating func command(_ form: Form, hasArguments: Bool) throws(QTestFailure) -> QTestCommand {
    switch form {
    case .endianness: return .endianness
    case .portRead(let width): return .portRead(port: try port(), width: width)
    case .portWrite(let width):
      return .portWrite(port: try port(), width: width, value: UInt32(truncatingIfNeeded: try number()))
    case .memoryRead(let width): return .memoryRead(address: try number(), width: width)
    case .memoryWrite(let width): return .memoryWrite(address: try number(), width: width, value: try number())
    case .blockRead(let encoding):
      let (address, byteCount) = try range()
      return .blockRead(address: address, byteCount: try transfer(byteCount), encoding)
    case .blockWrite(let encoding):
      let (address, byteCount) = try range()
      return .blockWrite(address: address, byteCount: try transfer(byteCount), try argument(), encoding)
    case .fill:
      let (address, byteCount) = try range()
      return .fill(address: address, byteCount: byteCount, value: UInt8(truncatingIfNeeded: try number()))
    case .clockStep: return .clockStep(hasArguments ? try time() : nil)
    case .clockSet: return .clockSet(try time())
    case .interceptInputs: return .interceptInputs(try argument())
    case .interceptOutputs: return .interceptOutputs(try argument())
    case .setInput: return try setInput()
    case .refused(let why): throw QTestFailure(why)
    }
  }

  /// A port's number.
  private mutating func port() throws(QTestFailure) -> UInt16 {
    let value = try number()
    guard let port = UInt16(exactly: value) else {
      throw QTestFailure("port 0x\(String(value, radix: 16)) is beyond 0xffff")
    }
    return port
  }

  /// An address and a length that does not run over the end of the address space.
  private mutating func range() throws(QTestFailure) -> (address: UInt64, byteCount: UInt64) {
    let (address, byteCount) = (try number(), try number())
    guard byteCount == 0 || !address.addingReportingOverflow(byteCount - 1).overflow else {
      throw QTestFailure("the range wraps around the address space")
    }
    return (address, byteCount)
  }

  private func transfer(_ byteCount: UInt64) throws(QTestFailure) -> Int {
    guard byteCount <= QTestLimit.transferBytesMax else {
      throw QTestFailure(
        "\(byteCount) bytes are more than a request moves; \(QTestLimit.transferBytesMax) are the most")
    }
    return Int(byteCount)
  }

  /// Nanoseconds; the protocol's clock is a signed number.
  private mutating func time() throws(QTestFailure) -> UInt64 {
    let value = try number()
    guard value <= UInt64(Int64.max) else { throw QTestFailure("time does not go back") }
    return value
  }

  private mutating func setInput() throws(QTestFailure) -> QTestCommand {
    let device = try argument()
    // The name of the list of inputs: the devices that have some have one list.
    _ = try argument()
    let (input, level) = (try number(), try number())
    guard input < UInt64(QTestInterrupts.linesMax) else { throw QTestFailure("there is no input \(input)") }
    return .setInput(device, number: Int(input), asserted: level != 0)
  }

  // MARK: Numbers

  /// A number as strtoull(3) reads it with base 0: decimal, 0x and hexadecimal, 0 and octal, with a sign; a negative one
  /// counts from the end, 2^64. The whole word must be the number.
  private mutating func number() throws(QTestFailure) -> UInt64 {
    let word = try argument()
    var index = word.lowerBound
    let isNegative = line[index] == UInt8(ascii: "-")
    if isNegative || line[index] == UInt8(ascii: "+") { index += 1 }
    var base: UInt64 = 10
    if index + 1 < word.upperBound, line[index] == UInt8(ascii: "0") {
      let isHexadecimal = line[index + 1] | 0x20 == UInt8(ascii: "x")
      base = isHexadecimal ? 16 : 8
      index += isHexadecimal ? 2 : 1
    }
    var value: UInt64 = 0
    var isNumber = index < word.upperBound
    while isNumber, index < word.upperBound {
      guard let digit = QTestText.digit(line[index]), UInt64(digit) < base else {
        isNumber = false
        break
      }
      let (product, overflows) = value.multipliedReportingOverflow(by: base)
      let (sum, carries) = product.addingReportingOverflow(UInt64(digit))
      guard !overflows, !carries else { throw QTestFailure("'\(Self.echo(line[word]))' has more than 64 bits") }
      value = sum
      index += 1
    }
    guard isNumber else { throw QTestFailure("'\(Self.echo(line[word]))' is not a number") }
    return isNegative ? 0 &- value : value
  }
}
