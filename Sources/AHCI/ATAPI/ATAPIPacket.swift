// SPDX-License-Identifier: Apache-2.0

/// A command descriptor block, copied from the guest once.
struct PacketCommand {
  private let low: UInt64, high: UInt64

  init(_ packet: (UInt64, UInt64)) {
    low = packet.0
    high = packet.1
  }

  /// Byte 0 to 15.
  @inline(__always)
  subscript(index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: (index < 8 ? low : high) >> (UInt64(index & 7) * 8))
  }

  /// Big-endian numbers, as in SCSI all are.
  @inline(__always)
  func uint16(at index: Int) -> UInt16 { UInt16(self[index]) << 8 | UInt16(self[index + 1]) }

  @inline(__always)
  func uint24(at index: Int) -> UInt32 { UInt32(self[index]) << 16 | UInt32(uint16(at: index + 1)) }

  @inline(__always)
  func uint32(at index: Int) -> UInt32 { UInt32(uint16(at: index)) << 16 | UInt32(uint16(at: index + 2)) }
}

/// Bits of the features register of PACKET (ACS-3: PACKET).
enum PacketFeature {
  /// The data move by DMA.
  static let dma: UInt16 = 0x01
  /// An overlapped command, which ACS-3 no longer has.
  static let overlapped: UInt16 = 0x02
}

/// Codes of packet commands (SPC-3 §6, MMC-6 §6).
enum PacketOpcode {
  static let testUnitReady: UInt8 = 0x00
  static let requestSense: UInt8 = 0x03
  static let inquiry: UInt8 = 0x12
  static let modeSense6: UInt8 = 0x1a
  static let startStopUnit: UInt8 = 0x1b
  static let preventAllowMediumRemoval: UInt8 = 0x1e
  static let readCapacity: UInt8 = 0x25
  static let read10: UInt8 = 0x28
  static let seek10: UInt8 = 0x2b
  static let readSubChannel: UInt8 = 0x42
  static let readTOC: UInt8 = 0x43
  static let getConfiguration: UInt8 = 0x46
  static let getEventStatusNotification: UInt8 = 0x4a
  static let readDiscInformation: UInt8 = 0x51
  static let modeSelect10: UInt8 = 0x55
  static let modeSense10: UInt8 = 0x5a
  static let read12: UInt8 = 0xa8
  static let readDVDStructure: UInt8 = 0xad
  static let setCDSpeed: UInt8 = 0xbb
  static let mechanismStatus: UInt8 = 0xbd
  static let readCD: UInt8 = 0xbe

  /// Commands that a unit attention does not keep from being executed (SAM-3: unit attention; MMC-6: the
  /// commands themselves).
  @inline(__always)
  static func ignoresAttention(_ opcode: UInt8) -> Bool {
    switch opcode {
    case requestSense, inquiry, getConfiguration, getEventStatusNotification: true
    default: false
    }
  }

  /// Commands about the disc, which fail without one.
  @inline(__always)
  static func needsMedium(_ opcode: UInt8) -> Bool {
    switch opcode {
    case testUnitReady, readCapacity, read10, seek10, readSubChannel, readTOC, readDiscInformation, read12,
      readDVDStructure, readCD:
      true
    default: false
    }
  }
}

/// PACKET (ACS-3): the checks that all packet commands share, and where each goes from here.
extension ATAPIDrive {
  @inline(__always)
  func executePacket(_ slot: UnsafeMutablePointer<CommandSlot>) {
    guard slot.pointee.hasPacket else { return abort(slot) }
    slot.pointee.pio = Self.packetSetUp
    guard slot.pointee.fis.features & PacketFeature.overlapped == 0 else { return abort(slot) }
    let command = PacketCommand(slot.pointee.packet)
    let opcode = command[0]
    // Sense data live until the next command, unless that is the one that fetches them (SPC-3 §4.5).
    if opcode != PacketOpcode.requestSense { sense = .none }
    if !PacketOpcode.ignoresAttention(opcode), let reason = takeAttention() { return check(reason, slot) }
    if PacketOpcode.needsMedium(opcode) {
      isInStandby = false
      guard isReady else { return check(notReadyReason, slot) }
    }
    switch opcode {
    case PacketOpcode.read10: read(from: command.uint32(at: 2), blocks: UInt32(command.uint16(at: 7)), slot)
    case PacketOpcode.read12: read(from: command.uint32(at: 2), blocks: command.uint32(at: 6), slot)
    default: executeOther(command, slot)
    }
  }

  /// Apart from reads, which then save fewer registers.
  @inline(never)
  private func executeOther(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    switch command[0] {
    case PacketOpcode.testUnitReady, PacketOpcode.setCDSpeed: succeed(slot)
    case PacketOpcode.requestSense: requestSense(command, slot)
    case PacketOpcode.inquiry: inquiry(command, slot)
    case PacketOpcode.modeSense6: modeSense(command, isShort: true, slot)
    case PacketOpcode.modeSense10: modeSense(command, isShort: false, slot)
    case PacketOpcode.modeSelect10: modeSelect(command, slot)
    case PacketOpcode.startStopUnit: startStopUnit(command, slot)
    case PacketOpcode.preventAllowMediumRemoval: preventAllowMediumRemoval(command, slot)
    case PacketOpcode.readCapacity: readCapacity(slot)
    case PacketOpcode.seek10: seek(to: command.uint32(at: 2), slot)
    case PacketOpcode.readSubChannel: readSubChannel(command, slot)
    case PacketOpcode.readTOC: readTOC(command, slot)
    case PacketOpcode.getConfiguration: getConfiguration(command, slot)
    case PacketOpcode.getEventStatusNotification: getEventStatusNotification(command, slot)
    case PacketOpcode.readDiscInformation: readDiscInformation(command, slot)
    case PacketOpcode.readDVDStructure: readDVDStructure(command, slot)
    case PacketOpcode.mechanismStatus: mechanismStatus(command, slot)
    case PacketOpcode.readCD: readCD(command, slot)
    default: check(.invalidOpcode, slot)
    }
  }
}
