// SPDX-License-Identifier: Apache-2.0

/// How values are written: one line of ASCII, as clients of QEMU's monitor are used to.
extension JSONValue {
  /// The value as JSON text.
  public var jsonText: String { String(decoding: jsonBytes, as: UTF8.self) }

  /// The value as JSON text in ASCII.
  public var jsonBytes: [UInt8] {
    var bytes: [UInt8] = []
    append(to: &bytes)
    return bytes
  }

  /// Values that a parser made are at most `JSONLimits.depthMax` deep, so this calls itself no deeper.
  private func append(to bytes: inout [UInt8]) {
    switch self {
    case .null: bytes += "null".utf8
    case .bool(let value): bytes += (value ? "true" : "false").utf8
    case .integer(let value): bytes += String(value).utf8
    case .unsigned(let value): bytes += String(value).utf8
    case .number(let value): bytes += Self.text(of: value).utf8
    case .string(let value): Self.append(value, to: &bytes)
    case .array(let elements):
      bytes.append(UInt8(ascii: "["))
      for (index, element) in elements.enumerated() {
        if index > 0 { bytes += ", ".utf8 }
        element.append(to: &bytes)
      }
      bytes.append(UInt8(ascii: "]"))
    case .object(let object):
      bytes.append(UInt8(ascii: "{"))
      for (index, member) in object.members.enumerated() {
        if index > 0 { bytes += ", ".utf8 }
        Self.append(member.name, to: &bytes)
        bytes += ": ".utf8
        member.value.append(to: &bytes)
      }
      bytes.append(UInt8(ascii: "}"))
    }
  }

  /// Whole numbers without a fraction, others as short as they are still exact. JSON has no infinite ones.
  private static func text(of value: Double) -> String {
    guard value.isFinite else { return "null" }
    // Beyond 2^53 neighbours are more than 1 apart. A client may send -2^63, whose magnitude no Int64 holds.
    if value.magnitude < 0x1p53, let whole = Int64(exactly: value) { return String(whole) }
    return "\(value)"
  }

  private static func append(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for unit in text.utf16 {
      switch unit {
      case 0x22: bytes += "\\\"".utf8
      case 0x5c: bytes += "\\\\".utf8
      case 0x08: bytes += "\\b".utf8
      case 0x0c: bytes += "\\f".utf8
      case 0x0a: bytes += "\\n".utf8
      case 0x0d: bytes += "\\r".utf8
      case 0x09: bytes += "\\t".utf8
      case 0x20...0x7e: bytes.append(UInt8(unit))
      default:
        let digits = String(unit, radix: 16, uppercase: true)
        bytes += "\\u".utf8
        bytes += String(repeating: "0", count: 4 - digits.count).utf8
        bytes += digits.utf8
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}
