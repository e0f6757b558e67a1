// SPDX-License-Identifier: Apache-2.0

/// Cases about requests that a virtio-blk device must refuse, and go on after (virtio 1.3 §5.2.6.2).
extension TestRun {
  /// A request type that no version of the specification names.
  static var unknownType: UInt32 { 0xDEAD }

  func errorCases(_ disk: VirtioDisk<B>) {
    let end = disk.driver.configuration.sectorCount
    let ioError = VirtioBlockStatus.ioError
    statusCase(disk, ioError, "a read past the end answers IOERR", sector: end, byteCount: 512)
    statusCase(disk, ioError, "a read across the end answers IOERR", sector: end &- 1, byteCount: 1024)
    statusCase(disk, ioError, "a read whose end wraps around answers IOERR", sector: UInt64.max, byteCount: 1024)
    statusCase(disk, ioError, "a read of 511 bytes answers IOERR", sector: 0, byteCount: 511)
    statusCase(disk, ioError, "a read of 513 bytes answers IOERR", sector: 0, byteCount: 513)
    statusCase(
      disk, VirtioBlockStatus.unsupported, "an unknown request type answers UNSUPP", type: TestRun.unknownType,
      sector: 0, byteCount: 512)
    if disk.driver.isReadOnly {
      statusCase(
        disk, ioError, "a write to a read-only disk answers IOERR", type: VirtioBlockType.write, sector: 0,
        byteCount: 512)
    } else {
      statusCase(
        disk, ioError, "a write past the end answers IOERR", type: VirtioBlockType.write, sector: end, byteCount: 512)
    }
    statusCase(disk, VirtioBlockStatus.ok, "the last sector is read", sector: end &- 1, byteCount: 512)
    attempt("the queue works on after all refusals") { () throws(DriverError) in
      try readsFirstChunk(disk) && !disk.driver.needsReset
    }
  }

  private func statusCase(
    _ disk: VirtioDisk<B>, _ status: UInt8, _ name: StaticString, type: UInt32 = VirtioBlockType.read,
    sector: UInt64, byteCount: UInt32
  ) {
    attempt(name) { () throws(DriverError) in
      try disk.queue.perform(type: type, sector: sector, address: chunks, byteCount: byteCount).status == status
    }
  }
}
