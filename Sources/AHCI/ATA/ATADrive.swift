// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// How a disk describes itself to the guest.
public struct ATADriveOptions: Sendable {
  /// Model number, at most 40 ASCII characters.
  public var model = "SPINDLE HARDDISK"
  /// Firmware revision, at most 8 ASCII characters.
  public var firmware = "1.0"
  /// Serial number, at most 20 ASCII characters; empty for the backend's own, or one that follows from the port.
  public var serial = ""
  /// World wide name; 0 for none.
  public var worldWideName: UInt64 = 0
  /// Rotations per minute, or 1 for a disk that does not rotate (ACS-3 §7.12.7.81).
  public var rotationRate: UInt16 = 1

  /// The defaults.
  public init() {}
}

/// A SATA disk (ACS-3, SATA 3.3) on a backend of the block layer.
///
/// Here are its state, what each command leads to, and the commands that move data; the others are in extensions by theme.
/// Belongs to the machine lock, as its port does.
public final class ATADrive: SATADevice {
  /// Bytes of a logical sector.
  static let sectorBytes: UInt64 = 512
  /// Sectors that 28-bit and 48-bit addresses reach (ACS-3 §4.1.2).
  static let lba28SectorsMax: UInt64 = 0x0fff_ffff
  static let lba48SectorsMax: UInt64 = 0xffff_ffff_ffff
  /// Queued commands at once.
  static let queueDepth = 32

  let disk: BlockBackend
  let options: ATADriveOptions
  /// Sectors of the disk.
  let sectorCount: UInt64

  /// Makes a disk on `backend`, which must be on the machine's main loop.
  public init(backend: BlockBackend, options: ATADriveOptions = ATADriveOptions()) {
    disk = backend
    self.options = options
    sectorCount = min(backend.byteCount / Self.sectorBytes, Self.lba48SectorsMax)
    super.init(takesQueued: true)
  }

  override var signature: UInt32 { 0x0000_0101 }
  override var backend: BlockBackend? { disk }
}
