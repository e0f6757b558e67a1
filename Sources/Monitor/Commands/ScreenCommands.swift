// SPDX-License-Identifier: Apache-2.0
import Assembly
import CPNG
import HostSystem

/// Pictures of the display. There is none, so what it would show is black.
extension MonitorCommands {
  private static let width = 640
  private static let height = 480

  func screenDump(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    if let device = arguments.text("device") { throw .noDevice(device) }
    let pixels = [UInt8](repeating: 0, count: 3 * Self.width * Self.height)
    let bytes = arguments.text("format") == "png" ? try Self.png(pixels) : Self.pixmap(pixels)
    let path = arguments.required("filename")
    do throws(SystemError) { try writeWholeFile(path, bytes) } catch {
      throw ControlError("failed to open file '\(path)': \(SystemError.text(of: error.code))")
    }
    return [:]
  }

  private static func pixmap(_ pixels: [UInt8]) -> [UInt8] { Array("P6\n\(width) \(height)\n255\n".utf8) + pixels }

  private static func png(_ pixels: [UInt8]) throws(ControlError) -> [UInt8] {
    let (across, down) = (UInt32(width), UInt32(height))
    var bytes = [UInt8](repeating: 0, count: cpng_bound(across, down))
    var size = bytes.count
    var message = [CChar](repeating: 0, count: cpng_message_bytes)
    guard cpng_encode(pixels, across, down, &bytes, &size, &message) != 0 else {
      throw ControlError("libpng could not encode the picture")
    }
    bytes.removeLast(bytes.count - size)
    return bytes
  }
}
