// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct StallTimelineTests {
  private let fonts: Fonts

  init() throws { fonts = try Fonts() }

  static let pictures = [Examples.lost, Examples.elided, Examples.crowded, Examples.extreme]

  @Test(arguments: pictures.indices, [StallTimeline.minimumWidth, 900, 1600])
  func noTextCoversAnotherOrIsClipped(index: Int, width: Int) {
    let drawing = StallTimelineTests.pictures[index].drawing(width: width, fonts: fonts)
    #expect(drawing.overlappingTexts == [])
    #expect(drawing.clippedTexts == [])
    #expect(drawing.texts.allSatisfy { $0.style.size >= 12 })
  }

  @Test func aFileHasTheSizeOfTheDrawing() throws {
    let drawing = Examples.lost.drawing(width: 900, fonts: fonts)
    var message = ""
    let png = try Examples.lost.draw(width: 900, scale: 2, fonts: fonts).encodedPNG()
    let picture = try #require(DecodedPicture(png, message: &message))
    #expect(picture.width == 1800)
    #expect(picture.height == Int(drawing.height.rounded(.up)) * 2)
    // The margins are empty, and so are the corners.
    #expect(picture.color(0, 0) == .white)
    #expect(picture.color(1799, picture.height - 1) == .white)
  }

  @Test func theGapIsTheLargestThingOfItsColour() throws {
    let drawing = Examples.lost.drawing(width: 900, fonts: fonts)
    let banner = try #require(drawing.rectangles(.vermilion).max { $0.width * $0.height < $1.width * $1.height })
    // Nearly the whole width belongs to the gap, as nearly all of the time does.
    #expect(banner.width > 700 && banner.height >= 40)
    let length = try #require(drawing.texts.first { $0.text == "430\u{a0}ms" })
    #expect(banner.contains(length.bounds))
    #expect(length.style.size == drawing.texts.map(\.style.size).max())
    let canvas = try Examples.lost.draw(width: 900, scale: 1, fonts: fonts)
    #expect(canvas.color(atFilePixel: Int(banner.x) + 5, Int(banner.y) + 5) == .vermilion)
    #expect(canvas.color(atFilePixel: Int(banner.right) - 5, Int(banner.y) + 5) == .vermilion)
  }

  @Test func aLongGapIsShownWholeAndItsEndsEnlarged() {
    let names = Examples.lost.drawing(width: 900, fonts: fonts).texts.map(\.text)
    // Steps that are invisible beside the gap have their names.
    for name in ["builds 16 commands", "queued", "woken", "io_uring_enter", "runs timers", "reads 16 x 128 KiB"] {
      #expect(names.contains(name), "\(name)")
    }
    #expect(names.filter { $0 == "main loop" }.count == 2)
    #expect(names.contains { $0.hasPrefix("around \u{201c}woken\u{201d}, enlarged \u{d7}") })
  }

  @Test func aShortGapNeedsNoEnlargement() {
    let names = Examples.elided.drawing(width: 900, fonts: fonts).texts.map(\.text)
    #expect(names.filter { $0 == "main loop" }.count == 1)
    #expect(names.contains("12\u{a0}\u{b5}s"))
    #expect(!names.contains { $0.contains("enlarged") })
  }

  @Test func theEndsOfTheGapAreEnlargedAtOneScale() throws {
    guard case .enlarged(let whole, let queued, let woken, let share) = TimelinePlan(Examples.lost, pixels: 800) else {
      Issue.record("not enlarged")
      return
    }
    let gap = try #require(Examples.lost.gap)
    #expect(queued.contains(gap.queued) && woken.contains(gap.woken))
    #expect(whole.contains(queued.start) && whole.contains(woken.end))
    let first = Double(queued.length) / share
    let second = Double(woken.length) / (1 - share)
    #expect(abs(first - second) / first < 0.01)
    // Everything that happens near the ends is inside of the two.
    for time in Examples.lost.times { #expect(queued.contains(time) || woken.contains(time)) }
  }

  @Test func barsAreWhereTheirTimesAre() throws {
    let kind = StallTimeline.Kind(name: "work", color: .blue)
    let picture = StallTimeline(
      title: "",
      lanes: [
        StallTimeline.Lane(
          name: "", spans: [StallTimeline.Span(start: 1_000_000, end: 1_000_250, label: "", kind: kind)]),
        StallTimeline.Lane(
          name: "", spans: [StallTimeline.Span(start: 1_000_500, end: 1_001_000, label: "", kind: kind)]),
      ])
    let panel = TimelinePanel(
      frame: Rect(x: 100, y: 50, width: 400, height: 200), window: TimeWindow(start: 1_000_000, end: 1_001_000),
      labelRows: 0, fonts: fonts)
    let first = try #require(panel.bar(picture.lanes[0].spans[0], lane: 0))
    let second = try #require(panel.bar(picture.lanes[1].spans[0], lane: 1))
    #expect(first.x == 100 && first.right == 200)
    #expect(second.x == 300 && second.right == 500)
    #expect(second.y - first.y == TimelinePanel.laneHeight(labelRows: 0))
    // In the picture, the second bar begins where the first half of the time ends.
    let canvas = try picture.draw(width: 500, scale: 1, fonts: fonts)
    let drawing = picture.drawing(width: 500, fonts: fonts)
    let bars = drawing.rectangles(.blue)
    #expect(bars.count == 3, "two bars, and the sample in the legend")
    #expect(abs((bars[1].x - bars[0].x) - bars[1].width) < 1e-6 && abs(bars[0].width * 2 - bars[1].width) < 1e-6)
    for bar in bars { #expect(canvas.color(atFilePixel: Int(bar.middle.x), Int(bar.middle.y)) == .blue) }
  }

  @Test func arrowsGoFromBarToBar() throws {
    let drawing = Examples.elided.drawing(width: 900, fonts: fonts)
    let arrows = drawing.marks.compactMap { mark -> (Point, Point)? in
      if case .arrow(let start, let end, _) = mark.shape { (start, end) } else { nil }
    }
    #expect(arrows.count == 4)
    // The last one, the interrupt, goes up.
    #expect(arrows[3].1.y < arrows[3].0.y)
    let bars =
      drawing.rectangles(.green) + drawing.rectangles(.blue) + drawing.rectangles(.skyBlue)
      + drawing.rectangles(.orange)
    for arrow in arrows {
      let touches = bars.contains { $0.grown(1, 1).contains(Rect(x: arrow.1.x, y: arrow.1.y, width: 0, height: 0)) }
      #expect(touches, "\(arrow.1)")
    }
  }

  @Test func nothingAtAllIsAPicture() throws {
    let canvas = try StallTimeline(title: "", lanes: []).draw(width: 600, scale: 1, fonts: fonts)
    #expect(canvas.width == 600)
    let drawing = StallTimeline(title: "empty", lanes: [StallTimeline.Lane(name: "a", spans: [])])
      .drawing(width: 600, fonts: fonts)
    #expect(drawing.texts.contains { $0.text == "a" })
    #expect(drawing.overlappingTexts == [])
  }

  @Test(arguments: [0, 1, 1_000_000, UInt64.max - 1, UInt64.max])
  func oneEventAtAnyTimeIsSeen(time: UInt64) throws {
    let picture = StallTimeline(
      title: "one event",
      lanes: [
        StallTimeline.Lane(
          name: "lane",
          spans: [
            StallTimeline.Span(
              start: time, end: time, label: "event", kind: StallTimeline.Kind(name: "work", color: .green))
          ], instants: [StallTimeline.Instant(time: time, label: "instant")])
      ], gap: StallTimeline.Gap(queued: time, woken: time, label: "nothing"))
    let drawing = picture.drawing(width: 900, fonts: fonts)
    #expect(drawing.rectangles(.green).contains { $0.width >= 2 && $0.height == TimelinePanel.barHeight })
    #expect(drawing.texts.contains { $0.text == "instant" })
    #expect(drawing.texts.contains { $0.text == "0\u{a0}ns" })
    #expect(drawing.overlappingTexts == [] && drawing.clippedTexts == [])
    #expect(drawing.coordinates.allSatisfy { $0.isFinite })
    _ = try picture.draw(width: 900, scale: 1, fonts: fonts)
  }

  @Test(arguments: [1, 1000, 3_600_000_000_000, UInt64.max / 2, UInt64.max])
  func everyRangeHasFiniteCoordinates(gap: UInt64) throws {
    let kind = StallTimeline.Kind(name: "work", color: .blue)
    let picture = StallTimeline(
      title: "range",
      lanes: [
        StallTimeline.Lane(
          name: "a",
          spans: [
            StallTimeline.Span(start: 0, end: 1, label: "first", kind: kind),
            StallTimeline.Span(start: 1, end: gap, label: "second", kind: Examples.idle),
            StallTimeline.Span(start: gap, end: UInt64.max, label: "third", kind: kind),
            StallTimeline.Span(start: 9, end: 3, label: "backwards", kind: kind),
          ]), StallTimeline.Lane(name: "b", spans: []),
      ],
      arrows: [
        StallTimeline.Arrow(
          from: StallTimeline.Moment(lane: 0, time: 0), to: StallTimeline.Moment(lane: 1, time: UInt64.max))
      ], gap: StallTimeline.Gap(queued: 1, woken: gap, label: "gap"))
    let drawing = picture.drawing(width: 900, fonts: fonts)
    #expect(drawing.coordinates.allSatisfy { $0.isFinite && abs($0) < 10_000 })
    #expect(drawing.overlappingTexts == [] && drawing.clippedTexts == [])
    _ = try picture.draw(width: 900, scale: 1, fonts: fonts)
  }

  @Test func arrowsToNowhereAreLeftOut() {
    func moment(_ lane: Int) -> StallTimeline.Moment { StallTimeline.Moment(lane: lane, time: 5) }
    var picture = Examples.elided
    picture.arrows = [
      StallTimeline.Arrow(from: moment(-1), to: moment(0)), StallTimeline.Arrow(from: moment(0), to: moment(99)),
      StallTimeline.Arrow(from: moment(Int.max), to: moment(Int.min)),
      StallTimeline.Arrow(from: moment(1), to: moment(1)),
    ]
    let arrows = picture.drawing(width: 900, fonts: fonts).marks.filter { mark in
      if case .arrow = mark.shape { true } else { false }
    }
    #expect(arrows.isEmpty)
  }

  @Test func whatIsBeyondTheLimitsIsLeftOut() {
    let kind = StallTimeline.Kind(name: "work", color: .blue)
    let spans = (0..<1000).map { StallTimeline.Span(start: $0 * 10, end: $0 * 10 + 5, label: "", kind: kind) }
    let picture = StallTimeline(
      title: "many", lanes: (0..<100).map { StallTimeline.Lane(name: "lane \($0)", spans: spans) })
    let drawing = picture.drawing(width: 900, fonts: fonts)
    let bars = StallTimeline.maximumLanes * StallTimeline.maximumMarksPerLane
    #expect(drawing.rectangles(.blue).count == bars + 1)
    #expect(drawing.texts.filter { $0.text.hasPrefix("lane") }.count == StallTimeline.maximumLanes)
  }

  @Test func aPictureThatIsTooWideIsRefused() {
    #expect(throws: PictureError.self) { try Examples.lost.draw(width: 20_000, scale: 1, fonts: fonts) }
    #expect(throws: PictureError.self) { try Examples.lost.draw(width: Int.max, scale: 2, fonts: fonts) }
  }
}
