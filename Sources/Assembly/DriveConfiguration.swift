// SPDX-License-Identifier: Apache-2.0
import AHCI
import AsyncIO
import Block
import Machine
import VirtioBlock

/// A disk as a user describes it.
public struct DriveConfiguration: Sendable, Equatable {
  /// Where the bytes are.
  public enum Source: Sendable, Equatable {
    /// A raw image file or block device.
    case file(path: String)
    /// No bytes at all: requests succeed, at once or after `latencyNs` nanoseconds (for measuring the way there).
    case null(byteCount: UInt64, latencyNs: UInt64 = 0)
    /// Bytes in memory, all zero at first, gone with the machine.
    case memory(byteCount: UInt64)
    /// No medium in the drive; CD-ROM drives only.
    case empty
  }

  /// What the guest finds the drive behind.
  public enum Interface: String, Sendable {
    /// A virtio-blk function of its own.
    case virtio
    /// A port of the AHCI controller.
    case ahci
  }

  /// What kind of drive it is.
  public enum Media: String, CaseIterable, Sendable {
    /// A hard disk.
    case disk
    /// A CD-ROM drive.
    case cdrom
  }

  /// Where the bytes are.
  public var source: Source
  /// What the guest finds it behind.
  public var interface = Interface.virtio
  /// What kind of drive it is; CD-ROM drives are on `.ahci`, and read-only.
  public var media = Media.disk
  /// The AHCI controller's port, 0 to 5; nil for the first one that is free. See `AHCIPorts`.
  public var port: Int?
  /// The user's name for the drive.
  public var id: String
  /// How host caches are used.
  public var cache: CacheMode = .writeback
  /// The engine that serves a file; nil for the best that works.
  public var engine: EngineKind?
  /// Most threads of the engine of that name.
  public var engineThreadsMax = ThreadPoolLimits.workersMaxDefault
  /// Guest memory is pinned once for the engine, where engine and host can do that; all of it is resident then.
  public var pinsMemory = false
  /// Requests of a batch that continue each other go to the host as one.
  public var merge = true
  /// What becomes of reads that fail.
  public var readErrorPolicy = ErrorPolicy.report
  /// What becomes of other requests that fail.
  public var writeErrorPolicy = ErrorPolicy.enospc
  /// Faults that are put on top.
  public var faults: [FaultRule] = []
  /// QEMU's rules for faults, below everything else that is put on top.
  public var debugRules: [DebugRule] = []
  /// The drive follows such rules, even where it has none yet, and can be told to hold requests.
  public var isDebugged = false
  /// What the guest writes is kept in a temporary file, and gone with the machine; the image stays as it is.
  public var isSnapshot = false
  /// Most that the drive does in a second.
  public var limits = ThrottleLimits()
  /// The guest may only read.
  public var isReadOnly = false
  /// An image that may not be written is a read-only disk.
  public var isReadOnlyWhereNecessary = false
  /// The image is locked against others' use, where its file system has locks.
  public var locksImage = true
  /// Reads of a null disk find zeroes, rather than leave the guest's memory as it is.
  public var readsZeroes = false
  /// Discards are answered without the disk, and zeroes are never unmapped.
  public var ignoresDiscard = false
  /// What becomes of writes of nothing but zeroes.
  public var zeroDetection = ZeroDetection.off
  /// What a disk claims to be made of; nil for the usual geometry on `.ahci`, and for no claim on `.virtio`, where a track may
  /// have up to 255 heads.
  public var geometry: ATADriveGeometry?
  /// The geometry that a firmware is told of beside the disk's own (`lcyls`, `lheads`, `lsecs`); nil for none.
  public var firmwareGeometry: FirmwareGeometry?
  /// How a firmware's own interface is to translate addresses of a disk on `.ahci`, by QEMU's name; nil for what follows from
  /// the geometry. Only programs in QEMU's place tell a firmware.
  public var translation: String?
  /// Its user calls it by `id`; else by the node that is in it, or the device's name.
  public var hasName = true
  /// The user's name for what is behind the drive; nil where it has none of its own.
  public var nodeName: String?
  /// The device's name in the machine; nil for `id`.
  public var deviceID: String?
  /// Whether a virtio disk has a loop and thread of its own; nil for what the machine says.
  public var usesIOThread: Bool?
  /// Where a virtio disk is on the PCI bus; nil for the first slot that is free.
  public var pciAddress: PCIAddress?
  /// What the guest reads as firmware revision of a disk on `.ahci`, at most 8 characters; nil for the usual one.
  public var firmwareVersion: String?
  /// What the guest reads as serial number; at most 20 bytes, and printable ASCII on `.ahci`.
  public var serial = ""
  /// Virtqueues.
  public var queueCount = 1
  /// Entries of each virtqueue.
  public var queueEntries: UInt16 = 256
  /// A virtio disk is on the board rather than on the PCI bus (`if=virtio-mmio`; `VirtioMMIO` says where).
  public var isOnBoard = false
  /// Which virtio drivers find it.
  public var virtioInterface = VirtioInterface.modern

  /// A geometry for a firmware; a number that is left out is 0.
  public struct FirmwareGeometry: Equatable, Sendable {
    /// Cylinders, heads, and sectors of a track.
    public var cylinders = 0, heads = 0, sectors = 0
  }

  /// Describes a drive by its source, all else as it is by default.
  public init(source: Source, id: String) {
    self.source = source
    self.id = id
  }

