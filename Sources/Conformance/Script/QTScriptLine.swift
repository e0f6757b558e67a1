// SPDX-License-Identifier: Apache-2.0
// What one line of a script says. Every function takes text that the parser has found to be printable.

extension QTScript {
  typealias Failure = Expression.Failure

  /// The words of a line; blanks inside parentheses separate nothing.
  static func words(_ text: Substring) throws(Failure) -> [Substring] {
    var words: [Substring] = []
    var start: Substring.Index?
    var depth = 0
    for index in text.utf8.indices {
      let byte = text.utf8[index]
      if isBlank(byte), depth == 0 {
        if let begun = start { words.append(text[begun..<index]) }
        start = nil
        continue
      }
      if start == nil { start = index }
      if byte == UInt8(ascii: "(") { depth += 1 }
      if byte == UInt8(ascii: ")") { depth -= 1 }
      guard depth >= 0 else { throw Failure("a ) has no ( before it") }
    }
    guard depth == 0 else { throw Failure("a ) is missing") }
    if let begun = start { words.append(text[begun...]) }
    return words
  }

  /// The first word, and the rest without blanks around it.
  static func firstWord(_ text: Substring) -> (word: Substring, rest: Substring) {
    guard let end = text.utf8.firstIndex(where: { isBlank($0) }) else { return (text, text[text.endIndex...]) }
    return (text[..<end], trimmed(text[end...]))
  }

  /// The text without blanks at its ends.
  static func trimmed(_ text: Substring) -> Substring {
    var bytes = text.utf8
    while let first = bytes.first, isBlank(first) { bytes.removeFirst() }
    while let last = bytes.last, isBlank(last) { bytes.removeLast() }
    return Substring(bytes)
  }

  /// The text up to a `#` that begins the line or follows a blank.
  static func withoutComment(_ text: Substring) -> Substring {
    var isAfterBlank = true
    for index in text.utf8.indices {
      let byte = text.utf8[index]
      if byte == UInt8(ascii: "#"), isAfterBlank { return trimmed(text[..<index]) }
      isAfterBlank = isBlank(byte)
    }
    return trimmed(text)
  }

