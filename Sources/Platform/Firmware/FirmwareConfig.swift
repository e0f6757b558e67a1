// SPDX-License-Identifier: Apache-2.0
import Machine

/// Firmware configuration (QEMU, docs/specs/fw_cfg): numbered items and named files that a guest reads.
///
/// A guest writes a key to port 0x510 as 16 bits, then reads the item's bytes one by one from port 0x511; or it has them
/// copied to its memory through the DMA register at 0x514 (`FirmwareDMA`). Everything here is under the machine lock.
public final class FirmwareConfig: PortDevice {
  /// Where guests expect the selector; the data port follows it, and the DMA register is 4 ports on.
  public static let standardPort: UInt16 = 0x510

  /// Item keys (docs/specs/fw_cfg, "Common Item Keys").
  public enum Key {
    /// The four characters "QEMU".
    public static let signature: UInt16 = 0x0000
    /// Which interfaces there are, 32 bits.
    public static let interfaces: UInt16 = 0x0001
    /// The machine's UUID, 16 bytes.
    public static let uuid: UInt16 = 0x0002
    /// Bytes of RAM, 64 bits.
    public static let memoryBytes: UInt16 = 0x0003
    /// Processors at start, 16 bits.
    public static let processorCount: UInt16 = 0x0005
    /// Whether the firmware is to show a menu of what to boot, 16 bits.
    public static let bootMenu: UInt16 = 0x000e
    /// Processors at most, 16 bits.
    public static let processorsMax: UInt16 = 0x000f
    /// The list of files.
    public static let fileDirectory: UInt16 = 0x0019
    /// The first file's item; others follow.
    public static let firstFile: UInt16 = 0x0020
  }

  private static let portCount = 12
  private static let traditionalInterface: UInt32 = 1 << 0
  private static let dmaInterface: UInt32 = 1 << 1
  private static let selectorOffset = 0
  private static let dataOffset = 1

  private var items: [UInt16: [UInt8]] = [:]
  private var selected: [UInt8]?
  private var position = 0
  private var dma = FirmwareDMA()
  /// Files by name, as the directory lists them.
  var files: [String: FirmwareFile] = [:]

  /// Makes the device with the items that describe the machine.
  public init(memoryBytes: UInt64, processorCount: Int, port: UInt16 = FirmwareConfig.standardPort) {
    super.init(name: "fw-cfg", firstPort: port, portCount: FirmwareConfig.portCount)
    add(key: Key.signature, bytes: Array("QEMU".utf8))
    let interfaces = FirmwareConfig.traditionalInterface | FirmwareConfig.dmaInterface
    add(key: Key.interfaces, bytes: interfaces.littleEndianBytes)
    add(key: Key.memoryBytes, bytes: memoryBytes.littleEndianBytes)
    add(key: Key.processorCount, bytes: UInt16(processorCount).littleEndianBytes)
    add(key: Key.processorsMax, bytes: UInt16(processorCount).littleEndianBytes)
    add(key: Key.fileDirectory, bytes: UInt32(0).littleEndianBytes)
  }

  /// Adds an item, or changes the one with this key; a guest that has selected it before reads the old bytes on.
  public func add(key: UInt16, bytes: [UInt8]) { items[key] = bytes }

  /// Nothing is selected after power-on but the signature, whose key is 0.
  public override func reset() {
    select(Key.signature)
    dma = FirmwareDMA()
  }

  public override func added(to machine: Machine) {
    super.added(to: machine)
    reset()
  }

  // MARK: The guest's side

  /// Reads the next byte of the selected item, 0 past its end and for keys without an item; or the DMA register's
  /// signature.
  public override func portRead(offset: Int, width: Int) -> UInt32 {
    if offset >= FirmwareDMA.offset { return FirmwareDMA.signature(at: offset - FirmwareDMA.offset, width: width) }
    guard offset == FirmwareConfig.dataOffset, width == 1 else { return UInt32.max }
    return UInt32(take(1).first ?? 0)
  }

  /// Selects an item, or writes the DMA register; writes to the data port are ignored, as items are read-only.
  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    if offset == FirmwareConfig.selectorOffset, width == 2 { select(UInt16(truncatingIfNeeded: value)) }
    guard let machine, let request = dma.write(offset - FirmwareDMA.offset, width: width, value: value) else { return }
    FirmwareDMA.carryOut(request, in: machine.memory, for: self)
  }

  // MARK: The selected item, for both interfaces

  /// Selects an item and goes to its start. Bit 14 asks for writing, which no item allows, and does not count.
  func select(_ key: UInt16) {
    selected = items[key & ~0x4000]
    position = 0
  }

  /// Takes up to `count` bytes of the selected item; less at its end.
  func take(_ count: Int) -> ArraySlice<UInt8> {
    guard let selected else { return [] }
    let piece = selected[position..<position + min(count, selected.count - position)]
    position += piece.count
    return piece
  }

  /// Steps over up to `count` bytes of the selected item.
  func skip(_ count: Int) { _ = take(count) }
}
