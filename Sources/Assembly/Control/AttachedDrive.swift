// SPDX-License-Identifier: Apache-2.0
import AHCI
import Block

/// Something that has bytes and a name: in a drive, or ready to be put into one. Main loop's thread.
final class BlockNode {
  /// Where the bytes are; its `id` is the node's name.
  let configuration: DriveConfiguration
  /// Its user has made it and takes it away again; all others go with the drive that they are in.
  let isNamed: Bool
  /// Usable bytes, as they were when it was last opened.
  var byteCount: UInt64
  /// What serves it, while it is in a drive.
  var backend: BlockBackend?
  /// The node that it stands on, where that has a name of its own.
  var lower: BlockNode?

  init(_ configuration: DriveConfiguration, isNamed: Bool, byteCount: UInt64, backend: BlockBackend? = nil) {
    self.configuration = configuration
    self.isNamed = isNamed
    self.byteCount = byteCount
    self.backend = backend
  }

  var report: NodeReport {
    let (filename, driver) =
      switch configuration.source {
      case .file(let path): (path, "raw")
      case .null: ("null-co://", "null-co")
      case .memory: ("memory", "memory")
      case .empty: ("", "raw")
      }
    return NodeReport(
      name: configuration.id, filename: filename, driver: driver, byteCount: backend?.byteCount ?? byteCount,
      isReadOnly: backend?.isReadOnly ?? configuration.isReadOnly, cache: configuration.cache)
  }
}

/// A drive of the machine and what is in it. Main loop's thread.
final class AttachedDrive {
  /// As it was configured.
  let configuration: DriveConfiguration
  /// The CD-ROM drive, where it is one.
  let tray: ATAPIDrive?
  /// What is in it.
  var node: BlockNode?
  /// Most that it does in a second, whatever is in it.
  var limits: ThrottleLimits
  /// It came while the machine ran.
  var isHotPlugged = false
  /// What became of the last request that failed.
  var status = DriveIOStatus.ok

  init(_ configuration: DriveConfiguration, tray: ATAPIDrive? = nil, node: BlockNode?) {
    self.configuration = configuration
    self.tray = tray
    self.node = node
    limits = configuration.limits
  }

  /// The name that it is served under.
  var name: String { configuration.id }
  /// The guest's device.
  var deviceID: String { configuration.deviceID ?? configuration.id }

  var model: String {
    switch configuration.interface {
    case .virtio: "virtio-blk-pci"
    case .ahci: configuration.media == .cdrom ? "ide-cd" : "ide-hd"
    }
  }

  var report: DriveReport {
    DriveReport(
      name: configuration.hasName ? name : "", deviceID: deviceID, model: model,
      tray: tray.map { TrayReport(isOpen: $0.isTrayOpen, isLocked: $0.isLocked) }, medium: node?.report,
      limits: limits, status: status)
  }
}
