// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop

/// What a machine's user sees of its drives, nodes and functions while it runs.

/// A drive as its user names it.
public enum DriveReference: Equatable, Sendable {
  /// By the name of what it is served from (`-drive id=`).
  case device(String)
  /// By the name of the guest's device (`-device id=`).
  case id(String)

  /// The name, whosever it is.
  public var name: String {
    switch self {
    case .device(let name), .id(let name): name
    }
  }
}

/// An image, or something else that has bytes, in a drive or ready to be put into one.
public struct NodeReport: Equatable, Sendable {
  /// The node's name.
  public var name: String
  /// The image's path, or what stands for it.
  public var filename: String
  /// What takes requests: `raw`, `null-co`.
  public var driver: String
  /// Usable bytes.
  public var byteCount: UInt64
  /// It is not written.
  public var isReadOnly: Bool
  /// How host caches are used.
  public var cache: CacheMode

  /// Describes a node.
  public init(
    name: String, filename: String, driver: String = "raw", byteCount: UInt64, isReadOnly: Bool = false,
    cache: CacheMode = .writeback
  ) {
    self.name = name
    self.filename = filename
    self.driver = driver
    self.byteCount = byteCount
    self.isReadOnly = isReadOnly
    self.cache = cache
  }
}

/// A CD-ROM drive's tray.
public struct TrayReport: Equatable, Sendable {
  /// Whether it is out.
  public var isOpen: Bool
  /// Whether the guest prevents that.
  public var isLocked: Bool

  /// Describes a tray.
  public init(isOpen: Bool = false, isLocked: Bool = false) {
    self.isOpen = isOpen
    self.isLocked = isLocked
  }
}

/// What became of the last request that failed under the policy `stop`.
public enum DriveIOStatus: String, Sendable {
  /// None waits.
  case ok
  /// The host had an error.
  case failed
  /// The host has no space left.
  case noSpace = "nospace"
}

/// A drive.
public struct DriveReport: Equatable, Sendable {
  /// The name that it is served under; empty where it has none.
  public var name: String
  /// The guest's device; empty where no device uses the drive.
  public var deviceID: String
  /// What the device is, as users of QEMU name it: `virtio-blk-pci`, `ide-hd`, `ide-cd`; empty without one.
  public var model: String
  /// Its tray, of CD-ROM drives only.
  public var tray: TrayReport?
  /// What is in it; nil for an empty drive.
  public var medium: NodeReport?
  /// Most that it does in a second.
  public var limits: ThrottleLimits
  /// Whether requests wait for the machine to go on.
  public var status: DriveIOStatus

  /// Describes a drive.
  public init(
    name: String, deviceID: String, model: String, tray: TrayReport? = nil, medium: NodeReport? = nil,
    limits: ThrottleLimits = ThrottleLimits(), status: DriveIOStatus = .ok
  ) {
    self.name = name
    self.deviceID = deviceID
    self.model = model
    self.tray = tray
    self.medium = medium
    self.limits = limits
    self.status = status
  }

  /// Whether its user can change what is in it.
  public var isRemovable: Bool { tray != nil || !isAttached }
  /// Whether a device uses it.
  public var isAttached: Bool { !deviceID.isEmpty }
}

/// The counts of the drive of a name, of the device of `deviceID`.
public struct DriveStatistics: Equatable, Sendable {
  /// The name that it is served under.
  public var name: String
  /// The guest's device.
  public var deviceID: String
  /// The counts since the medium was put in; all 0 for an empty drive.
  public var counts: BlockStatistics

  /// Describes counts.
  public init(name: String, deviceID: String, counts: BlockStatistics) {
    self.name = name
    self.deviceID = deviceID
    self.counts = counts
  }
}

/// What a person at the host reads or writes of a drive, beside the guest.
public struct HostTransfer: Equatable, Sendable {
  /// What to do.
  public var operation: BlockOperation
  /// Where, in bytes; whole sectors of 512, as `byteCount`.
  public var offset: UInt64
  /// How much; at most `byteCountMax`.
  public var byteCount: UInt64
  /// Every byte that is written.
  public var pattern: UInt8
  /// Durable when it is over.
  public var isDurable: Bool
  /// For `writeZeroes`: the range may be unmapped.
  public var mayUnmap: Bool

  /// Most bytes that one transfer holds in memory.
  public static let byteCountMax: UInt64 = 64 << 20

  /// Describes a transfer.
  public init(
    _ operation: BlockOperation, offset: UInt64 = 0, byteCount: UInt64 = 0, pattern: UInt8 = 0xcd,
    isDurable: Bool = false, mayUnmap: Bool = false
  ) {
    self.operation = operation
    self.offset = offset
    self.byteCount = byteCount
    self.pattern = pattern
    self.isDurable = isDurable
    self.mayUnmap = mayUnmap
  }
}

/// A loop and how often it was woken.
public struct LoopReport: Equatable, Sendable {
  /// The loop's name.
  public var name: String
  /// When other threads wake it.
  public var policy: WakePolicy
  /// How it watches descriptors.
  public var monitor: LoopMonitor
  /// The counts.
  public var wakes: WakeStatistics

  /// Describes a loop.
  public init(name: String, policy: WakePolicy, monitor: LoopMonitor, wakes: WakeStatistics) {
    self.name = name
    self.policy = policy
    self.monitor = monitor
    self.wakes = wakes
  }
}
