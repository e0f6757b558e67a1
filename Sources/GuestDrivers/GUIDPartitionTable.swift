// SPDX-License-Identifier: Apache-2.0

/// One used entry of a GUID partition table (UEFI 2.10 §5.3.3).
public struct GPTPartition: Equatable, Sendable {
  /// The entry's number, from 1.
  public var number: Int
  /// First logical block.
  public var firstBlock: UInt64
  /// Last logical block, included.
  public var lastBlock: UInt64
  /// Whether the name is exactly "scratch".
  public var isScratch: Bool

  /// Describes an entry.
  public init(number: Int, firstBlock: UInt64, lastBlock: UInt64, isScratch: Bool) {
    self.number = number
    self.firstBlock = firstBlock
    self.lastBlock = lastBlock
    self.isScratch = isScratch
  }

  /// How many logical blocks it has.
  public var blockCount: UInt64 { lastBlock &- firstBlock &+ 1 }
}

/// What is wrong with a GUID partition table.
public enum GPTProblem: Equatable, Sendable {
  /// There is no header signature: the disk has no such table.
  case none
  /// The protective MBR has no 0x55aa signature or no partition of type 0xee.
  case protectiveMBR
  /// The header's revision or size is impossible, or it is not where it says that it is.
  case headerFields
  /// The header's CRC is wrong.
  case headerChecksum
  /// The array of entries is impossible or larger than what is read of it.
  case arrayFields
  /// The array's CRC is wrong.
  case arrayChecksum
  /// An entry lies outside the usable blocks.
  case entryFields
}

/// A GUID partition table in RAM, checked completely before anything is taken from it (UEFI 2.10 §5.3).
public struct GUIDPartitionTable: Sendable {
  /// The bytes at the beginning of the disk that hold the MBR, the header and the array: 34 blocks of 512.
  public static let byteCount: UInt64 = 34 * 512
  static let blockBytes: UInt64 = 512
  static let signature: UInt64 = 0x5452_4150_2049_4645  // "EFI PART"
  static let revision: UInt32 = 0x0001_0000
  static let headerBytes: UInt32 = 92
  static let entryBytesMin: UInt32 = 128
  static let protectiveType: UInt8 = 0xEE
  /// Only this many partitions are kept.
  static let partitionsMax = 16
  /// No disk has a block beyond this one: 2^54 blocks of 512 bytes are all that 63 bits of offset reach.
  static let blockMax: UInt64 = 1 << 54

  /// The used entries, in order, as many as are kept.
  public private(set) var partitions: [GPTPartition] = []
  /// Where the backup header is.
  public private(set) var backupBlock: UInt64 = 0

  /// A table without entries.
  public init() {}

  /// An entry by its number.
  public func partition(_ number: Int) -> GPTPartition? {
    partitions.first { $0.number == number }
  }

  /// Reads a table out of the first `byteCount` bytes of a disk in RAM at `address`.
  /// - Returns: what is wrong; nil where the table is good.
  public mutating func parse<B: Bus>(_ bus: B, address: UInt64, crc: CRC32) -> GPTProblem? {
    let header = address + GUIDPartitionTable.blockBytes
    guard bus.ramRead64(header) == GUIDPartitionTable.signature else {
      return GPTProblem.none
    }
    guard hasProtectiveMBR(bus, address) else {
      return .protectiveMBR
    }
    if let problem = checkHeader(bus, header, block: 1, crc: crc) {
      return problem
    }
    backupBlock = bus.ramRead64(header + 32)
    let firstUsable = bus.ramRead64(header + 40)
    let lastUsable = bus.ramRead64(header + 48)
    guard lastUsable <= GUIDPartitionTable.blockMax else {
      return .headerFields
    }
    let arrayBlock = bus.ramRead64(header + 72)
    let entryCount = bus.ramRead32(header + 80)
    let entryBytes = bus.ramRead32(header + 84)
    let (arrayBytes, overflow) = UInt64(entryCount).multipliedReportingOverflow(by: UInt64(entryBytes))
    guard arrayBlock == 2, !overflow, entryBytes >= GUIDPartitionTable.entryBytesMin, entryBytes % 8 == 0,
      arrayBytes <= GUIDPartitionTable.byteCount - 2 * GUIDPartitionTable.blockBytes
    else {
      return .arrayFields
    }
    let array = address + 2 * GUIDPartitionTable.blockBytes
    guard crc.checksum(bus, address: array, byteCount: arrayBytes) == bus.ramRead32(header + 88) else {
      return .arrayChecksum
    }
    for index in 0..<UInt64(entryCount) where partitions.count < GUIDPartitionTable.partitionsMax {
      let entry = array + index * UInt64(entryBytes)
      if bus.ramRead64(entry) == 0, bus.ramRead64(entry + 8) == 0 {
        continue
      }
      let first = bus.ramRead64(entry + 32)
      let last = bus.ramRead64(entry + 40)
      guard first >= firstUsable, last >= first, last <= lastUsable else {
        return .entryFields
      }
      partitions.append(
        GPTPartition(
          number: Int(index) + 1, firstBlock: first, lastBlock: last,
          isScratch: GUIDPartitionTable.isScratch(bus, entry + 56)))
    }
    return nil
  }

