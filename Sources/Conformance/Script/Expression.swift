// SPDX-License-Identifier: Apache-2.0

/// A number that may depend on a script's variables: 64 bits, and arithmetic wraps, since addresses that do are what
/// scripts are about.
indirect enum Expression: Equatable, Sendable {
  case number(UInt64)
  case variable(String)
  case inverted(Expression)
  case negated(Expression)
  case binary(Operator, Expression, Expression)

  enum Operator: String, Sendable {
    case times = "*"
    case plus = "+"
    case minus = "-"
    case left = "<<"
    case right = ">>"
    case and = "&"
    case or = "|"

    /// C's order: what binds tighter has the larger number.
    fileprivate var precedence: Int {
      switch self {
      case .times: 5
      case .plus, .minus: 4
      case .left, .right: 3
      case .and: 2
      case .or: 1
      }
    }
  }

  /// Why a text is no expression, or has no value.
  struct Failure: Error, Equatable {
    var reason: String
    init(_ reason: String) { self.reason = reason }
  }

  /// Parentheses and signs may be nested this deep.
  static let depthMax = 64
  /// An expression has no more numbers and names than this.
  static let termsMax = 256

  /// Understands a text whole.
  init(parsing text: some StringProtocol) throws(Failure) {
    var parser = Parser(Array(text.utf8))
    self = try parser.parse(above: 0)
    try parser.finish()
  }

  /// The value with these variables.
  func value(_ variables: [String: UInt64]) throws(Failure) -> UInt64 {
    switch self {
    case .number(let number): return number
    case .variable(let name):
      guard let value = variables[name] else { throw Failure("$\(name) has no value here") }
      return value
    case .inverted(let operand): return ~(try operand.value(variables))
    case .negated(let operand): return 0 &- (try operand.value(variables))
    case .binary(let operation, let first, let second):
      let (left, right) = (try first.value(variables), try second.value(variables))
      return switch operation {
      case .times: left &* right
      case .plus: left &+ right
      case .minus: left &- right
      case .left: left << right
      case .right: left >> right
      case .and: left & right
      case .or: left | right
      }
    }
  }

  /// The names of its variables, in order.
  var names: [String] {
    switch self {
    case .number: []
    case .variable(let name): [name]
    case .inverted(let operand), .negated(let operand): operand.names
    case .binary(_, let first, let second): first.names + second.names
    }
  }

  /// The number that a text is: decimal, or hexadecimal behind 0x, with _ between digits. Nil where it is none, or too
  /// large for 64 bits.
  static func number(_ text: some StringProtocol) -> UInt64? {
    let isHexadecimal = text.hasPrefix("0x") || text.hasPrefix("0X")
    let digits = Array(text.utf8.dropFirst(isHexadecimal ? 2 : 0))
    guard let first = digits.first, first != UInt8(ascii: "_"), digits.last != UInt8(ascii: "_") else { return nil }
    // UInt64 would take a sign.
    guard digits.allSatisfy({ isWordByte($0) }) else { return nil }
    return UInt64(
      String(decoding: digits.filter { $0 != UInt8(ascii: "_") }, as: UTF8.self), radix: isHexadecimal ? 16 : 10)
  }

  /// Whether a byte can be part of a number or a name.
  static func isWordByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  /// Whether a text can name a variable: letters, digits and _, no digit first.
  static func isName(_ text: some StringProtocol) -> Bool {
    guard let first = text.utf8.first, !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first) else { return false }
    return text.utf8.allSatisfy { isWordByte($0) }
  }

  /// Precedence climbing over bytes. Both limits keep a hostile text from using up the stack.
  private struct Parser {
    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0
    private var terms = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func parse(above precedence: Int) throws(Failure) -> Expression {
      var left = try parseOperand()
      while let (operation, length) = nextOperator(), operation.precedence > precedence {
        position += length
        left = .binary(operation, left, try parse(above: operation.precedence))
      }
      return left
    }

    mutating func finish() throws(Failure) {
      skipBlanks()
      guard position == bytes.count else {
        throw Failure("\"\(String(decoding: bytes[position...].prefix(20), as: UTF8.self))\" does not belong there")
      }
    }

    private mutating func parseOperand() throws(Failure) -> Expression {
      skipBlanks()
      depth += 1
      defer { depth -= 1 }
      guard depth <= Expression.depthMax else {
        throw Failure("more than \(Expression.depthMax) levels of parentheses")
      }
      guard position < bytes.count else { throw Failure("a number is missing at the end") }
      switch bytes[position] {
      case UInt8(ascii: "("):
        position += 1
        let inner = try parse(above: 0)
        skipBlanks()
        guard position < bytes.count, bytes[position] == UInt8(ascii: ")") else { throw Failure("a ) is missing") }
        position += 1
        return inner
      case UInt8(ascii: "~"):
        position += 1
        return .inverted(try parseOperand())
      case UInt8(ascii: "-"):
        position += 1
        return .negated(try parseOperand())
      default: return try parseTerm()
      }
    }

    private mutating func parseTerm() throws(Failure) -> Expression {
      terms += 1
      guard terms <= Expression.termsMax else { throw Failure("more than \(Expression.termsMax) numbers") }
      let isVariable = bytes[position] == UInt8(ascii: "$")
      if isVariable { position += 1 }
      let start = position
      while position < bytes.count, Expression.isWordByte(bytes[position]) { position += 1 }
      let word = String(decoding: bytes[start..<position], as: UTF8.self)
      if isVariable {
        guard Expression.isName(word) else { throw Failure("a name must follow $, of letters, digits and _") }
        return .variable(word)
      }
      if let number = Expression.number(word) { return .number(number) }
      let seen = word.isEmpty ? String(decoding: bytes[start...].prefix(20), as: UTF8.self) : word
      let hint = Expression.isName(word) ? "; a variable is written $\(word)" : ""
      throw Failure("\"\(seen)\" is no number of 64 bits, decimal or with 0x\(hint)")
    }

    private mutating func nextOperator() -> (Operator, length: Int)? {
      skipBlanks()
      for length in [2, 1] where position + length <= bytes.count {
        let text = String(decoding: bytes[position..<(position + length)], as: UTF8.self)
        if let operation = Operator(rawValue: text) { return (operation, length) }
      }
      return nil
    }

    private mutating func skipBlanks() {
      while position < bytes.count, bytes[position] == UInt8(ascii: " ") || bytes[position] == 9 { position += 1 }
    }
  }
}
