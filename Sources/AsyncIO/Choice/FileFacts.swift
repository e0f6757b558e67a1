// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem

/// What the choice of an engine looks at in an open file.
public struct FileFacts: Equatable, Sendable {
  /// Whether it is a block device, and not a regular file.
  public var isBlockDevice = false
  /// The file system's name; "device" for a block device.
  public var fileSystem = ""
  /// Whether direct I/O on it is asynchronous down to the disk: block devices, and the file systems of disks. Others (over
  /// networks, in user space, in layers) may wait inside a submission.
  public var isKnownAsynchronous = false
  /// Whether a single write can be made durable (RWF_DSYNC, Linux 4.7).
  public var hasDurableWrites = false
  /// How the disk below makes one durable; nil where the host does not tell.
  public var deviceFUA: DeviceFUA?

  /// What the disk below does for a durable write.
  public enum DeviceFUA: String, Sendable {
    /// It has no volatile cache: every completed write is durable.
    case notNeeded = "no volatile cache"
    /// It writes this one through its cache.
    case native = "native FUA"
    /// The kernel writes, then flushes the disk's cache.
    case flush = "write and flush"
  }

  /// Facts to be filled in.
  public init() {}

  /// Finds out about an open descriptor, without writing to it. Any thread.
  /// - Parameter block: bytes of one aligned read, by which RWF_DSYNC is tried.
  public init(descriptor: Int32, block: Int = 4096) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return }
    isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
    if isBlockDevice {
      fileSystem = "device"
      isKnownAsynchronous = true
    } else {
      let type = clinux_file_system(descriptor)
      fileSystem = Self.names[type] ?? "unknown"
      isKnownAsynchronous = Self.asynchronous.contains(fileSystem)
    }
    hasDurableWrites = Self.knowsDurableWrites(descriptor, block)
    deviceFUA = Self.deviceFUA(isBlockDevice ? status.st_rdev : status.st_dev)
  }

  /// Magic numbers of statfs(2).
  private static let names: [Int: String] = [
    0xef53: "ext4", 0x5846_5342: "xfs", 0x9123_683e: "btrfs", 0xf2f5_2010: "f2fs", 0x0102_1994: "tmpfs",
    0x6969: "nfs", 0xff53_4d42: "cifs", 0xfe53_4d42: "smb2", 0x6573_5546: "fuse", 0x794c_7630: "overlayfs",
    0x0102_1997: "9p", 0x00c3_6400: "ceph", 0x2fc1_2fc1: "zfs", 0x4d44: "vfat", 0x9fa0: "proc",
    0x6a65_6a63: "virtiofs", 0x0bd0_0bd0: "lustre", 0xca45_1a4e: "bcachefs",
  ]
  private static let asynchronous: Set = ["ext4", "xfs", "btrfs", "f2fs", "bcachefs"]

  /// A read takes the same flag, and changes nothing.
  private static func knowsDurableWrites(_ descriptor: Int32, _ block: Int) -> Bool {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: block, alignment: max(block, 4096))
    defer { memory.deallocate() }
    var vector = iovec(iov_base: memory, iov_len: block)
    return clinux_preadv2(descriptor, &vector, 1, 0, clinux_RWF_DSYNC) >= 0
  }

  private static func deviceFUA(_ device: dev_t) -> DeviceFUA? {
    let base = "/sys/dev/block/\(clinux_major(device)):\(clinux_minor(device))"
    for queue in ["\(base)/queue", "\(base)/../queue"] {
      guard let cache = line("\(queue)/write_cache"), let fua = line("\(queue)/fua") else { continue }
      return cache == "write through" ? .notNeeded : fua == "1" ? .native : .flush
    }
    return nil
  }

  private static func line(_ path: String) -> String? {
    guard let bytes = try? readWholeFile(path) else { return nil }
    return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
  }
}
