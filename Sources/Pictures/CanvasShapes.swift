// SPDX-License-Identifier: Apache-2.0
import CPixman
import Glibc

/// How a line is drawn.
public struct LineStyle: Equatable, Sendable {
  /// Pixels across the line, at scale 1.
  public var width: Double
  /// Its colour.
  public var color: Color
  /// Pixels that are drawn and left out in turn; empty for a line without gaps. Lengths below 0.5 count as 0.5.
  public var dashes: [Double]

  /// A line of `width` pixels.
  public init(width: Double, color: Color, dashes: [Double] = []) {
    self.width = width
    self.color = color
    self.dashes = dashes
  }
}

extension Canvas {
  /// The corners of the polygon that stands for a round end or joint.
  private static let roundCorners = 12

  /// Draws a straight, anti-aliased line.
  public func line(from start: Point, to end: Point, _ style: LineStyle) { polyline([start, end], style) }

  /// Draws straight lines from point to point with round joints. Where they cross, a translucent colour stays even.
  public func polyline(_ points: [Point], _ style: LineStyle) {
    guard style.width > 0, style.width.isFinite, points.allSatisfy(\.isFinite) else { return }
    var triangles: [pixman_triangle_t] = []
    let solid = solidParts(points, style)
    for (index, part) in solid.enumerated() {
      append(lineFrom: part.0, to: part.1, width: style.width, to: &triangles)
      // Joints show only where two parts meet, on lines that are wide enough.
      if style.width * Double(scale) > 1.5, index > 0, solid[index - 1].1 == part.0 {
        append(disc(at: part.0, radius: style.width / 2), to: &triangles)
      }
    }
    composite(triangles, style.color)
  }

  /// Fills a convex polygon, anti-aliased. Its corners may be given either way round.
  public func fill(polygon: [Point], _ color: Color) {
    guard polygon.count >= 3, polygon.allSatisfy(\.isFinite) else { return }
    var triangles: [pixman_triangle_t] = []
    append(polygon, to: &triangles)
    composite(triangles, color)
  }

  /// Fills a circle.
  public func fill(circleAt middle: Point, radius: Double, _ color: Color) {
    guard radius > 0, radius.isFinite else { return }
    fill(polygon: disc(at: middle, radius: radius, corners: 4 * Canvas.roundCorners), color)
  }

  /// Draws a line with a head at its end. `head` is the length of the head in pixels; the point of it is at `end`.
  public func arrow(from start: Point, to end: Point, head: Double = 8, _ style: LineStyle) {
    let length = hypot(end.x - start.x, end.y - start.y)
    guard length > 0, length.isFinite, head > 0 else { return }
    let along = Point((end.x - start.x) / length, (end.y - start.y) / length)
    let size = min(head, length)
    let neck = Point(end.x - along.x * size, end.y - along.y * size)
    // The line ends a little inside of the head, so that no gap shows between the two.
    polyline([start, Point(neck.x + along.x * size / 4, neck.y + along.y * size / 4)], style)
    let half = size * 0.42
    fill(
      polygon: [
        end, Point(neck.x - along.y * half, neck.y + along.x * half),
        Point(neck.x + along.y * half, neck.y - along.x * half),
      ], style.color)
  }

  /// The pieces that are to be drawn, cut to the canvas and into dashes.
  private func solidParts(_ points: [Point], _ style: LineStyle) -> [(Point, Point)] {
    let visible = bounds.grown(style.width + 1, style.width + 1)
    let dashes = style.dashes.map { max($0.isFinite ? $0 : 0, 0.5) }
    let period = dashes.reduce(0, +)
    var parts: [(Point, Point)] = []
    var travelled = 0.0
    for (start, end) in zip(points, points.dropFirst()) {
      let length = hypot(end.x - start.x, end.y - start.y)
      guard length > 0, length.isFinite else { continue }
      func at(_ distance: Double) -> Point {
        Point(start.x + (end.x - start.x) * distance / length, start.y + (end.y - start.y) * distance / length)
      }
      if let part = visible.part(ofLineFrom: start, to: end) {
        let range = part.lowerBound * length...part.upperBound * length
        if dashes.isEmpty {
          parts.append(
            (range.lowerBound == 0 ? start : at(range.lowerBound), part.upperBound == 1 ? end : at(range.upperBound)))
        } else {
          let phase = (travelled + range.lowerBound).truncatingRemainder(dividingBy: period)
          for dash in Canvas.dashes(dashes, phase: phase, over: range) { parts.append((at(dash.0), at(dash.1))) }
        }
      }
      travelled = (travelled + length).truncatingRemainder(dividingBy: period > 0 ? period : 1)
    }
    return parts
  }

  /// The drawn stretches of a dashed line within `range`; `phase` is how far into the pattern it starts.
  private static func dashes(_ dashes: [Double], phase: Double, over range: ClosedRange<Double>) -> [(Double, Double)] {
    var result: [(Double, Double)] = []
    var position = range.lowerBound - phase
    var index = 0
    while position < range.upperBound {
      let next = position + dashes[index % dashes.count]
      if index.isMultiple(of: 2), next > range.lowerBound {
        result.append((max(position, range.lowerBound), min(next, range.upperBound)))
      }
      position = next
      index += 1
    }
    return result
  }

  private func append(lineFrom start: Point, to end: Point, width: Double, to triangles: inout [pixman_triangle_t]) {
    let length = hypot(end.x - start.x, end.y - start.y)
    guard length > 0 else { return }
    let across = Point(-(end.y - start.y) / length * width / 2, (end.x - start.x) / length * width / 2)
    append(
      [
        Point(start.x + across.x, start.y + across.y), Point(end.x + across.x, end.y + across.y),
        Point(end.x - across.x, end.y - across.y), Point(start.x - across.x, start.y - across.y),
      ], to: &triangles)
  }

  private func disc(at middle: Point, radius: Double, corners: Int = Canvas.roundCorners) -> [Point] {
    (0..<corners).map { corner in
      let angle = 2 * Double.pi * Double(corner) / Double(corners)
      return Point(middle.x + radius * cos(angle), middle.y + radius * sin(angle))
    }
  }

  private func append(_ polygon: [Point], to triangles: inout [pixman_triangle_t]) {
    let corners = polygon.map(fixed)
    for index in 1..<corners.count - 1 {
      triangles.append(pixman_triangle_t(p1: corners[0], p2: corners[index], p3: corners[index + 1]))
    }
  }

  /// A place in pixman's 16.16 fixed-point numbers, drawn back to where they can hold it.
  private func fixed(_ point: Point) -> pixman_point_fixed_t {
    func number(_ value: Double) -> Int32 {
      let limit = Double(2 * Canvas.maximumSidePixels - 1)
      return Int32((min(max(value * Double(scale), -limit), limit) * 65536).rounded())
    }
    return pixman_point_fixed_t(x: number(point.x), y: number(point.y))
  }

  /// Paints all triangles as one shape: what two of them share is painted once.
  private func composite(_ triangles: [pixman_triangle_t], _ color: Color) {
    var paint = color.paint
    guard !triangles.isEmpty, let source = pixman_image_create_solid_fill(&paint) else { return }
    let solid = PixelImage(owning: source)
    pixman_composite_triangles(
      PIXMAN_OP_OVER, solid.pointer, image.pointer, PIXMAN_a8, 0, 0, 0, 0, Int32(triangles.count), triangles)
  }
}
