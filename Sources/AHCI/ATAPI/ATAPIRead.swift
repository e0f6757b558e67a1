// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// Reading the disc: READ (10) and (12), SEEK, READ CD (MMC-6: the commands by their names).
extension ATAPIDrive {
  /// Bytes of a block, the unit of addresses.
  static let blockBytes: UInt64 = 2048
  /// Blocks of raw sectors that are read from the host at a time.
  private static let rawPieceBlocksMax: UInt64 = 16
  private static let rawPieceBytesMax = Int(rawPieceBlocksMax * blockBytes)

  /// What a `transferEnded` is about.
  private enum Phase {
    /// Blocks, straight to the guest.
    static let blocks = 0
    /// Blocks that go to the guest as raw sectors.
    static let rawPiece = 1
  }

  /// Whether `blocks` blocks from `address` on are on the disc.
  @inline(__always)
  private func isOnDisc(_ address: UInt32, blocks: UInt32) -> Bool {
    address < blockCount && blocks <= blockCount - address
  }

  /// Sends blocks to the guest. None at all is no error.
  @inline(__always)
  func read(from address: UInt32, blocks: UInt32, _ slot: UnsafeMutablePointer<CommandSlot>) {
    guard isOnDisc(address, blocks: blocks), let disc = discReference else {
      return check(.addressOutOfRange, slot)
    }
    guard blocks > 0 else { return succeed(slot) }
    let byteCount = UInt64(blocks) * Self.blockBytes
    guard beginData(byteCount, isInput: true, slot) else { return }
    slot.pointee.phase = Phase.blocks
    let offset = UInt64(address) * Self.blockBytes
    disc._withUnsafeGuaranteedRef {
      link.transfer(.read, of: $0, offset: offset, byteCount: byteCount, durable: false, for: slot)
    }
  }

  func seek(to address: UInt32, _ slot: UnsafeMutablePointer<CommandSlot>) {
    if isOnDisc(address, blocks: 1) { succeed(slot) } else { check(.addressOutOfRange, slot) }
  }

  /// Blocks have come, or not.
  @inline(__always)
  func readEnded(_ slot: UnsafeMutablePointer<CommandSlot>, result: Int32) {
    if slot.pointee.phase == Phase.rawPiece { return rawPieceEnded(slot, result: result) }
    if result == 0 { succeed(slot) } else { check(.readError, slot) }
  }

  // MARK: READ CD

  /// What READ CD is to send of each sector (its byte 9).
  private enum SectorParts {
    /// Bits that say so.
    static let mask: UInt8 = 0xf8
    /// The user data alone.
    static let userData: UInt8 = 0x10
    /// Sync pattern, headers, user data, error correction: all 2352 bytes.
    static let all: UInt8 = 0xf8
    /// Error flags of each sector, which the drive does not have.
    static let errorFlags: UInt8 = 0x06
  }

  /// Only blocks as they are and whole raw sectors; other selections are refused, and so are sub-channels.
  func readCD(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let address = command.uint32(at: 2)
    let blocks = command.uint24(at: 6)
    let parts = command[9] & SectorParts.mask
    guard blocks > 0, parts != 0 else { return succeed(slot) }
    guard command[9] & SectorParts.errorFlags == 0, command[10] & 0x7 == 0 else { return check(.invalidField, slot) }
    // Expected sector type: any, or mode 1, which is what a data track has.
    let sectorType = command[1] >> 2 & 0x7
    guard sectorType == 0 || sectorType == 2 else { return check(.illegalTrackMode, slot) }
    switch parts {
    case SectorParts.userData: read(from: address, blocks: blocks, slot)
    case SectorParts.all: readRaw(from: address, blocks: blocks, slot)
    default: check(.invalidField, slot)
    }
  }

  private func readRaw(from address: UInt32, blocks: UInt32, _ slot: UnsafeMutablePointer<CommandSlot>) {
    // The sectors of a DVD have no such form.
    guard !isDVD else { return check(.illegalTrackMode, slot) }
    guard isOnDisc(address, blocks: blocks) else { return check(.addressOutOfRange, slot) }
    guard beginData(UInt64(blocks) * UInt64(RawSector.byteCount), isInput: true, slot) else { return }
    // Room for a piece, and after it for one sector.
    guard let buffer = malloc(Self.rawPieceBytesMax + RawSector.byteCount) else {
      return check(.internalFailure, slot)
    }
    slot.pointee.deviceBuffer = buffer
    slot.pointee.phase = Phase.rawPiece
    slot.pointee.deviceOffset = UInt64(address)
    slot.pointee.deviceLeft = UInt64(blocks)
    submitRawPiece(slot)
  }

  private func submitRawPiece(_ slot: UnsafeMutablePointer<CommandSlot>) {
    guard let disc, let buffer = slot.pointee.deviceBuffer else { return endRaw(slot, failure: .readError) }
    let byteCount = min(slot.pointee.deviceLeft, Self.rawPieceBlocksMax) * Self.blockBytes
    slot.pointee.iovecs[0] = iovec(iov_base: buffer, iov_len: Int(byteCount))
    let request = slot.pointee.request
    request.pointee.operation = .read
    request.pointee.offset = slot.pointee.deviceOffset * Self.blockBytes
    request.pointee.byteCount = byteCount
    request.pointee.iovecs = slot.pointee.iovecs
    request.pointee.iovecCount = 1
    link.submit(to: disc, for: slot)
  }

  /// Blocks have come from the host: each goes to the guest as a sector.
  private func rawPieceEnded(_ slot: UnsafeMutablePointer<CommandSlot>, result: Int32) {
    guard result == 0, let buffer = slot.pointee.deviceBuffer else { return endRaw(slot, failure: .readError) }
    let blocks = min(slot.pointee.deviceLeft, Self.rawPieceBlocksMax)
    let room = UnsafeMutableRawBufferPointer(start: buffer + Self.rawPieceBytesMax, count: RawSector.byteCount)
    for index in 0..<Int(blocks) {
      let data = UnsafeRawBufferPointer(start: buffer + index * Int(Self.blockBytes), count: Int(Self.blockBytes))
      let address = UInt32(truncatingIfNeeded: slot.pointee.deviceOffset)
      RawSector.fill(room, address: address, userData: data)
      // A list that is too short gets what fits, as with blocks.
      guard link.send(UnsafeRawBufferPointer(room), for: slot) == RawSector.byteCount else {
        return endRaw(slot, failure: nil)
      }
      slot.pointee.deviceOffset += 1
      slot.pointee.deviceLeft -= 1
    }
    if slot.pointee.deviceLeft > 0 { submitRawPiece(slot) } else { endRaw(slot, failure: nil) }
  }

  private func endRaw(_ slot: UnsafeMutablePointer<CommandSlot>, failure: SCSISense?) {
    free(slot.pointee.deviceBuffer)
    slot.pointee.deviceBuffer = nil
    if let failure { check(failure, slot) } else { succeed(slot) }
  }
}
