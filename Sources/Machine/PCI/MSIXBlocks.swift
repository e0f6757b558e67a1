// SPDX-License-Identifier: Apache-2.0

/// The MSI-X table as a guest sees it: aligned accesses of 4 and 8 bytes (PCI 3.0, section 6.8.2); others read as 0 and
/// change nothing.
final class MSIXTableBlock: RegisterBlock {
  private let table: MSIX
  // The function owns its BARs and they own this block.
  private unowned let function: PCIFunction

  init(_ table: MSIX, function: PCIFunction) {
    self.table = table
    self.function = function
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    guard isAllowed(offset, width) else { return 0 }
    let (vector, word) = position(offset)
    let low = UInt64(table.tableWord(vector, word))
    return width == 4 ? low : low | UInt64(table.tableWord(vector, word + 1)) << 32
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    guard isAllowed(offset, width) else { return }
    let (vector, word) = position(offset)
    let interrupts = function.machine?.interrupts
    // Data before vector control: a single write of both that unmasks the vector sends the new data.
    table.setTableWord(vector, word, UInt32(truncatingIfNeeded: value), interrupts: interrupts)
    if width == 8 { table.setTableWord(vector, word + 1, UInt32(value >> 32), interrupts: interrupts) }
  }

  private func isAllowed(_ offset: UInt64, _ width: Int) -> Bool {
    (width == 4 || width == 8) && offset % UInt64(width) == 0
  }

  private func position(_ offset: UInt64) -> (vector: Int, word: Int) {
    (Int(offset / MSIX.entryBytes), Int(offset % MSIX.entryBytes / 4))
  }
}

/// The pending bits as a guest sees them: it reads them, and writes are ignored (CVE-2015-7549 was a write here).
final class MSIXPendingBlock: RegisterBlock {
  private let table: MSIX

  init(_ table: MSIX) { self.table = table }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return 0 }
    let bits = table.pendingWord(Int(offset / 8))
    return width == 8 ? bits : UInt64(UInt32(truncatingIfNeeded: bits >> (offset % 8 * 8)))
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {}
}
