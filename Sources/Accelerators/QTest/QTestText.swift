// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials

/// Bytes as digits and as base64, in arrays of bytes: the lines of the qtest protocol.
enum QTestText {
  private static let hexadecimalDigits = Array("0123456789abcdef".utf8)

  /// A digit's value up to 15, in either case; nil for another character.
  @inline(__always)
  static func digit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  /// Appends `0x` and a number of so many digits, more where it has more.
  static func append(_ value: UInt64, digits: Int, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "0"))
    output.append(UInt8(ascii: "x"))
    let significant = (UInt64.bitWidth - value.leadingZeroBitCount + 3) / 4
    for index in stride(from: max(digits, significant) - 1, through: 0, by: -1) {
      output.append(hexadecimalDigits[Int(value >> UInt64(4 * index) & 15)])
    }
  }

  /// Appends two digits for each byte, in lower case.
  static func append(hexadecimal bytes: [UInt8], to output: inout [UInt8]) {
    output += [UInt8](unsafeUninitializedCapacity: 2 * bytes.count) { text, count in
      count = 2 * bytes.count
      hexadecimalDigits.withUnsafeBufferPointer { digits in
        var position = 0
        for byte in bytes {
          text.initializeElement(at: position, to: digits[Int(byte >> 4)])
          text.initializeElement(at: position + 1, to: digits[Int(byte & 15)])
          position += 2
        }
      }
    }
  }

  /// Reads `0x` and digits, two a byte; nil for anything else. At most `byteCountMax` bytes are kept.
  static func decode(hexadecimal text: some RandomAccessCollection<UInt8>, byteCountMax: Int) -> [UInt8]? {
    guard text.count >= 2, text.count % 2 == 0, text.starts(with: [UInt8(ascii: "0"), UInt8(ascii: "x")]) else {
      return nil
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(min(byteCountMax, text.count / 2 - 1))
    var high: UInt8?
    for character in text.dropFirst(2) {
      guard let digit = digit(character) else { return nil }
      guard let upper = high else {
        high = digit
        continue
      }
      if bytes.count < byteCountMax { bytes.append(upper << 4 | digit) }
      high = nil
    }
    return bytes
  }

  /// Appends bytes in base64 with padding (RFC 4648, section 4).
  static func append(base64 bytes: [UInt8], to output: inout [UInt8]) { output += Data(bytes).base64EncodedData() }

  /// Reads base64 with padding (RFC 4648, section 4); nil for anything else: a length that is no multiple of 4, other
  /// characters, padding that does not belong, bits behind the last byte.
  static func decode(base64 text: some RandomAccessCollection<UInt8>) -> [UInt8]? {
    let text = Data(text)
    // Foundation takes padding where there should be none; what it writes itself is the one right form.
    guard let bytes = Data(base64Encoded: text), bytes.base64EncodedData() == text else { return nil }
    return Array(bytes)
  }
}