  /// The keys of `--drive`.
  public static let keys =
    [
      "file", "if", "media", "port", "id", "format", "cache", "readonly", "serial", "aio", "aio-threads", "pin",
      "merge", "rerror", "werror", "queues", "queue-size", "driver", "size", "latency", "fault", "snapshot",
      "auto-read-only", "file.locking", "locking", "file.read-zeroes", "read-zeroes", "cache.direct", "cache.no-flush",
      "cache.writeback", "discard", "detect-zeroes", "copy-on-read", "cyls", "heads", "secs", "lcyls", "lheads",
      "lsecs",
      "bios-chs-trans", "node-name", "device-id", "addr", "ver", "transitional", "iothread",
    ] + throttlingKeys
  /// Bytes of a serial number (virtio 1.3 §5.2.6, ACS-3 §7.12.7, words 10 to 19).
  public static let serialBytesMax = 20

  /// Whether the value of `--drive` asks which engines there are (`aio=help` or `aio=?`).
  public static func asksForEngines(_ text: String) -> Bool {
    text.split(separator: ",").contains { $0 == "aio=help" || $0 == "aio=?" }
  }

  /// Reads the value of `--drive`.
  public init(parsing text: String, index: Int) throws(UsageError) {
    let option = "--drive"
    let list = try OptionList(text, option: option, known: Self.keys, isOther: DebugRule.isOption)
    id = list["id"] ?? "drive\(index)"
    media = try list.choice("media", Media.allCases.map { ($0.rawValue, $0) }, default: .disk)
    source = .empty
    source = try readSource(list, option: option)
    _ = try list.choice("format", [("raw", 0)], default: 0)
    cache = try Self.cacheMode(list, option: option)
    isReadOnly = try list.flag("readonly", default: media == .cdrom)
    if media == .cdrom && !isReadOnly {
      throw UsageError("\(option): readonly=off: the disc of media=cdrom cannot be written; leave readonly= out")
    }
    try readEngine(list)
    try readErrorHandling(list, option: option)
    try readContents(list, option: option)
    limits = try Self.limits(list, option: option)
    try readInterface(list, option: option)
    try readIdentity(list, option: option)
    try readSerial(list, option: option)
  }

  private mutating func readInterface(_ list: OptionList, option: String) throws(UsageError) {
    let choices = [
      ("virtio", Interface.virtio), ("ahci", .ahci), ("ide", .ahci), ("virtio-mmio", .virtio),
    ]
    interface = try list.choice("if", choices, default: media == .cdrom ? .ahci : .virtio)
    switch interface {
    case .virtio:
      isOnBoard = list["if"] == "virtio-mmio"
      if media == .cdrom {
        throw UsageError("\(option): if=virtio has no CD-ROM drives; write if=ahci,media=cdrom")
      }
      if let port = list["port"] {
        throw UsageError("\(option): port=\(port) goes with if=ahci only; write if=ahci or leave port= out")
      }
      if isOnBoard, let value = list["transitional"], value != "only" {
        throw UsageError("\(option): transitional=\(value) goes with if=virtio only; leave transitional= out")
      }
      try readQueues(list, option: option)
    case .ahci:
      for key in ["queues", "queue-size", "transitional", "iothread"] {
        guard let value = list[key] else { continue }
        throw UsageError("\(option): \(key)=\(value) goes with if=virtio only; leave \(key)= out")
      }
      if list["port"] != nil { port = try list.number("port", in: AHCIPorts.all, default: 0) }
    }
  }

  private mutating func readQueues(_ list: OptionList, option: String) throws(UsageError) {
    queueCount = try list.number("queues", in: 1...64, default: 1)
    let entries = try list.number("queue-size", in: 2...1024, default: 256)
    guard entries & (entries - 1) == 0 else {
      throw UsageError("\(option): queue-size=\(entries) is not a power of two; try 256")
    }
    queueEntries = UInt16(entries)
    if list["iothread"] != nil { usesIOThread = try list.flag("iothread", default: false) }
    if list["transitional"] == "only" {
      virtioInterface = .legacy
    } else {
      virtioInterface = try list.flag("transitional", default: false) ? .transitional : .modern
    }
  }

  private mutating func readSerial(_ list: OptionList, option: String) throws(UsageError) {
    serial = list["serial"] ?? ""
    if serial.utf8.count > Self.serialBytesMax {
      throw UsageError("\(option): serial=\(serial) is longer than \(Self.serialBytesMax) bytes; shorten it")
    }
    // An ATA string holds the codes 0x20 to 0x7e (ACS-3 §3.3.10).
    if interface == .ahci, !serial.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) {
      throw UsageError("\(option): serial=\(serial): if=ahci takes printable ASCII only; choose another serial")
    }
  }

  private mutating func readEngine(_ list: OptionList) throws(UsageError) {
    let engines =
      EngineKind.allCases.map { ($0.rawValue, EngineKind?.some($0)) } + [("native", EngineKind?.some(.linuxAIO))]
    engine = try list.choice("aio", [("auto", nil)] + engines, default: nil)
    engineThreadsMax = try list.number(
      "aio-threads", in: 1...ThreadPoolLimits.workersBound, default: ThreadPoolLimits.workersMaxDefault)
    pinsMemory = try list.flag("pin", default: false)
    merge = try list.flag("merge", default: true)
  }

  private mutating func readErrorHandling(_ list: OptionList, option: String) throws(UsageError) {
    let policies = ErrorPolicy.allCases.map { ($0.rawValue, $0) }
    readErrorPolicy = try list.choice("rerror", policies, default: .report)
    writeErrorPolicy = try list.choice("werror", policies, default: .enospc)
    guard let text = list["fault"] else { return }
    do throws(FaultRuleError) { faults = try FaultRule.parse(text) } catch {
      throw UsageError("\(option) fault: \(error)")
    }
  }
}
