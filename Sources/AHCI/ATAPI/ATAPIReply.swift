// SPDX-License-Identifier: Apache-2.0

/// An answer of a few bytes, put together in its drive's memory.
struct PacketReply {
  /// The longest answer: a structure of a DVD with its header.
  static let byteCountMax = 2052

  private let bytes: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  init(in bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }

  mutating func append(_ value: UInt8) {
    precondition(count < bytes.count, "no answer is longer than its memory")
    bytes[count] = value
    count += 1
  }

  /// Numbers are big-endian (SPC-3 §3).
  mutating func append16(_ value: UInt16) {
    append(UInt8(truncatingIfNeeded: value >> 8))
    append(UInt8(truncatingIfNeeded: value))
  }

  mutating func append24(_ value: UInt32) {
    append(UInt8(truncatingIfNeeded: value >> 16))
    append16(UInt16(truncatingIfNeeded: value))
  }

  mutating func append32(_ value: UInt32) {
    append16(UInt16(truncatingIfNeeded: value >> 16))
    append16(UInt16(truncatingIfNeeded: value))
  }

  mutating func append(_ values: [UInt8]) {
    for value in values { append(value) }
  }

  mutating func appendZeroes(_ number: Int) {
    for _ in 0..<number { append(UInt8(0)) }
  }

  /// ASCII, padded with spaces to `width`.
  mutating func append(_ text: String, width: Int) {
    let characters = text.utf8.prefix(width)
    for character in characters { append(character) }
    for _ in characters.count..<width { append(UInt8(ascii: " ")) }
  }

  /// Writes the number of bytes after the first `headerBytes` into the two bytes at `offset`.
  mutating func setLength16(at offset: Int, after headerBytes: Int) {
    let length = UInt16(truncatingIfNeeded: count - headerBytes)
    bytes[offset] = UInt8(truncatingIfNeeded: length >> 8)
    bytes[offset + 1] = UInt8(truncatingIfNeeded: length)
  }

  /// Writes the number of bytes after the first `headerBytes` into the byte at `offset`.
  mutating func setLength8(at offset: Int, after headerBytes: Int) {
    bytes[offset] = UInt8(truncatingIfNeeded: count - headerBytes)
  }

  /// The first bytes, at most `length`.
  func prefix(_ length: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: bytes[..<min(count, length)])
  }
}

/// How packet commands end, and how their data move (ACS-3: PACKET; SATA 3.3: device command layer protocol).
extension ATAPIDrive {
  /// What the count register tells at the end: a status, from the device to the host (interrupt reason I/O and C/D).
  private static let endOfCommand: UInt16 = 0x3
  /// The packet itself as a PIO block to the device. A command that moves no data by PIO leaves this.
  static let packetSetUp = PIOSetup(blockBytes: 12, isInput: false, interrupts: false)

  /// Ends a packet command well.
  func succeed(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.answer.status = ATAStatus.good
    slot.pointee.answer.error = 0
    slot.pointee.answer.count = Self.endOfCommand
    link.finish(slot)
  }

  /// Ends a packet command with CHECK CONDITION; `REQUEST SENSE` tells the rest.
  func check(_ reason: SCSISense, _ slot: UnsafeMutablePointer<CommandSlot>) {
    sense = reason
    slot.pointee.answer.status = ATAStatus.ready | ATAStatus.error
    // The key alone: ABRT beside it would make hosts think that the packet was refused.
    slot.pointee.answer.error = reason.key << 4
    slot.pointee.answer.count = Self.endOfCommand
    // Data that never came had no set-up either.
    if slot.pointee.movedBytes == 0 { slot.pointee.pio = Self.packetSetUp }
    link.finish(slot)
  }

  /// Ends a PACKET that is wrong as an ATA command.
  func abort(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.fail(ATAError.abort)
    slot.pointee.answer.count = Self.endOfCommand
    link.finish(slot)
  }

  /// Settles in which PIO blocks `byteCount` bytes are going to move, before any does.
  ///
  /// Every block but the last is as long as the byte count limit says (ACS-3: PACKET, byte count limit): FFFFh means
  /// FFFEh, and an odd limit that is too short for all goes down to the even number below. Where that leaves no bytes
  /// at all (limits 0 and 1), the command is aborted, as IDENTIFY word 125 being 0 says. DMA knows no limit.
  /// - Returns: whether they can move; if not, the command has ended.
  @inline(__always)
  func beginData(_ byteCount: UInt64, isInput: Bool, _ slot: UnsafeMutablePointer<CommandSlot>) -> Bool {
    if byteCount == 0 || slot.pointee.fis.features & PacketFeature.dma != 0 { return true }
    let limit = min(slot.pointee.fis.lba >> 8 & 0xffff, 0xfffe)
    let block = byteCount <= limit ? byteCount : limit & ~1
    guard block > 0 else {
      abort(slot)
      return false
    }
    let rest = byteCount % block
    slot.pointee.pio = PIOSetup(
      blockBytes: UInt16(truncatingIfNeeded: rest == 0 ? block : rest), isInput: isInput, interrupts: true)
    return true
  }

  /// An answer of no bytes yet.
  func makeReply() -> PacketReply { PacketReply(in: replyBytes) }

  /// Sends as much of an answer as the guest allows, and ends the command.
  /// - Returns: whether that went well, so that what was told is known to have been told.
  @discardableResult
  func send(_ reply: PacketReply, allocation: Int, _ slot: UnsafeMutablePointer<CommandSlot>) -> Bool {
    let bytes = reply.prefix(allocation)
    guard beginData(UInt64(bytes.count), isInput: true, slot) else { return false }
    if bytes.count > 0 { _ = link.send(bytes, for: slot) }
    succeed(slot)
    return true
  }
}
