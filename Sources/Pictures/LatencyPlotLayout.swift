// SPDX-License-Identifier: Apache-2.0

/// Arranges a `LatencyPlot`.
struct LatencyPlotLayout {
  private(set) var drawing: Drawing

  private struct Curve {
    var name: String
    var points: [LatencyPlot.Percentile]
    var style: SeriesStyle
  }

  private let plot: LatencyPlot
  private let fonts: Fonts
  private let curves: [Curve]
  private let references: [LatencyPlot.Reference]
  private let percents: PercentileScale
  private let decades: DecadeScale
  private var frame = Rect(x: 0, y: 0, width: 0, height: 0)

  private static let margin = 20.0
  /// From the plot to the names of the curves: room for the line that leads there, and the marker.
  private static let endLabelDistance = 44.0
  /// How far these names may reach above and below the plot.
  private static let labelOverhang = 10.0
  private static let longestEndLabel = 210.0
  private static let axisStyle = TextStyle(size: 12, color: .gray(60))
  private static let axisTitleStyle = TextStyle(size: 13, color: .gray(40))
  private static let nameStyle = TextStyle(size: 14, weight: .bold)
  private static let figureStyle = TextStyle(size: 12, color: .gray(60))
  private static let referenceStyle = TextStyle(size: 12, color: .gray(40))
  /// Percentages that get a marker on curves with many points.
  private static let marked: [Double] = [50, 90, 99, 99.9, 99.99, 99.999, 100]
  /// Curves of at most this many points get a marker at each.
  private static let fewPoints = 10

  init(_ plot: LatencyPlot, width: Double, fonts: Fonts) {
    (self.plot, self.fonts) = (plot, fonts)
    drawing = Drawing(width: width)
    drawing.height = (width * 5 / 9).rounded()
    curves = zip(plot.series.prefix(LatencyPlot.maximumSeries), SeriesStyle.all).map { series, style in
      Curve(name: series.name, points: series.drawable, style: style)
    }
    references = plot.references.prefix(LatencyPlot.maximumReferences).map {
      LatencyPlot.Reference(name: $0.name, nanoseconds: max($0.nanoseconds, 1))
    }
    percents = PercentileScale(curves.flatMap { $0.points.map(\.percent) })
    decades = DecadeScale(curves.flatMap { $0.points.map(\.nanoseconds) } + references.map(\.nanoseconds))
  }

  mutating func arrange() {
    let top = headline()
    let labels = endLabels()
    let labelWidth = min(labels.map(\.width).max() ?? 0, LatencyPlotLayout.longestEndLabel)
    let axisRoom = LatencyPlotLayout.margin + 44
    let needed = labels.reduce(0) { $0 + $1.height } - 2 * LatencyPlotLayout.labelOverhang
    drawing.height = max(drawing.height, (top + 8 + needed + axisRoom).rounded(.up))
    frame = Rect(
      left: LatencyPlotLayout.margin + 78, top: top + 8,
      right: drawing.width - LatencyPlotLayout.margin
        - (labelWidth > 0 ? labelWidth + LatencyPlotLayout.endLabelDistance : 0),
      bottom: drawing.height - axisRoom)
    grid()
    axes()
    var placer = LabelPlacer()
    for curve in curves { placer.avoid(curve.points.map(place)) }
    referenceLines(&placer)
    for curve in curves { drawing.line(curve.points.map(place), curve.style.line) }
    for curve in curves { for point in markers(curve) { curve.style.drawMarker(at: place(point), into: &drawing) } }
    draw(labels, width: labelWidth)
  }

  private func place(_ point: LatencyPlot.Percentile) -> Point { Point(x(point.percent), y(point.nanoseconds)) }

  private func x(_ percent: Double) -> Double {
    // The markers at the left end must not cover the numbers of the axis.
    let inset = 14.0
    return frame.x + inset + percents.fraction(percent) * (frame.width - inset)
  }

  private func y(_ nanoseconds: UInt64) -> Double { frame.bottom - decades.fraction(nanoseconds) * frame.height }

  private mutating func headline() -> Double {
    var y = LatencyPlotLayout.margin
    for (text, style) in [
      (plot.title, TextStyle(size: 19, weight: .bold)), (plot.subtitle, TextStyle(size: 13, color: .gray(60))),
    ] where !text.isEmpty {
      let shown = fonts.shortened(text, to: drawing.width - 2 * LatencyPlotLayout.margin, style)
      y = drawing.text(shown, at: Point(LatencyPlotLayout.margin, y), style, fonts).bottom + 3
    }
    return y + 9
  }

  // MARK: Axes

  private mutating func grid() {
    for decade in decades.low...decades.high {
      let power = DecadeScale.power(decade)
      // The lines between the powers show that the scale is logarithmic; with many decades they would be a grey field.
      if decade < decades.high, decades.high - decades.low <= 8 {
        for factor in 2...9 {
          let y = y(power.multipliedReportingOverflow(by: UInt64(factor)).partialValue)
          drawing.rectangle(Rect(x: frame.x, y: y, width: frame.width, height: 0.5), .gray(240))
        }
      }
      drawing.rectangle(Rect(x: frame.x, y: y(power) - 0.5, width: frame.width, height: 1), .gray(205))
    }
    for percent in percents.marks + [100] {
      drawing.rectangle(Rect(x: x(percent) - 0.5, y: frame.y, width: 1, height: frame.height), .gray(225))
    }
  }

