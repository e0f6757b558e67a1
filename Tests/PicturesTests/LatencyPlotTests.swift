// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct LatencyPlotTests {
  private let fonts: Fonts

  init() throws { fonts = try Fonts() }

  private func plot(_ series: [LatencyPlot.Series], _ references: [LatencyPlot.Reference] = []) -> LatencyPlot {
    LatencyPlot(title: "plot", measure: "latency", series: series, references: references)
  }

  private func series(_ name: String, _ points: [(Double, UInt64)]) -> LatencyPlot.Series {
    LatencyPlot.Series(name: name, percentiles: points.map { LatencyPlot.Percentile(percent: $0, nanoseconds: $1) })
  }

  @Test(arguments: [LatencyPlot.minimumWidth, 900, 1600], [false, true])
  func noTextCoversAnotherOrIsClipped(width: Int, many: Bool) {
    let drawing = (many ? Examples.manyCurves : Examples.latencies).drawing(width: width, fonts: fonts)
    #expect(drawing.overlappingTexts == [])
    #expect(drawing.clippedTexts == [])
    #expect(drawing.texts.allSatisfy { $0.style.size >= 12 })
  }

  @Test func aFileHasTheSizeOfTheDrawing() throws {
    var message = ""
    let png = try Examples.latencies.draw(width: 900, scale: 2, fonts: fonts).encodedPNG()
    let picture = try #require(DecodedPicture(png, message: &message))
    #expect(picture.width == 1800 && picture.height == 1000)
    #expect(picture.color(0, 0) == .white)
  }

  @Test func everyDecadeAndPercentileHasItsNumber() {
    let texts = Examples.latencies.drawing(width: 900, fonts: fonts).texts
    let decades = ["10 \u{b5}s", "100 \u{b5}s", "1 ms", "10 ms", "100 ms", "1 s"].map {
      $0.replacing(" ", with: "\u{a0}")
    }
    let marks = decades.compactMap { decade in texts.first { $0.text == decade }?.bounds.middle.y }
    #expect(marks.count == decades.count)
    // Each decade is as high as the others.
    let steps = zip(marks, marks.dropFirst()).map { $0 - $1 }
    #expect(steps.allSatisfy { $0 > 0 && abs($0 - steps[0]) < 1e-6 })
    for mark in ["p50", "p90", "p99", "p99.9", "max"] { #expect(texts.contains { $0.text == mark }) }
  }

  @Test func everyNineHasTheSameRoom() {
    let scale = PercentileScale([50, 90, 99, 99.9, 100])
    let nines = [90, 99, 99.9].map(scale.fraction)
    #expect(abs((nines[1] - nines[0]) - (nines[2] - nines[1])) < 1e-9)
    #expect(scale.fraction(50) == 0)
    #expect(scale.fraction(100) == 1)
    #expect(scale.marks == [50, 90, 99, 99.9])
    #expect(PercentileScale([0, 10, 99.995]).marks == [0, 50, 90, 99, 99.9, 99.99, 99.999])
    #expect(PercentileScale([]).marks == [50, 90])
  }

  @Test func curvesHaveTheirNamesAndFiguresAtTheirEnds() throws {
    let drawing = Examples.latencies.drawing(width: 900, fonts: fonts)
    let names = ["never", "always", "elided", "virtio-blk"].map { name in drawing.texts.first { $0.text == name } }
    #expect(names.allSatisfy { $0 != nil })
    let tops = names.compactMap { $0?.bounds.y }
    #expect(tops == tops.sorted(), "the order of the names is that of the curves' ends")
    #expect(drawing.texts.contains { $0.text == "p50 401\u{a0}ms, max 499\u{a0}ms" })
  }

  @Test func curvesDifferByColourAndMarkerAndLine() {
    let styles = SeriesStyle.all
    #expect(styles.count == LatencyPlot.maximumSeries)
    #expect(Set(styles.map(\.color)).count == styles.count)
    #expect(Set(styles.map { "\($0.marker)" }).count == styles.count)
    // Two lines without gaps: the first is told apart by its distance.
    #expect(Set(styles.map(\.dashes)).count == styles.count - 1)
  }

  @Test func aCurveIsDrawnThroughItsPoints() throws {
    let picture = plot([series("a", [(50, 1000), (90, 10_000), (100, 1_000_000)])])
    let drawing = picture.drawing(width: 900, fonts: fonts)
    let curve = drawing.marks.compactMap { mark -> [Point]? in
      if case .line(let points, let style) = mark.shape, style.width == 2.5 { points } else { nil }
    }
    try #require(curve.count == 1 && curve[0].count == 3)
    let points = curve[0]
    #expect(points[0].x < points[1].x && points[1].x < points[2].x)
    // One decade, then two.
    #expect(abs((points[1].y - points[2].y) - 2 * (points[0].y - points[1].y)) < 1e-6)
    let canvas = try picture.draw(width: 900, scale: 1, fonts: fonts)
    for point in points { #expect(canvas.color(atFilePixel: Int(point.x), Int(point.y)) == .vermilion) }
  }

  @Test func referencesAreNamedBesideTheirLines() throws {
    let drawing = Examples.latencies.drawing(width: 900, fonts: fonts)
    let name = try #require(drawing.texts.first { $0.text == "QEMU with the fix, mean of a batch: 3.31\u{a0}ms" })
    let line = drawing.marks.compactMap { mark -> Double? in
      if case .line(let points, let style) = mark.shape, style.dashes == [2, 3] { points[0].y } else { nil }
    }.max()
    let y = try #require(line)
    #expect(min(abs(name.bounds.bottom - y), abs(name.bounds.y - y)) < 6)
  }

  @Test func pointsThatAreNoPercentileAreLeftOut() {
    let series = series(
      "a", [(.nan, 1), (.infinity, 1), (-.infinity, 1), (-1, 1), (100.1, 1), (90, 7), (50, 0), (90, 9), (100, 8)])
    let points = series.drawable
    #expect(points.map(\.percent) == [50, 90, 100])
    #expect(points.map(\.nanoseconds) == [1, 9, 8])
    let drawing = plot([series]).drawing(width: 900, fonts: fonts)
    #expect(drawing.coordinates.allSatisfy { $0.isFinite })
  }

  @Test func longCurvesKeepTheirEnds() {
    let points = (0...100_000).map { (Double($0) / 1000, UInt64($0) + 1) }
    let drawable = series("a", points).drawable
    #expect(drawable.count == LatencyPlot.maximumPoints)
    #expect(drawable.first?.percent == 0 && drawable.last?.percent == 100)
  }

  @Test func nothingAtAllIsAPicture() throws {
    _ = try plot([]).draw(width: 600, scale: 1, fonts: fonts)
    let drawing = plot([series("empty", []), series("one", [(99, 5000)])]).drawing(width: 600, fonts: fonts)
    #expect(!drawing.texts.contains { $0.text == "empty" })
    #expect(drawing.texts.contains { $0.text == "one" })
    #expect(drawing.coordinates.allSatisfy { $0.isFinite })
  }

  @Test(
    arguments: [
      (1, 1), (1, 3_600_000_000_000), (0, UInt64.max), (UInt64.max, UInt64.max), (1000, 1000),
    ] as [(UInt64, UInt64)])
  func everyRangeHasFiniteCoordinates(low: UInt64, high: UInt64) throws {
    let picture = plot(
      [series("a", [(50, low), (99, low), (100, high)]), series("b", [(0, high), (99.99999999, high)])],
      [LatencyPlot.Reference(name: "low", nanoseconds: low), LatencyPlot.Reference(name: "high", nanoseconds: high)])
    let drawing = picture.drawing(width: 900, fonts: fonts)
    #expect(drawing.coordinates.allSatisfy { $0.isFinite && drawing.bounds.width >= $0 && $0 > -100 })
    #expect(drawing.overlappingTexts == [] && drawing.clippedTexts == [])
    _ = try picture.draw(width: 900, scale: 1, fonts: fonts)
  }

  @Test func decadesHoldTheirValues() {
    let scale = DecadeScale([1000, 1_000_000])
    #expect(scale.low == 3 && scale.high == 6)
    #expect(scale.fraction(1000) == 0 && scale.fraction(1_000_000) == 1)
    #expect(DecadeScale([1]).high == 1)
    #expect(DecadeScale([999]).high == 3)
    #expect(DecadeScale([UInt64.max]).high == 20)
    #expect(DecadeScale.power(20) == .max)
  }

  @Test func aWidthNoCanvasHasIsRefused() {
    #expect(throws: PictureError.self) { try Examples.latencies.draw(width: Int.max, scale: 2, fonts: fonts) }
  }

  @Test func moreCurvesThanColoursAreLeftOut() {
    let many = (0..<20).map { series("curve \($0)", [(50, 1000), (100, 2000)]) }
    let drawing = plot(many).drawing(width: 900, fonts: fonts)
    #expect(drawing.texts.filter { $0.text.hasPrefix("curve") }.count == LatencyPlot.maximumSeries)
  }
}
