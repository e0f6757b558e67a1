// SPDX-License-Identifier: Apache-2.0

/// The words of a guest's command line, which anything at or below a space separates.
struct CommandLineWords {
  private let line: [UInt8]
  private var position = 0

  init(_ line: [UInt8]) {
    self.line = line
  }

  /// The next word; nil behind the last one.
  mutating func next() -> CommandLineWord? {
    while position < line.count, line[position] <= 0x20 {
      position += 1
    }
    let start = position
    while position < line.count, line[position] > 0x20 {
      position += 1
    }
    return start < position ? CommandLineWord(line: line, start: start, end: position) : nil
  }
}

/// One word of a command line.
struct CommandLineWord {
  let line: [UInt8]
  /// Its first byte, and the one behind its last, counted from 0.
  let start: Int
  let end: Int

  /// Whether this is the word `text`.
  func `is`(_ text: StaticString) -> Bool {
    end - start == text.utf8CodeUnitCount && begins(with: text)
  }

  /// The decimal number behind `key`, which ends in an equals sign.
  /// - Returns: nil where the word does not begin with `key`, or where no number of 64 bits follows.
  func number(of key: StaticString) -> UInt64? {
    guard end - start > key.utf8CodeUnitCount, begins(with: key) else {
      return nil
    }
    var value: UInt64 = 0
    for index in (start + key.utf8CodeUnitCount)..<end {
      let digit = line[index] &- UInt8(ascii: "0")
      let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
      let (sum, carried) = product.addingReportingOverflow(UInt64(digit))
      guard digit < 10, !overflowed, !carried else {
        return nil
      }
      value = sum
    }
    return value
  }

  private func begins(with text: StaticString) -> Bool {
    guard end - start >= text.utf8CodeUnitCount else {
      return false
    }
    for index in 0..<text.utf8CodeUnitCount where line[start + index] != text.utf8Start[index] {
      return false
    }
    return true
  }
}
