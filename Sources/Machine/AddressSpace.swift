// SPDX-License-Identifier: Apache-2.0

/// Registers that a guest can read and write at offsets of their own: what a device puts into an address space.
open class RegisterBlock {
  /// For subclasses.
  public init() {}

  /// Reads `width` bytes (1, 2, 4 or 8) at `offset`, little-endian, in the low bits. Machine lock held.
  /// The offset and the width are inside the block; the offset need not be aligned.
  open func read(offset: UInt64, width: Int) -> UInt64 { UInt64.max }

  /// Writes the low `width` bytes of `value` at `offset`. Machine lock held.
  open func write(offset: UInt64, width: Int, value: UInt64) {}
}

/// A dispatch table from addresses to register blocks: device memory, or I/O ports.
///
/// Guarded by the machine lock. RAM is not in here: vCPUs reach it directly, and a mapped block never hides RAM
/// (`GuestMemory` wins, so a BAR over RAM is simply not seen).
public final class AddressSpace {
  private struct Entry {
    var start: UInt64
    var byteCount: UInt64
    var block: RegisterBlock
  }
  private var entries: [Entry] = []

  /// A space in which nothing answers.
  public init() {}

  /// Maps `block` at [start, start + byteCount). Where blocks overlap, the one mapped first answers.
  /// - Returns: false where the range is empty or wraps; nothing is mapped then.
  @discardableResult
  public func map(_ block: RegisterBlock, at start: UInt64, byteCount: UInt64) -> Bool {
    guard byteCount > 0, !start.addingReportingOverflow(byteCount - 1).overflow else { return false }
    entries.append(Entry(start: start, byteCount: byteCount, block: block))
    return true
  }

  /// Unmaps every range of `block`.
  public func unmap(_ block: RegisterBlock) { entries.removeAll { $0.block === block } }

  /// Reads `width` bytes; nil where nothing answers or the access runs over the end of a block.
  public func read(_ address: UInt64, width: Int) -> UInt64? {
    guard let (block, offset) = find(address, width: width) else { return nil }
    return block.read(offset: offset, width: width)
  }

  /// Writes `width` bytes.
  /// - Returns: false where nothing answers; the write is lost then, as on a PC's bus.
  @discardableResult
  public func write(_ address: UInt64, width: Int, value: UInt64) -> Bool {
    guard let (block, offset) = find(address, width: width) else { return false }
    block.write(offset: offset, width: width, value: value)
    return true
  }

  private func find(_ address: UInt64, width: Int) -> (RegisterBlock, UInt64)? {
    for entry in entries {
      let offset = address &- entry.start
      if offset < entry.byteCount {
        return UInt64(width) <= entry.byteCount - offset ? (entry.block, offset) : nil
      }
    }
    return nil
  }
}
