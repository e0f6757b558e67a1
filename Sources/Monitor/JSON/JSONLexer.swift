// SPDX-License-Identifier: Apache-2.0

/// What a client may send at most, with the values that QEMU's monitor has, so that neither refuses what the other takes.
public enum JSONLimits {
  /// Objects and lists within each other.
  public static let depthMax = 1024
  /// Bytes of all tokens of one value.
  public static let tokenBytesMax = 64 << 20
  /// Tokens of one value.
  public static let tokensMax = 2 << 20
}

/// A token of JSON text.
enum JSONToken: Equatable {
  case leftBrace, rightBrace, leftBracket, rightBracket, colon, comma
  /// Lower-case letters; `true`, `false` and `null` mean something.
  case keyword([UInt8])
  case number([UInt8])
  /// With its quotes, which are double or single, and its escapes.
  case string([UInt8])
  /// Bytes that begin no token, up to the first one that is wrong.
  case stray([UInt8])
  /// A token that is longer than `JSONLimits.tokenBytesMax`; it ends here.
  case tooLong

  /// Bytes of the token in the text.
  var byteCount: Int {
    switch self {
    case .leftBrace, .rightBrace, .leftBracket, .rightBracket, .colon, .comma: 1
    case .keyword(let bytes), .number(let bytes), .string(let bytes), .stray(let bytes): bytes.count
    case .tooLong: 0
    }
  }
}

/// Takes JSON text apart as it arrives, in pieces of any size.
///
/// Beside RFC 8259 it takes strings in single quotes, as QEMU's monitor does: test programs are full of them. After bytes
/// that are no token it goes on at the next structural character, control character or line.
struct JSONLexer {
  private enum State {
    case start, keyword, recovery
    case string(quote: UInt8), escape(quote: UInt8)
    // The parts of a number, as RFC 8259 §6 names them.
    case minus, zero, integer, point, fraction, exponent, exponentSign, exponentDigits
  }

  private var state = State.start
  private var token: [UInt8] = []
  private let tokenBytesMax: Int

  init(tokenBytesMax: Int = JSONLimits.tokenBytesMax) { self.tokenBytesMax = tokenBytesMax }

  /// Takes bytes from the front of `input` until a token is complete.
  /// - Returns: the token; nil where the input ended before.
  mutating func next(_ input: inout ArraySlice<UInt8>) -> JSONToken? {
    while let byte = input.first {
      if token.count > tokenBytesMax {
        token = []
        state = .recovery
        return .tooLong
      }
      if case .string(let quote) = state, takeRun(&input, quote) { continue }
      let (found, isTaken) = take(byte)
      if isTaken { input.removeFirst() }
      if let found { return found }
    }
    return nil
  }

  /// Takes the plain part of a string at once.
  /// - Returns: whether there was any.
  private mutating func takeRun(_ input: inout ArraySlice<UInt8>, _ quote: UInt8) -> Bool {
    let room = tokenBytesMax + 1 - token.count
    let run = input.prefix(room).prefix { $0 != quote && $0 != UInt8(ascii: "\\") && Self.isText($0) }
    token += run
    input = input[run.endIndex...]
    return !run.isEmpty
  }

  /// What may stand in a string: no control characters, and no byte that no UTF-8 has.
  private static func isText(_ byte: UInt8) -> Bool { byte >= 0x20 && byte < 0xfe }

  private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

  /// - Returns: a token that is complete, and whether the byte was a part of it or of the next one.
  private mutating func take(_ byte: UInt8) -> (JSONToken?, Bool) {
    switch state {
    case .start: return begin(byte)
    case .recovery:
      // Structural and control characters begin anew.
      if Self.structural(byte) == nil && Self.isText(byte) { return (nil, true) }
      state = .start
      return (nil, false)
    case .keyword:
      guard (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) else { return (finish(JSONToken.keyword), false) }
      token.append(byte)
      return (nil, true)
    case .string(let quote): return inString(byte, quote)
    case .escape(let quote):
      guard Self.isText(byte) else { return (stray(byte), true) }
      token.append(byte)
      state = .string(quote: quote)
      return (nil, true)
    case .minus, .zero, .integer, .point, .fraction, .exponent, .exponentSign, .exponentDigits: return inNumber(byte)
    }
  }

  private static func structural(_ byte: UInt8) -> JSONToken? {
    switch byte {
    case UInt8(ascii: "{"): .leftBrace
    case UInt8(ascii: "}"): .rightBrace
    case UInt8(ascii: "["): .leftBracket
    case UInt8(ascii: "]"): .rightBracket
    case UInt8(ascii: ":"): .colon
    case UInt8(ascii: ","): .comma
    default: nil
    }
  }

  private mutating func begin(_ byte: UInt8) -> (JSONToken?, Bool) {
    if let found = Self.structural(byte) { return (found, true) }
    switch byte {
    case 0x20, 0x09, 0x0a, 0x0d: return (nil, true)
    case UInt8(ascii: "\""), UInt8(ascii: "'"): state = .string(quote: byte)
    case UInt8(ascii: "a")...UInt8(ascii: "z"): state = .keyword
    case UInt8(ascii: "-"): state = .minus
    case UInt8(ascii: "0"): state = .zero
    case UInt8(ascii: "1")...UInt8(ascii: "9"): state = .integer
    default: return (stray(byte), true)
    }
    token = [byte]
    return (nil, true)
  }

  private mutating func inString(_ byte: UInt8, _ quote: UInt8) -> (JSONToken?, Bool) {
    guard Self.isText(byte) else { return (stray(byte), true) }
    token.append(byte)
    if byte == quote { return (finish(JSONToken.string), true) }
    if byte == UInt8(ascii: "\\") { state = .escape(quote: quote) }
    return (nil, true)
  }

  private mutating func inNumber(_ byte: UInt8) -> (JSONToken?, Bool) {
    guard let next = Self.afterNumber(state, byte) else {
      switch state {
      case .integer, .fraction, .exponentDigits: return (finish(JSONToken.number), false)
      case .zero where !Self.isDigit(byte): return (finish(JSONToken.number), false)
      default: return (stray(byte), true)
      }
    }
    token.append(byte)
    state = next
    return (nil, true)
  }

  /// Where a number goes on; nil where it does not with this byte.
  private static func afterNumber(_ state: State, _ byte: UInt8) -> State? {
    let isExponent = byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
    let isSign = byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-")
    switch state {
    case .minus:
      if byte == UInt8(ascii: "0") { return .zero }
      return isDigit(byte) ? .integer : nil
    case .zero, .integer:
      if byte == UInt8(ascii: ".") { return .point }
      if isExponent { return .exponent }
      if case .integer = state, isDigit(byte) { return .integer }
      return nil
    case .point: return isDigit(byte) ? .fraction : nil
    case .fraction: return isDigit(byte) ? .fraction : isExponent ? .exponent : nil
    case .exponent: return isDigit(byte) ? .exponentDigits : isSign ? .exponentSign : nil
    case .exponentSign, .exponentDigits: return isDigit(byte) ? .exponentDigits : nil
    case .start, .keyword, .recovery, .string, .escape: return nil
    }
  }

  private mutating func finish(_ make: ([UInt8]) -> JSONToken) -> JSONToken {
    state = .start
    defer { token = [] }
    return make(token)
  }

  private mutating func stray(_ byte: UInt8) -> JSONToken {
    state = .recovery
    defer { token = [] }
    return .stray(token + [byte])
  }
}
