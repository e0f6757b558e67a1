// SPDX-License-Identifier: Apache-2.0

/// How a virtio-blk device is set up.
public struct VirtioBlockOptions: Sendable {
  /// Number of virtqueues, 1 to 64.
  public var queueCount = 1
  /// Largest size of each queue, a power of two from 2 to 1024.
  public var queueEntries = Limit.queueEntriesDefault
  /// Which drivers find the device.
  public var interface = VirtioInterface.modern
  /// The place on the board, 0 to 7, of a device that is not on the PCI bus (`VirtioMMIO`); nil for a PCI function. Such a
  /// device joins the machine by `Machine.add`, its PCI address says nothing, and its interface is not transitional.
  public var mmioSlot: Int?
  /// What the disk claims to be made of; nil where it makes no claim.
  public var geometry: VirtioBlockGeometry?

  /// The defaults: one queue of 256 entries, for modern drivers.
  public init() {}
}