  private mutating func axes() {
    var placer = LabelPlacer()
    let style = LatencyPlotLayout.axisStyle
    for decade in decades.low...decades.high {
      let text = TimeText.text(DecadeScale.power(decade))
      let middle = y(DecadeScale.power(decade))
      let bounds = fonts.bounds(
        of: text, at: Point(frame.x - 8, middle - fonts.lineHeight(style) / 2), style, alignment: .right)
      if placer.place([bounds]) != nil { drawing.text(text, at: Point(bounds.x, bounds.y), style, fonts) }
    }
    // The maximum has the best right to its place.
    for (percent, text) in [(100, "max")] + percents.marks.map({ ($0, PercentileScale.text($0)) }) {
      let bounds = fonts.bounds(of: text, at: Point(x(percent), frame.bottom + 7), style, alignment: .center)
      if placer.place([bounds.grown(4, 0)]) != nil { drawing.text(text, at: Point(bounds.x, bounds.y), style, fonts) }
    }
    let title = LatencyPlotLayout.axisTitleStyle
    let measure = fonts.shortened(plot.measure + " (logarithmic)", to: frame.height, title)
    drawing.text(
      measure, at: Point(LatencyPlotLayout.margin, frame.middle.y), title, fonts, alignment: .center, upwards: true)
    drawing.text(
      fonts.shortened("percentile of the requests", to: frame.width, title),
      at: Point(frame.middle.x, frame.bottom + 27), title, fonts, alignment: .center)
  }

  // MARK: References

  /// Dotted lines across the plot, each with its name above or below it, where it covers no curve.
  private mutating func referenceLines(_ placer: inout LabelPlacer) {
    let style = LatencyPlotLayout.referenceStyle
    let height = fonts.lineHeight(style)
    for reference in references {
      let y = y(reference.nanoseconds)
      drawing.line(
        [Point(frame.x, y), Point(frame.right, y)], LineStyle(width: 1.5, color: .gray(70), dashes: [2, 3]))
      placer.avoid([Point(frame.x, y), Point(frame.right, y)])
    }
    for reference in references {
      let y = y(reference.nanoseconds)
      let figure = TimeText.text(reference.nanoseconds)
      let text = fonts.shortened("\(reference.name): \(figure)", to: frame.width - 16, style)
      let width = fonts.width(of: text, style)
      let tops = [y - height - 3, y + 4].filter { $0 >= frame.y && $0 + height <= frame.bottom }
      let lefts = [0, 0.25, 0.5, 0.75, 1].map { frame.x + 8 + (frame.width - 16 - width) * $0 }
      let candidates = tops.flatMap { top in lefts.map { Rect(x: $0, y: top, width: width, height: height) } }
      guard let index = placer.place(candidates.map { $0.grown(4, 0) }) else { continue }
      drawing.rectangle(candidates[index].grown(3, -1), .white)
      drawing.text(text, at: Point(candidates[index].x, candidates[index].y), style, fonts)
    }
  }

  // MARK: Curves

  private func markers(_ curve: Curve) -> [LatencyPlot.Percentile] {
    if curve.points.count <= LatencyPlotLayout.fewPoints { return curve.points }
    // The first point at or beyond a percentage stands for it.
    return LatencyPlotLayout.marked.compactMap { percent in curve.points.first { $0.percent >= percent } }
  }

  private struct EndLabel {
    var name: String
    var figures: String
    var style: SeriesStyle
    var end: Point
    var width: Double
    var height: Double
  }

  /// The names at the curves' ends with their most important figures; a curve without points has none.
  private func endLabels() -> [EndLabel] {
    curves.compactMap { curve in
      guard let last = curve.points.last else { return nil }
      var figures: [String] = []
      if let median = curve.points.first(where: { $0.percent >= 50 }), median.percent < 60 {
        figures.append("p50 " + TimeText.text(median.nanoseconds))
      }
      if last.percent == 100 { figures.append("max " + TimeText.text(last.nanoseconds)) }
      let text = figures.joined(separator: ", ")
      let width = max(
        fonts.width(of: curve.name, LatencyPlotLayout.nameStyle), fonts.width(of: text, LatencyPlotLayout.figureStyle))
      let height =
        fonts.lineHeight(LatencyPlotLayout.nameStyle) + fonts.lineHeight(LatencyPlotLayout.figureStyle) + 6
      return EndLabel(
        name: curve.name, figures: text, style: curve.style, end: Point(last.percent, Double(last.nanoseconds)),
        width: width, height: height)
    }
  }

  private mutating func draw(_ labels: [EndLabel], width: Double) {
    let ends = zip(labels, curves.filter { !$0.points.isEmpty }).map { place($1.points.last!) }
    let tops = LabelPlacer.spread(
      middles: ends.map(\.y), heights: labels.map(\.height),
      within: frame.y - LatencyPlotLayout.labelOverhang...frame.bottom + LatencyPlotLayout.labelOverhang)
    for ((label, end), top) in zip(zip(labels, ends), tops) {
      let left = frame.right + 30
      let textLeft = frame.right + LatencyPlotLayout.endLabelDistance
      let middle = top + 3 + fonts.lineHeight(LatencyPlotLayout.nameStyle) / 2
      // A thin line leads from the end of the curve to its name, which may have been moved.
      drawing.line(
        [
          Point(end.x + 8, end.y), Point(frame.right + 12, end.y), Point(frame.right + 22, middle),
          Point(left - 5, middle),
        ],
        LineStyle(width: 1, color: label.style.color))
      label.style.drawMarker(at: Point(left + 2, middle), into: &drawing)
      let name = fonts.shortened(label.name, to: width, LatencyPlotLayout.nameStyle)
      let bounds = drawing.text(name, at: Point(textLeft, top + 3), LatencyPlotLayout.nameStyle, fonts)
      let figures = fonts.shortened(label.figures, to: width, LatencyPlotLayout.figureStyle)
      drawing.text(figures, at: Point(textLeft, bounds.bottom), LatencyPlotLayout.figureStyle, fonts)
    }
  }
}
