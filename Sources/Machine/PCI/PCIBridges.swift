// SPDX-License-Identifier: Apache-2.0

/// The q35 host bridge, 00:00.0: its PCIEXBAR register says where ECAM is (Intel 3 Series data sheet, section 5.1.16).
final class HostBridge: PCIFunction {
  private static let pciexbar = 0x60
  // After power-on: where q35 firmware puts it, not enabled.
  private static let pciexbarReset: UInt64 = 0xb000_0000
  // Bit 0 enables, bits 2:1 choose the length, bits 35:26 are the base.
  private static let pciexbarWritable: UInt64 = 0xf_fc00_0007

  unowned var host: PCIHost?

  init() {
    super.init(
      name: "host-bridge", address: PCIAddress(device: 0),
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x29c0, classCode: 0x060000, subsystemVendor: 0x1af4, subsystem: 0x1100))
    configuration.define(
      HostBridge.pciexbar, HostBridge.pciexbarReset, writeMask: HostBridge.pciexbarWritable)
  }

  override func configurationWrite(offset: Int, width: Int, value: UInt32) {
    super.configurationWrite(offset: offset, width: width, value: value)
    if (offset..<offset + width).overlaps(HostBridge.pciexbar..<HostBridge.pciexbar + 8) { updateECAM() }
  }

  override func reset() {
    super.reset()
    updateECAM()
    host?.machineWasReset()
  }

  /// Plays the firmware's write: 256 MiB at `base`, enabled.
  func programECAM(_ base: UInt64) {
    configurationWrite(offset: HostBridge.pciexbar + 4, width: 4, value: UInt32(base >> 32))
    configurationWrite(offset: HostBridge.pciexbar, width: 4, value: UInt32(truncatingIfNeeded: base) | 1)
  }

  private func updateECAM() {
    let value = configuration.load(UInt64.self, at: HostBridge.pciexbar)
    let lengthCode = value >> 1 & 3
    // Length code 3 is reserved; nothing is mapped for it.
    guard value & 1 != 0, lengthCode < 3 else {
      host?.ecamChanged(base: nil, byteCount: 0)
      return
    }
    let byteCount = ECAMBlock.byteCount >> lengthCode
    host?.ecamChanged(base: value & HostBridge.pciexbarWritable & ~(byteCount - 1), byteCount: byteCount)
  }
}
