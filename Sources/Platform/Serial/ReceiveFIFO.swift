// SPDX-License-Identifier: Apache-2.0

/// The receiver's FIFO: at most 16 bytes, or one byte while FIFOs are off (16450 mode).
struct ReceiveFIFO {
  /// Bytes that the 16550A holds (data sheet, section 8.6.3).
  static let bytesMax = 16

  private var storage = InlineArray<16, UInt8>(repeating: 0)
  private var first = 0
  private(set) var count = 0

  var isEmpty: Bool { count == 0 }

  /// Puts a byte at the end; false where `capacity` bytes are there already.
  mutating func append(_ byte: UInt8, capacity: Int) -> Bool {
    guard count < min(capacity, ReceiveFIFO.bytesMax) else { return false }
    storage[(first + count) % ReceiveFIFO.bytesMax] = byte
    count += 1
    return true
  }

  /// Puts a byte in the place of the newest one, as a receiver without a FIFO does on an overrun.
  mutating func replaceLast(_ byte: UInt8) {
    if count > 0 { storage[(first + count - 1) % ReceiveFIFO.bytesMax] = byte }
  }

  /// Takes the oldest byte; nil where there is none.
  mutating func removeFirst() -> UInt8? {
    guard count > 0 else { return nil }
    let byte = storage[first]
    first = (first + 1) % ReceiveFIFO.bytesMax
    count -= 1
    return byte
  }

  mutating func removeAll() { count = 0 }
}
