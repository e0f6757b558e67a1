// SPDX-License-Identifier: Apache-2.0

/// A function's MSI-X table (PCI 3.0 §6.8.2).
public struct MSIXTable<B: Bus> {
  static var capability: UInt8 { 0x11 }
  static var controlEnable: UInt16 { 1 << 15 }
  static var controlMaskAll: UInt16 { 1 << 14 }
  static var entryBytes: UInt64 { 16 }
  static var entryMasked: UInt32 { 1 }

  let configuration: PCIConfiguration<B>
  let function: PCIAddress
  let capabilityOffset: UInt8
  let tableAddress: UInt64
  /// How many vectors the table holds.
  public let entryCount: Int

  /// Finds the table; nil where the function has none or it lies outside the function's memory.
  public init?(configuration: PCIConfiguration<B>, entry: PCITopology<B>.Entry) {
    let address = entry.function.address
    guard
      let offset = configuration.findCapability(address, where: { identifier, _ in identifier == MSIXTable.capability })
    else {
      return nil
    }
    let control = configuration.read16(address, offset + 2)
    let table = configuration.read32(address, offset + 4)
    let count = Int(control & 0x7FF) + 1
    let tableOffset = UInt64(table & ~7)
    guard let register = entry.baseAddresses.first(where: { $0.index == Int(table & 7) }), register.isMemory,
      register.address != 0, tableOffset + UInt64(count) * MSIXTable.entryBytes <= register.byteCount
    else {
      return nil
    }
    self.configuration = configuration
    function = address
    capabilityOffset = offset
    tableAddress = register.address + tableOffset
    entryCount = count
  }

  /// Lets the function send messages, from those entries that are not masked.
  public func enable() {
    setControl(set: MSIXTable.controlEnable, clear: MSIXTable.controlMaskAll)
  }

  /// Lets the function send no messages.
  public func disable() {
    setControl(set: 0, clear: MSIXTable.controlEnable)
  }

  private func setControl(set: UInt16, clear: UInt16) {
    let control = configuration.read16(function, capabilityOffset + 2)
    configuration.write16(function, capabilityOffset + 2, control & ~clear | set)
  }

  /// Makes an entry send `interrupt`, and unmasks it.
  public func program(_ index: Int, _ interrupt: MessageInterrupt) {
    guard index < entryCount else {
      return
    }
    let bus = configuration.bus
    let address = tableAddress + UInt64(index) * MSIXTable.entryBytes
    // The entry may only be changed while it is masked (PCI 3.0 §6.8.3.5).
    bus.mmioWrite32(address + 12, MSIXTable.entryMasked)
    bus.mmioWrite32(address, UInt32(truncatingIfNeeded: interrupt.address))
    bus.mmioWrite32(address + 4, UInt32(interrupt.address >> 32))
    bus.mmioWrite32(address + 8, interrupt.data)
    bus.mmioWrite32(address + 12, 0)
  }

  /// Whether an entry reads back as `interrupt`, unmasked.
  public func holds(_ index: Int, _ interrupt: MessageInterrupt) -> Bool {
    let bus = configuration.bus
    let address = tableAddress + UInt64(index) * MSIXTable.entryBytes
    return bus.mmioRead32(address) == UInt32(truncatingIfNeeded: interrupt.address)
      && bus.mmioRead32(address + 4) == UInt32(interrupt.address >> 32)
      && bus.mmioRead32(address + 8) == interrupt.data && bus.mmioRead32(address + 12) & MSIXTable.entryMasked == 0
  }
}
