// SPDX-License-Identifier: Apache-2.0
// Pictures: shapes and text on a canvas, PNG files, and the two pictures that explain waiting. It knows nothing of disks
// or of the process: what it draws comes as plain data.

/// Why a picture could not be made.
public enum PictureError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A canvas of this size (pixels, and pixels of the file for each) is empty, or larger than `Canvas` allows.
  case size(width: Int, height: Int, scale: Int)
  /// The host has no memory for a picture of this many bytes.
  case memory(bytes: Int)
  /// No font file of this name is in the folders that were searched.
  case missingFont(file: String)
  /// The font file is there, but FreeType refuses it with this code, or it has no outlines.
  case unusableFont(path: String, code: Int32)
  /// libpng could not encode or write the picture; `path` is empty where no file was involved.
  case png(path: String, message: String)

  /// What happened, and what to do about it.
  public var description: String {
    switch self {
    case .size(let width, let height, let scale):
      "a picture of \(width) x \(height) pixels at scale \(scale) is empty or too large"
    case .memory(let bytes): "no memory for a picture of \(bytes) bytes"
    case .missingFont(let file): "\(file) is not installed; the Debian package fonts-dejavu-core has it"
    case .unusableFont(let path, let code): "\(path): FreeType cannot use this font (error \(code))"
    case .png(let path, let message): path.isEmpty ? "PNG: \(message)" : "\(path): \(message)"
    }
  }
}
