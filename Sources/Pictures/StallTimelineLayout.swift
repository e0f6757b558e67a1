// SPDX-License-Identifier: Apache-2.0

/// Arranges a `StallTimeline` from top to bottom.
struct StallTimelineLayout {
  private(set) var drawing: Drawing

  private let picture: StallTimeline
  private let fonts: Fonts
  private let plot: (left: Double, right: Double)
  private let nameWidth: Double
  /// How far down the picture is finished.
  private var y = StallTimelineLayout.margin

  static let margin = 20.0
  private static let bannerHeight = 50.0
  /// Rows of labels above each bar, where its steps can be told apart.
  private static let labelRows = 2
  private static let smallBannerHeight = 20.0
  /// Between the two enlarged panels.
  private static let gutter = 34.0
  private static let longestName = 130.0
  private static let lossColor = Color.vermilion
  /// Vermilion, darker: for text on white.
  private static let lossInk = Color(red: 160, green: 66, blue: 0)
  private static let nameStyle = TextStyle(size: 13, weight: .bold)
  private static let noteStyle = TextStyle(size: 12, color: .gray(60))
  private static let arrowStyle = LineStyle(width: 1.5, color: .gray(40))

  init(_ picture: StallTimeline, width: Double, fonts: Fonts) {
    (self.picture, self.fonts) = (picture, fonts)
    drawing = Drawing(width: width)
    let widest = picture.lanes.map { fonts.width(of: $0.name, StallTimelineLayout.nameStyle) }.max() ?? 0
    nameWidth = min(widest, StallTimelineLayout.longestName)
    plot = (StallTimelineLayout.margin + nameWidth + 12, width - StallTimelineLayout.margin)
  }

  mutating func arrange() {
    headline()
    switch TimelinePlan(picture, pixels: plot.right - plot.left) {
    case .whole(let window): wholePanel(window, labelRows: StallTimelineLayout.labelRows, isAlone: true)
    case .enlarged(let whole, let queued, let woken, let share):
      let overview = wholePanel(whole, labelRows: 0, isAlone: false)
      enlargedPanels(queued: queued, woken: woken, share: share, below: overview)
    }
    legend()
    drawing.height = y + StallTimelineLayout.margin
  }

  private var innerWidth: Double { drawing.width - 2 * StallTimelineLayout.margin }

  private mutating func headline() {
    for (text, style) in [
      (picture.title, TextStyle(size: 19, weight: .bold)), (picture.subtitle, TextStyle(size: 13, color: .gray(60))),
    ] where !text.isEmpty {
      let shown = fonts.shortened(text, to: innerWidth, style)
      y = drawing.text(shown, at: Point(StallTimelineLayout.margin, y), style, fonts).bottom + 3
    }
    y += 11
  }

  private mutating func laneNames(_ panel: TimelinePanel) {
    for (index, lane) in picture.lanes.enumerated() {
      let style = StallTimelineLayout.nameStyle
      let name = fonts.shortened(lane.name, to: nameWidth, style)
      let top = panel.barTop(index) + (TimelinePanel.barHeight - fonts.lineHeight(style)) / 2
      drawing.text(name, at: Point(StallTimelineLayout.margin, top), style, fonts)
    }
  }

  private func lanesHeight(labelRows: Int) -> Double {
    Double(picture.lanes.count) * TimelinePanel.laneHeight(labelRows: labelRows)
  }

  // MARK: The whole time

