// SPDX-License-Identifier: Apache-2.0
import CFreeType
import CPixman

/// Where a text lies relative to the place it is drawn at.
public enum TextAlignment: Sendable {
  /// The place is the left end of the text (the lower one, where it reads upwards).
  case left
  /// The place is the middle.
  case center
  /// The place is the right end (the upper one, where it reads upwards).
  case right
}

/// How a text is drawn.
public struct TextStyle: Equatable, Sendable {
  /// The size of the font in pixels at scale 1: about the distance from line to line.
  public var size: Double
  /// Regular or bold.
  public var weight: FontWeight
  /// The colour.
  public var color: Color

  /// Text of `size` pixels, regular and black unless told otherwise.
  public init(size: Double, weight: FontWeight = .regular, color: Color = .black) {
    self.size = size
    self.weight = weight
    self.color = color
  }
}

extension Fonts {
  /// How wide a text is, in pixels at scale 1. The same at every scale.
  public func width(of text: String, _ style: TextStyle) -> Double {
    let face = face(style.weight)
    return face.pixels(face.run(text).width, size: style.size)
  }

  /// The height of a line from its highest ascender to its lowest descender, in pixels at scale 1.
  public func lineHeight(_ style: TextStyle) -> Double {
    face(style.weight).ascent(size: style.size) + face(style.weight).descent(size: style.size)
  }

  /// The rectangle a text takes whose line has its upper edge at `place.y`; an upright one (`reading upwards`) has its
  /// left edge at `place.x`.
  public func bounds(
    of text: String, at place: Point, _ style: TextStyle, alignment: TextAlignment = .left, upwards: Bool = false
  ) -> Rect {
    let length = width(of: text, style)
    let height = lineHeight(style)
    let shift =
      switch alignment {
      case .left: 0.0
      case .center: length / 2
      case .right: length
      }
    if upwards { return Rect(x: place.x, y: place.y - length + shift, width: height, height: length) }
    return Rect(x: place.x - shift, y: place.y, width: length, height: height)
  }

  /// The text, or as much of its start as fits `width` with an ellipsis; empty where not even that fits.
  public func shortened(_ text: String, to width: Double, _ style: TextStyle) -> String {
    if self.width(of: text, style) <= width { return text }
    var characters = Array(text.prefix(FontFace.maximumCharacters))
    // The longest start that fits is between `low` and `high` characters.
    var low = 0
    var high = characters.count
    func candidate(_ count: Int) -> String {
      var start = characters[..<count]
      while start.last == " " { start.removeLast() }
      return String(start) + "\u{2026}"
    }
    while low < high {
      let middle = (low + high + 1) / 2
      if self.width(of: candidate(middle), style) <= width { low = middle } else { high = middle - 1 }
    }
    characters.removeLast(characters.count - low)
    return low == 0 ? "" : candidate(low)
  }
}

extension Canvas {
  /// Draws one line of text; returns the rectangle it takes, which is that of `Fonts.bounds`. A text that reads upwards
  /// is turned by 90 degrees against the clock.
  @discardableResult
  public func text(
    _ text: String, at place: Point, _ style: TextStyle, alignment: TextAlignment = .left, upwards: Bool = false
  ) -> Rect {
    let bounds = fonts.bounds(of: text, at: place, style, alignment: alignment, upwards: upwards)
    let size = (style.size * Double(scale)).rounded()
    guard bounds.isFinite, FontFace.pixelSizes.contains(Int(exactly: size) ?? 0), !text.isEmpty else { return bounds }
    guard let run = TextRun(text, face: fonts.face(style.weight), size: Int(size)) else { return bounds }
    // The run has a border, because glyphs may reach a little out of the rectangle of their line.
    let border = Double(run.border)
    let left = bounds.x * Double(scale) - border
    let top = bounds.y * Double(scale) - border
    let limit = Double(2 * Canvas.maximumSidePixels)
    guard abs(left) < limit, abs(top) < limit else { return bounds }
    composite(upwards ? run.turned : run, at: (Int32(left.rounded()), Int32(top.rounded())), style.color)
    return bounds
  }

