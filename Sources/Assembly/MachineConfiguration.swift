// SPDX-License-Identifier: Apache-2.0
import Block

/// Which accelerator a user wants.
public enum AcceleratorChoice: String, CaseIterable, Sendable {
  /// KVM where it works, otherwise hosted.
  case auto
  /// The host's KVM.
  case kvm
  /// The guest program compiled into this process.
  case hosted
}

/// A disk as a user describes it.
public struct DriveConfiguration: Sendable, Equatable {
  /// Where the bytes are.
  public enum Source: Sendable, Equatable {
    /// A raw image file or block device.
    case file(path: String)
    /// No bytes at all: requests succeed at once (for measuring the way there).
    case null(byteCount: UInt64)
  }
  /// Where the bytes are.
  public var source: Source
  /// The user's name for the drive.
  public var id: String
  /// How host caches are used.
  public var cache: CacheMode = .writeback
  /// The guest may only read.
  public var isReadOnly = false
  /// What the guest reads as serial number; at most 20 bytes.
  public var serial = ""
  /// Virtqueues.
  public var queueCount = 1
  /// Entries of each virtqueue.
  public var queueEntries: UInt16 = 256

  /// Describes a drive by its source, all else as it is by default.
  public init(source: Source, id: String) {
    self.source = source
    self.id = id
  }

  /// The keys of `--drive`.
  public static let keys = [
    "file", "if", "id", "format", "cache", "readonly", "serial", "aio", "queues", "queue-size", "driver", "size",
  ]
  /// Bytes of a serial number (virtio 1.3 §5.2.6).
  public static let serialBytesMax = 20

  /// Reads the value of `--drive`.
  public init(parsing text: String, index: Int) throws(UsageError) {
    let option = "--drive"
    let list = try OptionList(text, option: option, known: Self.keys)
    id = list["id"] ?? "drive\(index)"
    source = try Self.source(list, option: option)
    _ = try list.choice("if", [("virtio", 0)], default: 0)
    _ = try list.choice("format", [("raw", 0)], default: 0)
    _ = try list.choice("aio", [("auto", 0), ("io_uring", 0)], default: 0)
    cache = try list.choice("cache", CacheMode.allCases.map { ($0.rawValue, $0) }, default: .writeback)
    isReadOnly = try list.flag("readonly", default: false)
    serial = list["serial"] ?? ""
    if serial.utf8.count > Self.serialBytesMax {
      throw UsageError("\(option): serial=\(serial) is longer than \(Self.serialBytesMax) bytes; shorten it")
    }
    queueCount = try list.number("queues", in: 1...64, default: 1)
    let entries = try list.number("queue-size", in: 2...1024, default: 256)
    guard entries & (entries - 1) == 0 else {
      throw UsageError("\(option): queue-size=\(entries) is not a power of two; try 256")
    }
    queueEntries = UInt16(entries)
  }

  private static func source(_ list: OptionList, option: String) throws(UsageError) -> Source {
    if try list.choice("driver", [("file", false), ("null", true)], default: false) {
      if list["file"] != nil { throw UsageError("\(option): driver=null takes no file; leave file= out") }
      return .null(byteCount: try ByteSize.parse(list["size"] ?? "1G", option: "\(option) size"))
    }
    if list["size"] != nil { throw UsageError("\(option): size= goes with driver=null only; a file has its own size") }
    guard let path = list["file"], !path.isEmpty else {
      throw UsageError("\(option): no file is named; write file=PATH")
    }
    return .file(path: path)
  }
}

/// What a whole machine is made of.
public struct MachineConfiguration: Sendable {
  /// Guest RAM in bytes.
  public var memoryBytes: UInt64 = 256 << 20
  /// Virtual processors.
  public var processorCount = 1
  /// The disks, in PCI order.
  public var drives: [DriveConfiguration] = []
  /// Each virtio disk gets a loop and thread of its own.
  public var usesIOThreads = false
  /// Longest time in nanoseconds that a loop polls before it sleeps; 0 for never.
  public var pollNsMax: UInt64 = 0

  /// A machine without disks.
  public init() {}

  /// More virtual processors than this have no use here.
  public static let processorsMax = 64
}
