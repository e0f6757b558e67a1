// SPDX-License-Identifier: Apache-2.0
import CPNG

extension Canvas {
  /// Writes the picture as a PNG file (8-bit RGB), replacing one that is there. Throws `.png` with a message; no
  /// part of a regular file stays behind then.
  public func writePNG(to path: String) throws(PictureError) {
    var message = [CChar](repeating: 0, count: cpng_message_bytes)
    guard cpng_write_file(path, rgb, UInt32(width * scale), UInt32(height * scale), &message) != 0 else {
      throw .png(path: path, message: Canvas.text(message))
    }
  }

  /// The picture as the bytes of a PNG file (8-bit RGB).
  public func encodedPNG() throws(PictureError) -> [UInt8] {
    let (across, down) = (UInt32(width * scale), UInt32(height * scale))
    var bytes = [UInt8](repeating: 0, count: cpng_bound(across, down))
    var size = bytes.count
    var message = [CChar](repeating: 0, count: cpng_message_bytes)
    guard cpng_encode(rgb, across, down, &bytes, &size, &message) != 0 else {
      throw .png(path: "", message: Canvas.text(message))
    }
    bytes.removeLast(bytes.count - size)
    return bytes
  }

  /// The pixels as libpng takes them: three bytes each, row after row.
  private var rgb: [UInt8] {
    [UInt8](unsafeUninitializedCapacity: pixels.count * 3) { buffer, count in
      for (index, pixel) in pixels.enumerated() {
        buffer[3 * index] = UInt8(truncatingIfNeeded: pixel >> 16)
        buffer[3 * index + 1] = UInt8(truncatingIfNeeded: pixel >> 8)
        buffer[3 * index + 2] = UInt8(truncatingIfNeeded: pixel)
      }
      count = pixels.count * 3
    }
  }

  private static func text(_ message: [CChar]) -> String {
    String(decoding: message.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
