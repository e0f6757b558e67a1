// SPDX-License-Identifier: Apache-2.0

/// Cylinders, heads and sectors, as INITIALIZE DEVICE PARAMETERS sets them (ATA/ATAPI-5; ACS-3 has addresses
/// of sectors alone, but firmware from before that still uses the old ones).
struct ATAGeometry {
  /// Limits of the default geometry, and the sectors that it reaches at most.
  static let cylindersMax: UInt64 = 16383, headsDefault: UInt64 = 16, sectorsDefault: UInt64 = 63
  /// What fits the 16-bit word for cylinders, in any geometry.
  private static let anyCylindersMax: UInt64 = 65535

  let cylinders, heads, sectors: UInt64

  /// What a drive has after power-on: what its user says, or else what drives of this many sectors usually have.
  init(_ chosen: ATADriveGeometry?, sectorCount: UInt64) {
    if let chosen {
      self.init(
        cylinders: UInt64(chosen.cylinders), heads: UInt64(chosen.heads), sectors: UInt64(chosen.sectors))
    } else {
      self.init(sectorCount: sectorCount)
    }
  }

  private init(cylinders: UInt64, heads: UInt64, sectors: UInt64) {
    self.cylinders = cylinders
    self.heads = heads
    self.sectors = sectors
  }

  /// What a drive of this many sectors has after power-on.
  init(sectorCount: UInt64) {
    heads = Self.headsDefault
    sectors = Self.sectorsDefault
    cylinders = min(max(sectorCount / (heads * sectors), 1), Self.cylindersMax)
  }

  /// What the host would like: both numbers at least 1.
  init(sectorCount: UInt64, heads: UInt64, sectors: UInt64) {
    self.heads = heads
    self.sectors = sectors
    let reachable = min(sectorCount, Self.cylindersMax * Self.headsDefault * Self.sectorsDefault)
    cylinders = min(max(reachable / (heads * sectors), 1), Self.anyCylindersMax)
  }

  /// Sectors that the geometry has.
  var sectorCount: UInt64 { cylinders * heads * sectors }

  /// The number of a sector; nil where the geometry does not have it. Sectors are counted from 1.
  func lba(cylinder: UInt64, head: UInt64, sector: UInt64) -> UInt64? {
    guard cylinder < cylinders, head < heads, sector >= 1, sector <= sectors else { return nil }
    return (cylinder * heads + head) * sectors + sector - 1
  }
}

/// Where a command's data are on the disk.
extension ATADrive {
  /// Sectors that the drive says 28-bit commands reach: the last address that has 28 bits is not among them (ACS-3 §4.1.2).
  var end28: UInt64 { min(sectorCount, Self.lba28SectorsMax) }
  /// Sectors that they do reach: that address is served all the same where the disk has it, as on QEMU, whose drivers go
  /// as far.
  var reach28: UInt64 { min(sectorCount, Self.lba28SectorsMax + 1) }

  /// The count of a 28-bit command; 0 is 256. Hosts that put more than eight bits into the FIS mean them, although ACS-3
  /// calls the upper eight reserved: QEMU takes them all, and drivers for it have come to rely on that.
  @inline(__always)
  func count28(_ slot: UnsafeMutablePointer<CommandSlot>) -> UInt64 {
    let count = slot.pointee.fis.count
    return count == 0 ? 256 : UInt64(count)
  }

  /// The count of a 48-bit or queued command; 0 is 65536.
  @inline(__always)
  static func count48(_ count: UInt16) -> UInt64 { count == 0 ? 65536 : UInt64(count) }

  /// The first sector of a 28-bit command; nil for a cylinder, head or sector that the geometry does not have.
  @inline(__always)
  func address28(_ slot: UnsafeMutablePointer<CommandSlot>) -> UInt64? {
    if slot.pointee.fis.device & ATADeviceRegister.lba != 0 { return slot.pointee.fis.lba28 }
    let lba = slot.pointee.fis.lba
    return geometry.lba(
      cylinder: lba >> 8 & 0xffff, head: UInt64(slot.pointee.fis.device & ATADeviceRegister.highNibble),
      sector: lba & 0xff)
  }

