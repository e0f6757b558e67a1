// SPDX-License-Identifier: Apache-2.0
import CLinuxAIO
import Glibc

/// The control blocks of a context, all allocated at the start, and the queue of those that wait for submission.
///
/// A block in use carries its operation's address in `aio_data`; a free one carries 0. One thread at a time.
struct ControlBlocks: ~Copyable {
  private let blocks: UnsafeMutablePointer<iocb>
  // By block: somebody asked that its operation end.
  private let cancelled: UnsafeMutablePointer<Bool>
  private let free: UnsafeMutablePointer<UnsafeMutablePointer<iocb>>
  private let count: Int
  private var freeCount: Int
  /// Blocks to be submitted, oldest first, without gaps: io_submit takes such an array.
  let queue: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
  /// Entries in `queue`.
  private(set) var queuedCount = 0

  init(count: Int) {
    self.count = count
    blocks = .allocate(capacity: count)
    blocks.initialize(repeating: iocb(), count: count)
    cancelled = .allocate(capacity: count)
    cancelled.initialize(repeating: false, count: count)
    free = .allocate(capacity: count)
    for index in 0..<count { (free + index).initialize(to: blocks + index) }
    freeCount = count
    queue = .allocate(capacity: count)
    queue.initialize(repeating: nil, count: count)
  }

  deinit {
    blocks.deallocate()
    cancelled.deallocate()
    free.deallocate()
    queue.deallocate()
  }

  var hasFree: Bool { freeCount > 0 }

  /// Takes a free block; `hasFree` said that there is one.
  @inline(__always)
  mutating func take() -> UnsafeMutablePointer<iocb> {
    freeCount -= 1
    return free[freeCount]
  }

  /// Gives a block back that is neither queued nor in the kernel.
  @inline(__always)
  mutating func giveBack(_ block: UnsafeMutablePointer<iocb>) {
    block.pointee.aio_data = 0
    cancelled[block - blocks] = false
    free[freeCount] = block
    freeCount += 1
  }

  /// The block that carries an operation, queued or in the kernel.
  func find(_ operation: UnsafeMutablePointer<IOOperation>) -> UnsafeMutablePointer<iocb>? {
    let data = UInt64(UInt(bitPattern: operation))
    for index in 0..<count where blocks[index].aio_data == data { return blocks + index }
    return nil
  }

  func markCancelled(_ block: UnsafeMutablePointer<iocb>) { cancelled[block - blocks] = true }
  func isCancelled(_ block: UnsafeMutablePointer<iocb>) -> Bool { cancelled[block - blocks] }

  // MARK: The queue

  @inline(__always)
  mutating func enqueue(_ block: UnsafeMutablePointer<iocb>) {
    queue[queuedCount] = block
    queuedCount += 1
  }

  /// Takes the oldest `taken` blocks out of the queue.
  mutating func dequeue(_ taken: Int) {
    queuedCount -= taken
    // Nearly always everything was taken, and nothing moves.
    if queuedCount > 0 { queue.update(from: queue + taken, count: queuedCount) }
  }

  /// Takes a block out of the queue, wherever it is.
  /// - Returns: whether it was there.
  mutating func dequeue(_ block: UnsafeMutablePointer<iocb>) -> Bool {
    var index = 0
    while index < queuedCount && queue[index] != block { index += 1 }
    if index == queuedCount { return false }
    queuedCount -= 1
    (queue + index).update(from: queue + index + 1, count: queuedCount - index)
    return true
  }
}
