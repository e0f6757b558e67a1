// SPDX-License-Identifier: Apache-2.0
// Assembly: puts machines together from what a user asked for. It knows every device and accelerator; what people do
// with a machine stands above it.

/// What is wrong with a user's option, as one line that names the option, the value and the way out.
public struct UsageError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  /// Makes the line.
  public init(_ description: String) { self.description = description }
}

/// A machine that could not be put together or run, as one line.
public struct SetupError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  /// Makes the line.
  public init(_ description: String) { self.description = description }
}

/// A list of the form `key=value,key=value`, as `--drive` takes it. A comma in a value is written twice.
public struct OptionList {
  private let option: String
  private var values: [(key: String, value: String)] = []

  /// Takes a list apart.
  /// - Parameters:
  ///   - known: the keys that there are, for the error text.
  ///   - isOther: whether a key that is not among them is taken as well.
  ///   - flags: a key without a value means that it is on, and an empty list is no mistake.
  public init(
    _ text: String, option: String, known: [String], isOther: (String) -> Bool = { _ in false }, flags: Bool = false
  ) throws(UsageError) {
    self.option = option
    if flags && text.isEmpty { return }
    for part in OptionList.split(text) {
      let part = flags && known.contains(part) ? part + "=on" : part
      guard let equals = part.utf8.firstIndex(of: UInt8(ascii: "=")), equals != part.startIndex else {
        throw UsageError("\(option): '\(part)' is not of the form key=value; keys are \(known.joined(separator: ", "))")
      }
      let key = String(part[..<equals])
      guard known.contains(key) || isOther(key) else {
        throw UsageError("\(option): unknown key '\(key)'; keys are \(known.joined(separator: ", "))")
      }
      guard !values.contains(where: { $0.key == key }) else {
        throw UsageError("\(option): key '\(key)' is given twice; give it once")
      }
      values.append((key, String(part[part.utf8.index(after: equals)...])))
    }
  }

  /// Takes a list apart at its commas; two stand for one that belongs to a value. A comma counts whatever follows it: an accent
  /// at the front of a name makes one character with it.
  public static func split(_ text: String) -> [String] {
    var parts: [String] = []
    var current = String.UnicodeScalarView()
    var rest = text.unicodeScalars[...]
    while let scalar = rest.popFirst() {
      if scalar != "," {
        current.append(scalar)
      } else if rest.first == "," {
        rest.removeFirst()
        current.append(",")
      } else {
        parts.append(String(current))
        current = String.UnicodeScalarView()
      }
    }
    parts.append(String(current))
    return parts
  }

  /// A value as it is written in a list.
  public static func written(_ value: String) -> String {
    var text = String.UnicodeScalarView()
    for scalar in value.unicodeScalars { text.append(contentsOf: scalar == "," ? [",", ","] : [scalar]) }
    return String(text)
  }

  /// Every key, in the order in which they were given.
  public var keys: [String] { values.map(\.key) }
  /// Every key with its value, in that order.
  public var all: [(key: String, value: String)] { values }

  /// The value of a key as it stands, or nil.
  public subscript(key: String) -> String? { values.first { $0.key == key }?.value }

  /// The value of a key that is on or off.
  public func flag(_ key: String, default: Bool) throws(UsageError) -> Bool {
    switch self[key] {
    case nil: return `default`
    case "on": return true
    case "off": return false
    case let value?: throw UsageError("\(option): \(key)=\(value) is neither on nor off")
    }
  }

  /// The value of a key that names one of several choices.
  public func choice<T>(_ key: String, _ choices: [(String, T)], default: T) throws(UsageError) -> T {
    guard let value = self[key] else { return `default` }
    if let match = choices.first(where: { $0.0 == value }) { return match.1 }
    throw UsageError("\(option): \(key)=\(value) is unknown; choose one of \(choices.map(\.0).joined(separator: ", "))")
  }

  /// The value of a key that is a whole number in a range.
  public func number(_ key: String, in range: ClosedRange<Int>, default: Int) throws(UsageError) -> Int {
    guard let value = self[key] else { return `default` }
    guard let number = Int(value), range.contains(number) else {
      throw UsageError(
        "\(option): \(key)=\(value) is not a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }
}

/// A size as users write it: a whole number with an optional K, M, G or T (powers of 1024).
public enum ByteSize {
  private static let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]

  /// Reads a size; without a unit the number counts `defaultUnit` bytes.
  public static func parse(_ text: String, option: String, defaultUnit: UInt64 = 1) throws(UsageError) -> UInt64 {
    var digits = text
    var unit = defaultUnit
    if let last = text.last, let found = units[Character(last.uppercased())] {
      unit = found
      digits.removeLast()
    }
    guard let number = UInt64(digits), !number.multipliedReportingOverflow(by: unit).overflow else {
      throw UsageError("\(option) \(text): not a size; write a whole number with K, M, G or T, such as 256M")
    }
    return number * unit
  }
}
