// SPDX-License-Identifier: Apache-2.0

/// Writes the labels of a panel: into the bars where they fit, and the rest above them.
struct TimelineLabels {
  let panel: TimelinePanel
  /// What labels keep off where that is possible.
  let lines: [[Point]]

  private static let style = TextStyle(size: 12)
  /// With more labels than this, only one arrangement is tried: there is no room for most of them in any.
  private static let fewLabels = 40
  /// How often each order is improved by letting those come first for which there was no room.
  private static let attempts = 4
  /// How much of a label is shown, from all of it to the least that still says something.
  private static let parts = [1.0, 0.7, 0.45]
  /// Fewer characters, one of them an ellipsis, say nothing.
  private static let leastCharacters = 5

  /// Something that has to be named above its bar.
  private struct Item {
    var label: String
    var bar: Rect
  }

  private struct Placed {
    var text: String
    var label: Rect
    var anchor: Double
    var barTop: Double
    var crosses: Bool
  }

  private var fonts: Fonts { panel.fonts }
  private var height: Double { fonts.lineHeight(TimelineLabels.style) }

  func draw(_ lanes: [StallTimeline.Lane], into drawing: inout Drawing) {
    for (index, lane) in lanes.enumerated() {
      // The labels of a lane lie within its own rows, so lanes need not know of each other.
      var placer = LabelPlacer()
      for line in lines { placer.avoid(line) }
      var above = instants(of: lane, index, &placer)
      for span in lane.spans where !span.label.isEmpty {
        guard let bar = panel.bar(span, lane: index) else { continue }
        // Rest is named only where there is room in its bar: the room above is for what happens.
        if !writeInside(bar, span, &placer, into: &drawing), !span.kind.isIdle {
          above.append(Item(label: span.label, bar: bar))
        }
      }
      if panel.labelRows > 0 { write(best(of: above, placer), into: &drawing) }
    }
  }

  private func instants(of lane: StallTimeline.Lane, _ index: Int, _ placer: inout LabelPlacer) -> [Item] {
    lane.instants.filter { panel.window.contains($0.time) }.map { instant in
      let middle = panel.x(instant.time)
      placer.take(Rect(x: middle - 6, y: panel.barTop(index) + 3, width: 12, height: 14))
      return Item(
        label: instant.label,
        bar: Rect(x: middle, y: panel.barTop(index), width: 0, height: TimelinePanel.barHeight))
    }
  }

  // MARK: In the bars

  private func writeInside(
    _ bar: Rect, _ span: StallTimeline.Span, _ placer: inout LabelPlacer, into drawing: inout Drawing
  ) -> Bool {
    var style = TimelineLabels.style
    let width = fonts.width(of: span.label, style)
    let room = bar.grown(span.kind.isIdle ? -9 : -5, 0)
    guard width <= room.width else { return false }
    let top = bar.middle.y - height / 2
    let places = [0.5, 0.25, 0.75, 0, 1].map { part in
      Rect(x: room.x + (room.width - width) * part, y: top, width: width, height: height)
    }
    guard let place = placer.place(places.map { $0.grown(4, 0) }) else { return false }
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

  // MARK: Above the bars

  /// Labels stand in each other's way, and which one comes first decides how many find a place: several orders are tried,
  /// from either end, and the one is taken that leaves out, shortens and crosses least.
  private func best(of items: [Item], _ placer: LabelPlacer) -> [Placed] {
    let forwards = items.sorted { ($0.bar.middle.x, $0.bar.width) < ($1.bar.middle.x, $1.bar.width) }
    // Where along the label the line to the bar meets it: at its middle, or rather near one of its ends.
    let shifts = [[0.5, 0.3, 0.7, 0.1, 0.9, 0, 1], [0, 0.1, 0.3, 0.5, 0.7, 1], [1, 0.9, 0.7, 0.5, 0.3, 0]]
    var best: Arrangement?
    for order in [forwards, forwards.reversed()] {
      for shifts in shifts {
        var order = order
        for _ in 0..<TimelineLabels.attempts {
          let arrangement = arrange(order, shifts, placer)
          if arrangement.penalty < best?.penalty ?? .max { best = arrangement }
          if arrangement.penalty == 0 || items.count > TimelineLabels.fewLabels { return best?.placed ?? [] }
          if arrangement.failed.isEmpty { break }
          // Those that found no good place may choose first the next time.
          let late = Set(arrangement.failed)
          order = arrangement.failed.map { order[$0] } + order.indices.filter { !late.contains($0) }.map { order[$0] }
        }
      }
    }
    return best?.placed ?? []
  }

  private struct Arrangement {
    var placed: [Placed] = []
    /// Which of the labels were left out or shortened.
    var failed: [Int] = []
    /// The worse, the higher.
    var penalty = 0
  }

  private func arrange(_ items: [Item], _ shifts: [Double], _ placer: LabelPlacer) -> Arrangement {
    var placer = placer
    var result = Arrangement()
    for (index, item) in items.enumerated() {
      let place = place(item, shifts, &placer)
      if place?.text != item.label {
        result.failed.append(index)
        result.penalty += place == nil ? 10 : 5
      }
      guard let place else { continue }
      if place.crosses { result.penalty += 3 }
      result.placed.append(place)
    }
    return result
  }

  private func place(_ item: Item, _ shifts: [Double], _ placer: inout LabelPlacer) -> Placed? {
    let full = fonts.width(of: item.label, TimelineLabels.style)
    for part in TimelineLabels.parts {
      let text = part == 1 ? item.label : fonts.shortened(item.label, to: full * part, TimelineLabels.style)
      guard text.count >= TimelineLabels.leastCharacters || text == item.label else { return nil }
      let width = fonts.width(of: text, TimelineLabels.style)
      guard width <= panel.frame.width else { continue }
      let candidates = candidates(item.bar, width: width, shifts)
      guard let place = placer.place(candidates) else { continue }
      return Placed(
        text: text, label: candidates[place.index].label.grown(-TimelineLabels.distance, 0), anchor: item.bar.middle.x,
        barTop: item.bar.y, crosses: place.crosses)
    }
    return nil
  }

  /// Pixels between two labels of a row, and between a label and a line.
  private static let distance = 3.0

  private func candidates(_ bar: Rect, width: Double, _ shifts: [Double]) -> [LabelPlacer.Candidate] {
    let beside = 5 / max(width, 5)
    return (0..<panel.labelRows).flatMap { row in
      let bottom = bar.y - 2 - Double(row) * TimelinePanel.labelHeight
      let leader = Rect(x: bar.middle.x - 1, y: bottom, width: 2, height: max(bar.y - bottom, 0))
      return (shifts + [-beside, 1 + beside]).map { shift in
        let left = min(max(bar.middle.x - width * shift, panel.frame.x), panel.frame.right - width)
        let label = Rect(x: left, y: bottom - height, width: width, height: height)
        return LabelPlacer.Candidate(label: label.grown(TimelineLabels.distance, 0), leader: leader)
      }
    }
  }

  private func write(_ labels: [Placed], into drawing: inout Drawing) {
    for label in labels {
      let bottom = label.label.bottom
      drawing.rectangle(
        Rect(x: label.anchor - 0.5, y: bottom - 1, width: 1, height: label.barTop - bottom + 1), .gray(110))
      // What runs behind a label stays visible on both of its sides, and pale under its letters.
      if label.crosses { drawing.rectangle(label.label.grown(1, -1), .white.with(opacity: 215)) }
      drawing.text(label.text, at: Point(label.label.x, label.label.y), TimelineLabels.style, fonts)
    }
  }
}
