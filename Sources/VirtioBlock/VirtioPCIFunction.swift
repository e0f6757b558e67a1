// SPDX-License-Identifier: Apache-2.0
import Machine

// The PCI face of the device: capabilities, BARs, doorbells, and the window into the BARs through configuration space.
extension VirtioBlockDevice {
  /// Adds BARs and capabilities; called once from init.
  func makeTransport() -> VirtioPCITransport {
    let transport = VirtioPCITransport(device: self)
    if options.mmioSlot != nil { return transport }
    let msixBlock = TransportLayout.msixBAR
    addMSIX(
      vectorCount: options.queueCount + 1, bar: msixBlock, tableOffset: 0,
      pendingOffset: TransportLayout.msixPendingOffset)
    if options.interface.isLegacy {
      addBAR(LegacyLayout.bar, kind: .io, byteCount: LegacyLayout.barBytes, block: VirtioLegacyPorts(transport))
    }
    if !options.interface.isModern { return transport }
    addBAR(
      TransportLayout.registersBAR, kind: .memory64(prefetchable: true),
      byteCount: TransportLayout.registersBARBytes, block: transport)
    addRegion(TransportLayout.capCommon, TransportLayout.commonOffset, TransportLayout.commonBytes)
    addRegion(TransportLayout.capISR, TransportLayout.isrOffset, 1)
    addRegion(TransportLayout.capDevice, TransportLayout.deviceOffset, UInt32(Limit.configurationBytes))
    addRegion(
      TransportLayout.capNotify, TransportLayout.notifyOffset,
      UInt32(options.queueCount) * UInt32(TransportLayout.notifyMultiplier),
      extra: UInt32(TransportLayout.notifyMultiplier).littleEndianBytes)
    transport.accessCapability = addAccessCapability()
    return transport
  }

  /// Adds a virtio_pci_cap (§4.1.4): the bytes after the capability header of id and next pointer.
  private func addRegion(_ type: UInt8, _ offset: UInt64, _ byteCount: UInt32, extra: [UInt8] = []) {
    let bytes = regionBytes(type, TransportLayout.registersBAR, UInt32(offset), byteCount) + extra
    _ = addCapability(
      id: TransportLayout.vendorCapability, bytes: bytes, writeMask: [UInt8](repeating: 0, count: bytes.count))
  }

  /// Adds the capability through which a driver without memory access reaches the BARs (§4.1.4.9): bar, offset, length
  /// and data are the driver's to write.
  private func addAccessCapability() -> Int {
    let bytes = regionBytes(TransportLayout.capPCI, 0, 0, 0) + [0, 0, 0, 0]
    var mask = [UInt8](repeating: 0, count: bytes.count)
    mask[AccessWindow.bar - 2] = 0xff
    for index in AccessWindow.offset..<AccessWindow.data { mask[index - 2] = 0xff }
    return addCapability(id: TransportLayout.vendorCapability, bytes: bytes, writeMask: mask)
  }

  private func regionBytes(_ type: UInt8, _ bar: Int, _ offset: UInt32, _ byteCount: UInt32) -> [UInt8] {
    let hasExtra = type == TransportLayout.capNotify || type == TransportLayout.capPCI
    return [hasExtra ? 20 : 16, type, UInt8(bar), 0, 0, 0] + offset.littleEndianBytes + byteCount.littleEndianBytes
  }

  /// Offsets in the access capability, from its start (§4.1.4.9).
  enum AccessWindow {
    static let bar = 4
    static let offset = 8
    static let length = 12
    static let data = 16
    static let end = 20
  }

  /// The access that the window's registers describe, where they describe one that the registers' BAR can take.
  func windowAccess(at capability: Int) -> (offset: UInt64, width: Int)? {
    let bar = storedConfiguration(capability + AccessWindow.bar, 1)
    let offset = UInt64(storedConfiguration(capability + AccessWindow.offset, 4))
    let width = Int(storedConfiguration(capability + AccessWindow.length, 4))
    guard bar == TransportLayout.registersBAR, width == 1 || width == 2 || width == 4, offset % UInt64(width) == 0,
      offset <= TransportLayout.registersBARBytes - UInt64(width)
    else { return nil }
    return (offset, width)
  }
}
