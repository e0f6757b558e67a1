// SPDX-License-Identifier: Apache-2.0
import CPNG
import Glibc

@testable import Pictures

/// A PNG file as libpng decodes it.
struct DecodedPicture {
  var width: Int
  var height: Int
  var rgb: [UInt8]

  /// Nil, with libpng's message, where the bytes are no picture.
  init?(_ png: [UInt8], message: inout String) {
    var text = [CChar](repeating: 0, count: Int(cpng_message_bytes))
    var (width, height): (UInt32, UInt32) = (0, 0)
    var pixels: [UInt8] = []
    var ok = cpng_size(png, png.count, &width, &height, &text) != 0
    if ok {
      pixels = [UInt8](repeating: 0, count: Int(width) * Int(height) * 3)
      ok = cpng_decode(png, png.count, &pixels, pixels.count, &text) != 0
    }
    message = String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    guard ok else { return nil }
    (self.width, self.height, rgb) = (Int(width), Int(height), pixels)
  }

  func color(_ x: Int, _ y: Int) -> Color {
    let index = 3 * (y * width + x)
    return Color(red: rgb[index], green: rgb[index + 1], blue: rgb[index + 2])
  }
}

/// A folder of its own that goes with its contents when the test ends.
final class ScratchFolder {
  let path: String

  init() {
    var template = Array("/tmp/spindle-pictures-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
  }

  deinit {
    for name in names { unlink(path + "/" + name) }
    rmdir(path)
  }

  var names: [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var result: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { result.append(name) }
    }
    return result
  }

  func read(_ name: String) -> [UInt8] {
    guard let file = fopen(path + "/" + name, "r") else { return [] }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    while case let byte = getc(file), byte != EOF { bytes.append(UInt8(byte)) }
    return bytes
  }

  func write(_ name: String, _ text: String) {
    guard let file = fopen(path + "/" + name, "w") else { return }
    fputs(text, file)
    fclose(file)
  }
}

extension Canvas {
  /// The smallest rectangle, in pixels of the file, that holds every pixel that is not white.
  var inked: Rect? {
    var columns: (Int, Int)?
    var rows: (Int, Int)?
    for y in 0..<height * scale {
      for x in 0..<width * scale where color(atFilePixel: x, y) != .white {
        columns = (min(columns?.0 ?? x, x), max(columns?.1 ?? x, x))
        rows = (min(rows?.0 ?? y, y), max(rows?.1 ?? y, y))
      }
    }
    guard let columns, let rows else { return nil }
    return Rect(
      left: Double(columns.0), top: Double(rows.0), right: Double(columns.1 + 1), bottom: Double(rows.1 + 1))
  }
}

extension Drawing {
  var bounds: Rect { Rect(x: 0, y: 0, width: width, height: height) }

  /// Pairs of texts that cover each other.
  var overlappingTexts: [String] {
    let texts = texts
    var result: [String] = []
    for (index, text) in texts.enumerated() {
      for other in texts[(index + 1)...] where text.bounds.intersects(other.bounds) {
        result.append("\(text.text) / \(other.text)")
      }
    }
    return result
  }

  /// Texts that reach out of the picture.
  var clippedTexts: [String] { texts.filter { !bounds.contains($0.bounds) }.map(\.text) }

  /// Coordinates of every mark, for tests that look for what is no number.
  var coordinates: [Double] {
    func numbers(_ rect: Rect) -> [Double] { [rect.x, rect.y, rect.width, rect.height] }
    return marks.flatMap { mark -> [Double] in
      switch mark.shape {
      case .rectangle(let rect, _): numbers(rect)
      case .polygon(let points, _), .line(let points, _): points.flatMap { [$0.x, $0.y] }
      case .arrow(let start, let end, _): [start.x, start.y, end.x, end.y]
      case .circle(let middle, let radius, _): [middle.x, middle.y, radius]
      case .text(let text): numbers(text.bounds)
      }
    }
  }

  /// The rectangles of a colour.
  func rectangles(_ color: Color) -> [Rect] {
    marks.compactMap { mark in
      if case .rectangle(let rect, color) = mark.shape { rect } else { nil }
    }
  }
}
