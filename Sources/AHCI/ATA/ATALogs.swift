// SPDX-License-Identifier: Apache-2.0

/// The queued command that failed, as READ LOG EXT page 10h tells of it (ACS-3, NCQ Command Error log).
struct ATAQueueFailure {
  let answer: TaskFile
  let tag: UInt8
  /// It was not a queued command that failed; the tag means nothing then.
  let isNotQueued: Bool
}

/// The General Purpose Logging feature set: READ LOG EXT and READ LOG DMA EXT (ACS-3 §7, and its log definitions).
extension ATADrive {
  /// Addresses of the logs that there are.
  private enum Log {
    static let directory: UInt8 = 0x00, queueError: UInt8 = 0x10, identifyDeviceData: UInt8 = 0x30
    /// All of them, with how many pages each has.
    static let all: [(address: UInt8, pages: UInt64)] = [(directory, 1), (queueError, 1), (identifyDeviceData, 3)]
  }

  /// Version of the directory.
  private static let directoryVersion: UInt16 = 1

  /// The log's address in the low byte, the page in bytes 1 and 4, the number of pages in the count. Logs and pages that
  /// there are not abort the command, before any data.
  func readLog(_ slot: UnsafeMutablePointer<CommandSlot>, isPIO: Bool) {
    let lba = slot.pointee.fis.lba
    let address = UInt8(truncatingIfNeeded: lba)
    let first = lba >> 8 & 0xff | lba >> 24 & 0xff00
    let count = UInt64(slot.pointee.fis.count)
    guard let log = Log.all.first(where: { $0.address == address }), count > 0, first + count <= log.pages else {
      return fail(slot, ATAError.abort)
    }
    for number in first..<first + count {
      clearPage()
      fill(address, page: number)
      guard link.send(UnsafeRawBufferPointer(start: page, count: Int(Self.sectorBytes)), for: slot) > 0 else { break }
    }
    if address == Log.queueError { queueFailure = nil }
    if isPIO { setPIOInput(slot) }
    finish(slot)
  }

  private func fill(_ log: UInt8, page number: UInt64) {
    switch (log, number) {
    case (Log.directory, _): fillDirectory()
    case (Log.queueError, _): fillQueueError()
    case (Log.identifyDeviceData, 0): fillIdentifyPages()
    case (Log.identifyDeviceData, 1): page.copyMemory(from: currentIdentity, byteCount: Int(Self.sectorBytes))
    default: fillCapacity()
    }
  }

  /// Word 0 is the version, each other one the pages of the log with its number.
  private func fillDirectory() {
    page.storeBytes(of: Self.directoryVersion.littleEndian, as: UInt16.self)
    for log in Log.all where log.address != Log.directory {
      page.storeBytes(of: UInt16(log.pages).littleEndian, toByteOffset: Int(log.address) * 2, as: UInt16.self)
    }
  }

  /// Where no queued command has failed, the NQ bit says that the rest means nothing.
  private func fillQueueError() {
    let failure = queueFailure ?? ATAQueueFailure(answer: TaskFile(status: 0), tag: 0, isNotQueued: true)
    let answer = failure.answer
    page.storeBytes(of: failure.isNotQueued ? 0x80 : failure.tag, as: UInt8.self)
    page.storeBytes(of: answer.status, toByteOffset: 2, as: UInt8.self)
    page.storeBytes(of: answer.error, toByteOffset: 3, as: UInt8.self)
    page.storeBytes(of: answer.device, toByteOffset: 7, as: UInt8.self)
    for byte in 0..<3 {
      let low = UInt8(truncatingIfNeeded: answer.lba >> UInt64(8 * byte))
      let high = UInt8(truncatingIfNeeded: answer.lba >> UInt64(24 + 8 * byte))
      page.storeBytes(of: low, toByteOffset: 4 + byte, as: UInt8.self)
      page.storeBytes(of: high, toByteOffset: 8 + byte, as: UInt8.self)
    }
    page.storeBytes(of: answer.count.littleEndian, toByteOffset: 12, as: UInt16.self)
    sealPage()
  }

  // MARK: IDENTIFY DEVICE data log

  /// The first quadword of a page: that there is one, its number, and its revision.
  private static func header(_ number: UInt64) -> UInt64 { 1 << 63 | number << 16 | 1 }

  /// Page 00h: the numbers of the pages that there are.
  private func fillIdentifyPages() {
    page.storeBytes(of: (Self.header(0) & ~(1 << 63)).littleEndian, as: UInt64.self)
    let pages: [UInt8] = [3, 0, 1, 2]
    for (index, value) in pages.enumerated() { page.storeBytes(of: value, toByteOffset: 8 + index, as: UInt8.self) }
  }

  /// Page 02h: the capacity, and the sizes of sectors; bit 63 of each quadword says that it is valid.
  private func fillCapacity() {
    let valid: UInt64 = 1 << 63
    // Both sizes are told (bits 62 and 61); the first physical sector begins with sector 0.
    let sectorSizes = valid | 1 << 62 | 1 << 61 | UInt64(physicalSectorShift) << 16
    let quadwords = [Self.header(2), valid | sectorCount, sectorSizes, valid | Self.sectorBytes / 2]
    for (index, value) in quadwords.enumerated() {
      page.storeBytes(of: value.littleEndian, toByteOffset: index * 8, as: UInt64.self)
    }
  }

  // MARK: Pages

  func clearPage() { page.initializeMemory(as: UInt8.self, repeating: 0, count: Int(Self.sectorBytes)) }

  /// Sets the last byte so that all of them together are 0.
  func sealPage() { Self.seal(page) }

  static func seal(_ page: UnsafeMutableRawPointer) {
    let last = Int(sectorBytes) - 1
    let sum = UnsafeRawBufferPointer(start: page, count: last).reduce(UInt8(0), &+)
    page.storeBytes(of: 0 &- sum, toByteOffset: last, as: UInt8.self)
  }

  /// Answers a PIO data-in command with the page that `fill` makes.
  func sendPage(_ slot: UnsafeMutablePointer<CommandSlot>, _ fill: () -> Void) {
    clearPage()
    fill()
    _ = link.send(UnsafeRawBufferPointer(start: page, count: Int(Self.sectorBytes)), for: slot)
    setPIOInput(slot)
    finish(slot)
  }

  /// The PIO set-up FIS for blocks of 512 bytes to the host.
  func setPIOInput(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.pio = PIOSetup(blockBytes: UInt16(Self.sectorBytes), isInput: true, interrupts: true)
  }
}
