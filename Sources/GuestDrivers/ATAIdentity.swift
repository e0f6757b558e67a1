// SPDX-License-Identifier: Apache-2.0

/// What IDENTIFY DEVICE or IDENTIFY PACKET DEVICE says (ACS-3 §7.12, §7.13), as far as it says anything valid.
public struct ATAIdentity: Equatable, Sendable {
  /// Bytes of the data.
  public static var byteCount: UInt32 { 512 }

  /// Whether word 0 says that this is an ATAPI device.
  public var isATAPI = false
  /// Logical sectors, by words 100 to 103 where the device has 48-bit addresses, else by words 60 and 61.
  public var sectorCount: UInt64 = 0
  /// Words 60 and 61: what 28-bit commands reach.
  public var sectorCount28: UInt32 = 0
  /// Bytes of a logical sector.
  public var logicalSectorBytes: UInt32 = 512
  /// Bytes of a physical sector.
  public var physicalSectorBytes: UInt64 = 512
  /// Word 75: how many queued commands the device takes, 1 to 32.
  public var queueDepth = 1
  /// Word 76: the device takes queued commands.
  public var hasCommandQueuing = false
  /// Word 83: the device has 48-bit addresses.
  public var has48BitAddresses = false
  /// Word 84: the device has WRITE DMA FUA EXT.
  public var hasForcedUnitAccess = false
  /// Word 82: the device has a write cache that can be turned off.
  public var hasWriteCache = false
  /// Word 85: the write cache is on.
  public var isWriteCacheOn = false
  /// Word 83: the device has FLUSH CACHE.
  public var hasFlush = false
  /// Word 83: the device has FLUSH CACHE EXT.
  public var hasFlushExt = false
  /// Word 82: the device has the host protected area commands, READ NATIVE MAX ADDRESS among them.
  public var hasProtectedArea = false
  /// Word 84: general purpose logging, READ LOG EXT.
  public var hasLogging = false
  /// Word 169: DATA SET MANAGEMENT with TRIM.
  public var hasTrim = false
  /// Word 217: 0 where the device does not say, 1 for no rotation, else revolutions per minute.
  public var rotationRate: UInt16 = 0
  /// Words 10 to 19, in order, without spaces around.
  public var serial: [UInt8] = []
  /// Words 27 to 46, in order, without spaces around.
  public var model: [UInt8] = []
  /// Word 255: whether the data carries a checksum, and whether it holds; nil where it carries none.
  public var checksumHolds: Bool?

  /// Says nothing of a device.
  public init() {}

  /// Reads the data that the device has put into RAM at `address`.
  public init<B: Bus>(_ bus: B, address: UInt64) {
    func word(_ index: UInt64) -> UInt16 { bus.ramRead16(address + 2 * index) }
    func isSet(_ index: UInt64, _ bit: UInt16) -> Bool { word(index) & 1 << bit != 0 }
    /// Words 83, 84, 106 and 87 say by 01 in their upper bits that the rest is valid (ACS-3 §7.12.7).
    func isValid(_ index: UInt64) -> Bool { word(index) >> 14 == 1 }
    func isNamed(_ index: UInt64) -> Bool { word(index) != 0 && word(index) != 0xFFFF }
    isATAPI = isSet(0, 15) && word(0) != 0xFFFF
    sectorCount28 = UInt32(word(60)) | UInt32(word(61)) << 16
    sectorCount = UInt64(sectorCount28)
    hasWriteCache = isNamed(82) && isSet(82, 5)
    hasProtectedArea = isNamed(82) && isSet(82, 10)
    isWriteCacheOn = isNamed(85) && isSet(85, 5)
    if isValid(83) {
      has48BitAddresses = isSet(83, 10)
      hasFlush = isSet(83, 12)
      hasFlushExt = isSet(83, 13)
    }
    if has48BitAddresses {
      sectorCount = UInt64(word(100)) | UInt64(word(101)) << 16 | UInt64(word(102)) << 32 | UInt64(word(103)) << 48
    }
    if isValid(84) {
      hasLogging = isSet(84, 5)
      hasForcedUnitAccess = isSet(84, 6)
    }
    hasCommandQueuing = isNamed(76) && isSet(76, 8)
    queueDepth = hasCommandQueuing ? Int(word(75) & 0x1F) + 1 : 1
    if isValid(106) {
      if isSet(106, 12) {
        logicalSectorBytes = (UInt32(word(117)) | UInt32(word(118)) << 16) &* 2
      }
      physicalSectorBytes = UInt64(logicalSectorBytes) << (isSet(106, 13) ? UInt64(word(106) & 0xF) : 0)
    }
    hasTrim = isSet(169, 0) && word(169) != 0xFFFF
    rotationRate = word(217)
    serial = ATAIdentity.text(bus, address + 20, wordCount: 10)
    model = ATAIdentity.text(bus, address + 54, wordCount: 20)
    checksumHolds = ATAIdentity.checksumHolds(bus, address)
  }

  /// The first byte of a text is in the upper half of its first word (ACS-3 §3.3.10).
  private static func text<B: Bus>(_ bus: B, _ address: UInt64, wordCount: UInt64) -> [UInt8] {
    var first: UInt64 = 0
    var end = wordCount * 2
    func byte(_ index: UInt64) -> UInt8 { bus.ramRead8(address + (index ^ 1)) }
    while first < end, byte(first) == UInt8(ascii: " ") || byte(first) == 0 {
      first += 1
    }
    while end > first, byte(end - 1) == UInt8(ascii: " ") || byte(end - 1) == 0 {
      end -= 1
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Int(end - first))
    for index in first..<end {
      bytes.append(byte(index))
    }
    return bytes
  }

  /// The sum of all bytes is 0 where the last word's lower byte is A5h (ACS-3 §7.12.7, word 255).
  private static func checksumHolds<B: Bus>(_ bus: B, _ address: UInt64) -> Bool? {
    guard bus.ramRead8(address + 510) == 0xA5 else {
      return nil
    }
    var sum: UInt8 = 0
    for offset in 0..<UInt64(byteCount) {
      sum &+= bus.ramRead8(address + offset)
    }
    return sum == 0
  }
}

/// The queued error log, page 10h (ACS-3 annex A): which queued command has failed.
public struct ATAErrorLog: Equatable, Sendable {
  /// The log's address.
  public static var page: UInt8 { 0x10 }
  /// Bytes of the log.
  public static var byteCount: UInt64 { 512 }

  /// NQ: the last error was not that of a queued command, and nothing else here means anything.
  public var isNotQueued: Bool
  /// The tag of the command that has failed.
  public var tag: Int
  /// Its status.
  public var status: UInt8
  /// Its error.
  public var error: UInt8
  /// Whether the bytes of the page add up to 0.
  public var checksumHolds: Bool

  /// Reads the page that the disk has put into RAM at `address`.
  public init<B: Bus>(_ bus: B, address: UInt64) {
    let first = bus.ramRead8(address)
    isNotQueued = first & 0x80 != 0
    tag = Int(first & 0x1F)
    status = bus.ramRead8(address + 2)
    error = bus.ramRead8(address + 3)
    var sum: UInt8 = 0
    for offset in 0..<ATAErrorLog.byteCount {
      sum &+= bus.ramRead8(address + offset)
    }
    checksumHolds = sum == 0
  }
}
