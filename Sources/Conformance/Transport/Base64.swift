// SPDX-License-Identifier: Apache-2.0

/// Padded base64 (RFC 4648 §4), strictly.
enum Base64 {
  private static let invalid: UInt8 = 0xFF
  private static let values: [UInt8] = {
    var table = [UInt8](repeating: invalid, count: 256)
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for (index, character) in alphabet.utf8.enumerated() { table[Int(character)] = UInt8(index) }
    return table
  }()

  /// The bytes that `text` stands for; nil where it is not padded base64 without anything else.
  static func decode(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    guard !text.isEmpty, text.count % 4 == 0 else { return nil }
    let padding = text.suffix(2).reduce(0) { $1 == UInt8(ascii: "=") ? $0 + 1 : 0 }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 4 * 3)
    var word: UInt32 = 0
    var digits = 0
    for byte in text.dropLast(padding) {
      let value = values[Int(byte)]
      guard value != invalid else { return nil }
      word = word << 6 | UInt32(value)
      digits += 1
      if digits == 4 {
        bytes.append(UInt8(truncatingIfNeeded: word >> 16))
        bytes.append(UInt8(truncatingIfNeeded: word >> 8))
        bytes.append(UInt8(truncatingIfNeeded: word))
        (word, digits) = (0, 0)
      }
    }
    switch digits {
    case 0: return bytes
    case 2 where word & 0xF == 0: return bytes + [UInt8(truncatingIfNeeded: word >> 4)]
    case 3 where word & 0x3 == 0:
      return bytes + [UInt8(truncatingIfNeeded: word >> 10), UInt8(truncatingIfNeeded: word >> 2)]
    default: return nil
    }
  }
}
