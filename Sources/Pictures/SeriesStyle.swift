// SPDX-License-Identifier: Apache-2.0

/// How a curve differs from the others: each by colour, by marker and by the kind of its line.
struct SeriesStyle {
  enum Marker {
    case disc
    case square
    case triangle
    case diamond
    case ring
    case cross
    case bar
  }

  let color: Color
  let marker: Marker
  let dashes: [Double]

  /// One for each curve a plot may have. Later ones are drawn on top: their gaps let equal curves below be seen.
  static let all = [
    SeriesStyle(color: .vermilion, marker: .disc, dashes: []),
    SeriesStyle(color: .blue, marker: .square, dashes: []),
    SeriesStyle(color: .green, marker: .triangle, dashes: [9, 6]),
    SeriesStyle(color: .purple, marker: .diamond, dashes: [3, 4]),
    SeriesStyle(color: .orange, marker: .ring, dashes: [12, 4, 3, 4]),
    SeriesStyle(color: .skyBlue, marker: .cross, dashes: [6, 3]),
    SeriesStyle(color: .gray(60), marker: .bar, dashes: [2, 3]),
  ]

  var line: LineStyle { LineStyle(width: 2.5, color: color, dashes: dashes) }

  /// Draws the marker with a thin white edge, so that it stands out from its line. The first ones are the largest: later
  /// ones at the same place leave something of them to be seen.
  func drawMarker(at place: Point, into drawing: inout Drawing) {
    let (x, y) = (place.x, place.y)
    func both(_ radius: Double, _ shape: (Double) -> [Point]) {
      drawing.add(.polygon(shape(radius + 1.5), .white))
      drawing.add(.polygon(shape(radius), color))
    }
    switch marker {
    case .disc, .ring:
      drawing.add(.circle(place, 7, .white))
      drawing.add(.circle(place, 5.5, color))
      if marker == .ring { drawing.add(.circle(place, 2.8, .white)) }
    case .square:
      both(6) { r in [Point(x - r, y - r), Point(x + r, y - r), Point(x + r, y + r), Point(x - r, y + r)] }
    case .triangle:
      both(4.6) { r in [Point(x, y - r * 1.15), Point(x + r * 1.1, y + r * 0.85), Point(x - r * 1.1, y + r * 0.85)] }
    case .diamond:
      both(5) { r in [Point(x, y - r), Point(x + r, y), Point(x, y + r), Point(x - r, y)] }
    case .cross:
      for (width, stroke) in [(5.5, Color.white), (2.8, color)] {
        let style = LineStyle(width: width, color: stroke)
        drawing.line([Point(x - 4.5, y - 4.5), Point(x + 4.5, y + 4.5)], style)
        drawing.line([Point(x - 4.5, y + 4.5), Point(x + 4.5, y - 4.5)], style)
      }
    case .bar:
      drawing.rectangle(Rect(x: x - 3.5, y: y - 7, width: 7, height: 14), .white)
      drawing.rectangle(Rect(x: x - 2, y: y - 5.5, width: 4, height: 11), color)
    }
  }
}
