// SPDX-License-Identifier: Apache-2.0
import Assembly

/// A parameter of a command.
struct MonitorParameter: Sendable {
  /// What it takes.
  enum Kind: Sendable, Equatable {
    case string, boolean, object, any
    /// A whole number of 64 bits with a sign, as all of QEMU's are.
    case integer
    /// One of several words.
    case choice([String])

    /// How errors name it; nil where everything is right.
    fileprivate func mismatch(_ value: JSONValue) -> String? {
      switch (self, value) {
      case (.any, _), (.string, .string), (.choice, .string), (.integer, .integer),
        (.boolean, .bool), (.object, .object):
        nil
      case (.string, _), (.choice, _): "string"
      case (.integer, _): "integer"
      case (.boolean, _): "boolean"
      case (.object, _): "object"
      }
    }
  }

  let name: String
  let kind: Kind
  let isOptional: Bool

  /// One that must be there.
  static func required(_ name: String, _ kind: Kind = .string) -> MonitorParameter {
    MonitorParameter(name: name, kind: kind, isOptional: false)
  }

  /// One that may be there.
  static func optional(_ name: String, _ kind: Kind = .string) -> MonitorParameter {
    MonitorParameter(name: name, kind: kind, isOptional: true)
  }
}

/// What came with a command, checked against its parameters.
struct MonitorArguments {
  /// All of it.
  let object: JSONObject

  /// Checks arguments with QEMU's words: first each parameter in its turn, then what is left over.
  /// - Parameter isOpen: names that are no parameters are the command's own affair.
  init(_ object: JSONObject, _ parameters: [MonitorParameter], isOpen: Bool = false) throws(ControlError) {
    self.object = object
    for parameter in parameters {
      guard let value = object[parameter.name] else {
        if parameter.isOptional { continue }
        throw .missing(parameter.name)
      }
      if let expected = parameter.kind.mismatch(value) { throw .wrongType(parameter.name, expected: expected) }
      if case .choice(let words) = parameter.kind, let word = value.text, !words.contains(word) {
        throw .wrongValue(parameter.name, word)
      }
    }
    if isOpen { return }
    for name in object.names where !parameters.contains(where: { $0.name == name }) { throw .unexpected(name) }
  }

  /// Text; nil where it was left out.
  func text(_ name: String) -> String? { object[name]?.text }
  /// Text that the check has found.
  func required(_ name: String) -> String { object[name]?.text ?? "" }
  /// A truth value.
  func flag(_ name: String, default: Bool = false) -> Bool {
    if case .bool(let value)? = object[name] { return value }
    return `default`
  }

  /// A whole number that is not negative; nil where it was left out.
  func count(_ name: String) throws(ControlError) -> UInt64? {
    switch object[name] {
    case .integer(let value)?:
      guard let count = UInt64(exactly: value) else { throw ControlError("Parameter '\(name)' expects a >0 size") }
      return count
    default: return nil
    }
  }

  /// The drive that `device` or `id` names.
  func drive() throws(ControlError) -> DriveReference {
    switch (text("device"), text("id")) {
    case (let device?, nil): return .device(device)
    case (nil, let id?): return .id(id)
    default: throw ControlError("Need exactly one of 'device' and 'id'")
    }
  }
}

extension ControlError {
  static func missing(_ name: String) -> ControlError { ControlError("Parameter '\(name)' is missing") }
  static func unexpected(_ name: String) -> ControlError { ControlError("Parameter '\(name)' is unexpected") }
  static func wrongType(_ name: String, expected: String) -> ControlError {
    ControlError("Invalid parameter type for '\(name)', expected: \(expected)")
  }
  static func wrongValue(_ name: String, _ value: String) -> ControlError {
    ControlError("Parameter '\(name)' does not accept value '\(value)'")
  }
}
