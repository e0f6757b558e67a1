// SPDX-License-Identifier: Apache-2.0

/// Ports 0xcf8 to 0xcff: the address and data registers of configuration mechanism 1 (PCI 3.0, section 3.2.2.3.2), and
/// the reset control register at 0xcf9, which answers byte accesses only (ICH9 data sheet, section 13.7.5).
final class PCIConfigurationPorts: RegisterBlock {
  static let firstPort: UInt64 = 0xcf8
  static let portCount: UInt64 = 8

  private static let dataOffset: UInt64 = 4
  private static let enable: UInt32 = 1 << 31
  private static let resetOffset: UInt64 = 1
  private static let resetNow: UInt8 = 1 << 2
  // SYS_RST and FULL_RST are remembered; the reset itself happens at once, so its bit always reads as 0.
  private static let resetKept: UInt8 = 0x0a

  private unowned let host: PCIHost
  private var address: UInt32 = 0
  private var resetControl: UInt8 = 0

  init(host: PCIHost) { self.host = host }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= PCIConfigurationPorts.dataOffset {
      guard let (index, register) = target(offset, width: width) else { return UInt64.max }
      return UInt64(host.configurationRead(index: index, offset: register, width: width))
    }
    if offset == 0, width == 4 { return UInt64(address) }
    if offset == PCIConfigurationPorts.resetOffset, width == 1 { return UInt64(resetControl) }
    return UInt64.max
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    if offset >= PCIConfigurationPorts.dataOffset {
      guard let (index, register) = target(offset, width: width) else { return }
      host.configurationWrite(
        index: index, offset: register, width: width, value: UInt32(truncatingIfNeeded: value))
    } else if offset == 0, width == 4 {
      address = UInt32(truncatingIfNeeded: value)
    } else if offset == PCIConfigurationPorts.resetOffset, width == 1 {
      writeResetControl(UInt8(truncatingIfNeeded: value))
    }
  }

  func reset() {
    address = 0
    resetControl = 0
  }

  /// Which function and register a data access reaches; nil where the address register points nowhere.
  ///
  /// The low two bits of the address register count too: qtest clients put the whole offset there and access port 0xcfc.
  private func target(_ offset: UInt64, width: Int) -> (index: Int, register: Int)? {
    let bus = address >> 16 & 0xff
    guard width <= 4, address & PCIConfigurationPorts.enable != 0, bus == 0 else { return nil }
    return (Int(address >> 8 & 0xff), Int(address & 0xff | UInt32(offset & 3)))
  }

  private func writeResetControl(_ value: UInt8) {
    resetControl = value & PCIConfigurationPorts.resetKept
    if value & PCIConfigurationPorts.resetNow != 0 { host.requestReset() }
  }
}

/// The memory window onto configuration space: 4 KiB for each function of each bus (PCI Express 3.0, section 7.2.2).
final class ECAMBlock: RegisterBlock {
  /// The window of all 256 buses.
  static let byteCount: UInt64 = 256 << 20
  private static let functionBytes: UInt64 = 4096
  private static let busBytes: UInt64 = 1 << 20

  private unowned let host: PCIHost

  init(host: PCIHost) { self.host = host }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset < ECAMBlock.busBytes else { return UInt64.max }
    let (index, register) = position(offset)
    let low = UInt64(host.configurationRead(index: index, offset: register, width: min(width, 4)))
    if width <= 4 { return low }
    return low | UInt64(host.configurationRead(index: index, offset: register + 4, width: 4)) << 32
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset < ECAMBlock.busBytes else { return }
    let (index, register) = position(offset)
    host.configurationWrite(
      index: index, offset: register, width: min(width, 4), value: UInt32(truncatingIfNeeded: value))
    if width > 4 {
      host.configurationWrite(index: index, offset: register + 4, width: 4, value: UInt32(value >> 32))
    }
  }

  private func position(_ offset: UInt64) -> (index: Int, register: Int) {
    (Int(offset / ECAMBlock.functionBytes), Int(offset % ECAMBlock.functionBytes))
  }
}
