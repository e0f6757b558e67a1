// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import CLinux
import Glibc
import HostSystem

/// What direct I/O on a file wants of a request, in bytes; powers of two.
public struct IOAlignment: Equatable, Sendable {
  /// Of the offset and the length.
  public var offset: Int
  /// Of each buffer's address.
  public var memory: Int

  /// Anything goes: I/O through the page cache.
  public static let none = IOAlignment(offset: 1, memory: 1)
  /// What every device can do.
  public static let page = IOAlignment(offset: 4096, memory: 4096)

  /// Describes an alignment.
  public init(offset: Int, memory: Int) {
    self.offset = offset
    self.memory = memory
  }
}

/// An open and locked raw image: a regular file or a block device.
public struct ImageFile: ~Copyable {
  /// As the user named it.
  public let path: String
  /// Length in bytes.
  public let byteCount: UInt64
  /// What requests must keep to.
  public let alignment: IOAlignment
  /// Unit that the disk writes without reading first, bytes.
  public let physicalBlockBytes: Int
  let descriptor: OwnedDescriptor

  /// Bytes at the end that are no whole block, and that no request can reach.
  public var unreachableBytes: Int { Int(byteCount % UInt64(max(Int(BlockBackend.sectorBytes), alignment.offset))) }

  /// The alignments that probing tries, smallest first.
  private static let offsetCandidates = [512, 1024, 2048, 4096]
  private static let memoryCandidates = [4, 16, 64, 512, 4096]

  /// What kind of file it is. Takes a few system calls.
  public var facts: FileFacts { FileFacts(descriptor: descriptor.number, block: max(4096, alignment.offset)) }

  /// Opens and locks an image. Nothing is written.
  /// - Parameters:
  ///   - locks: false to look at an image that others may use, without keeping them from it.
  ///   - waits: a locked image is tried again for a second, in case a killed process's requests are still ending.
  public static func open(
    path: String, cache: CacheMode, readOnly: Bool, locks: Bool = true, waits: Bool = false
  ) throws(ImageError) -> ImageFile {
    let direct = cache.isDirect ? clinux_O_DIRECT : 0
    let descriptor: OwnedDescriptor
    do {
      // O_NONBLOCK keeps a pipe that was named by mistake from hanging the start; files and disks do not mind.
      descriptor = try OwnedDescriptor.open(path, flags: (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK | direct)
    } catch {
      throw reason(error, path: path, readOnly: readOnly, isDirect: direct != 0)
    }
    // It must go again: where a file cannot be read without waiting, io_uring would answer EAGAIN for ever.
    _ = clinux_fcntl(descriptor.number, F_SETFL, Int(direct))
    let byteCount = try length(descriptor.number, path: path)
    if byteCount == 0 { throw .isEmpty(path: path) }
    let attempts = waits ? ImageLock.patience.attempts : 1
    if locks, !ImageLock.take(descriptor.number, forWriting: !readOnly, attempts: attempts) {
      throw .locked(path: path, forWriting: !readOnly)
    }
    let alignment = direct == 0 ? IOAlignment.none : probe(descriptor.number)
    let blockBytes = max(Int(BlockBackend.sectorBytes), alignment.offset)
    if byteCount < UInt64(blockBytes) { throw .isTooShort(path: path, blockBytes: blockBytes) }
    return ImageFile(
      path: path, byteCount: byteCount, alignment: alignment,
      physicalBlockBytes: max(physicalBlock(descriptor.number), alignment.offset), descriptor: descriptor)
  }

  /// Makes a sparse image of `byteCount` zeroes that has no name, and is gone when it is closed: in the directory TMPDIR, or
  /// in /var/tmp, which is on a disk usually.
  public static func temporary(byteCount: UInt64) throws(ImageError) -> ImageFile {
    let directory = getenv("TMPDIR").map { String(cString: $0) } ?? ""
    let path = directory.isEmpty ? "/var/tmp" : directory
    do throws(SystemError) {
      let descriptor = try unnamedFile(in: path)
      guard byteCount <= UInt64(Int.max) else { throw SystemError("ftruncate", code: EFBIG) }
      _ = try checked("ftruncate") { clinux_ftruncate(descriptor.number, Int(byteCount)) }
      return ImageFile(
        path: path, byteCount: byteCount, alignment: .none, physicalBlockBytes: 4096, descriptor: descriptor)
    } catch {
      throw .noTemporaryFile(directory: path, error)
    }
  }

  private static func unnamedFile(in directory: String) throws(SystemError) -> OwnedDescriptor {
    do throws(SystemError) {
      return try OwnedDescriptor.open(directory, flags: clinux_O_TMPFILE | O_RDWR | O_EXCL, mode: 0o600)
    } catch {
      // A file system without unnamed files: one with a name for a moment.
      guard error.code == EOPNOTSUPP || error.code == EISDIR || error.code == ENOENT else { throw error }
    }
    let path = "\(directory)/spindle-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL, mode: 0o600)
    unlink(path)
    return descriptor
  }

  private static func reason(_ error: SystemError, path: String, readOnly: Bool, isDirect: Bool) -> ImageError {
    switch error.code {
    case EISDIR: return .isDirectory(path: path)
    case EINVAL where isDirect: return .noDirectIO(path: path)
    case EROFS, ETXTBSY: return .notWritable(path: path, error)
    case EACCES, EPERM:
      let isReadable = !readOnly && access(path, R_OK) == 0
      return isReadable ? .notWritable(path: path, error) : .cannotOpen(path: path, error)
    case ENXIO: return .notAFile(path: path)
    default: return .cannotOpen(path: path, error)
    }
  }

  private static func length(_ descriptor: Int32, path: String) throws(ImageError) -> UInt64 {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .cannotOpen(path: path, SystemError("fstat", code: errno)) }
    switch status.st_mode & S_IFMT {
    case S_IFREG: return UInt64(status.st_size)
    case S_IFDIR: throw .isDirectory(path: path)
    case S_IFBLK:
      var bytes: UInt64 = 0
      let result = withUnsafeMutablePointer(to: &bytes) {
        clinux_ioctl(descriptor, clinux_BLKGETSIZE64, UInt(bitPattern: $0))
      }
      if result < 0 { throw .cannotOpen(path: path, SystemError("BLKGETSIZE64", code: -result)) }
      return bytes
    default: throw .notAFile(path: path)
    }
  }

  private static func physicalBlock(_ descriptor: Int32) -> Int {
    var bytes: UInt32 = 0
    let result = withUnsafeMutablePointer(to: &bytes) {
      clinux_ioctl(descriptor, clinux_BLKPBSZGET, UInt(bitPattern: $0))
    }
    // Regular files do not know; their file systems work in pages.
    return result < 0 || bytes == 0 ? 4096 : Int(bytes)
  }

  /// Finds out by reading what direct I/O wants here: what a kernel reports differs from version to version, what it
  /// accepts does not.
  private static func probe(_ descriptor: Int32) -> IOAlignment {
    var found = IOAlignment.page
    let bytes = 2 * IOAlignment.page.memory
    var memory: UnsafeMutableRawPointer?
    guard posix_memalign(&memory, IOAlignment.page.memory, bytes) == 0, let memory else { return found }
    defer { free(memory) }
    for offset in offsetCandidates where clinux_pread(descriptor, memory, offset, 0) >= 0 {
      found.offset = offset
      break
    }
    for alignment in memoryCandidates
    where clinux_pread(descriptor, memory + alignment, IOAlignment.page.offset, 0) >= 0 {
      found.memory = alignment
      break
    }
    return found
  }
}
