// SPDX-License-Identifier: Apache-2.0

/// One stretch of time as rows of bars.
struct TimelinePanel {
  /// Pixels of a row's bar, from top to bottom.
  static let barHeight = 20.0
  /// Pixels of a row of labels above the bars.
  static let labelHeight = 15.0
  /// Pixels between a bar and the next row; arrows run there.
  static let laneGap = 10.0
  static let labelStyle = TextStyle(size: 12)
  /// Pixels of the numbers below the rows, with the ticks.
  static let axisHeight = 24.0
  /// How far numbers of the axis may reach out of the frame.
  private static let axisOverhang = 12.0
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
    guard span.start <= window.end, span.end >= window.start else { return nil }
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

  // MARK: Labels

  /// Writes what fits into the bars, and the rest above them, off the arrows where that is possible.
  func drawLabels(_ lanes: [StallTimeline.Lane], avoiding arrows: [[Point]], into drawing: inout Drawing) {
    for (index, lane) in lanes.enumerated() {
      // The labels of a lane lie within its own rows, so lanes need not know of each other.
      var placer = LabelPlacer()
      for arrow in arrows { placer.avoid(arrow) }
      var outside: [(label: String, bar: Rect)] = []
      for instant in lane.instants where window.contains(instant.time) {
        let middle = x(instant.time)
        placer.take(Rect(x: middle - 6, y: barTop(index) + 3, width: 12, height: 14))
        outside.append((instant.label, Rect(x: middle, y: barTop(index), width: 0, height: TimelinePanel.barHeight)))
      }
      for span in lane.spans where !span.label.isEmpty {
        guard let bar = bar(span, lane: index) else { continue }
        if !writeInside(bar, span, placer: &placer, into: &drawing) { outside.append((span.label, bar)) }
      }
      guard labelRows > 0 else { continue }
      for item in outside { writeAbove(item.bar, item.label, placer: &placer, into: &drawing) }
    }
  }

  private func writeInside(
    _ bar: Rect, _ span: StallTimeline.Span, placer: inout LabelPlacer, into drawing: inout Drawing
  ) -> Bool {
    var style = TimelinePanel.labelStyle
    let width = fonts.width(of: span.label, style)
    let height = fonts.lineHeight(style)
    let room = bar.grown(-5, 0)
    guard width <= room.width else { return false }
    let top = bar.middle.y - height / 2
    let places = [0.5, 0.25, 0.75, 0, 1].map { part in
      Rect(x: room.x + (room.width - width) * part, y: top, width: width, height: height)
    }
    guard let place = placer.place(places.map { [$0.grown(4, 0)] }) else { return false }
    let rect = places[place]
    if span.kind.isIdle {
      // The text of an idle bar is higher than the bar: it stands on a patch of white.
      drawing.rectangle(rect.grown(4, -1), .white)
    } else {
      style.color = span.kind.color.legibleInk
    }
    drawing.text(span.label, at: Point(rect.x, rect.y), style, fonts)
    return true
  }

  /// Writes a label into the first row above the bar that has room, shortened where no row has enough. A thin line leads
  /// down to the bar.
  private func writeAbove(_ bar: Rect, _ label: String, placer: inout LabelPlacer, into drawing: inout Drawing) {
    let style = TimelinePanel.labelStyle
    let full = fonts.width(of: label, style)
    for part in [1.0, 0.7, 0.45] {
      let text = part == 1 ? label : fonts.shortened(label, to: full * part, style)
      // Two letters and an ellipsis say nothing.
      guard text.count > 3 || part == 1 else { return }
      let width = fonts.width(of: text, style)
      guard width <= frame.width else { continue }
      let candidates = placesAbove(bar, width: width)
      guard let index = placer.place(candidates.map { [$0.label.grown(3, 0), $0.leader] }) else { continue }
      let chosen = candidates[index]
      drawing.rectangle(
        Rect(x: bar.middle.x - 0.5, y: chosen.label.bottom - 1, width: 1, height: bar.y - chosen.label.bottom + 1),
        .gray(110))
      drawing.text(text, at: Point(chosen.label.x, chosen.label.y), style, fonts)
      return
    }
  }

  private func placesAbove(_ bar: Rect, width: Double) -> [(label: Rect, leader: Rect)] {
    let height = fonts.lineHeight(TimelinePanel.labelStyle)
    return (0..<labelRows).flatMap { row in
      let bottom = bar.y - 2 - Double(row) * TimelinePanel.labelHeight
      // The line to the bar meets the label somewhere between its two ends, or runs beside it.
      let beside = 5 / max(width, 5)
      return [0.5, 0.3, 0.7, 0.1, 0.9, -beside, 1 + beside].map { part in
        let left = min(max(bar.middle.x - width * part, frame.x), frame.right - width)
        return (
          label: Rect(x: left, y: bottom - height, width: width, height: height),
          leader: Rect(x: bar.middle.x - 1, y: bottom, width: 2, height: max(bar.y - bottom, 0))
        )
      }
    }
  }

  // MARK: Axis

  /// Draws ticks and numbers below the rows, and faint lines behind them. Zero is `origin`, and is called `name`.
  func drawAxis(origin: UInt64, name: String, into drawing: inout Drawing) {
    var placer = LabelPlacer()
    let style = TextStyle(size: 12, color: .gray(60))
    let low = window.start.offset(from: origin)
    let high = window.end.offset(from: origin)
    let ticks = TimeTicks(range: window.length, atMost: max(2, Int(frame.width / 75)))
    let largest = max(low.magnitude, high.magnitude)
    drawing.rectangle(Rect(x: frame.x, y: frame.bottom, width: frame.width, height: 1), .gray(120))
    // Zero comes first: its name has the best right to its place.
    let offsets = ticks.offsets(from: low, to: high).sorted { ($0.magnitude, $0) < ($1.magnitude, $1) }
    for offset in offsets {
      let time = offset < 0 ? origin.minus(offset.magnitude) : origin.plus(offset.magnitude)
      let x = x(time)
      drawing.rectangle(Rect(x: x - 0.5, y: frame.bottom, width: 1, height: 5), .gray(120))
      var text = ticks.text(offset, largest: largest, plus: !name.isEmpty)
      var style = style
      if offset == 0, !name.isEmpty { (text, style) = (name, TextStyle(size: 12, weight: .bold)) }
      let width = fonts.width(of: text, style)
      let bounds = Rect(x: x - width / 2, y: frame.bottom + 6, width: width, height: fonts.lineHeight(style))
      guard bounds.x >= frame.x - TimelinePanel.axisOverhang, bounds.right <= frame.right + TimelinePanel.axisOverhang
      else { continue }
      if placer.place([[bounds.grown(5, 0)]]) != nil { drawing.text(text, at: Point(bounds.x, bounds.y), style, fonts) }
    }
  }

  /// Faint lines at the ticks; drawn before the bars.
  func drawGrid(origin: UInt64, into drawing: inout Drawing) {
    let low = window.start.offset(from: origin)
    let ticks = TimeTicks(range: window.length, atMost: max(2, Int(frame.width / 75)))
    for offset in ticks.offsets(from: low, to: window.end.offset(from: origin)) {
      let time = offset < 0 ? origin.minus(offset.magnitude) : origin.plus(offset.magnitude)
      drawing.rectangle(Rect(x: x(time) - 0.5, y: frame.y, width: 1, height: frame.height), .gray(225))
    }
  }
}
