// SPDX-License-Identifier: Apache-2.0
import Machine

/// Firmware configuration (QEMU's fw_cfg, docs/specs/fw_cfg): a guest writes a key to port 0x510 as 16 bits, then reads
/// the item's bytes one by one from port 0x511. Only this traditional way is offered, as the id item says.
public final class FirmwareConfig: PortDevice {
  /// Where guests expect the selector; the data port follows it.
  public static let standardPort: UInt16 = 0x510

  /// Item keys (docs/specs/fw_cfg, "Common Item Keys").
  public enum Key {
    /// The four characters "QEMU".
    public static let signature: UInt16 = 0x0000
    /// Which interfaces there are, 32 bits.
    public static let interfaces: UInt16 = 0x0001
    /// Bytes of RAM, 64 bits.
    public static let memoryBytes: UInt16 = 0x0003
    /// Processors at start, 16 bits.
    public static let processorCount: UInt16 = 0x0005
    /// Processors at most, 16 bits.
    public static let processorsMax: UInt16 = 0x000f
  }

  private static let traditionalInterface: UInt32 = 1 << 0
  private static let selectorOffset = 0
  private static let dataOffset = 1

  private var items: [UInt16: [UInt8]] = [:]
  private var selected: [UInt8] = []
  private var position = 0

  /// Makes the device with the items that describe the machine.
  public init(memoryBytes: UInt64, processorCount: Int, port: UInt16 = FirmwareConfig.standardPort) {
    super.init(name: "fw-cfg", firstPort: port, portCount: 2)
    add(key: Key.signature, bytes: Array("QEMU".utf8))
    add(key: Key.interfaces, bytes: FirmwareConfig.bytes(FirmwareConfig.traditionalInterface))
    add(key: Key.memoryBytes, bytes: FirmwareConfig.bytes(memoryBytes))
    add(key: Key.processorCount, bytes: FirmwareConfig.bytes(UInt16(processorCount)))
    add(key: Key.processorsMax, bytes: FirmwareConfig.bytes(UInt16(processorCount)))
  }

  /// Adds an item, or changes the one with this key; a guest that has selected it before reads the old bytes on.
  public func add(key: UInt16, bytes: [UInt8]) { items[key] = bytes }

  /// Nothing is selected after power-on but the signature, whose key is 0.
  public override func reset() { select(Key.signature) }

  public override func added(to machine: Machine) {
    super.added(to: machine)
    reset()
  }

  /// Reads the next byte of the selected item; 0 past its end and for keys without an item.
  public override func portRead(offset: Int, width: Int) -> UInt32 {
    guard offset == FirmwareConfig.dataOffset, width == 1 else { return UInt32.max }
    guard position < selected.count else { return 0 }
    defer { position += 1 }
    return UInt32(selected[position])
  }

  /// Selects an item; writes to the data port are ignored, as items are read-only.
  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    guard offset == FirmwareConfig.selectorOffset, width == 2 else { return }
    select(UInt16(truncatingIfNeeded: value))
  }

  private func select(_ key: UInt16) {
    selected = items[key] ?? []
    position = 0
  }

  private static func bytes<T: FixedWidthInteger & UnsignedInteger>(_ value: T) -> [UInt8] {
    (0..<MemoryLayout<T>.size).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
  }
}
