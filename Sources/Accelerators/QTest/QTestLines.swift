// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Cuts what a client sends into lines, however it comes in pieces. A line that is too long is dropped as it comes.
struct QTestLines {
  /// What `next` finds.
  enum Next: Equatable {
    /// No whole line is there.
    case nothing
    /// A whole line, without its end; `withLine` gives its bytes until the next `next` or `append`.
    case line(Range<Int>)
    /// The end of a line that had more than `QTestLimit.lineBytesMax` bytes.
    case tooLong
  }

  /// A buffer that has grown beyond this is given back when it is empty.
  private static let capacityKeptMax = 1 << 20

  private var bytes: [UInt8] = []
  // Where the next line begins, and up to where no end of it was found.
  private var head = 0
  private var scanned = 0
  private var isSkipping = false
  private var skippedLine = false

  /// Bytes that are kept now.
  var byteCount: Int { bytes.count - head }

  /// Takes what came. All whole lines have been taken by `next` before.
  mutating func append(_ piece: UnsafeRawBufferPointer) {
    var piece = piece[...]
    if isSkipping {
      guard let end = piece.firstIndex(of: UInt8(ascii: "\n")) else { return }
      piece = piece[(end + 1)...]
      isSkipping = false
      skippedLine = true
    }
    if head > 0 {
      bytes.removeFirst(head)
      (head, scanned) = (0, scanned - head)
    }
    bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: piece))
  }

  /// Takes the next line.
  mutating func next() -> Next {
    if skippedLine {
      skippedLine = false
      return .tooLong
    }
    guard let end = lineEnd() else {
      if byteCount > QTestLimit.lineBytesMax {
        empty()
        isSkipping = true
      } else if byteCount == 0 {
        empty()
      }
      return .nothing
    }
    let start = head
    (head, scanned) = (end + 1, end + 1)
    guard end - start <= QTestLimit.lineBytesMax else { return .tooLong }
    let hasReturn = end > start && bytes[end - 1] == UInt8(ascii: "\r")
    return .line(start..<(hasReturn ? end - 1 : end))
  }

  private mutating func lineEnd() -> Int? {
    let from = scanned
    let found = bytes.withUnsafeBytes { buffer -> Int? in
      guard let base = buffer.baseAddress, from < buffer.count else { return nil }
      return memchr(base + from, Int32(UInt8(ascii: "\n")), buffer.count - from).map { UnsafeRawPointer($0) - base }
    }
    if found == nil { scanned = bytes.count }
    return found
  }

  /// The bytes of a line that `next` has given.
  func withLine<T>(_ range: Range<Int>, _ body: (UnsafeBufferPointer<UInt8>) -> T) -> T {
    bytes.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[range])) }
  }

  /// Forgets everything.
  mutating func reset() {
    empty()
    (isSkipping, skippedLine) = (false, false)
  }

  private mutating func empty() {
    bytes.removeAll(keepingCapacity: bytes.capacity <= Self.capacityKeptMax)
    (head, scanned) = (0, 0)
  }
}
