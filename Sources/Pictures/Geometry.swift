// SPDX-License-Identifier: Apache-2.0

/// A place on a canvas in pixels at scale 1; x grows to the right, y downwards.
public struct Point: Equatable, Sendable {
  /// Pixels from the left edge.
  public var x: Double
  /// Pixels from the upper edge.
  public var y: Double

  /// The place `x` pixels from the left edge and `y` below the upper one.
  public init(_ x: Double, _ y: Double) {
    self.x = x
    self.y = y
  }

  var isFinite: Bool { x.isFinite && y.isFinite }
}

/// An upright rectangle in pixels at scale 1. Its right and lower edge are outside it.
public struct Rect: Equatable, Sendable {
  /// The left edge.
  public var x: Double
  /// The upper edge.
  public var y: Double
  /// Pixels from left to right; a rectangle with none or fewer is empty.
  public var width: Double
  /// Pixels from top to bottom; a rectangle with none or fewer is empty.
  public var height: Double

  /// The rectangle with its upper left corner at (`x`, `y`).
  public init(x: Double, y: Double, width: Double, height: Double) {
    self.x = x
    self.y = y
    self.width = width
    self.height = height
  }

  /// The rectangle between two vertical and two horizontal lines.
  init(left: Double, top: Double, right: Double, bottom: Double) {
    self.init(x: left, y: top, width: right - left, height: bottom - top)
  }

  /// The right edge.
  public var right: Double { x + width }
  /// The lower edge.
  public var bottom: Double { y + height }
  var middle: Point { Point(x + width / 2, y + height / 2) }
  var isFinite: Bool { x.isFinite && y.isFinite && width.isFinite && height.isFinite }

  /// Whether the two have a pixel in common; rectangles that only touch have none.
  public func intersects(_ other: Rect) -> Bool {
    x < other.right && other.x < right && y < other.bottom && other.y < bottom
  }

  /// Whether `other` lies within this rectangle; edges may touch.
  public func contains(_ other: Rect) -> Bool {
    other.x >= x && other.right <= right && other.y >= y && other.bottom <= bottom
  }

  /// The rectangle with every edge moved outwards, or inwards by a negative distance.
  func grown(_ horizontal: Double, _ vertical: Double) -> Rect {
    Rect(x: x - horizontal, y: y - vertical, width: width + 2 * horizontal, height: height + 2 * vertical)
  }

  /// The part of a straight line that lies within this rectangle, as fractions of its way; nil where none does.
  func part(ofLineFrom start: Point, to end: Point) -> ClosedRange<Double>? {
    // Each edge cuts off the part of the way that is outside of it (Liang and Barsky).
    var first = 0.0
    var last = 1.0
    let edges = [
      (start.x - end.x, start.x - x), (end.x - start.x, right - start.x),
      (start.y - end.y, start.y - y), (end.y - start.y, bottom - start.y),
    ]
    for (outwards, room) in edges {
      if outwards == 0 {
        if room < 0 { return nil }
      } else if outwards < 0 {
        first = max(first, room / outwards)
      } else {
        last = min(last, room / outwards)
      }
    }
    return first <= last ? first...last : nil
  }
}
