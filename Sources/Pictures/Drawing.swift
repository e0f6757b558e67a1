// SPDX-License-Identifier: Apache-2.0

/// What a picture consists of, in the order in which it is drawn. A layout makes one, a canvas shows it.
struct Drawing {
  var width: Double
  var height: Double
  private(set) var marks: [Mark] = []

  enum Shape {
    case rectangle(Rect, Color)
    case polygon([Point], Color)
    case line([Point], LineStyle)
    case arrow(Point, Point, LineStyle)
    case circle(Point, Double, Color)
    case text(TextMark)
  }

  struct Mark {
    var shape: Shape
    /// Nothing is drawn outside of it.
    var clip: Rect?
  }

  /// A text and the rectangle it takes.
  struct TextMark {
    var text: String
    var place: Point
    var style: TextStyle
    var alignment: TextAlignment
    var upwards: Bool
    var bounds: Rect
  }

  init(width: Double) {
    self.width = width
    height = 0
  }

  /// The texts, in the order in which they are drawn.
  var texts: [TextMark] {
    marks.compactMap { mark in
      if case .text(let text) = mark.shape { text } else { nil }
    }
  }

  mutating func add(_ shape: Shape, clip: Rect? = nil) { marks.append(Mark(shape: shape, clip: clip)) }

  /// Adds a shape that everything else covers.
  mutating func addBehind(_ shape: Shape) { marks.insert(Mark(shape: shape, clip: nil), at: 0) }

  mutating func rectangle(_ rect: Rect, _ color: Color, clip: Rect? = nil) { add(.rectangle(rect, color), clip: clip) }

  mutating func line(_ points: [Point], _ style: LineStyle, clip: Rect? = nil) { add(.line(points, style), clip: clip) }

  /// A line of one pixel along the edges of `rect`, inside of it.
  mutating func frame(_ rect: Rect, _ color: Color, width: Double = 1) {
    rectangle(Rect(x: rect.x, y: rect.y, width: rect.width, height: width), color)
    rectangle(Rect(x: rect.x, y: rect.bottom - width, width: rect.width, height: width), color)
    rectangle(Rect(x: rect.x, y: rect.y + width, width: width, height: rect.height - 2 * width), color)
    rectangle(Rect(x: rect.right - width, y: rect.y + width, width: width, height: rect.height - 2 * width), color)
  }

  /// Adds a text whose line has its upper edge at `place.y`; returns the rectangle it takes.
  @discardableResult
  mutating func text(
    _ text: String, at place: Point, _ style: TextStyle, _ fonts: Fonts, alignment: TextAlignment = .left,
    upwards: Bool = false
  ) -> Rect {
    let bounds = fonts.bounds(of: text, at: place, style, alignment: alignment, upwards: upwards)
    guard !text.isEmpty else { return bounds }
    add(
      .text(
        TextMark(text: text, place: place, style: style, alignment: alignment, upwards: upwards, bounds: bounds)))
    return bounds
  }

  /// Makes a canvas of the drawing's size and draws every mark.
  func canvas(scale: Int, fonts: Fonts) throws(PictureError) -> Canvas {
    guard let width = Int(exactly: width.rounded(.up)), let height = Int(exactly: height.rounded(.up)) else {
      throw .size(width: 0, height: 0, scale: scale)
    }
    let canvas = try Canvas(width: width, height: height, scale: scale, fonts: fonts)
    for mark in marks {
      if let clip = mark.clip { canvas.clipped(to: clip) { canvas.draw(mark.shape) } } else { canvas.draw(mark.shape) }
    }
    return canvas
  }
}

extension Canvas {
  fileprivate func draw(_ shape: Drawing.Shape) {
    switch shape {
    case .rectangle(let rect, let color): fill(rect, color)
    case .polygon(let points, let color): fill(polygon: points, color)
    case .line(let points, let style): polyline(points, style)
    case .arrow(let start, let end, let style): arrow(from: start, to: end, style)
    case .circle(let middle, let radius, let color): fill(circleAt: middle, radius: radius, color)
    case .text(let mark):
      text(mark.text, at: mark.place, mark.style, alignment: mark.alignment, upwards: mark.upwards)
    }
  }
}
