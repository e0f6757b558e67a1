// SPDX-License-Identifier: Apache-2.0

/// Command codes (ACS-3 §7).
public enum ATAOpcode {
  /// READ SECTORS: PIO, 28 bits.
  public static var readSectors: UInt8 { 0x20 }
  /// READ SECTORS EXT: PIO, 48 bits.
  public static var readSectorsExt: UInt8 { 0x24 }
  /// READ DMA EXT.
  public static var readDMAExt: UInt8 { 0x25 }
  /// READ NATIVE MAX ADDRESS EXT.
  public static var readNativeMaxExt: UInt8 { 0x27 }
  /// READ LOG EXT.
  public static var readLogExt: UInt8 { 0x2F }
  /// WRITE SECTORS: PIO, 28 bits.
  public static var writeSectors: UInt8 { 0x30 }
  /// WRITE SECTORS EXT: PIO, 48 bits.
  public static var writeSectorsExt: UInt8 { 0x34 }
  /// WRITE DMA EXT.
  public static var writeDMAExt: UInt8 { 0x35 }
  /// WRITE DMA FUA EXT.
  public static var writeDMAFUAExt: UInt8 { 0x3D }
  /// READ FPDMA QUEUED.
  public static var readQueued: UInt8 { 0x60 }
  /// WRITE FPDMA QUEUED.
  public static var writeQueued: UInt8 { 0x61 }
  /// PACKET.
  public static var packet: UInt8 { 0xA0 }
  /// IDENTIFY PACKET DEVICE.
  public static var identifyPacket: UInt8 { 0xA1 }
  /// READ DMA: 28 bits.
  public static var readDMA: UInt8 { 0xC8 }
  /// WRITE DMA: 28 bits.
  public static var writeDMA: UInt8 { 0xCA }
  /// FLUSH CACHE.
  public static var flushCache: UInt8 { 0xE7 }
  /// FLUSH CACHE EXT.
  public static var flushCacheExt: UInt8 { 0xEA }
  /// IDENTIFY DEVICE.
  public static var identify: UInt8 { 0xEC }
  /// SET FEATURES.
  public static var setFeatures: UInt8 { 0xEF }
  /// READ NATIVE MAX ADDRESS: 28 bits.
  public static var readNativeMax: UInt8 { 0xF8 }
}

/// Subcommands of SET FEATURES (ACS-3 §7.45).
public enum ATAFeature {
  /// Write cache on.
  public static var enableWriteCache: UInt8 { 0x02 }
  /// Write cache off.
  public static var disableWriteCache: UInt8 { 0x82 }
}

/// What a host-to-device register FIS carries (SATA 3.x §10.5.5): any command at all, sensible or not.
public struct ATACommand: Equatable, Sendable {
  /// Device bit 6: the address is an LBA (ACS-3 §7.1.5).
  public static var lbaMode: UInt8 { 0x40 }
  /// Device bit 7 of the queued commands: forced unit access (ACS-3 §7.23, §7.61).
  public static var forcedUnitAccess: UInt8 { 0x80 }
  /// Double words of the FIS.
  public static var fisWords: UInt32 { 5 }

  /// The command code.
  public var opcode: UInt8
  /// Features, 16 bits.
  public var features: UInt16 = 0
  /// LBA, 48 bits.
  public var lba: UInt64 = 0
  /// Count, 16 bits.
  public var count: UInt16 = 0
  /// The device register.
  public var device: UInt8 = 0
  /// The control register.
  public var control: UInt8 = 0
  /// The C bit: the FIS carries a command, not a change of the control register.
  public var updatesCommand = true
  /// The port multiplier's port.
  public var multiplierPort: UInt8 = 0

  /// A command without parameters.
  public init(_ opcode: UInt8) {
    self.opcode = opcode
  }

  /// A command that takes sectors, with its parameters where it wants them (ACS-3 §7.1).
  ///
  /// - Parameters:
  ///   - opcode: one of the reads and writes of `ATAOpcode`.
  ///   - lba: the first logical sector; 28-bit commands keep the upper four of their bits in the device register.
  ///   - count: how many logical sectors, as the command encodes them.
  ///   - tag: the tag of a queued command, which is its slot's number; others have none.
  public init(_ opcode: UInt8, lba: UInt64, count: UInt16, tag: Int = 0) {
    self.opcode = opcode
    device = ATACommand.lbaMode
    self.lba = lba
    if ATACommand.isQueued(opcode) {
      features = count
      self.count = UInt16(truncatingIfNeeded: tag << 3)
    } else {
      self.count = count
      if ATACommand.is28Bit(opcode) {
        device |= UInt8(truncatingIfNeeded: lba >> 24 & 0xF)
        self.lba = lba & 0xFF_FFFF
      }
    }
  }

