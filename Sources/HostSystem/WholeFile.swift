// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Reads a file to its end. For small files: kernels, scripts.
public func readWholeFile(_ path: String) throws(SystemError) -> [UInt8] {
  let descriptor = try OwnedDescriptor.open(path, flags: O_RDONLY)
  var result: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = try checked("read") { clinux_read(descriptor.number, &chunk, chunk.count) }
    if count == 0 { return result }
    result += chunk[..<count]
  }
}

/// Reads the first bytes of a file or block device; less where it is shorter.
public func readStart(of path: String, byteCount: Int) throws(SystemError) -> [UInt8] {
  let descriptor = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK)
  var bytes = [UInt8](repeating: 0, count: byteCount)
  let count = try checked("pread") { clinux_pread(descriptor.number, &bytes, byteCount, 0) }
  return Array(bytes[..<count])
}

/// Writes a whole new file, replacing one that is there.
public func writeWholeFile(_ path: String, _ bytes: [UInt8]) throws(SystemError) {
  let descriptor = try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC)
  var written = 0
  while written < bytes.count {
    written += try checked("write") {
      bytes.withUnsafeBytes { clinux_write(descriptor.number, $0.baseAddress! + written, $0.count - written) }
    }
  }
}