  @discardableResult
  private mutating func wholePanel(_ window: TimeWindow, labelRows: Int, isAlone: Bool) -> TimelinePanel {
    let top = y + (picture.gap == nil ? 0 : StallTimelineLayout.bannerHeight)
    let frame = Rect(
      left: plot.left, top: top, right: plot.right, bottom: top + lanesHeight(labelRows: labelRows))
    let panel = TimelinePanel(frame: frame, window: window, labelRows: labelRows, fonts: fonts)
    let origin = picture.gap?.queued ?? picture.times.min() ?? 0
    panel.drawGround(picture.lanes.count, into: &drawing)
    panel.drawGrid(origin: origin, into: &drawing)
    if let gap = picture.gap { tint(panel.x(gap.queued), panel.x(gap.woken), frame) }
    panel.drawBars(picture.lanes, into: &drawing)
    if let gap = picture.gap {
      let left = panel.x(gap.queued)
      banner(gap, left: left, right: max(panel.x(gap.woken), left + 3), top: y)
      edges([left, max(panel.x(gap.woken), left + 1)], from: y, to: frame.bottom)
    }
    // Where the ends of the gap are enlarged below, arrows and instants are seen there: here they would be a heap.
    let routes = isAlone ? picture.arrows.map { route($0, in: panel, panel) } : []
    arrows(routes)
    if isAlone { panel.drawInstants(picture.lanes, into: &drawing) }
    let lossEdges = picture.gap.map { gap in [gap.queued, gap.woken].map { edge(panel.x($0), frame) } } ?? []
    TimelineLabels(panel: panel, lines: routes + lossEdges).draw(picture.lanes, into: &drawing)
    laneNames(panel)
    var numbers = LabelPlacer()
    panel.drawAxis(origin: origin, name: "", placer: &numbers, into: &drawing)
    y = frame.bottom + TimelinePanel.axisHeight
    let note = picture.gap == nil ? "time since the first event" : "time since queued"
    y =
      drawing.text(
        note, at: Point(plot.left + (plot.right - plot.left) / 2, y), StallTimelineLayout.noteStyle, fonts,
        alignment: .center
      ).bottom
    return panel
  }

  /// A pale band over the rows, as long as the gap.
  private mutating func tint(_ left: Double, _ right: Double, _ frame: Rect) {
    drawing.rectangle(
      Rect(left: left, top: frame.y, right: max(right, left + 1), bottom: frame.bottom),
      StallTimelineLayout.lossColor.with(opacity: 38))
  }

  /// The line along an end of the gap; labels keep off it.
  private func edge(_ x: Double, _ frame: Rect) -> [Point] { [Point(x, frame.y), Point(x, frame.bottom)] }

  private mutating func edges(_ places: [Double], from top: Double, to bottom: Double) {
    for x in places {
      drawing.rectangle(Rect(x: x - 1, y: top, width: 2, height: bottom - top), StallTimelineLayout.lossColor)
    }
  }

  /// The gap's length in large letters on its colour; beside it where it is too short to hold them.
  private mutating func banner(_ gap: StallTimeline.Gap, left: Double, right: Double, top: Double) {
    let height = StallTimelineLayout.bannerHeight
    drawing.rectangle(
      Rect(left: left, top: top, right: right, bottom: top + height), StallTimelineLayout.lossColor)
    let length = TimeText.text(gap.length)
    let inside = right - left - 12
    for size in [28.0, 22, 17, 14] {
      let large = TextStyle(size: size, weight: .bold, color: .white)
      let lengthWidth = fonts.width(of: length, large)
      guard lengthWidth <= inside else { continue }
      let small = TextStyle(size: max(size / 2, 12), color: .white)
      let label = fonts.shortened(gap.label, to: inside - lengthWidth - 12, small)
      let labelWidth = label.isEmpty ? 0 : fonts.width(of: label, small) + 12
      // A label that is cut within its first words says less than none.
      let showsLabel = label == gap.label || label.count > 12
      let start = left + 6 + (inside - lengthWidth - (showsLabel ? labelWidth : 0)) / 2
      let largeTop = top + (height - fonts.lineHeight(large)) / 2
      let baseline = largeTop + fonts.face(.bold).ascent(size: size)
      drawing.text(length, at: Point(start, largeTop), large, fonts)
      if showsLabel {
        let smallTop = baseline - fonts.face(.regular).ascent(size: small.size)
        drawing.text(label, at: Point(start + lengthWidth + 12, smallTop), small, fonts)
      } else {
        bannerNote(gap.label, left: left, right: right, top: top)
      }
      return
    }
    bannerNote(gap.label, left: left, right: right, top: top, length: length)
  }

  /// The gap's label, behind its length where that is given, on the wider side of the banner.
  private mutating func bannerNote(
    _ label: String, left: Double, right: Double, top: Double, length: String = ""
  ) {
    let color = StallTimelineLayout.lossInk
    let large = TextStyle(size: 22, weight: .bold, color: color)
    let small = TextStyle(size: 13, color: color)
    let onRight = plot.right - right >= left - plot.left
    let room = (onRight ? plot.right - right : left - plot.left) - 8
    let lengthWidth = length.isEmpty ? 0 : fonts.width(of: length, large) + 9
    let shown = fonts.shortened(label, to: max(room - lengthWidth, 0), small)
    let start = onRight ? right + 8 : left - 8 - lengthWidth - fonts.width(of: shown, small)
    let largeTop = top + (StallTimelineLayout.bannerHeight - fonts.lineHeight(large)) / 2
    let baseline = largeTop + fonts.face(.bold).ascent(size: large.size)
    drawing.text(length, at: Point(start, largeTop), large, fonts)
    let smallTop = baseline - fonts.face(.regular).ascent(size: small.size)
    drawing.text(shown, at: Point(start + lengthWidth, smallTop), small, fonts)
  }

