// SPDX-License-Identifier: Apache-2.0

/// What is on the disc: one closed session with one data track, from address 0 to the end (MMC-6: the
/// commands by their names).
extension ATAPIDrive {
  private static let firstTrack: UInt8 = 1
  /// The track number of the lead-out.
  private static let leadOut: UInt8 = 0xaa
  /// ADR 1 (addresses in the sub-channel) and a data track.
  private static let dataTrack: UInt8 = 0x14

  func readCapacity(_ slot: UnsafeMutablePointer<CommandSlot>) {
    var reply = makeReply()
    reply.append32(blockCount - 1)
    reply.append32(UInt32(Self.blockBytes))
    send(reply, allocation: reply.count, slot)
  }

  // MARK: Addresses

  /// Minute, second and frame of an address as three bytes; addresses that are too high for them get the highest there
  /// is.
  private func minuteSecondFrame(_ address: UInt32) -> UInt32 {
    let framesMax = UInt64(256 * RawSector.secondsPerMinute * RawSector.framesPerSecond - 1)
    let frames = UInt32(min(UInt64(address) + UInt64(RawSector.pregapBlocks), framesMax))
    let seconds = frames / RawSector.framesPerSecond
    let minute = seconds / RawSector.secondsPerMinute
    return minute << 16 | (seconds % RawSector.secondsPerMinute) << 8 | frames % RawSector.framesPerSecond
  }

  private func append(_ address: UInt32, asTime: Bool, to reply: inout PacketReply) {
    reply.append32(asTime ? minuteSecondFrame(address) : address)
  }

  // MARK: READ TOC/PMA/ATIP

  func readTOC(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let asTime = command[1] & 0x02 != 0
    // Before MMC-2 the format was in the last byte, and hosts still put it there.
    let format = command[2] & 0xf != 0 ? command[2] & 0xf : command[9] >> 6
    var reply = makeReply()
    // The length, the first and the last track or session: all are number 1.
    reply.append([0, 0, 1, 1])
    switch format {
    case 0: guard appendTracks(from: command[6], asTime: asTime, to: &reply) else { return check(.invalidField, slot) }
    case 1:
      // The first track of the last session.
      reply.append([0, Self.dataTrack, Self.firstTrack, 0])
      append(0, asTime: asTime, to: &reply)
    case 2:
      guard command[6] <= 1 else { return check(.invalidField, slot) }
      appendRawTOC(to: &reply)
    default: return check(.invalidField, slot)
    }
    reply.setLength16(at: 0, after: 2)
    send(reply, allocation: Int(command.uint16(at: 7)), slot)
  }

  /// The track and the lead-out, of those that begin with `number`.
  private func appendTracks(from number: UInt8, asTime: Bool, to reply: inout PacketReply) -> Bool {
    guard number <= Self.firstTrack || number == Self.leadOut else { return false }
    if number != Self.leadOut {
      reply.append([0, Self.dataTrack, Self.firstTrack, 0])
      append(0, asTime: asTime, to: &reply)
    }
    reply.append([0, Self.dataTrack, Self.leadOut, 0])
    append(blockCount, asTime: asTime, to: &reply)
    return true
  }

  /// The lead-in's own entries, whose addresses are times: first and last track, lead-out, the track.
  private func appendRawTOC(to reply: inout PacketReply) {
    let points: [(point: UInt8, value: UInt32)] = [
      (0xa0, 1 << 16), (0xa1, 1 << 16), (0xa2, minuteSecondFrame(blockCount)),
      (Self.firstTrack, minuteSecondFrame(0)),
    ]
    for entry in points {
      reply.append([1, Self.dataTrack, 0, entry.point, 0, 0, 0, 0])
      reply.append24(entry.value)
    }
  }

  // MARK: READ DISC INFORMATION

  func readDiscInformation(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    guard command[1] & 0x07 == 0 else { return check(.invalidField, slot) }
    var reply = makeReply()
    // A finished disc whose last session is complete; first track; sessions; first and last track of the last one;
    // unrestricted use; CD-ROM.
    reply.append([0, 0, 0x0e, 1, 1, 1, 1, 0x20, 0x00, 0, 0, 0])
    reply.appendZeroes(4)
    // Nothing can be written: neither a next lead-in nor a last possible lead-out has an address.
    reply.append32(.max)
    reply.append32(.max)
    reply.appendZeroes(10)
    reply.setLength16(at: 0, after: 2)
    send(reply, allocation: Int(command.uint16(at: 7)), slot)
  }

  // MARK: READ SUB-CHANNEL

  func readSubChannel(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let asTime = command[1] & 0x02 != 0
    let wantsData = command[2] & 0x40 != 0
    var reply = makeReply()
    // No audio is or was playing.
    reply.append([0, 0x15, 0, 0])
    switch (wantsData, command[3]) {
    case (false, _): break
    case (true, 1):
      // The position: the beginning of the track, on the disc and in the track.
      reply.append([0x01, Self.dataTrack, Self.firstTrack, 1])
      append(0, asTime: asTime, to: &reply)
      reply.append32(0)
    case (true, 2), (true, 3):
      // Catalogue number and recording code: none.
      reply.append([command[3], Self.dataTrack, Self.firstTrack, 0])
      reply.appendZeroes(16)
    default: return check(.invalidField, slot)
    }
    reply.setLength16(at: 2, after: 4)
    send(reply, allocation: Int(command.uint16(at: 7)), slot)
  }

  // MARK: READ DVD STRUCTURE

  /// Structures of a DVD (MMC-6: READ DISC STRUCTURE).
  private enum Structure {
    static let physicalFormat: UInt8 = 0x00
    static let copyright: UInt8 = 0x01
    static let manufacturing: UInt8 = 0x04
    static let list: UInt8 = 0xff
    /// Bytes of the long ones, without their header.
    static let byteCountMax = 2048
    static let headerBytes = 4
  }

  func readDVDStructure(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    guard isDVD else { return check(.incompatibleFormat, slot) }
    // A DVD, rather than another kind of disc, and its only layer.
    guard command[1] & 0x0f == 0, command[6] == 0 else { return check(.invalidField, slot) }
    var reply = makeReply()
    reply.append([0, 0, 0, 0])
    switch command[7] {
    case Structure.physicalFormat: appendPhysicalFormat(to: &reply)
    case Structure.copyright: reply.appendZeroes(4)
    case Structure.manufacturing: reply.appendZeroes(Structure.byteCountMax)
    case Structure.list:
      for (format, byteCount) in [(Structure.physicalFormat, 2052), (Structure.copyright, 8), (0x04, 2052)] {
        let readable: UInt8 = 0x40
        reply.append([format, readable])
        reply.append16(UInt16(byteCount))
      }
    default: return check(.invalidField, slot)
    }
    reply.setLength16(at: 0, after: 2)
    send(reply, allocation: Int(command.uint16(at: 8)), slot)
  }

  /// A DVD-ROM of 120 mm with one embossed layer.
  private func appendPhysicalFormat(to reply: inout PacketReply) {
    let firstSector: UInt32 = 0x3_0000
    let sectorMax: UInt64 = 0xff_ffff
    let lastSector = UInt32(min(UInt64(firstSector) + UInt64(blockCount) - 1, sectorMax))
    reply.append([0x01, 0x0f, 0x01, 0x00])
    reply.append32(firstSector)
    reply.append32(lastSector)
    reply.append32(0)
    reply.appendZeroes(Structure.headerBytes + Structure.byteCountMax - reply.count)
  }
}
