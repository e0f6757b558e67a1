// SPDX-License-Identifier: Apache-2.0

/// Requests in order, linked through themselves: no allocation. One thread at a time.
struct RequestQueue {
  private(set) var first: UnsafeMutablePointer<BlockRequest>?
  private var last: UnsafeMutablePointer<BlockRequest>?
  /// Requests in the queue.
  private(set) var count = 0

  var isEmpty: Bool { first == nil }

  mutating func append(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.next = nil
    if let last { last.pointee.next = request } else { first = request }
    last = request
    count += 1
  }

  mutating func takeFirst() -> UnsafeMutablePointer<BlockRequest>? {
    guard let request = first else { return nil }
    first = request.pointee.next
    if first == nil { last = nil }
    count -= 1
    return request
  }

  /// Takes all requests; the queue is empty then.
  mutating func takeAll() -> RequestQueue {
    let all = self
    self = RequestQueue()
    return all
  }

  /// Puts all requests of another queue behind these.
  mutating func append(all other: RequestQueue) {
    guard let otherFirst = other.first else { return }
    if let last { last.pointee.next = otherFirst } else { first = otherFirst }
    last = other.last
    count += other.count
  }
}
