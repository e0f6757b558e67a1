// SPDX-License-Identifier: Apache-2.0
import Glibc
import Testing

/// A file of 1 MiB on a disk, for direct I/O; it is removed when the owner lets go.
final class LabFile {
  let path = "/var/tmp/spindle-wakeup-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"

  init() throws {
    let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    try #require(ftruncate(descriptor, 1 << 20) == 0)
  }

  deinit { unlink(path) }
}
