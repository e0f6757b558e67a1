// SPDX-License-Identifier: Apache-2.0
import HostSystem

/// Why an image cannot be used, as one line that names it and the way out.
public enum ImageError: Error, Equatable, CustomStringConvertible, Sendable {
  /// open(2) failed for no special reason.
  case cannotOpen(path: String, SystemError)
  /// The file may be read but not written.
  case notWritable(path: String, SystemError)
  /// A directory.
  case isDirectory(path: String)
  /// A pipe, a socket, a terminal.
  case notAFile(path: String)
  /// No bytes at all.
  case isEmpty(path: String)
  /// Less than one block.
  case isTooShort(path: String, blockBytes: Int)
  /// Another process uses the image in a way that excludes ours.
  case locked(path: String, forWriting: Bool)
  /// The file system has no O_DIRECT.
  case noDirectIO(path: String)

  /// There is no place for a temporary file.
  case noTemporaryFile(directory: String, SystemError)

  /// The line.
  public var description: String {
    switch self {
    case .cannotOpen(let path, let error): "\(path): \(SystemError.text(of: error.code))"
    case .notWritable(let path, let error):
      "\(path): cannot be opened for writing (\(SystemError.text(of: error.code))); add readonly=on to only read it"
    case .isDirectory(let path): "\(path): is a directory; name an image file or a block device"
    case .notAFile(let path): "\(path): is neither a file nor a block device"
    case .isEmpty(let path): "\(path): is empty; give it a size first (truncate -s 1G \(path))"
    case .isTooShort(let path, let blockBytes):
      "\(path): is shorter than one block of \(blockBytes) bytes; make it longer (truncate -s 1G \(path))"
    case .locked(let path, true):
      "\(path): is locked by another process that reads or writes it; stop that one first"
    case .locked(let path, false):
      "\(path): is locked by another process that writes it; stop that one first"
    case .noTemporaryFile(let directory, let error):
      "\(directory): cannot make a temporary file (\(SystemError.text(of: error.code))); "
        + "name another directory in the variable TMPDIR"
    case .noDirectIO(let path):
      "\(path): its file system has no direct I/O; use cache=writeback or cache=writethrough"
    }
  }
}
