// SPDX-License-Identifier: Apache-2.0

/// A JSON value (RFC 8259) as a monitor exchanges it: integers of 64 bits stay exact, members keep their order.
public indirect enum JSONValue: Equatable, Sendable {
  /// `null`.
  case null
  /// `true` or `false`.
  case bool(Bool)
  /// A whole number that fits.
  case integer(Int64)
  /// A whole number above `Int64.max`.
  case unsigned(UInt64)
  /// Any other number.
  case number(Double)
  /// Text.
  case string(String)
  /// A list.
  case array([JSONValue])
  /// Members by name.
  case object(JSONObject)

  /// A whole number, in the case that is its own.
  public init(_ value: UInt64) { self = Int64(exactly: value).map { .integer($0) } ?? .unsigned(value) }
  /// A whole number.
  public init(_ value: Int) { self = .integer(Int64(value)) }

  /// The text of a string; nil for all else.
  public var text: String? {
    if case .string(let text) = self { return text }
    return nil
  }

  /// The members of an object; nil for all else.
  public var members: JSONObject? {
    if case .object(let object) = self { return object }
    return nil
  }

  /// The elements of a list; nil for all else.
  public var elements: [JSONValue]? {
    if case .array(let elements) = self { return elements }
    return nil
  }

  /// The value of a member; nil where there is none, and for all but objects.
  public subscript(name: String) -> JSONValue? { members?[name] }
}

extension JSONValue: ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral, ExpressibleByStringLiteral,
  ExpressibleByStringInterpolation, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByNilLiteral
{
  /// An object; its names differ.
  public init(dictionaryLiteral elements: (String, JSONValue)...) { self = .object(JSONObject(elements)) }
  /// A list.
  public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
  /// Text.
  public init(stringLiteral value: String) { self = .string(value) }
  /// A truth value.
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  /// A whole number.
  public init(integerLiteral value: Int64) { self = .integer(value) }
  /// Nothing.
  public init(nilLiteral: ()) { self = .null }
}

/// The members of a JSON object, in the order in which they came; a name occurs once.
public struct JSONObject: Equatable, Sendable {
  /// The names, oldest first.
  public private(set) var names: [String] = []
  private var values: [String: JSONValue] = [:]

  /// An object without members.
  public init() {}

  /// An object with members of different names.
  public init(_ members: [(String, JSONValue)]) {
    for (name, value) in members { self[name] = value }
  }

  /// The value of a member; nil where there is none. Setting nil takes the member away.
  public subscript(name: String) -> JSONValue? {
    get { values[name] }
    set {
      guard let newValue else {
        if values.removeValue(forKey: name) != nil { names.removeAll { $0 == name } }
        return
      }
      if values.updateValue(newValue, forKey: name) == nil { names.append(name) }
    }
  }

  /// The members in their order.
  public var members: [(name: String, value: JSONValue)] { names.map { ($0, values[$0] ?? .null) } }

  /// Two objects are equal where their members are, whatever the order.
  public static func == (left: JSONObject, right: JSONObject) -> Bool { left.values == right.values }
}
