// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// The file that is measured: a user's, or a temporary one that was written completely, so that reads reach the disk and
/// writes do not allocate.
public enum BenchFile {
  private static let chunkBytes = 1 << 20

  /// Calls `body` with the path of a file.
  ///
  /// The temporary one has no name in its folder, so that nothing is left however the process ends. Its path leads through
  /// this process's descriptors; other programs can open it as long as `body` runs.
  /// - Parameters:
  ///   - path: the user's file; nil for a temporary one in TMPDIR or /var/tmp.
  ///   - byteCount: bytes of the temporary one, whole MiB.
  /// - Throws: what `body` throws; where there is no temporary file, one line that says so.
  public static func withPath<T>(_ path: String?, byteCount: UInt64, _ body: (String) throws -> T) throws -> T {
    if let path { return try body(path) }
    let file = try makeTemporary(byteCount: byteCount)
    // Closed behind the body, whatever comes of it.
    let result = Result { try body("/proc/\(getpid())/fd/\(file.number)") }
    _ = consume file
    return try result.get()
  }

  private static func makeTemporary(byteCount: UInt64) throws -> OwnedDescriptor {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
    let path = "\(folder)/spindle-bench-\(getpid())"
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL)
    unlink(path)
    var chunk = [UInt8](repeating: 0, count: chunkBytes)
    for index in chunk.indices { chunk[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 7) }
    for _ in 0..<byteCount / UInt64(chunkBytes) {
      guard write(descriptor.number, chunk, chunk.count) == chunk.count else {
        throw BenchError("\(folder): no room for \(byteCount >> 20) MiB; set TMPDIR or name a file with --file")
      }
    }
    fsync(descriptor.number)
    return descriptor
  }
}
