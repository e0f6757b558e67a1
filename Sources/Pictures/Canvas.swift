// SPDX-License-Identifier: Apache-2.0
import CPixman
import Glibc

/// A picture that is being drawn: white at first, opaque, measured in pixels at scale 1.
///
/// `scale` gives the file that many pixels for each pixel of the drawing, so that it stays sharp on dense screens. What
/// lies outside the canvas, and what has a coordinate that is no finite number, is not drawn. Not thread-safe: one thread
/// at a time may use a canvas, and the `Fonts` it was made with.
public final class Canvas {
  /// The longest side of a file, in its own pixels. pixman's coordinates are 16-bit integers with fractions.
  public static let maximumSidePixels = 16384
  /// The largest factor between the drawing and the file.
  public static let maximumScale = 4
  /// The memory of the largest picture, in bytes.
  public static let maximumBytes = 256 << 20

  /// Pixels from left to right, at scale 1.
  public let width: Int
  /// Pixels from top to bottom, at scale 1.
  public let height: Int
  /// Pixels of the file for each pixel of the drawing.
  public let scale: Int
  /// What text is drawn with.
  public let fonts: Fonts

  let image: PixelImage
  let pixels: UnsafeMutableBufferPointer<UInt32>

  /// An empty, white canvas of `width` times `height` pixels at scale 1 (the file has `scale` times as many each way).
  /// Throws `.size` where that is empty or more than the limits above, `.memory` where the host has too little.
  public init(width: Int, height: Int, scale: Int = 1, fonts: Fonts) throws(PictureError) {
    let count = try Canvas.pixelCount(width: width, height: height, scale: scale)
    // Swift's own allocation would end the process where there is no memory; this one reports it.
    guard let memory = calloc(count, MemoryLayout<UInt32>.stride) else {
      throw .memory(bytes: count * MemoryLayout<UInt32>.stride)
    }
    pixels = UnsafeMutableBufferPointer(start: memory.bindMemory(to: UInt32.self, capacity: count), count: count)
    pixels.update(repeating: 0xffff_ffff)
    let stride = width * scale * MemoryLayout<UInt32>.stride
    guard
      let made = pixman_image_create_bits(
        PIXMAN_x8r8g8b8, Int32(width * scale), Int32(height * scale), pixels.baseAddress, Int32(stride))
    else {
      free(memory)
      throw .memory(bytes: stride * height * scale)
    }
    image = PixelImage(owning: made)
    (self.width, self.height, self.scale, self.fonts) = (width, height, scale, fonts)
  }

  deinit { free(pixels.baseAddress) }

  /// How many pixels the file has. Every product is checked: a stride times a height that wraps around would give an
  /// image its memory does not hold (CVE-2026-3886).
  static func pixelCount(width: Int, height: Int, scale: Int) throws(PictureError) -> Int {
    let refusal = PictureError.size(width: width, height: height, scale: scale)
    guard width > 0, height > 0, (1...maximumScale).contains(scale) else { throw refusal }
    let (across, acrossOverflow) = width.multipliedReportingOverflow(by: scale)
    let (down, downOverflow) = height.multipliedReportingOverflow(by: scale)
    guard !acrossOverflow, !downOverflow, across <= maximumSidePixels, down <= maximumSidePixels else { throw refusal }
    let (stride, strideOverflow) = across.multipliedReportingOverflow(by: MemoryLayout<UInt32>.stride)
    let (bytes, bytesOverflow) = stride.multipliedReportingOverflow(by: down)
    guard !strideOverflow, !bytesOverflow, bytes <= maximumBytes else { throw refusal }
    return across * down
  }

  /// The whole canvas.
  public var bounds: Rect { Rect(x: 0, y: 0, width: Double(width), height: Double(height)) }

  /// The colour at a pixel of the file, counted from its upper left corner; nil outside of it.
  public func color(atFilePixel x: Int, _ y: Int) -> Color? {
    guard x >= 0, y >= 0, x < width * scale, y < height * scale else { return nil }
    let pixel = pixels[y * width * scale + x]
    return Color(
      red: UInt8(truncatingIfNeeded: pixel >> 16), green: UInt8(truncatingIfNeeded: pixel >> 8),
      blue: UInt8(truncatingIfNeeded: pixel))
  }

  /// Fills a rectangle. Its edges go to the nearest pixels of the file, but no rectangle that has an area vanishes.
  public func fill(_ rect: Rect, _ color: Color) {
    guard rect.isFinite, rect.width > 0, rect.height > 0 else { return }
    let across = edges(from: rect.x, to: rect.right, limit: width)
    let down = edges(from: rect.y, to: rect.bottom, limit: height)
    guard across.0 < across.1, down.0 < down.1 else { return }
    var box = pixman_box32_t(x1: across.0, y1: down.0, x2: across.1, y2: down.1)
    var paint = color.paint
    pixman_image_fill_boxes(PIXMAN_OP_OVER, image.pointer, &paint, 1, &box)
  }

  /// The first pixel of the file between two edges and the one behind the last, within the canvas.
  private func edges(from low: Double, to high: Double, limit: Int) -> (Int32, Int32) {
    let limit = Double(limit * scale)
    let first = (low * Double(scale)).rounded()
    let last = max((high * Double(scale)).rounded(), first + 1)
    return (Int32(min(max(first, 0), limit)), Int32(min(max(last, 0), limit)))
  }

  /// Runs `draw`, which changes nothing outside of `clip`. One level: a clip within a clip replaces it.
  public func clipped(to clip: Rect, _ draw: () -> Void) {
    guard clip.isFinite else { return }
    let across = edges(from: clip.x, to: clip.right, limit: width)
    let down = edges(from: clip.y, to: clip.bottom, limit: height)
    guard across.0 < across.1, down.0 < down.1 else { return }
    var region = pixman_region32_t()
    pixman_region32_init_rect(
      &region, across.0, down.0, UInt32(across.1 - across.0), UInt32(down.1 - down.0))
    _ = pixman_image_set_clip_region32(image.pointer, &region)
    draw()
    _ = pixman_image_set_clip_region32(image.pointer, nil)
    pixman_region32_fini(&region)
  }
}

/// A pixman image that is given back when its owner goes.
struct PixelImage: ~Copyable {
  let pointer: OpaquePointer

  /// Takes over the caller's reference.
  init(owning pointer: OpaquePointer) { self.pointer = pointer }

  deinit { _ = pixman_image_unref(pointer) }
}

extension Color {
  /// The colour as pixman wants it: 16 bits for each part, multiplied by the opacity.
  var paint: pixman_color_t {
    func part(_ value: UInt8) -> UInt16 { UInt16(UInt32(value) * UInt32(opacity) * 257 / 255) }
    return pixman_color_t(red: part(red), green: part(green), blue: part(blue), alpha: UInt16(opacity) * 257)
  }
}