  /// Whether commands with this code end by a set-device-bits FIS and use PxSACT.
  public static func isQueued(_ opcode: UInt8) -> Bool {
    opcode == ATAOpcode.readQueued || opcode == ATAOpcode.writeQueued
  }

  private static func is28Bit(_ opcode: UInt8) -> Bool {
    switch opcode {
    case ATAOpcode.readSectors, ATAOpcode.writeSectors, ATAOpcode.readDMA, ATAOpcode.writeDMA: true
    default: false
    }
  }

  /// Bytes 0 to 7 of the FIS.
  var firstWords: UInt64 {
    let flags = UInt64(multiplierPort & 0xF) | (updatesCommand ? 0x80 : 0)
    let low = 0x27 | flags << 8 | UInt64(opcode) << 16 | UInt64(features & 0xFF) << 24
    return low | (lba & 0xFF_FFFF) << 32 | UInt64(device) << 56
  }

  /// Bytes 8 to 15 of the FIS.
  var secondWords: UInt64 {
    (lba >> 24 & 0xFF_FFFF) | UInt64(features >> 8) << 24 | UInt64(count) << 32 | UInt64(control) << 56
  }
}

/// A command of an ATAPI device: 12 bytes, and 4 of filling (SFF-8020i; MMC-6).
public struct ATAPIPacket: Equatable, Sendable {
  /// Bytes 0 to 7, byte 0 lowest.
  public var low: UInt64
  /// Bytes 8 to 15, byte 8 lowest.
  public var high: UInt64 = 0

  /// A packet of an operation code and zeroes.
  public init(_ opcode: UInt8) {
    low = UInt64(opcode)
  }

  /// The packet with another byte at `index`, 0 to 15.
  public func with(_ index: Int, _ byte: UInt8) -> ATAPIPacket {
    var other = self
    let shift = UInt64(index & 7) << 3
    if index < 8 {
      other.low = other.low & ~(0xFF << shift) | UInt64(byte) << shift
    } else {
      other.high = other.high & ~(0xFF << shift) | UInt64(byte) << shift
    }
    return other
  }

  /// TEST UNIT READY.
  public static var testUnitReady: ATAPIPacket { ATAPIPacket(0x00) }
  /// REQUEST SENSE for `byteCount` bytes.
  public static func requestSense(byteCount: UInt8) -> ATAPIPacket { ATAPIPacket(0x03).with(4, byteCount) }
  /// INQUIRY for `byteCount` bytes.
  public static func inquiry(byteCount: UInt8) -> ATAPIPacket { ATAPIPacket(0x12).with(4, byteCount) }
  /// READ CAPACITY(10): the last block and the bytes of a block.
  public static var readCapacity: ATAPIPacket { ATAPIPacket(0x25) }
  /// READ(10) of `count` blocks from `block` on.
  public static func read10(block: UInt32, count: UInt16) -> ATAPIPacket {
    var packet = ATAPIPacket(0x28)
    packet.low |= UInt64(block.byteSwapped) << 16
    packet.low |= UInt64(count >> 8) << 56
    packet.high = UInt64(count & 0xFF)
    return packet
  }
}

/// The data of a command, in RAM.
public struct AHCIBuffer: Equatable, Sendable {
  /// Where it is or goes, even.
  public var address: UInt64
  /// How many bytes, even.
  public var byteCount: UInt32
  /// Whether the device reads it.
  public var writes: Bool
  /// Bytes that each PRD covers, even; 0 for as many as it can.
  public var pieceBytes: UInt32

  /// Describes a buffer.
  public init(address: UInt64, byteCount: UInt32, writes: Bool = false, pieceBytes: UInt32 = 0) {
    self.address = address
    self.byteCount = byteCount
    self.writes = writes
    self.pieceBytes = pieceBytes
  }

  /// No data.
  public static var none: AHCIBuffer { AHCIBuffer(address: 0, byteCount: 0) }
}

/// How a command has ended.
public struct ATAOutcome: Equatable, Sendable {
  /// Bits of PxIS that came while it ran.
  public var interruptStatus: UInt32
  /// PxTFD when it had ended.
  public var taskFile: UInt32
  /// PRDBC: the bytes that the HBA says it moved; says nothing for queued commands (AHCI 1.3.1 §4.2.2).
  public var byteCount: UInt32
  /// LBA, 48 bits, of the last device-to-host register FIS.
  public var lba: UInt64

  /// Whether neither the device nor the HBA has seen an error.
  public var isGood: Bool {
    let bad = AHCITaskFile.busy | AHCITaskFile.dataRequest | AHCITaskFile.error
    return taskFile & bad == 0 && interruptStatus & AHCIPortInterrupt.errors == 0
  }
  /// Whether the device has refused the command as one that it does not do.
  public var isAborted: Bool {
    interruptStatus & AHCIPortInterrupt.taskFileError != 0 && taskFile & AHCITaskFile.error != 0
      && taskFile & AHCITaskFile.aborted != 0
  }
}
