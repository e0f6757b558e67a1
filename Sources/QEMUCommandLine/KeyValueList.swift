// SPDX-License-Identifier: Apache-2.0
import Assembly
import FoundationEssentials

/// A value of the form `first,key=value,flag`, as most of QEMU's options take it, or the same as a JSON object.
///
/// Keys are taken out one by one; what is left at the end is unknown. A key that comes twice counts the last time. Objects
/// in objects have keys with dots, in both forms.
struct KeyValueList: Equatable {
  /// For messages: the option, with its dash.
  let option: String
  private var pairs: [(key: String, value: String)] = []

  static func == (one: KeyValueList, other: KeyValueList) -> Bool {
    one.option == other.option && one.pairs.elementsEqual(other.pairs, by: ==)
  }

  /// Reads a value.
  /// - Parameter implied: the key of a first part that has none.
  init(_ text: String, option: String, implied: String? = nil) throws(UsageError) {
    self.option = option
    if text.first == "{" {
      try readJSON(text)
      return
    }
    for (index, part) in OptionList.split(text).enumerated() where !part.isEmpty {
      if let equals = part.utf8.firstIndex(of: UInt8(ascii: "=")) {
        set(String(part[..<equals]), String(part[part.utf8.index(after: equals)...]))
      } else if index == 0, let implied {
        set(implied, part)
      } else if part.hasPrefix("no"), part.count > 2 {
        set(String(part.dropFirst(2)), "off")
      } else {
        set(part, "on")
      }
    }
  }

  /// An empty list.
  init(option: String) { self.option = option }

  private mutating func readJSON(_ text: String) throws(UsageError) {
    guard let value = try? JSONDecoder().decode(OptionValue.self, from: Data(text.utf8)), case .object = value else {
      throw UsageError("\(option): '\(text)' is not a JSON object")
    }
    flatten(value, path: "")
  }

  private mutating func flatten(_ value: OptionValue, path: String) {
    switch value {
    case .text(let text): set(path, text)
    case .object(let members):
      let prefix = path.isEmpty ? "" : path + "."
      for (key, value) in members.sorted(by: { $0.key < $1.key }) { flatten(value, path: prefix + key) }
    }
  }

  /// Gives a key a value; the key keeps its place where it has one.
  mutating func set(_ key: String, _ value: String) {
    if let index = pairs.firstIndex(where: { $0.key == key }) {
      pairs[index].value = value
    } else {
      pairs.append((key, value))
    }
  }

  /// The value of a key; it stays in the list.
  subscript(key: String) -> String? { pairs.first { $0.key == key }?.value }

  /// The keys in order.
  var keys: [String] { pairs.map(\.key) }

  /// Takes the value of a key out of the list; of several names for the same thing, the first that is there.
  mutating func take(_ keys: String...) -> String? {
    var found: String?
    for key in keys {
      guard let index = pairs.firstIndex(where: { $0.key == key }) else { continue }
      let value = pairs.remove(at: index).value
      if found == nil { found = value }
    }
    return found
  }

  /// Takes a key that is on or off.
  mutating func takeFlag(_ keys: String..., default: Bool) throws(UsageError) -> Bool {
    for key in keys {
      guard let value = take(key) else { continue }
      switch value {
      case "on", "yes", "true": return true
      case "off", "no", "false": return false
      default: throw UsageError("\(option): \(key)=\(value) is neither on nor off")
      }
    }
    return `default`
  }

  /// Takes a key that is a number, in C's notations.
  mutating func takeNumber(_ key: String, in range: ClosedRange<Int>) throws(UsageError) -> Int? {
    guard let text = take(key) else { return nil }
    guard let number = CNumber.parse(text), range.contains(number) else {
      throw UsageError(
        "\(option): \(key)=\(text) is not a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// Calls a key by another name; it keeps its place.
  mutating func rename(_ key: String, to name: String) {
    if let index = pairs.firstIndex(where: { $0.key == key }) { pairs[index].key = name }
  }

  /// Drops keys that change nothing here.
  mutating func ignore(_ keys: String...) { pairs.removeAll { keys.contains($0.key) } }

  /// A name, which QEMU wants to begin with a letter; letters, digits, '-', '.' and '_' follow.
  func checkName(_ key: String, _ name: String) throws(UsageError) {
    guard QEMUIdentifier.isWellFormed(name) else {
      throw UsageError(
        "\(option): \(key)=\(name) is not a name: write a letter, then letters, digits, '-', '.' or '_'")
    }
  }

  /// What is left is unknown.
  func finish() throws(UsageError) {
    guard let first = pairs.first else { return }
    throw UsageError("\(option): unknown key '\(first.key)' (\(first.key)=\(first.value))")
  }

  /// What is left, as our own options take it: commas in values twice.
  var remainder: [(key: String, value: String)] { pairs }
}

/// Numbers as C's strtol reads them with base 0.
enum CNumber {
  static func parse(_ text: String) -> Int? {
    let lower = text.lowercased()
    if lower.hasPrefix("0x") { return Int(lower.dropFirst(2), radix: 16) }
    if lower.count > 1, lower.hasPrefix("0") { return Int(lower.dropFirst(), radix: 8) }
    return Int(lower)
  }
}

/// A JSON value as an option takes it: text, and what holds others.
private enum OptionValue: Decodable {
  case text(String)
  case object([String: OptionValue])

  init(from decoder: any Decoder) throws {
    if let object = try? decoder.singleValueContainer().decode([String: OptionValue].self) {
      self = .object(object)
    } else if let list = try? decoder.singleValueContainer().decode([OptionValue].self) {
      self = .object(Dictionary(uniqueKeysWithValues: list.enumerated().map { (String($0), $1) }))
    } else {
      self = .text(try Self.text(decoder.singleValueContainer()))
    }
  }

  private static func text(_ container: any SingleValueDecodingContainer) throws -> String {
    if let flag = try? container.decode(Bool.self) { return flag ? "on" : "off" }
    if let number = try? container.decode(Int.self) { return String(number) }
    return try container.decode(String.self)
  }
}
