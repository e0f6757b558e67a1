// SPDX-License-Identifier: Apache-2.0
import Machine

/// The controller's registers in memory (BAR 5, ABAR).
///
/// Registers are 32-bit words. An access of 1, 2, 4 or 8 bytes at any address is the accesses to the words that it
/// covers, lowest first, each with the bytes that it touches (AHCI 1.3.1 §3 leaves accesses that are not aligned open).
final class HBARegisterBlock: RegisterBlock {
  private unowned(unsafe) let controller: AHCIController

  init(controller: AHCIController) { self.controller = controller }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    var done = 0
    while done < width {
      let position = offset + UInt64(done)
      let skipped = Int(position & 3)
      let bytes = min(4 - skipped, width - done)
      let word = UInt64(controller.readWord(position & ~3)) >> UInt64(8 * skipped)
      value |= (word & (1 << UInt64(8 * bytes) - 1)) << UInt64(8 * done)
      done += bytes
    }
    return value
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    var done = 0
    while done < width {
      let position = offset + UInt64(done)
      let skipped = Int(position & 3)
      let bytes = min(4 - skipped, width - done)
      let mask = UInt32(truncatingIfNeeded: UInt64(1) << UInt64(8 * bytes) - 1) << UInt32(8 * skipped)
      let word = UInt32(truncatingIfNeeded: value >> UInt64(8 * done)) << UInt32(8 * skipped)
      controller.writeWord(position & ~3, word, mask: mask)
      done += bytes
    }
  }
}

/// The index/data pair in I/O space (AHCI 1.3.1 §2.4): a way to the registers for code that cannot reach memory.
final class IndexDataPair: RegisterBlock {
  private static let index: UInt64 = 0x10
  private static let data: UInt64 = 0x14
  private static let end: UInt64 = 0x18
  // Bits of the offset that the index register keeps: a double word within the registers.
  private static let indexMask = Limit.registerBytes - 4

  private let registers: HBARegisterBlock
  private var selected: UInt64 = 0

  init(registers: HBARegisterBlock) { self.registers = registers }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= Self.index && offset < Self.data && Int(Self.data - offset) >= width {
      return selected >> (8 * (offset - Self.index))
    }
    if offset >= Self.data && offset < Self.end && Int(Self.end - offset) >= width {
      return registers.read(offset: selected + (offset - Self.data), width: width)
    }
    return 0
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    if offset == Self.index {
      let mask = UInt64(1) << UInt64(8 * min(width, 4)) - 1
      selected = (selected & ~mask | value & mask) & Self.indexMask
    } else if offset >= Self.data && offset < Self.end && Int(Self.end - offset) >= width {
      registers.write(offset: selected + (offset - Self.data), width: width, value: value)
    }
  }
}