  // MARK: The enlarged ends of the gap

  private mutating func enlargedPanels(
    queued: TimeWindow, woken: TimeWindow, share: Double, below overview: TimelinePanel
  ) {
    guard let gap = picture.gap else { return }
    let funnelTop = overview.frame.bottom + 1
    y += 10
    let captionTop = y
    y += fonts.lineHeight(StallTimelineLayout.noteStyle) + 4
    let top = y + StallTimelineLayout.smallBannerHeight
    let bottom = top + lanesHeight(labelRows: StallTimelineLayout.labelRows)
    let width = plot.right - plot.left - StallTimelineLayout.gutter
    let middle = plot.left + width * share
    let frames = [
      Rect(left: plot.left, top: top, right: middle, bottom: bottom),
      Rect(left: middle + StallTimelineLayout.gutter, top: top, right: plot.right, bottom: bottom),
    ]
    let panels = zip(frames, [queued, woken]).map {
      TimelinePanel(frame: $0, window: $1, labelRows: StallTimelineLayout.labelRows, fonts: fonts)
    }
    for panel in panels { funnel(panel, from: overview, top: funnelTop, bottom: y) }
    captions(panels, overview, top: captionTop)
    for (panel, origin) in zip(panels, [gap.queued, gap.woken]) {
      panel.drawGround(picture.lanes.count, into: &drawing)
      panel.drawGrid(origin: origin, into: &drawing)
    }
    let left = panels[0].x(gap.queued)
    let right = panels[1].x(gap.woken)
    tint(left, right, Rect(left: left, top: top, right: right, bottom: bottom))
    for panel in panels { panel.drawBars(picture.lanes, into: &drawing) }
    smallBanner(gap, left: left, right: right, gutter: middle, top: y)
    edges([left, right], from: y, to: bottom)
    let routes = picture.arrows.compactMap { route($0, in: panels) }
    arrows(routes)
    let lossEdges = [edge(left, frames[0]), edge(right, frames[1])]
    for panel in panels {
      panel.drawInstants(picture.lanes, into: &drawing)
      TimelineLabels(panel: panel, lines: routes + lossEdges).draw(picture.lanes, into: &drawing)
    }
    laneNames(panels[0])
    var numbers = LabelPlacer()
    panels[0].drawAxis(origin: gap.queued, name: "queued", placer: &numbers, into: &drawing)
    panels[1].drawAxis(origin: gap.woken, name: "woken", placer: &numbers, into: &drawing)
    y = bottom + TimelinePanel.axisHeight
  }

  /// Shows which part of the whole a panel enlarges.
  private mutating func funnel(_ panel: TimelinePanel, from overview: TimelinePanel, top: Double, bottom: Double) {
    let left = overview.x(panel.window.start)
    let right = max(overview.x(panel.window.end), left + 2)
    // Behind everything, because the numbers of the axis above stand on it.
    drawing.addBehind(
      .polygon(
        [
          Point(left, top), Point(right, top), Point(panel.frame.right, bottom), Point(panel.frame.x, bottom),
        ], .gray(238)))
  }

  private mutating func captions(_ panels: [TimelinePanel], _ overview: TimelinePanel, top: Double) {
    for (panel, name) in zip(panels, ["queued", "woken"]) {
      let perPixel = Double(panel.window.length) / panel.frame.width
      let factor = Double(overview.window.length) / overview.frame.width / perPixel
      let times = factor < 1_000_000 ? " \u{d7} \(StallTimelineLayout.twoDigits(factor))" : ""
      let style = StallTimelineLayout.noteStyle
      let text = fonts.shortened("around \u{201c}\(name)\u{201d}, enlarged\(times)", to: panel.frame.width - 8, style)
      drawing.text(text, at: Point(panel.frame.middle.x, top), style, fonts, alignment: .center)
    }
  }

