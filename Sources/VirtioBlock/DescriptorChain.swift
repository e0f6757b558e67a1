// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import GuestMemory

/// A descriptor chain gathered into host addresses: the readable buffers, then the writable ones, in one iovec array.
struct DescriptorChain {
  /// Iovecs of the device-readable part, from index 0.
  var readableCount = 0
  /// Iovecs in all; the device-writable part starts at `readableCount`.
  var count = 0
  /// Bytes that the device may read.
  var readableBytes: UInt64 = 0
  /// Bytes that the device may write.
  var writableBytes: UInt64 = 0

  /// One descriptor, loaded once (virtio 1.3 §2.7.5).
  private struct Descriptor {
    let address: UInt64
    let byteCount: UInt32
    let flags: UInt16
    let next: UInt16

    @inline(__always)
    init(at pointer: UnsafeRawPointer) {
      address = clinux_load64(pointer)
      let rest = clinux_load64(pointer + 8)
      byteCount = UInt32(truncatingIfNeeded: rest)
      flags = UInt16(truncatingIfNeeded: rest >> 32)
      next = UInt16(truncatingIfNeeded: rest >> 48)
    }

    func has(_ flag: UInt16) -> Bool { flags & flag != 0 }
  }

  /// Walks the chain from `head`, checking every step, and gathers its buffers.
  ///
  /// Nothing is written to guest memory. The walk is bounded by the queue's size: the chain, an indirect table
  /// included, must not be longer (virtio 1.3 §2.7.5.3.1).
  /// - Parameter iovecs: the slot's array, with room for `capacity` entries.
  @inline(__always)
  init(
    head: UInt16, queue: borrowing SplitQueue, memory: GuestMemory, iovecs: UnsafeMutablePointer<iovec>, capacity: Int
  ) throws(QueueFault) {
    var table = queue.descriptors
    var tableEntries = queue.entryCount
    var index = head
    var walked: UInt16 = 0
    var isIndirect = false
    while true {
      if index >= tableEntries { throw .descriptorOutOfRange(index) }
      if walked == queue.entryCount { throw .chainTooLong }
      let descriptor = Descriptor(at: table + Int(index) * 16)
      if descriptor.has(DescriptorFlag.indirect) {
        guard queue.allowsIndirect, !isIndirect, !descriptor.has(DescriptorFlag.next) else { throw .badIndirectTable }
        (table, tableEntries) = try Self.indirectTable(descriptor.address, descriptor.byteCount, queue, memory)
        isIndirect = true
        index = 0
        continue
      }
      walked += 1
      try append(descriptor, memory, iovecs, capacity)
      if !descriptor.has(DescriptorFlag.next) { return }
      index = descriptor.next
    }
  }

  @inline(__always)
  private mutating func append(
    _ descriptor: Descriptor, _ memory: GuestMemory, _ iovecs: UnsafeMutablePointer<iovec>, _ capacity: Int
  ) throws(QueueFault) {
    let byteCount = UInt64(descriptor.byteCount)
    // A zero-length descriptor describes no buffer: tolerated, wherever it points (CVE-2016-6490, CVE-2023-5158).
    if byteCount > 0 {
      guard
        let added = memory.translate(
          address: descriptor.address, byteCount: byteCount, into: iovecs + count, capacity: capacity - count)
      else { throw .bufferOutsideMemory(address: descriptor.address, byteCount: byteCount) }
      count += added
    }
    if descriptor.has(DescriptorFlag.write) {
      writableBytes += byteCount
    } else {
      if writableBytes > 0 { throw .readableAfterWritable }
      readableBytes += byteCount
      readableCount = count
    }
    // The kernel moves at most INT_MAX bytes at once, and so do we.
    if readableBytes + writableBytes > UInt64(Int32.max) { throw .chainTooLarge }
  }

  private static func indirectTable(
    _ address: UInt64, _ byteCount: UInt32, _ queue: borrowing SplitQueue, _ memory: GuestMemory
  ) throws(QueueFault) -> (UnsafeRawPointer, UInt16) {
    // `next` is 16 bits wide, so entries of a table beyond 65535 can never be reached.
    guard byteCount > 0, byteCount % 16 == 0,
      let base = memory.pointer(at: address, byteCount: UInt64(byteCount))
    else { throw .badIndirectTable }
    return (UnsafeRawPointer(base), UInt16(min(byteCount / 16, UInt32(UInt16.max))))
  }
}
