// SPDX-License-Identifier: Apache-2.0

/// The geometry that a disk tells its driver (virtio 1.3 §5.2.4, VIRTIO_BLK_F_GEOMETRY); it changes nothing else.
public struct VirtioBlockGeometry: Equatable, Sendable {
  /// Cylinders.
  public var cylinders: UInt16
  /// Heads.
  public var heads: UInt8
  /// Sectors of a track.
  public var sectors: UInt8

  /// Makes a geometry.
  public init(cylinders: UInt16, heads: UInt8, sectors: UInt8) {
    self.cylinders = cylinders
    self.heads = heads
    self.sectors = sectors
  }
}