  /// A factor of which two digits count.
  private static func twoDigits(_ factor: Double) -> Int {
    var power = 1
    while factor / Double(power) >= 100 { power *= 10 }
    return Int((factor / Double(power)).rounded()) * power
  }

  /// The gap's band above the enlarged panels, broken in the gutter, where nearly all of its length is left out.
  private mutating func smallBanner(
    _ gap: StallTimeline.Gap, left: Double, right: Double, gutter: Double, top: Double
  ) {
    let band = Rect(
      left: left, top: top, right: right, bottom: top + StallTimelineLayout.smallBannerHeight)
    drawing.rectangle(band, StallTimelineLayout.lossColor)
    let style = TextStyle(size: 13, weight: .bold, color: .white)
    let length = TimeText.text(gap.length)
    let middle = gutter + StallTimelineLayout.gutter / 2
    let width = fonts.width(of: length, style)
    let half = max(width / 2 + 6, StallTimelineLayout.gutter / 2 - 4)
    guard middle - half - 8 > left, middle + half + 8 < right else { return }
    drawing.text(
      length, at: Point(middle, top + (band.height - fonts.lineHeight(style)) / 2), style, fonts, alignment: .center)
    for x in [middle - half - 3, middle + half + 3] {
      drawing.line(
        [
          Point(x - 2, band.bottom + 1), Point(x + 2, band.middle.y + 2), Point(x - 2, band.middle.y - 2),
          Point(x + 2, band.y - 1),
        ], LineStyle(width: 2.5, color: .white))
    }
  }

  // MARK: Arrows

  private mutating func arrows(_ routes: [[Point]]) {
    for route in routes {
      guard let end = route.last, let start = route.first else { continue }
      let bend = route.count > 2 ? route[route.count - 2] : start
      if route.count > 2 { drawing.line(Array(route.dropLast()), StallTimelineLayout.arrowStyle) }
      drawing.add(.arrow(bend, end, StallTimelineLayout.arrowStyle))
    }
  }

  /// The way of an arrow through the panels that show its two ends; nil where one of them is in none.
  private func route(_ arrow: StallTimeline.Arrow, in panels: [TimelinePanel]) -> [Point]? {
    guard let start = panels.first(where: { $0.window.contains(arrow.from.time) }),
      let end = panels.first(where: { $0.window.contains(arrow.to.time) })
    else { return nil }
    return route(arrow, in: start, end)
  }

  /// From bar to bar: straight where that is steep, else along the upper lane's lower edge, where no label is.
  private func route(_ arrow: StallTimeline.Arrow, in start: TimelinePanel, _ end: TimelinePanel) -> [Point] {
    let isDown = arrow.from.lane < arrow.to.lane
    let from = Point(
      start.x(arrow.from.time), isDown ? start.barBottom(arrow.from.lane) : start.barTop(arrow.from.lane))
    let to = Point(end.x(arrow.to.time), isDown ? end.barTop(arrow.to.lane) : end.barBottom(arrow.to.lane))
    guard abs(to.x - from.x) > 40 else { return [from, to] }
    let level = (isDown ? from.y : to.y) + TimelinePanel.laneGap / 2
    return [from, Point(from.x, level), Point(to.x, level), to]
  }

  // MARK: Legend

  private mutating func legend() {
    var kinds: [StallTimeline.Kind] = []
    for span in picture.lanes.flatMap(\.spans) where !kinds.contains(span.kind) { kinds.append(span.kind) }
    let loss = StallTimeline.Kind(name: "queued, not yet woken", color: StallTimelineLayout.lossColor)
    if picture.gap != nil { kinds.append(loss) }
    guard !kinds.isEmpty else { return }
    y += 12
    let style = TextStyle(size: 12)
    let height = fonts.lineHeight(style)
    var x = StallTimelineLayout.margin
    for kind in kinds {
      let name = fonts.shortened(kind.name, to: innerWidth - 26, style)
      let width = 26 + fonts.width(of: name, style)
      if x > StallTimelineLayout.margin, x + width > drawing.width - StallTimelineLayout.margin {
        x = StallTimelineLayout.margin
        y += height + 5
      }
      let sample = Rect(x: x, y: y + height / 2 - (kind.isIdle ? 10 : 6), width: 20, height: kind.isIdle ? 20 : 12)
      TimelinePanel.drawBar(sample, kind, into: &drawing)
      drawing.text(name, at: Point(x + 26, y), style, fonts)
      x += width + 20
    }
    y += height
  }
}
