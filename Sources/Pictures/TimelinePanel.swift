// SPDX-License-Identifier: Apache-2.0

/// One stretch of time as rows of bars.
struct TimelinePanel {
  /// Pixels of a row's bar, from top to bottom.
  static let barHeight = 20.0
  /// Pixels of a row of labels above the bars.
  static let labelHeight = 15.0
  /// Pixels between a bar and the next row; arrows run there.
  static let laneGap = 10.0
  /// Pixels of the numbers below the rows, with the ticks.
  static let axisHeight = 24.0
  /// How far numbers of the axis may reach out of the frame: into the gutter or the margin.
  private static let axisOverhang = 26.0
  /// No mark is narrower.
  private static let minimumPixels = 2.0

  /// Where the rows are.
  let frame: Rect
  let window: TimeWindow
  /// Rows of labels above each bar; labels go into bars only where it is none.
  let labelRows: Int
  let fonts: Fonts

  static func laneHeight(labelRows: Int) -> Double {
    Double(labelRows) * labelHeight + barHeight + laneGap + (labelRows > 0 ? 4 : 0)
  }

  /// Pixels from the left edge of the picture; times outside of the window lie outside of the frame.
  func x(_ time: UInt64) -> Double {
    // Bars that end far outside are cut here, so that a long one stays drawable.
    let fraction = min(max(window.fraction(time), -1), 2)
    return frame.x + fraction * frame.width
  }

  func laneTop(_ lane: Int) -> Double { frame.y + Double(lane) * TimelinePanel.laneHeight(labelRows: labelRows) }

  func barTop(_ lane: Int) -> Double {
    laneTop(lane) + TimelinePanel.laneHeight(labelRows: labelRows) - TimelinePanel.laneGap - TimelinePanel.barHeight
  }

  func barBottom(_ lane: Int) -> Double { barTop(lane) + TimelinePanel.barHeight }

  /// The part of a span that is seen; nil where none is.
  func bar(_ span: StallTimeline.Span, lane: Int) -> Rect? {
    // A span that only touches the window is not seen, unless it has no length at all.
    let isSeen =
      span.start == span.end
      ? window.contains(span.start) : span.start < window.end && span.end > window.start
    guard isSeen else { return nil }
    let left = min(max(x(span.start), frame.x), frame.right - TimelinePanel.minimumPixels)
    let right = max(min(x(span.end), frame.right), left + TimelinePanel.minimumPixels)
    return Rect(left: left, top: barTop(lane), right: right, bottom: barBottom(lane))
  }

  // MARK: Marks

  func drawGround(_ lanes: Int, into drawing: inout Drawing) {
    for lane in 0..<lanes where lane.isMultiple(of: 2) {
      drawing.rectangle(
        Rect(
          x: frame.x, y: laneTop(lane), width: frame.width,
          height: TimelinePanel.laneHeight(labelRows: labelRows)), .gray(247))
    }
  }

  func drawBars(_ lanes: [StallTimeline.Lane], into drawing: inout Drawing) {
    for (index, lane) in lanes.enumerated() {
      for span in lane.spans {
        guard let bar = bar(span, lane: index) else { continue }
        TimelinePanel.drawBar(bar, span.kind, into: &drawing)
      }
    }
  }

  /// A bar, or the sample of one in the legend.
  static func drawBar(_ bar: Rect, _ kind: StallTimeline.Kind, into drawing: inout Drawing) {
    if kind.isIdle {
      let inner = bar.grown(0, -5)
      drawing.rectangle(inner, .white)
      drawing.rectangle(inner, kind.color.with(opacity: 70))
      if bar.width > 4 { drawing.frame(inner, kind.color.with(opacity: 150)) }
    } else {
      drawing.rectangle(bar, kind.color)
      // A thin edge tells neighbours of one kind apart.
      if bar.width > 6 { drawing.rectangle(Rect(x: bar.right - 1, y: bar.y, width: 1, height: bar.height), .white) }
    }
  }

  func drawInstants(_ lanes: [StallTimeline.Lane], into drawing: inout Drawing) {
    for (index, lane) in lanes.enumerated() {
      for instant in lane.instants where window.contains(instant.time) {
        let middle = Point(x(instant.time), barTop(index) + TimelinePanel.barHeight / 2)
        drawing.add(.polygon(TimelinePanel.diamond(middle, 7), .white))
        drawing.add(.polygon(TimelinePanel.diamond(middle, 5), .black))
      }
    }
  }

  private static func diamond(_ middle: Point, _ radius: Double) -> [Point] {
    [
      Point(middle.x, middle.y - radius), Point(middle.x + radius, middle.y), Point(middle.x, middle.y + radius),
      Point(middle.x - radius, middle.y),
    ]
  }

  // MARK: Axis

  /// Draws ticks with their numbers below the rows. Zero is `origin`, and is called `name` where that is not empty.
  func drawAxis(origin: UInt64, name: String, placer: inout LabelPlacer, into drawing: inout Drawing) {
    let low = window.start.offset(from: origin)
    let high = window.end.offset(from: origin)
    let ticks = TimeTicks(range: window.length, atMost: tickCount)
    let largest = max(low.magnitude, high.magnitude)
    let room = Rect(
      left: frame.x - TimelinePanel.axisOverhang, top: frame.bottom,
      right: min(frame.right + TimelinePanel.axisOverhang, drawing.width - 8),
      bottom: frame.bottom + TimelinePanel.axisHeight)
    drawing.rectangle(Rect(x: frame.x, y: frame.bottom, width: frame.width, height: 1), .gray(120))
    // Zero comes first: its name has the best right to its place.
    let offsets = ticks.offsets(from: low, to: high).sorted { ($0.magnitude, $0) < ($1.magnitude, $1) }
    for offset in offsets {
      let isNamed = offset == 0 && !name.isEmpty
      let text = isNamed ? name : ticks.text(offset, largest: largest, plus: !name.isEmpty)
      let style = TextStyle(size: 12, weight: isNamed ? .bold : .regular, color: isNamed ? .black : .gray(60))
      let x = x(origin.moved(by: offset))
      let bounds = fonts.bounds(of: text, at: Point(x, frame.bottom + 6), style, alignment: .center)
      guard room.contains(bounds), placer.place([bounds.grown(5, 0)]) != nil else { continue }
      drawing.rectangle(Rect(x: x - 0.5, y: frame.bottom, width: 1, height: 5), .gray(120))
      drawing.text(text, at: Point(bounds.x, bounds.y), style, fonts)
    }
  }

  private var tickCount: Int { max(2, Int(frame.width / 75)) }

  /// Faint lines at the ticks; drawn before the bars.
  func drawGrid(origin: UInt64, into drawing: inout Drawing) {
    let low = window.start.offset(from: origin)
    let ticks = TimeTicks(range: window.length, atMost: tickCount)
    for offset in ticks.offsets(from: low, to: window.end.offset(from: origin)) {
      let x = x(origin.moved(by: offset))
      drawing.rectangle(Rect(x: x - 0.5, y: frame.y, width: 1, height: frame.height), .gray(225))
    }
  }
}
