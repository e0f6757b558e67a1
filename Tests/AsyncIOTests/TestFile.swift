// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

/// How a file is opened.
enum FileMode: CaseIterable, CustomTestStringConvertible {
  case buffered
  case direct

  var flags: Int32 { self == .direct ? clinux_O_DIRECT : 0 }
  var testDescription: String { self == .direct ? "O_DIRECT" : "buffered" }

  /// Those that files in `TestFile.directory` have.
  static let available = allCases.filter { (try? TestFile(byteCount: 0, mode: $0)) != nil }
}

/// A file without a name, on a real file system, that is gone with this object.
final class TestFile {
  /// Not /tmp, which often is a tmpfs, and those have not always had O_DIRECT.
  static let directory = "/var/tmp"

  private let descriptor: OwnedDescriptor
  var number: Int32 { descriptor.number }

  init(byteCount: Int, mode: FileMode = .buffered) throws {
    let path = "\(Self.directory)/spindle-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"
    descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL | mode.flags, mode: 0o600)
    unlink(path)
    _ = try checked("ftruncate") { clinux_ftruncate(number, byteCount) }
  }

  /// The same file, opened once more.
  func reopened(flags: Int32) throws -> OwnedDescriptor {
    try OwnedDescriptor.open("/proc/self/fd/\(number)", flags: flags)
  }

  /// Reads past all engines, through the page cache.
  func bytes(at offset: Int, count: Int) throws -> [UInt8] {
    let plain = try reopened(flags: O_RDONLY)
    var bytes = [UInt8](repeating: 0, count: count)
    let got = try checked("pread") { clinux_pread(plain.number, &bytes, count, offset) }
    return Array(bytes[..<got])
  }

  /// Writes past all engines, through the page cache, and to the disk.
  func write(_ bytes: [UInt8], at offset: Int = 0) throws {
    let plain = try reopened(flags: O_WRONLY)
    _ = try checked("pwrite") { clinux_pwrite(plain.number, bytes, bytes.count, offset) }
    _ = try checked("fdatasync") { clinux_fdatasync(plain.number) }
  }

  /// Bytes of the disk that the file takes.
  var allocatedByteCount: Int {
    var status = stat()
    return fstat(number, &status) == 0 ? Int(status.st_blocks) * 512 : -1
  }
}
