// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Why a trace could not be written.
public struct TraceWriteError: Error, Equatable, Sendable {
  /// The errno value of write(2), positive.
  public var code: Int32
}

/// JSON text on its way to a descriptor, in pieces: what is written is as long as it likes.
struct JSONStream {
  /// Bytes kept back before a system call.
  private static let bufferBytes = 64 << 10

  private let descriptor: Int32
  private var buffer: [UInt8] = []
  private var isFirst = true

  init(descriptor: Int32) {
    self.descriptor = descriptor
    buffer.reserveCapacity(Self.bufferBytes + 1024)
  }

  /// Begins the next element of an array.
  mutating func element() throws(TraceWriteError) {
    if buffer.count >= Self.bufferBytes { try flush() }
    text(isFirst ? "\n" : ",\n")
    isFirst = false
  }

  /// Text as it is.
  mutating func text(_ text: StaticString) {
    text.withUTF8Buffer { buffer.append(contentsOf: $0) }
  }

  /// A string in quotation marks, escaped as RFC 8259 §7 wants it.
  mutating func string(_ string: String) {
    let hexadecimal: StaticString = "0123456789abcdef"
    text("\"")
    for byte in string.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        buffer.append(UInt8(ascii: "\\"))
        buffer.append(byte)
      case 0..<0x20:
        text("\\u00")
        buffer.append(hexadecimal.utf8Start[Int(byte >> 4)])
        buffer.append(hexadecimal.utf8Start[Int(byte & 15)])
      default: buffer.append(byte)
      }
    }
    text("\"")
  }

  /// A whole number.
  mutating func number(_ value: some BinaryInteger) {
    var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
    withUnsafeMutableBytes(of: &digits) { room in
      var left = value.magnitude
      var start = room.count
      repeat {
        start -= 1
        room[start] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: left % 10)
        left /= 10
      } while left > 0
      if value < 0 { buffer.append(UInt8(ascii: "-")) }
      buffer.append(contentsOf: room[start...])
    }
  }

  /// Nanoseconds as microseconds with three decimals.
  mutating func microseconds(_ nanoseconds: UInt64) {
    number(nanoseconds / 1000)
    buffer.append(UInt8(ascii: "."))
    let rest = nanoseconds % 1000
    for digit in [rest / 100, rest / 10 % 10, rest % 10] { buffer.append(UInt8(ascii: "0") + UInt8(digit)) }
  }

  /// A 64-bit word as a string of hexadecimal digits: JSON's numbers are too short for it.
  mutating func word(_ value: UInt64) { string("0x" + String(value, radix: 16)) }

  /// Hands over what is kept back.
  mutating func flush() throws(TraceWriteError) {
    let bytes = buffer
    buffer.removeAll(keepingCapacity: true)
    var done = 0
    while done < bytes.count {
      let answer = bytes.withUnsafeBytes { clinux_write(descriptor, $0.baseAddress! + done, $0.count - done) }
      if answer == -Int(EINTR) { continue }
      if answer < 0 { throw TraceWriteError(code: Int32(-answer)) }
      done += answer
    }
  }
}