  /// Paints `color` wherever the run has coverage.
  private func composite(_ run: TextRun, at place: (Int32, Int32), _ color: Color) {
    var paint = color.paint
    guard let source = pixman_image_create_solid_fill(&paint) else { return }
    let solid = PixelImage(owning: source)
    // pixman allocates the mask, checks its size and clears it; its rows are padded to whole words.
    guard let made = pixman_image_create_bits(PIXMAN_a8, Int32(run.width), Int32(run.height), nil, 0) else { return }
    let mask = PixelImage(owning: made)
    guard let data = pixman_image_get_data(mask.pointer) else { return }
    let stride = Int(pixman_image_get_stride(mask.pointer))
    let bytes = UnsafeMutableRawPointer(data)
    for row in 0..<run.height {
      run.coverage.withUnsafeBytes { coverage in
        (bytes + row * stride).copyMemory(from: coverage.baseAddress! + row * run.width, byteCount: run.width)
      }
    }
    pixman_image_composite32(
      PIXMAN_OP_OVER, solid.pointer, mask.pointer, image.pointer, 0, 0, 0, 0, place.0, place.1, Int32(run.width),
      Int32(run.height))
  }
}

/// A line of text as coverage: one byte for each pixel of the file, 255 where it is covered.
struct TextRun {
  private(set) var width: Int
  private(set) var height: Int
  private(set) var coverage: [UInt8]
  /// Pixels around the rectangle of the line.
  let border: Int

  /// Renders a text at `size` pixels; nil where FreeType refuses the size. What would be wider than the largest canvas is
  /// cut off: no canvas shows it.
  init?(_ text: String, face: FontFace, size: Int) {
    guard FT_Set_Pixel_Sizes(face.face, 0, FT_UInt(size)) == 0 else { return nil }
    let run = face.run(text)
    border = size / 2 + 1
    let length = min(face.pixels(run.width, size: Double(size)), Double(Canvas.maximumSidePixels))
    let ascent = face.ascent(size: Double(size))
    width = Int(length.rounded(.up)) + 2 * border
    height = Int((ascent + face.descent(size: Double(size))).rounded(.up)) + 2 * border
    coverage = [UInt8](repeating: 0, count: width * height)
    let baseline = border + Int(ascent.rounded())
    for glyph in run.glyphs {
      let position = face.pixels(glyph.position, size: Double(size)) + Double(border)
      guard position < Double(width) else { break }
      let whole = position.rounded(.down)
      // FreeType's coordinates are in 64ths of a pixel.
      guard cfreetype_render(face.face, glyph.index, FT_Pos((position - whole) * 64)) == 0 else { continue }
      let slot = face.face.pointee.glyph.pointee
      add(slot.bitmap, left: Int(whole) + Int(slot.bitmap_left), top: baseline - Int(slot.bitmap_top))
    }
  }

  /// Adds a glyph's coverage; what would lie outside of the run is cut off.
  private mutating func add(_ bitmap: FT_Bitmap, left: Int, top: Int) {
    guard let source = bitmap.buffer else { return }
    for row in 0..<Int(bitmap.rows) where (0..<height).contains(top + row) {
      for column in 0..<Int(bitmap.width) where (0..<width).contains(left + column) {
        let index = (top + row) * width + left + column
        let value = Int(coverage[index]) + Int(source[row * Int(bitmap.pitch) + column])
        coverage[index] = UInt8(min(value, 255))
      }
    }
  }

  /// The run turned by 90 degrees against the clock.
  var turned: TextRun {
    var result = self
    result.width = height
    result.height = width
    for row in 0..<height {
      for column in 0..<width {
        result.coverage[(width - 1 - column) * height + row] = coverage[row * width + column]
      }
    }
    return result
  }
}
