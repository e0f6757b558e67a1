// SPDX-License-Identifier: Apache-2.0
// VirtioBlock: a virtio-blk device (virtio 1.3 §5.2) with split virtqueues behind the modern PCI transport. It is
// ordinary code on top of `Machine` and `Block`; it knows no accelerator and no other device.
//
// A request is a chain of small types: avail ring entry → DescriptorChain → VirtioBlkAction → BlockRequest → used ring
// entry.

/// Bits of the device status register (virtio 1.3 §2.1).
enum DeviceStatus {
  static let acknowledge: UInt8 = 1
  static let driver: UInt8 = 2
  static let driverOK: UInt8 = 4
  static let featuresOK: UInt8 = 8
  static let needsReset: UInt8 = 0x40
  static let failed: UInt8 = 0x80
}

/// Feature bits (virtio 1.3 §5.2.3 and §6).
enum Feature {
  static let segMax: UInt64 = 1 << 2
  static let readOnly: UInt64 = 1 << 5
  static let geometry: UInt64 = 1 << 4
  static let blkSize: UInt64 = 1 << 6
  static let flush: UInt64 = 1 << 9
  static let topology: UInt64 = 1 << 10
  static let configWCE: UInt64 = 1 << 11
  static let multiQueue: UInt64 = 1 << 12
  static let discard: UInt64 = 1 << 13
  static let writeZeroes: UInt64 = 1 << 14
  /// Offered to legacy drivers only (§6.3): requests may be framed as in version 1.
  static let anyLayout: UInt64 = 1 << 27
  static let indirectDescriptors: UInt64 = 1 << 28
  static let eventIndex: UInt64 = 1 << 29
  static let version1: UInt64 = 1 << 32
}

/// Request types (virtio 1.3 §5.2.6).
enum RequestType {
  static let read: UInt32 = 0
  static let write: UInt32 = 1
  static let flush: UInt32 = 4
  static let getID: UInt32 = 8
  static let discard: UInt32 = 11
  static let writeZeroes: UInt32 = 13
}

/// The status byte that ends every request (virtio 1.3 §5.2.6).
enum RequestStatus {
  static let ok: UInt8 = 0
  static let ioError: UInt8 = 1
  static let unsupported: UInt8 = 2
}

/// Descriptor flags (virtio 1.3 §2.7.5).
enum DescriptorFlag {
  static let next: UInt16 = 1
  static let write: UInt16 = 2
  static let indirect: UInt16 = 4
}

/// Limits of the device.
enum Limit {
  /// A sector, the unit of every address on a virtio disk (virtio 1.3 §5.2.4).
  static let sectorBytes: UInt64 = 512
  /// Bytes of a request's header: type, reserved, sector.
  static let headerBytes = 16
  /// Bytes of the identification string (virtio 1.3 §5.2.6).
  static let serialBytes = 20
  /// Entries of a queue unless the user says otherwise; QEMU's figure.
  static let queueEntriesDefault: UInt16 = 256
  /// Entries that a user may ask for (the kernel's IOV_MAX bounds one request's scatter list).
  static let queueEntriesMax: UInt16 = 1024
  /// Queues that a user may ask for.
  static let queuesMax = 64
  /// Iovecs a slot holds beyond one for each descriptor, for buffers that span regions of RAM.
  static let spareIovecs = 8
  /// Bytes of the device configuration (virtio 1.3 §5.2.4, through the write-zeroes fields).
  static let configurationBytes = 60
  /// Segments of one discard or write-zeroes request (max_discard_seg, max_write_zeroes_seg); they are served one after
  /// the other.
  static let rangeSegmentsMax = 16
  /// Sectors of one segment (max_discard_sectors, max_write_zeroes_sectors): one short of 2 GiB, as QEMU has it.
  static let rangeSectorsMax: UInt32 = 0x3f_ffff
  /// Log lines about a misbehaving guest before the device falls silent.
  static let guestErrorLinesMax = 10
}