  /// Checks a header (the first or the backup one) that was read from `block`.
  public func checkHeader<B: Bus>(_ bus: B, _ header: UInt64, block: UInt64, crc: CRC32) -> GPTProblem? {
    guard bus.ramRead64(header) == GUIDPartitionTable.signature else {
      return GPTProblem.none
    }
    guard bus.ramRead32(header + 8) == GUIDPartitionTable.revision,
      bus.ramRead32(header + 12) == GUIDPartitionTable.headerBytes, bus.ramRead64(header + 24) == block
    else {
      return .headerFields
    }
    // The checksum's own field counts as zero.
    var state = CRC32.start
    for offset in 0..<UInt64(GUIDPartitionTable.headerBytes) {
      let byte = offset >= 16 && offset < 20 ? 0 : bus.ramRead8(header + offset)
      state = crc.advanced(state, by: byte)
    }
    return CRC32.finish(state) == bus.ramRead32(header + 16) ? nil : .headerChecksum
  }

  private func hasProtectiveMBR<B: Bus>(_ bus: B, _ address: UInt64) -> Bool {
    guard bus.ramRead8(address + 510) == 0x55, bus.ramRead8(address + 511) == 0xAA else {
      return false
    }
    for index in UInt64(0)..<4
    where bus.ramRead8(address + 446 + 16 * index + 4) == GUIDPartitionTable.protectiveType {
      return true
    }
    return false
  }

  /// Whether the name at `address` (UTF-16, 36 units) is "scratch".
  private static func isScratch<B: Bus>(_ bus: B, _ address: UInt64) -> Bool {
    let name: StaticString = "scratch"
    for index in 0..<name.utf8CodeUnitCount
    where bus.ramRead16(address + UInt64(2 * index)) != UInt16(name.utf8Start[index]) {
      return false
    }
    return bus.ramRead16(address + UInt64(2 * name.utf8CodeUnitCount)) == 0
  }
}

/// The fields of an ext2, ext3 or ext4 superblock that the test reports.
///
/// Source: Linux, Documentation/filesystems/ext4/super.rst.
public struct Ext4Superblock: Equatable, Sendable {
  /// Where the superblock is in its partition.
  public static let byteOffset: UInt64 = 1024
  /// How large it is.
  public static let byteCount: UInt64 = 1024
  static let magic: UInt16 = 0xEF53
  /// The largest s_log_block_size: 64 KiB blocks.
  static let logBlockSizeMax: UInt32 = 6

  /// Bytes of a block.
  public var blockBytes: UInt64
  /// How many blocks the file system has.
  public var blockCount: UInt64
  /// How many of them are free.
  public var freeBlockCount: UInt64
  /// How many inodes it has.
  public var inodeCount: UInt32
  /// The UUID, its first byte highest.
  public var uuid: (high: UInt64, low: UInt64)
  /// Where the label is: 16 bytes of RAM, shorter ones end with a zero.
  public var labelAddress: UInt64

  /// Reads a superblock from RAM at `address`; nil where its magic number or block size is not one.
  public init?<B: Bus>(_ bus: B, address: UInt64) {
    guard bus.ramRead16(address + 56) == Ext4Superblock.magic else {
      return nil
    }
    let logBlockSize = bus.ramRead32(address + 24)
    guard logBlockSize <= Ext4Superblock.logBlockSizeMax else {
      return nil
    }
    blockBytes = 1024 << UInt64(logBlockSize)
    let has64Bit = bus.ramRead32(address + 96) & 0x80 != 0
    blockCount = UInt64(bus.ramRead32(address + 4)) | (has64Bit ? UInt64(bus.ramRead32(address + 0x150)) << 32 : 0)
    freeBlockCount = UInt64(bus.ramRead32(address + 12)) | (has64Bit ? UInt64(bus.ramRead32(address + 0x158)) << 32 : 0)
    inodeCount = bus.ramRead32(address)
    uuid = (bus.ramRead64(address + 104).byteSwapped, bus.ramRead64(address + 112).byteSwapped)
    labelAddress = address + 120
  }

  /// Whether both describe the same file system.
  public static func == (left: Ext4Superblock, right: Ext4Superblock) -> Bool {
    left.uuid == right.uuid && left.blockBytes == right.blockBytes && left.blockCount == right.blockCount
  }
}
