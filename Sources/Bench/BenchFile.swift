// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// A temporary file for measurements, written completely: reads reach the disk, and writes do not allocate.
public enum BenchFile {
  private static let chunkBytes = 1 << 20

  /// Makes one of `byteCount` bytes, whole MiB, in TMPDIR or /var/tmp. The caller unlinks it.
  public static func make(byteCount: UInt64) throws -> String {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
    let path = "\(folder)/spindle-bench-\(getpid())"
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL)
    var chunk = [UInt8](repeating: 0, count: chunkBytes)
    for index in chunk.indices { chunk[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 7) }
    for _ in 0..<byteCount / UInt64(chunkBytes) {
      guard write(descriptor.number, chunk, chunk.count) == chunk.count else {
        unlink(path)
        throw BenchError("\(path): no room for \(byteCount >> 20) MiB; set TMPDIR or name a file with --file")
      }
    }
    fsync(descriptor.number)
    return path
  }
}
