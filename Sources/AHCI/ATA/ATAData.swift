// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// Commands that move the disk's data, and those that do as if (ACS-3 §7: READ and WRITE SECTORS, MULTIPLE, DMA, FPDMA
/// QUEUED and their EXT forms, READ VERIFY; SATA 3.3 §13.6 for queued ones).
///
/// A command of which a sector is beyond the end does nothing and fails with IDNF and the first address that does not
/// exist, as ACS-3 says; QEMU answers ABRT.
extension ATADrive {
  // MARK: Moving data

  /// READ or WRITE FPDMA QUEUED: the count is in the features. The priority in the count is a hint, and ignored.
  @inline(__always)
  func moveQueued(_ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation) {
    // FUA of reads asks for data from the medium. What the disk's cache and its medium are is the host's matter; there
    // is no older copy that could be read in place of what was written last.
    let isDurable = operation == .write && slot.pointee.fis.device & ATADeviceRegister.forceUnitAccess != 0
    move(
      slot, operation, lba: slot.pointee.fis.lba, count: Self.count48(slot.pointee.fis.features), end: sectorCount,
      durable: isDurable)
  }

  @inline(__always)
  func moveDMA48(_ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation, durable: Bool = false) {
    move(
      slot, operation, lba: slot.pointee.fis.lba, count: Self.count48(slot.pointee.fis.count), end: sectorCount,
      durable: durable)
  }

  @inline(__always)
  func moveDMA28(_ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation) {
    guard let lba = address28(slot) else { return fail(slot, ATAError.addressNotFound) }
    move(slot, operation, lba: lba, count: count28(slot), end: reach28, durable: false)
  }

  /// - Parameter blockSectors: sectors of a DRQ block; 0 for READ and WRITE MULTIPLE that have been turned off.
  func movePIO48(
    _ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation, blockSectors: UInt64, durable: Bool = false
  ) {
    let count = Self.count48(slot.pointee.fis.count)
    guard setUpPIO(slot, operation, count: count, blockSectors: blockSectors) else {
      return fail(slot, ATAError.abort)
    }
    move(slot, operation, lba: slot.pointee.fis.lba, count: count, end: sectorCount, durable: durable)
  }

  func movePIO28(_ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation, blockSectors: UInt64) {
    let count = count28(slot)
    guard setUpPIO(slot, operation, count: count, blockSectors: blockSectors) else {
      return fail(slot, ATAError.abort)
    }
    guard let lba = address28(slot) else { return fail(slot, ATAError.addressNotFound) }
    move(slot, operation, lba: lba, count: count, end: reach28, durable: false)
  }

  /// Says what the last of the PIO set-up FISes looks like. Each of them interrupts, but for the first block to the disk,
  /// which the host sends unasked (SATA 3.3 §10.5.11; ACS-3's PIO data-out protocol).
  private func setUpPIO(
    _ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation, count: UInt64, blockSectors: UInt64
  ) -> Bool {
    guard blockSectors > 0 else { return false }
    let remainder = count % blockSectors
    let lastSectors = remainder == 0 ? blockSectors : remainder
    let isInput = operation == .read
    slot.pointee.pio = PIOSetup(
      blockBytes: UInt16(lastSectors * Self.sectorBytes), isInput: isInput,
      interrupts: isInput || count > blockSectors)
    return true
  }

  @inline(__always)
  private func move(
    _ slot: UnsafeMutablePointer<CommandSlot>, _ operation: BlockOperation, lba: UInt64, count: UInt64, end: UInt64,
    durable: Bool
  ) {
    guard isInRange(lba: lba, count: count, end: end) else { return failAddress(slot, lba: lba, end: end) }
    if operation == .write && disk.isReadOnly { return fail(slot, ATAError.abort) }
    power = .active
    slot.pointee.phase = (operation == .read ? Step.read : Step.write).rawValue
    // Sectors of 512 bytes; both fit, since the range is within 48 bits.
    let (offset, byteCount) = (lba &* Self.sectorBytes, count &* Self.sectorBytes)
    linkReference.unsafelyUnwrapped._withUnsafeGuaranteedRef {
      $0.transfer(operation, of: disk, offset: offset, byteCount: byteCount, durable: durable, for: slot)
    }
  }

  // MARK: READ VERIFY

  /// Bytes that are read at a time.
  static let verifyPieceBytes = 64 << 10
  private static let verifyAlignmentBytes = 4096

  func verify28(_ slot: UnsafeMutablePointer<CommandSlot>) {
    guard let lba = address28(slot) else { return fail(slot, ATAError.addressNotFound) }
    verify(slot, lba: lba, count: count28(slot), end: reach28)
  }

  func verify48(_ slot: UnsafeMutablePointer<CommandSlot>) {
    verify(slot, lba: slot.pointee.fis.lba, count: Self.count48(slot.pointee.fis.count), end: sectorCount)
  }

  /// Reads all of the range, since nothing else finds sectors that cannot be read; the data go nowhere.
  private func verify(_ slot: UnsafeMutablePointer<CommandSlot>, lba: UInt64, count: UInt64, end: UInt64) {
    guard isInRange(lba: lba, count: count, end: end) else { return failAddress(slot, lba: lba, end: end) }
    guard let buffer = aligned_alloc(Self.verifyAlignmentBytes, Self.verifyPieceBytes) else {
      return fail(slot, ATAError.abort)
    }
    power = .active
    slot.pointee.deviceBuffer = buffer
    slot.pointee.deviceOffset = lba * Self.sectorBytes
    slot.pointee.deviceLeft = count * Self.sectorBytes
    slot.pointee.phase = Step.verify.rawValue
    submitVerify(slot)
  }

  func verifyNext(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let piece = min(slot.pointee.deviceLeft, UInt64(Self.verifyPieceBytes))
    slot.pointee.deviceOffset += piece
    slot.pointee.deviceLeft -= piece
    if slot.pointee.deviceLeft > 0 { return submitVerify(slot) }
    freeBuffer(slot)
    finish(slot)
  }

  private func submitVerify(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let piece = min(slot.pointee.deviceLeft, UInt64(Self.verifyPieceBytes))
    slot.pointee.iovecs[0] = iovec(iov_base: slot.pointee.deviceBuffer, iov_len: Int(piece))
    let request = slot.pointee.request
    request.pointee.operation = .read
    request.pointee.forceUnitAccess = false
    request.pointee.offset = slot.pointee.deviceOffset
    request.pointee.byteCount = piece
    request.pointee.iovecs = slot.pointee.iovecs
    request.pointee.iovecCount = 1
    submit(slot)
  }

  // MARK: Flushing

  func flush(_ slot: UnsafeMutablePointer<CommandSlot>, then step: Step) {
    slot.pointee.phase = step.rawValue
    let request = slot.pointee.request
    request.pointee.operation = .flush
    request.pointee.forceUnitAccess = false
    request.pointee.offset = 0
    request.pointee.byteCount = 0
    request.pointee.iovecCount = 0
    submit(slot)
  }
}
