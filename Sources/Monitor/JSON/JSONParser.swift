// SPDX-License-Identifier: Apache-2.0

/// Makes values of JSON text that arrives in pieces; several may come in one piece.
///
/// After a mistake it counts braces and brackets until the value would have ended and reports it once, as QEMU's parser
/// does; then it goes on. What it holds of an unfinished value is limited by `JSONLimits`.
struct JSONParser {
  /// What is allowed next.
  private enum Expectation {
    // Of a list: an element or its end, an element, a comma or the end.
    case elementOrEnd, element, elementSeparator
    // Of an object: a name or its end, a name, a colon, a value, a comma or the end.
    case nameOrEnd, name, colon, member, memberSeparator
  }

  private struct Level {
    var expects: Expectation
    var elements: [JSONValue] = []
    var object = JSONObject()
    var name = ""
    var isObject: Bool
  }

  private var lexer: JSONLexer
  private let tokenBytesMax: Int
  private let tokensMax: Int
  private var levels: [Level] = []
  private var failure: JSONError?
  private var braces = 0
  private var brackets = 0
  private var tokenBytes = 0
  private var tokens = 0

  /// Makes a parser; tests choose smaller limits.
  init(tokenBytesMax: Int = JSONLimits.tokenBytesMax, tokensMax: Int = JSONLimits.tokensMax) {
    lexer = JSONLexer(tokenBytesMax: tokenBytesMax)
    self.tokenBytesMax = tokenBytesMax
    self.tokensMax = tokensMax
  }

  /// Takes bytes from the front of `input` until a value is complete or wrong.
  /// - Returns: the value or what is wrong with it; nil where the input ended before.
  mutating func next(_ input: inout ArraySlice<UInt8>) -> Result<JSONValue, JSONError>? {
    while let token = lexer.next(&input) {
      if let result = take(token) { return result }
    }
    return nil
  }

  private mutating func take(_ token: JSONToken) -> Result<JSONValue, JSONError>? {
    if let error = limits(token) {
      reset()
      return .failure(error)
    }
    count(token)
    var complete: JSONValue?
    if failure == nil {
      do throws(JSONError) { complete = try accept(token) } catch {
        failure = error
        // What is kept of a value that is wrong is of no use any more.
        levels = []
      }
    }
    if braces >= 0 && brackets >= 0 && (braces > 0 || brackets > 0) { return nil }
    defer { reset() }
    if let complete { return .success(complete) }
    return .failure(failure ?? .parse("expecting value"))
  }

  private func limits(_ token: JSONToken) -> JSONError? {
    if case .stray(let bytes) = token { return .parse("stray '\(JSONScalars.shown(bytes))'") }
    if token == .tooLong || tokenBytes + token.byteCount > tokenBytesMax {
      return JSONError("JSON token size limit exceeded")
    }
    if tokens + 1 > tokensMax { return JSONError("JSON token count limit exceeded") }
    let opens = token == .leftBrace || token == .leftBracket
    if opens && braces + brackets + 1 > JSONLimits.depthMax { return JSONError("JSON nesting depth limit exceeded") }
    return nil
  }

  private mutating func count(_ token: JSONToken) {
    tokenBytes += token.byteCount
    tokens += 1
    switch token {
    case .leftBrace: braces += 1
    case .rightBrace: braces -= 1
    case .leftBracket: brackets += 1
    case .rightBracket: brackets -= 1
    default: break
    }
  }

  private mutating func reset() {
    levels = []
    failure = nil
    braces = 0
    brackets = 0
    tokenBytes = 0
    tokens = 0
  }

  // MARK: The grammar

  /// - Returns: the outermost value, where this token completes it.
  private mutating func accept(_ token: JSONToken) throws(JSONError) -> JSONValue? {
    guard let expects = levels.last?.expects else { return try value(token) }
    switch (expects, token) {
    case (.elementOrEnd, .rightBracket), (.elementSeparator, .rightBracket), (.nameOrEnd, .rightBrace),
      (.memberSeparator, .rightBrace):
      return close()
    case (.elementSeparator, .comma): expect(.element)
    case (.elementSeparator, _): throw .parse("expected separator in list")
    case (.memberSeparator, .comma): expect(.name)
    case (.memberSeparator, _): throw .parse("expected separator in dict")
    case (.colon, .colon): expect(.member)
    case (.colon, _): throw .parse("missing : in object pair")
    case (.nameOrEnd, _), (.name, _): try name(token)
    case (.elementOrEnd, _), (.element, _), (.member, _): return try value(token)
    }
    return nil
  }

  private mutating func expect(_ expectation: Expectation) { levels[levels.count - 1].expects = expectation }

  private mutating func name(_ token: JSONToken) throws(JSONError) {
    switch token {
    case .string(let bytes):
      let name = try JSONScalars.string(bytes)
      guard levels[levels.count - 1].object[name] == nil else { throw .parse("duplicate key") }
      levels[levels.count - 1].name = name
      expect(.colon)
    case .keyword(let bytes):
      _ = try JSONScalars.keyword(bytes)
      throw .parse("key is not a string in object")
    case .number, .leftBrace, .leftBracket: throw .parse("key is not a string in object")
    default: throw .parse("expecting value")
    }
  }

  private mutating func value(_ token: JSONToken) throws(JSONError) -> JSONValue? {
    switch token {
    case .leftBrace: levels.append(Level(expects: .nameOrEnd, isObject: true))
    case .leftBracket: levels.append(Level(expects: .elementOrEnd, isObject: false))
    case .keyword(let bytes): return put(try JSONScalars.keyword(bytes))
    case .number(let bytes): return put(try JSONScalars.number(bytes))
    case .string(let bytes): return put(.string(try JSONScalars.string(bytes)))
    case .rightBrace, .rightBracket, .colon, .comma, .stray, .tooLong: throw .parse("expecting value")
    }
    return nil
  }

  private mutating func close() -> JSONValue? {
    let level = levels.removeLast()
    return put(level.isObject ? .object(level.object) : .array(level.elements))
  }

  /// Puts a complete value where it belongs.
  private mutating func put(_ value: JSONValue) -> JSONValue? {
    guard !levels.isEmpty else { return value }
    let last = levels.count - 1
    if levels[last].isObject {
      levels[last].object[levels[last].name] = value
      levels[last].expects = .memberSeparator
    } else {
      levels[last].elements.append(value)
      levels[last].expects = .elementSeparator
    }
    return nil
  }
}
