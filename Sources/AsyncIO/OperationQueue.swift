// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Operations in order, linked through themselves: no allocation. One thread at a time.
struct OperationQueue {
  private(set) var first: UnsafeMutablePointer<IOOperation>?
  private var last: UnsafeMutablePointer<IOOperation>?

  var isEmpty: Bool { first == nil }

  mutating func append(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.next = nil
    if let last { last.pointee.next = operation } else { first = operation }
    last = operation
  }

  /// Moves all operations of another queue behind those of this one, in order.
  mutating func append(all other: inout OperationQueue) {
    if let last { last.pointee.next = other.first } else { first = other.first }
    if let otherLast = other.last { last = otherLast }
    other = OperationQueue()
  }

  /// Puts an operation before all others.
  mutating func prepend(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.next = first
    if first == nil { last = operation }
    first = operation
  }

  mutating func takeFirst() -> UnsafeMutablePointer<IOOperation>? {
    guard let operation = first else { return nil }
    first = operation.pointee.next
    if first == nil { last = nil }
    return operation
  }

  /// Takes an operation out, wherever it is.
  /// - Returns: whether it was there.
  mutating func remove(_ operation: UnsafeMutablePointer<IOOperation>) -> Bool {
    var before: UnsafeMutablePointer<IOOperation>?
    var current = first
    while let other = current, other != operation {
      before = other
      current = other.pointee.next
    }
    guard current == operation else { return false }
    if let before { before.pointee.next = operation.pointee.next } else { first = operation.pointee.next }
    if last == operation { last = before }
    return true
  }
}
