// SPDX-License-Identifier: Apache-2.0

/// What SET FEATURES and SET MULTIPLE MODE have set.
struct ATAFeatures {
  /// Sectors of a DRQ block of READ and WRITE MULTIPLE, at most, and what it is after power-on.
  static let multipleSectorsMax: UInt64 = 16
  /// The fastest modes of each kind.
  static let pioModeMax: UInt8 = 4, multiwordModeMax: UInt8 = 2, ultraModeMax: UInt8 = 6

  /// How data would move over a parallel cable; of no effect over a serial one (SATA 3.3 §13.2).
  enum TransferMode: Equatable {
    case multiword(UInt8)
    case ultra(UInt8)
  }

  /// Sectors of a DRQ block of READ and WRITE MULTIPLE; 0 while these commands are turned off.
  var multipleSectors = multipleSectorsMax
  /// The DMA mode; PIO modes are accepted beside it, and shown nowhere.
  var transferMode = TransferMode.ultra(ultraModeMax)
  /// Reading ahead is on. The host's page cache does it, or not, either way.
  var hasLookAhead = true
  /// A software reset brings the defaults back.
  var revertsOnSoftReset = false
}

/// Subcommands of SET FEATURES (ACS-3 §7, SET FEATURES, table of feature field definitions).
private enum Subcommand {
  static let enableWriteCache: UInt8 = 0x02, disableWriteCache: UInt8 = 0x82
  static let setTransferMode: UInt8 = 0x03
  static let enableLookAhead: UInt8 = 0xaa, disableLookAhead: UInt8 = 0x55
  static let keepOnSoftReset: UInt8 = 0x66, revertOnSoftReset: UInt8 = 0xcc
}

/// SET FEATURES, SET MULTIPLE MODE, and EXECUTE DEVICE DIAGNOSTIC.
extension ATADrive {
  func setFeatures(_ slot: UnsafeMutablePointer<CommandSlot>) {
    switch UInt8(truncatingIfNeeded: slot.pointee.fis.features) {
    case Subcommand.enableWriteCache: disk.writeCacheEnabled = true
    case Subcommand.disableWriteCache: return disableWriteCache(slot)
    case Subcommand.setTransferMode:
      guard setTransferMode(UInt8(truncatingIfNeeded: slot.pointee.fis.count)) else {
        return fail(slot, ATAError.abort)
      }
    case Subcommand.enableLookAhead: features.hasLookAhead = true
    case Subcommand.disableLookAhead: features.hasLookAhead = false
    case Subcommand.keepOnSoftReset: features.revertsOnSoftReset = false
    case Subcommand.revertOnSoftReset: features.revertsOnSoftReset = true
    default: return fail(slot, ATAError.abort)
    }
    isIdentityStale = true
    finish(slot)
  }

  /// The command succeeds when all that the cache held is on the medium; writes that come from here on are durable each.
  private func disableWriteCache(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let wasEnabled = disk.writeCacheEnabled
    disk.writeCacheEnabled = false
    isIdentityStale = true
    if wasEnabled { flush(slot, then: .flush) } else { finish(slot) }
  }

  /// Subcommand 03h: the kind of mode in the upper five bits, its number in the lower three.
  /// - Returns: whether the drive has the mode.
  private func setTransferMode(_ mode: UInt8) -> Bool {
    let number = mode & 7
    switch mode >> 3 {
    // The default PIO mode, with or without IORDY; and one by its number.
    case 0b00000: return number <= 1
    case 0b00001: return number <= ATAFeatures.pioModeMax
    case 0b00100:
      guard number <= ATAFeatures.multiwordModeMax else { return false }
      features.transferMode = .multiword(number)
    case 0b01000:
      guard number <= ATAFeatures.ultraModeMax else { return false }
      features.transferMode = .ultra(number)
    default: return false
    }
    return true
  }

  /// SET MULTIPLE MODE: a power of two up to the limit, or 0, which turns READ and WRITE MULTIPLE off. Other counts change
  /// nothing.
  func setMultipleMode(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let count = UInt64(slot.pointee.fis.count & 0xff)
    guard count <= ATAFeatures.multipleSectorsMax, count & (count &- 1) == 0 else { return fail(slot, ATAError.abort) }
    features.multipleSectors = count
    isIdentityStale = true
    finish(slot)
  }

  /// EXECUTE DEVICE DIAGNOSTIC: all is well, and the registers have the signature of a disk (ACS-3 §7, EXECUTE DEVICE
  /// DIAGNOSTIC; the error register is a diagnostic code here, not an error).
  func diagnose(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.answer = TaskFile(
      error: ATAError.diagnosticPassed, lba: UInt64(signature >> 8), count: UInt16(signature & 0xff))
    finish(slot)
  }
}
