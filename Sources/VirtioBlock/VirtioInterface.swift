// SPDX-License-Identifier: Apache-2.0
import Machine

/// Which drivers find a virtio PCI device (virtio 1.3 §1.3.1, §4.1.2.1).
public enum VirtioInterface: String, CaseIterable, Sendable {
  /// Drivers of version 1 and later only (QEMU: `disable-legacy=on`).
  case modern
  /// Those, and drivers from before version 1 through I/O ports (QEMU: `disable-legacy=off`).
  case transitional
  /// Drivers from before version 1 only (QEMU: `disable-modern=on`).
  case legacy

  /// Whether drivers of version 1 find the device.
  var isModern: Bool { self != .legacy }
  /// Whether drivers from before version 1 find it.
  var isLegacy: Bool { self != .modern }

  /// What a virtio-blk function says it is: 0x1040 + device type 2, or the transitional id with the type as subsystem
  /// (§4.1.2.1, §4.1.2.3).
  var identity: PCIIdentity {
    switch self {
    case .modern:
      PCIIdentity(
        vendor: 0x1af4, device: 0x1042, classCode: 0x010000, revision: 1, subsystemVendor: 0x1af4, subsystem: 0x1100,
        interruptPin: 1)
    case .transitional, .legacy:
      PCIIdentity(
        vendor: 0x1af4, device: 0x1001, classCode: 0x010000, revision: 0, subsystemVendor: 0x1af4, subsystem: 2,
        interruptPin: 1)
    }
  }
}
