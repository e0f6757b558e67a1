// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Text that is no JSON, with what a client is told of it.
struct JSONError: Error, Equatable {
  let description: String
  init(_ description: String) { self.description = description }
  /// A mistake in the grammar.
  static func parse(_ what: String) -> JSONError { JSONError("JSON parse error, \(what)") }
}

/// Values of single tokens.
enum JSONScalars {
  static func keyword(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
    switch shown(bytes) {
    case "true": return .bool(true)
    case "false": return .bool(false)
    case "null": return .null
    case let other: throw .parse("invalid keyword '\(other)'")
    }
  }

  /// Whole numbers are exact where 64 bits, with or without sign, hold them.
  static func number(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
    let text = String(decoding: bytes, as: UTF8.self)
    if let value = Int64(text) { return .integer(value) }
    if let value = UInt64(text) { return .unsigned(value) }
    guard let value = Double(text), value.isFinite else { throw .parse("number '\(shown(bytes))' is out of range") }
    return .number(value)
  }

  /// The text of a string token. U+0000 is refused: names of files and devices end where C finds it.
  static func string(_ token: [UInt8]) throws(JSONError) -> String {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(token.count)
    var rest = token.dropFirst().dropLast()
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "\\") { try escape(&rest, into: &bytes) } else { bytes.append(byte) }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw .parse("invalid UTF-8 sequence in string") }
    return text
  }

  private static func escape(_ rest: inout ArraySlice<UInt8>, into bytes: inout [UInt8]) throws(JSONError) {
    guard let kind = rest.popFirst() else { throw .parse("invalid escape sequence in string") }
    switch kind {
    case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(kind)
    case UInt8(ascii: "b"): bytes.append(0x08)
    case UInt8(ascii: "f"): bytes.append(0x0c)
    case UInt8(ascii: "n"): bytes.append(0x0a)
    case UInt8(ascii: "r"): bytes.append(0x0d)
    case UInt8(ascii: "t"): bytes.append(0x09)
    case UInt8(ascii: "u"): bytes += String(try scalar(&rest)).utf8
    default: throw .parse("invalid escape sequence in string")
    }
  }

  /// One escaped character; those beyond the basic plane are two escapes, the surrogates of UTF-16.
  private static func scalar(_ rest: inout ArraySlice<UInt8>) throws(JSONError) -> Character {
    let start = rest
    guard var value = unit(&rest) else { throw notACharacter(start) }
    if UTF16.isLeadSurrogate(UInt16(value)) {
      var after = rest
      if after.popFirst() == UInt8(ascii: "\\"), after.popFirst() == UInt8(ascii: "u"), let low = unit(&after),
        UTF16.isTrailSurrogate(UInt16(low))
      {
        rest = after
        value = 0x1_0000 + (value & 0x3ff) << 10 + (low & 0x3ff)
      }
    }
    guard value != 0, let scalar = Unicode.Scalar(value) else { throw notACharacter(start) }
    return Character(scalar)
  }

  private static func unit(_ rest: inout ArraySlice<UInt8>) -> UInt32? {
    let digits = rest.prefix(4)
    guard digits.count == 4, digits.allSatisfy({ isxdigit(Int32($0)) != 0 }) else { return nil }
    rest = rest.dropFirst(4)
    return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
  }

  private static func notACharacter(_ digits: ArraySlice<UInt8>) -> JSONError {
    .parse("\\u\(shown(Array(digits.prefix(4)))) is not a valid Unicode character")
  }

  /// Bytes of a client that are shown to it again, at most.
  private static let shownBytesMax = 64

  /// The front of a token, as an error shows it. Clients written in C end their texts at a zero.
  static func shown(_ bytes: [UInt8]) -> String {
    String(String(decoding: bytes.prefix(shownBytesMax), as: UTF8.self).map { $0 == "\0" ? "\u{fffd}" : $0 })
  }
}
