// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory

/// A place in a command's table of physical region descriptors (AHCI 1.3.1 §4.2.3.3): what of it has not been used.
///
/// Descriptors are read from guest memory when they are come to; what was read is checked and used, and never trusted to
/// be the same again.
struct ScatterList {
  /// Bytes of a descriptor.
  static let entryBytes = 16
  /// Bits of the byte count; the field holds the count less one, and its lowest bit is always 1.
  private static let countMask: UInt32 = 0x3f_ffff

  // The next descriptor, and how many there are from there on.
  private var entry: UnsafeRawPointer?
  private var entriesLeft: UInt32 = 0
  // What is left of the descriptor before it.
  private var address: UInt64 = 0
  private var bytesLeft: UInt64 = 0

  /// A list of nothing.
  init() {}

  /// A table of `count` descriptors at `table`, all of it in guest memory that stays mapped.
  init(table: UnsafeRawPointer, count: UInt16) {
    entry = table
    entriesLeft = UInt32(count)
  }

  /// Why `gather` ended.
  enum Gathering {
    /// All that was asked for, in so many iovecs.
    case whole(Int)
    /// The list ended, or would take more iovecs than there is room for.
    case partial
    /// A descriptor is not RAM.
    case fault
  }

  /// Describes the next `byteCount` bytes (at least 1) as iovecs in host memory; pieces that touch become one.
  @inline(__always)
  mutating func gather(
    _ byteCount: UInt64, memory: GuestMemory, into iovecs: UnsafeMutablePointer<iovec>, capacity: Int
  ) -> Gathering {
    var count = 0
    var left = byteCount
    while left > 0 {
      guard let (address, bytes) = next(upTo: left) else { return .partial }
      guard let host = memory.pointer(at: address, byteCount: bytes) else { return .fault }
      if count > 0, iovecs[count - 1].iov_base + iovecs[count - 1].iov_len == host {
        iovecs[count - 1].iov_len += Int(bytes)
      } else {
        guard count < capacity else { return .partial }
        iovecs[count] = iovec(iov_base: host, iov_len: Int(bytes))
        count += 1
      }
      left -= bytes
    }
    return .whole(count)
  }

  /// The next piece of at most `byteCount` bytes, taken from the list; nil at its end.
  @inline(__always)
  mutating func next(upTo byteCount: UInt64) -> (address: UInt64, byteCount: UInt64)? {
    if bytesLeft == 0 {
      guard entriesLeft > 0, let entry else { return nil }
      // Bit 0 of the address is reserved, and of the count always 1: regions are whole words (§4.2.3.3).
      address = entry.loadUnaligned(as: UInt64.self) & ~1
      let count = entry.loadUnaligned(fromByteOffset: 12, as: UInt32.self) & Self.countMask
      bytesLeft = UInt64(count | 1) + 1
      entriesLeft -= 1
      self.entry = entry + Self.entryBytes
    }
    let bytes = min(bytesLeft, byteCount)
    let start = address
    bytesLeft -= bytes
    address &+= bytes
    return (start, bytes)
  }
}
