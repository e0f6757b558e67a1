// SPDX-License-Identifier: Apache-2.0

/// The memory that a port shares with its driver: the command list, the received FIS area a command table for each slot
/// and a spare one (AHCI 1.3.1 §4.2), all at addresses that never change.
public struct AHCICommandMemory<B: Bus> {
  /// How many PRDs a command table has room for; a PRD covers up to 4 MiB.
  public static var descriptorsMax: Int { 128 }
  /// The most bytes of a PRD (AHCI 1.3.1 §4.2.3.3).
  public static var descriptorBytesMax: UInt32 { 4 << 20 }
  /// How many slots the memory is laid out for.
  public static var slotsMax: Int { 32 }
  /// Bytes of a command header.
  public static var headerBytes: UInt64 { 32 }
  /// Where a command table has the packet of an ATAPI command.
  public static var packetOffset: UInt64 { 0x40 }
  /// Where a command table has its PRDs.
  public static var descriptorsOffset: UInt64 { 0x80 }
  /// Bytes of a PRD.
  public static var descriptorBytes: UInt64 { 16 }
  static var listBytes: UInt64 { 1024 }
  static var tableBytes: UInt64 { descriptorsOffset + UInt64(descriptorsMax) * descriptorBytes }
  static var tableAlignment: UInt64 { 128 }

  /// Flags of a command header's first double word (AHCI 1.3.1 §4.2.2).
  public enum HeaderFlags {
    /// A: the table has a packet.
    public static var packet: UInt32 { 1 << 5 }
    /// W: the device reads memory.
    public static var write: UInt32 { 1 << 6 }
    /// P: the HBA may read the PRDs ahead.
    public static var prefetchable: UInt32 { 1 << 7 }
    /// R: the FIS is part of a software reset.
    public static var reset: UInt32 { 1 << 8 }
    /// C: BSY goes away once the device has taken the FIS.
    public static var clearBusy: UInt32 { 1 << 10 }
  }

  let bus: B
  /// Address of the command list: 32 headers.
  public let list: UInt64
  /// Address of the received FIS area.
  public let receivedFIS: UInt64
  private let tables: UInt64

  /// Takes the memory; nil where there is no more of it.
  init?(bus: B) {
    guard
      let list = bus.allocate(byteCount: AHCICommandMemory.listBytes, alignment: AHCICommandMemory.listBytes),
      let received = bus.allocate(byteCount: AHCIReceivedFIS.byteCount, alignment: AHCIReceivedFIS.byteCount),
      let tables = bus.allocate(
        byteCount: AHCICommandMemory.tableBytes * UInt64(AHCICommandMemory.slotsMax + 1),
        alignment: AHCICommandMemory.tableAlignment)
    else {
      return nil
    }
    self.bus = bus
    self.list = list
    receivedFIS = received
    self.tables = tables
  }

  /// Address of a slot's command header.
  @inline(__always)
  public func header(_ slot: Int) -> UInt64 { list &+ UInt64(slot) &* AHCICommandMemory.headerBytes }

  /// The end of the memory.
  var end: UInt64 { table(AHCICommandMemory.slotsMax + 1) }

  /// Address of a slot's command table; there is one more of them than there are slots.
  @inline(__always)
  public func table(_ slot: Int) -> UInt64 { tables &+ UInt64(slot) &* AHCICommandMemory.tableBytes }

  /// PRDBC of a slot: what the HBA says it moved.
  @inline(__always)
  public func byteCount(_ slot: Int) -> UInt32 { bus.ramRead32(header(slot) &+ 4) }

  /// Clears PRDBC of a slot, as must be done before each issue (AHCI 1.3.1 §5.5.1).
  @inline(__always)
  public func clearByteCount(_ slot: Int) { bus.ramWrite32(header(slot) &+ 4, 0) }

  /// Writes a slot's command header.
  ///
  /// - Parameters:
  ///   - slot: 0 to 31, not with the HBA.
  ///   - flags: of `HeaderFlags`.
  ///   - descriptorCount: PRDTL; anything, whatever the table holds.
  ///   - fisWords: CFL, the double words of the FIS.
  ///   - table: where the command table is; nil for the slot's own.
  public func writeHeader(
    slot: Int, flags: UInt32, descriptorCount: UInt16, fisWords: UInt32 = ATACommand.fisWords, table: UInt64? = nil
  ) {
    let address = header(slot)
    bus.ramWrite64(address, UInt64(fisWords & 0x1F | flags | UInt32(descriptorCount) << 16))
    bus.ramWrite64(address + 8, table ?? self.table(slot))
    bus.ramWrite64(address + 16, 0)
    bus.ramWrite64(address + 24, 0)
  }

  /// Writes a slot's FIS.
  public func writeFIS(slot: Int, _ command: ATACommand) {
    let address = table(slot)
    bus.ramWrite64(address, command.firstWords)
    bus.ramWrite64(address + 8, command.secondWords)
    bus.ramWrite64(address + 16, 0)
  }

  /// Writes a slot's packet.
  public func writePacket(slot: Int, _ packet: ATAPIPacket) {
    bus.ramWrite64(table(slot) + AHCICommandMemory.packetOffset, packet.low)
    bus.ramWrite64(table(slot) + AHCICommandMemory.packetOffset + 8, packet.high)
  }

  /// Writes one PRD of a slot.
  ///
  /// - Precondition: `index` is below `descriptorsMax`, and `byteCount` is 1 to 4 MiB (or 0, which is written as 4 MiB).
  public func writeDescriptor(slot: Int, index: Int, address: UInt64, byteCount: UInt32, interrupts: Bool = false) {
    precondition(index >= 0 && index < AHCICommandMemory.descriptorsMax)
    let place =
      table(slot) + AHCICommandMemory.descriptorsOffset + UInt64(index) * AHCICommandMemory.descriptorBytes
    let count = (byteCount &- 1) & 0x3F_FFFF
    bus.ramWrite64(place, address)
    bus.ramWrite64(place + 8, UInt64(count | (interrupts ? 1 << 31 : 0)) << 32)
  }

  /// Writes the PRDs of a buffer.
  /// - Returns: how many there are.
  /// - Precondition: they are at most `descriptorsMax`.
  public func writeDescriptors(slot: Int, _ buffer: AHCIBuffer) -> UInt16 {
    let step =
      buffer.pieceBytes == 0
      ? AHCICommandMemory.descriptorBytesMax : min(buffer.pieceBytes, AHCICommandMemory.descriptorBytesMax)
    var done: UInt32 = 0
    var count = 0
    while done < buffer.byteCount {
      let bytes = min(step, buffer.byteCount - done)
      writeDescriptor(slot: slot, index: count, address: buffer.address &+ UInt64(done), byteCount: bytes)
      done += bytes
      count += 1
    }
    return UInt16(truncatingIfNeeded: count)
  }

  /// Writes everything of a slot's command: header, FIS, packet and PRDs.
  public func prepare(slot: Int, _ command: ATACommand, _ buffer: AHCIBuffer, packet: ATAPIPacket? = nil) {
    precondition(slot >= 0 && slot < AHCICommandMemory.slotsMax)
    writeFIS(slot: slot, command)
    var flags: UInt32 = buffer.writes ? HeaderFlags.write : 0
    if let packet {
      writePacket(slot: slot, packet)
      flags |= HeaderFlags.packet
    }
    writeHeader(slot: slot, flags: flags, descriptorCount: writeDescriptors(slot: slot, buffer))
  }
}
