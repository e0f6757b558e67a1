// SPDX-License-Identifier: Apache-2.0

/// Numbers of the protocol that keep a request small.
enum QTestLimit {
  /// Most bytes that one request moves; a longer one is answered by FAIL before anything is allocated.
  static let transferBytesMax: UInt64 = 32 << 20
  /// Longest line, without its end: a transfer in hexadecimal digits and the words before it.
  static let lineBytesMax = Int(transferBytesMax) * 2 + 256
  /// While so many bytes wait for the client to read them, no further request is taken.
  static let outputBytesMax = 1 << 20
  /// Bytes read from the client at once.
  static let readBytesMax = 64 << 10
  /// Bytes of a word of the client's that an answer repeats.
  static let echoBytesMax = 64
}

/// One request of the qtest protocol, completely checked; texts and data are ranges of the line it came in.
enum QTestCommand: Equatable {
  /// Which end of a number comes first.
  case endianness
  /// `inb`, `inw`, `inl`.
  case portRead(port: UInt16, width: Int)
  /// `outb`, `outw`, `outl`.
  case portWrite(port: UInt16, width: Int, value: UInt32)
  /// `readb`, `readw`, `readl`, `readq`.
  case memoryRead(address: UInt64, width: Int)
  /// `writeb`, `writew`, `writel`, `writeq`.
  case memoryWrite(address: UInt64, width: Int, value: UInt64)
  /// `read` and `b64read`.
  case blockRead(address: UInt64, byteCount: Int, QTestEncoding)
  /// `write` and `b64write`: the data as text.
  case blockWrite(address: UInt64, byteCount: Int, Range<Int>, QTestEncoding)
  /// `memset`.
  case fill(address: UInt64, byteCount: UInt64, value: UInt8)
  /// `clock_step`: nanoseconds, or to the next timer.
  case clockStep(UInt64?)
  /// `clock_set`.
  case clockSet(UInt64)
  /// `irq_intercept_in`: a device's path.
  case interceptInputs(Range<Int>)
  /// `irq_intercept_out`: a device's path.
  case interceptOutputs(Range<Int>)
  /// `set_irq_in`: a device's path, the input's number, its level.
  case setInput(Range<Int>, number: Int, asserted: Bool)
}

/// How a block of bytes is written in a line.
enum QTestEncoding: Equatable {
  /// `0x` and two digits for each byte.
  case hexadecimal
  /// Base64 with padding (RFC 4648, section 4).
  case base64
}

/// Why a line is answered by FAIL; the text behind that word.
struct QTestFailure: Error, Equatable {
  var text: String
  init(_ text: String) { self.text = text }
}
