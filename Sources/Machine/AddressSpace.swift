// SPDX-License-Identifier: Apache-2.0

/// Registers that a guest can read and write at offsets of their own: what a device puts into an address space.
///
/// Whoever maps a block keeps it alive until it has been unmapped and the access under way has returned; a lookup
/// counts no references.
open class RegisterBlock {
  /// For subclasses.
  public init() {}

  /// Reads `width` bytes (1, 2, 4 or 8) at `offset`, little-endian, in the low bits; the bits above do not matter.
  /// Machine lock held.
  /// The offset and the width are inside the block; the offset need not be aligned.
  open func read(offset: UInt64, width: Int) -> UInt64 { UInt64.max }

  /// Writes `width` bytes at `offset`; `value` has zeroes above them. Machine lock held.
  open func write(offset: UInt64, width: Int, value: UInt64) {}
}

/// A dispatch table from addresses to register blocks: device memory, or I/O ports.
///
/// Guarded by the machine lock. RAM is not in here: vCPUs reach it directly, and a mapped block never hides RAM
/// (`GuestMemory` wins, so a BAR over RAM is simply not seen).
public final class AddressSpace {
  private struct Entry {
    var start: UInt64
    /// Last address of the block, so that a block may end at the very top of the space.
    var last: UInt64
    var block: RegisterBlock
  }

  // What a lookup needs, flat: disjoint pieces by rising address, each owned by the first entry mapped there.
  private struct Piece {
    var first: UInt64
    var last: UInt64
    var blockStart: UInt64
    var blockLast: UInt64
    var block: Unmanaged<RegisterBlock>
  }

  // By age: where two overlap, the older one answers.
  private var entries: [Entry] = []
  private var pieces: [Piece] = []
  // The piece that answered last: guests touch the same registers again and again.
  private var recent = 0

  /// A space in which nothing answers.
  public init() {}

  /// Maps `block` at [start, start + byteCount). Where blocks overlap, the one mapped first answers.
  /// - Returns: false where the range is empty or wraps; nothing is mapped then.
  @discardableResult
  public func map(_ block: RegisterBlock, at start: UInt64, byteCount: UInt64) -> Bool {
    guard byteCount > 0 else { return false }
    let (last, wraps) = start.addingReportingOverflow(byteCount - 1)
    guard !wraps else { return false }
    entries.append(Entry(start: start, last: last, block: block))
    flatten()
    return true
  }

  /// Unmaps every range of `block`.
  public func unmap(_ block: RegisterBlock) {
    entries.removeAll { $0.block === block }
    flatten()
  }

  /// Unmaps the ranges of `block` that start at `start`; others of the same block stay.
  public func unmap(_ block: RegisterBlock, at start: UInt64) {
    entries.removeAll { $0.block === block && $0.start == start }
    flatten()
  }

  /// Whether some block answers at `address`.
  public func isMapped(_ address: UInt64) -> Bool { find(address) != nil }

  /// The low `width` bytes of `value`: what an access of that width carries.
  @inlinable
  public static func truncate(_ value: UInt64, width: Int) -> UInt64 {
    width >= 8 ? value : value & (1 << UInt64(8 * width) - 1)
  }

  /// Reads `width` bytes into the low bits, zeroes above; nil where nothing answers or the access runs over the end of a
  /// block.
  public func read(_ address: UInt64, width: Int) -> UInt64? {
    guard let index = find(address), UInt64(width) - 1 <= pieces[index].blockLast - address else { return nil }
    let offset = address - pieces[index].blockStart
    let block = pieces[index].block
    // The block's owner keeps it alive during the access, so no reference is counted for it.
    let value = block._withUnsafeGuaranteedRef { $0.read(offset: offset, width: width) }
    return AddressSpace.truncate(value, width: width)
  }

  /// Writes `width` bytes.
  /// - Returns: false where nothing answers; the write is lost then, as on a PC's bus.
  @discardableResult
  public func write(_ address: UInt64, width: Int, value: UInt64) -> Bool {
    guard let index = find(address), UInt64(width) - 1 <= pieces[index].blockLast - address else { return false }
    let offset = address - pieces[index].blockStart
    let block = pieces[index].block
    let value = AddressSpace.truncate(value, width: width)
    // A write may map and unmap blocks, so the table is not touched during the call.
    block._withUnsafeGuaranteedRef { $0.write(offset: offset, width: width, value: value) }
    return true
  }

  private func find(_ address: UInt64) -> Int? {
    if recent < pieces.count, pieces[recent].first <= address, address <= pieces[recent].last { return recent }
    var low = 0
    var high = pieces.count
    while low < high {
      let middle = (low + high) / 2
      if pieces[middle].last < address { low = middle + 1 } else { high = middle }
    }
    guard low < pieces.count, pieces[low].first <= address else { return nil }
    recent = low
    return low
  }

  /// Makes the flat table again; blocks come and go rarely (a guest moves a BAR), lookups are many.
  private func flatten() {
    var flat: [Piece] = []
    for entry in entries {
      var first = entry.start
      var covered = false
      // `flat` is sorted, so the gaps that older entries leave come in rising order.
      let older = flat
      for piece in older where piece.last >= first && piece.first <= entry.last {
        if piece.first > first { flat.append(AddressSpace.piece(of: entry, from: first, to: piece.first - 1)) }
        if piece.last >= entry.last {
          covered = true
          break
        }
        first = piece.last + 1
      }
      if !covered { flat.append(AddressSpace.piece(of: entry, from: first, to: entry.last)) }
      flat.sort { $0.first < $1.first }
    }
    pieces = flat
    recent = 0
  }

  private static func piece(of entry: Entry, from first: UInt64, to last: UInt64) -> Piece {
    Piece(
      first: first, last: last, blockStart: entry.start, blockLast: entry.last, block: .passUnretained(entry.block))
  }
}