  @inline(__always)
  func isInRange(lba: UInt64, count: UInt64, end: UInt64) -> Bool { lba <= end && count <= end - lba }

  /// Fails a command that leaves the disk; the answer has the first address that does not exist.
  @inline(never)
  func failAddress(_ slot: UnsafeMutablePointer<CommandSlot>, lba: UInt64, end: UInt64) {
    answerAddress(max(lba, end), slot)
    fail(slot, ATAError.addressNotFound)
  }

  /// Puts an address into the answer, in the form that the command has its own in. A cylinder, head and sector stay what
  /// they were: an address beyond the end may have no such form.
  func answerAddress(_ lba: UInt64, _ slot: UnsafeMutablePointer<CommandSlot>) {
    switch slot.pointee.fis.command {
    case ATACommand.readFPDMAQueued, ATACommand.writeFPDMAQueued, ATACommand.readDMAExt, ATACommand.writeDMAExt,
      ATACommand.writeDMAFUAExt, ATACommand.readSectorsExt, ATACommand.writeSectorsExt, ATACommand.readMultipleExt,
      ATACommand.writeMultipleExt, ATACommand.writeMultipleFUAExt, ATACommand.readVerifyExt,
      ATACommand.readNativeMaxExt:
      slot.pointee.answer.lba = lba
    default:
      if slot.pointee.fis.device & ATADeviceRegister.lba != 0 { answerAddress28(lba, slot) }
    }
  }

  /// The same for 28-bit addresses, of which the device register has the top.
  func answerAddress28(_ lba: UInt64, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let nibble = ATADeviceRegister.highNibble
    // The address after the last one has 29 bits.
    let lba = min(lba, Self.lba28SectorsMax)
    slot.pointee.answer.lba = lba & 0xff_ffff
    slot.pointee.answer.device = slot.pointee.fis.device & ~nibble | UInt8(truncatingIfNeeded: lba >> 24) & nibble
  }

  // MARK: Commands about addresses

  /// READ NATIVE MAX ADDRESS (EXT) of ATA/ATAPI-7: the last sector, or the last that 28 bits reach. The commands that
  /// would change it are aborted, and the feature set is not claimed.
  func readNativeMax(_ slot: UnsafeMutablePointer<CommandSlot>, is48: Bool) {
    guard sectorCount > 0 else { return fail(slot, ATAError.addressNotFound) }
    if is48 {
      slot.pointee.answer.lba = sectorCount - 1
    } else {
      answerAddress28(end28 - 1, slot)
    }
    finish(slot)
  }

  /// Sectors of a track, at most.
  private static let trackSectorsMax: UInt64 = 255

  /// INITIALIZE DEVICE PARAMETERS of ATA/ATAPI-5: sectors of a track in the count, the last head in the device register. The
  /// count has eight bits there, and no track has more sectors: others are not cut down to what may have been meant.
  func initializeParameters(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let sectors = UInt64(slot.pointee.fis.count)
    guard (1...Self.trackSectorsMax).contains(sectors) else { return fail(slot, ATAError.abort) }
    let heads = UInt64(slot.pointee.fis.device & ATADeviceRegister.highNibble) + 1
    geometry = ATAGeometry(sectorCount: sectorCount, heads: heads, sectors: sectors)
    isIdentityStale = true
    finish(slot)
  }

  /// SEEK of ATA/ATAPI-6: nothing moves, but the address is checked.
  func seek(_ slot: UnsafeMutablePointer<CommandSlot>) {
    guard let lba = address28(slot) else { return fail(slot, ATAError.addressNotFound) }
    guard lba < reach28 else { return failAddress(slot, lba: lba, end: reach28) }
    finish(slot)
  }
}
