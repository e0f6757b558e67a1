// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// DATA SET MANAGEMENT with TRIM (ACS-3 §7, DATA SET MANAGEMENT).
///
/// The ranges are read once, checked all, and then discarded one after the other. What a discarded sector reads as is not
/// promised (word 69): pages that are trimmed in part keep what they had.
extension ATADrive {
  /// Blocks of 512 bytes, with 64 ranges each, that one command may have (word 105).
  static let trimBlocksMax = 8
  private static let rangeBytes = 8

  /// Whether IDENTIFY DEVICE offers TRIM.
  var hasTrim: Bool { disk.supportsDiscard && !disk.isReadOnly }

  /// Ranges out of bounds abort the command, as ACS-3 has it (not IDNF); unlike there, nothing is discarded then.
  func manageData(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let isTrim = slot.pointee.fis.features & 1 != 0
    let blocks = Int(slot.pointee.fis.count)
    guard isTrim, hasTrim, blocks > 0, blocks <= Self.trimBlocksMax else { return fail(slot, ATAError.abort) }
    let byteCount = blocks * Int(Self.sectorBytes)
    guard let buffer = malloc(byteCount) else { return fail(slot, ATAError.abort) }
    slot.pointee.deviceBuffer = buffer
    let received = link.receive(into: UnsafeMutableRawBufferPointer(start: buffer, count: byteCount), for: slot)
    guard received == byteCount else { return fail(slot, ATAError.abort) }
    let entries = byteCount / Self.rangeBytes
    for index in 0..<entries {
      let (lba, count) = Self.range(index, in: buffer)
      // Ranges of nothing are padding, whatever their address.
      guard count == 0 || isInRange(lba: lba, count: count, end: sectorCount) else { return fail(slot, ATAError.abort) }
    }
    power = .active
    slot.pointee.phase = Step.trim.rawValue
    slot.pointee.deviceOffset = 0
    slot.pointee.deviceLeft = UInt64(entries)
    trimNext(slot)
  }

  /// Discards the next range that is not empty; `deviceOffset` counts them.
  func trimNext(_ slot: UnsafeMutablePointer<CommandSlot>) {
    while slot.pointee.deviceLeft > 0, let buffer = slot.pointee.deviceBuffer {
      let (lba, count) = Self.range(Int(slot.pointee.deviceOffset), in: buffer)
      slot.pointee.deviceOffset += 1
      slot.pointee.deviceLeft -= 1
      if count == 0 { continue }
      let request = slot.pointee.request
      request.pointee.operation = .discard
      request.pointee.forceUnitAccess = false
      request.pointee.mayUnmap = true
      request.pointee.offset = lba * Self.sectorBytes
      request.pointee.byteCount = count * Self.sectorBytes
      request.pointee.iovecCount = 0
      return submit(slot)
    }
    freeBuffer(slot)
    finish(slot)
  }

  /// A range: 48 bits of address, 16 of length.
  private static func range(_ index: Int, in buffer: UnsafeMutableRawPointer) -> (lba: UInt64, count: UInt64) {
    let entry = UInt64(littleEndian: buffer.load(fromByteOffset: index * rangeBytes, as: UInt64.self))
    return (entry & lba48SectorsMax, entry >> 48)
  }
}