  static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == 9 }

  // MARK: Requests and replies

  /// A request, and what follows its `=>`.
  static func splitExpectation(_ text: Substring) -> (request: Substring, expectation: Substring?) {
    var previous = UInt8(ascii: " ")
    for index in text.utf8.indices {
      let rest = text.utf8[index...]
      if isBlank(previous), rest.starts(with: "=>".utf8) {
        return (trimmed(text[..<index]), trimmed(text[text.utf8.index(index, offsetBy: 2)...]))
      }
      previous = text.utf8[index]
    }
    return (text, nil)
  }

  static func request(_ text: Substring) throws(Failure) -> Request {
    let verb = firstWord(text).word
    // A pasted line goes out as it is, blanks and all.
    guard text.utf8.contains(where: { "$(_".utf8.contains($0) }) else {
      return Request(verb: String(verb), pieces: [.text(String(text))])
    }
    var pieces: [Request.Piece] = [.text(String(verb))]
    for word in try words(text).dropFirst() {
      guard isExpression(word) else {
        pieces.append(.text(" " + word))
        continue
      }
      pieces += [.text(" "), .number(try Expression(parsing: word))]
    }
    return Request(verb: String(verb), pieces: pieces)
  }

  private static func isExpression(_ word: Substring) -> Bool {
    if word.utf8.contains(where: { $0 == UInt8(ascii: "$") || $0 == UInt8(ascii: "(") }) { return true }
    return word.utf8.contains(UInt8(ascii: "_")) && Expression.number(word) != nil
  }

  static func expectation(_ text: Substring, verb: String) throws(Failure) -> Expectation {
    switch text {
    case "": throw Failure("nothing follows =>; write a number, a mask behind &, any, OK, FAIL or \"a reply\"")
    case "any": return .any
    case "OK": return .good
    case "FAIL": return .refused
    default: break
    }
    if text.utf8.first == UInt8(ascii: "\"") {
      guard text.utf8.count >= 2, text.utf8.last == UInt8(ascii: "\"") else {
        throw Failure("the closing \" is missing")
      }
      return .text(String(text.dropFirst().dropLast()))
    }
    let (value, mask) = try valueAndMask(text)
    guard verb == "read" else {
      return .number(
        try Expression(parsing: value), mask: try mask.map { text throws(Failure) in try Expression(parsing: text) })
    }
    let bytes = try self.bytes(value)
    let maskBytes = try mask.map { text throws(Failure) in try self.bytes(text) }
    if let maskBytes, maskBytes.count != bytes.count {
      throw Failure("the mask has \(maskBytes.count) bytes, the value \(bytes.count)")
    }
    return .bytes(bytes, mask: maskBytes)
  }

  /// Two parts around the one & that is outside parentheses; without one there is no mask.
  private static func valueAndMask(_ text: Substring) throws(Failure) -> (Substring, mask: Substring?) {
    var depth = 0
    var places: [Substring.Index] = []
    for index in text.utf8.indices {
      switch text.utf8[index] {
      case UInt8(ascii: "("): depth += 1
      case UInt8(ascii: ")"): depth -= 1
      case UInt8(ascii: "&") where depth == 0: places.append(index)
      default: break
      }
    }
    guard places.count < 2 else { throw Failure("of several & it is unclear which begins the mask; write parentheses") }
    guard let place = places.first else { return (text, nil) }
    return (trimmed(text[..<place]), trimmed(text[text.utf8.index(after: place)...]))
  }

  private static func bytes(_ text: Substring) throws(Failure) -> [UInt8] {
    let digits = text.utf8.dropFirst(2).filter { $0 != UInt8(ascii: "_") }
    guard text.hasPrefix("0x"), !digits.isEmpty, digits.count.isMultiple(of: 2),
      let bytes = hexadecimalBytes(digits)
    else { throw Failure("\(text.prefix(20)) is no run of bytes: write 0x and two digits a byte") }
    return bytes
  }

  /// Pairs of hexadecimal digits; nil where something else is among them.
  static func hexadecimalBytes(_ digits: [UInt8]) -> [UInt8]? {
    func value(_ digit: UInt8) -> UInt8? {
      switch digit {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
      default: nil
      }
    }
    guard digits.count.isMultiple(of: 2) else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  // MARK: Waiting

  /// How long a script may wait or pause at once.
  static let waitNanosecondsMax: UInt64 = 60_000_000_000
  /// How long it waits where it does not say.
  static let waitNanosecondsDefault: UInt64 = 10_000_000_000
  /// Requests whose reply is one number.
  private static let readingVerbs: Set<Substring> = ["readb", "readw", "readl", "readq", "inb", "inw", "inl"]

  /// What a line waits for, after `@wait`.
  static func wait(_ text: Substring) throws(Failure) -> Step.Action {
    let (condition, nanoseconds) = try splitLimit(text)
    let (word, rest) = firstWord(condition)
    if word == "irq" { return .waitForInterrupt(try Expression(parsing: rest), nanoseconds: nanoseconds) }
    let bytes = Array(condition.utf8)
    let place = bytes.indices.dropLast().first {
      bytes[$0...].starts(with: "==".utf8) || bytes[$0...].starts(with: "!=".utf8)
    }
    guard let place else {
      throw Failure("@wait needs irq NUMBER, or REQUEST == VALUE (or !=), perhaps with & MASK")
    }
    let middle = condition.utf8.index(condition.startIndex, offsetBy: place)
    let request = try self.readingRequest(trimmed(condition[..<middle]), directive: "@wait")
    let (value, mask) = try valueAndMask(trimmed(condition[condition.utf8.index(middle, offsetBy: 2)...]))
    return .wait(
      Condition(
        request: request, isEquality: bytes[place] == UInt8(ascii: "="), value: try Expression(parsing: value),
        mask: try mask.map { text throws(Failure) in try Expression(parsing: text) }),
      nanoseconds: nanoseconds)
  }

  /// A request whose reply is one number.
  static func readingRequest(_ text: Substring, directive: String) throws(Failure) -> Request {
    guard readingVerbs.contains(firstWord(text).word) else {
      throw Failure("\(directive) needs one of \(readingVerbs.sorted().joined(separator: ", "))")
    }
    return try request(text)
  }

  private static func splitLimit(_ text: Substring) throws(Failure) -> (Substring, nanoseconds: UInt64) {
    guard let last = text.utf8.lastIndex(where: { isBlank($0) }) else { return (text, waitNanosecondsDefault) }
    let before = trimmed(text[..<last])
    guard before.hasSuffix(" within") else { return (text, waitNanosecondsDefault) }
    return (trimmed(before.dropLast("within".count)), try nanoseconds(trimmed(text[last...])))
  }

  /// A length of time such as 5s, 20ms, 100us, 1000ns.
  static func nanoseconds(_ text: Substring) throws(Failure) -> UInt64 {
    for (unit, factor) in [("ns", UInt64(1)), ("us", 1000), ("ms", 1_000_000), ("s", 1_000_000_000)]
    where text.hasSuffix(unit) {
      let (value, overflow) = (Expression.number(text.dropLast(unit.count)) ?? .max).multipliedReportingOverflow(
        by: factor)
      if !overflow, value <= waitNanosecondsMax { return value }
      break
    }
    throw Failure("\"\(text.prefix(20))\" is no length of time up to 60s; write 5s, 20ms, 100us or 1000ns")
  }
}
