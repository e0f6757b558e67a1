// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct CanvasTests {
  private let fonts: Fonts

  init() throws { fonts = try Fonts() }

  @Test func aNewCanvasIsWhite() throws {
    let canvas = try Canvas(width: 7, height: 3, scale: 2, fonts: fonts)
    #expect(canvas.inked == nil)
    #expect(canvas.color(atFilePixel: 13, 5) == .white)
    #expect(canvas.color(atFilePixel: 14, 5) == nil)
    #expect(canvas.color(atFilePixel: 0, 6) == nil)
  }

  @Test(arguments: [
    (0, 10, 1), (10, 0, 1), (-1, 10, 1), (10, 10, 0), (10, 10, 5), (Int.max, 1, 1), (1, Int.max, 2),
    (Int.max, Int.max, 4),
    (Int.max / 4 + 1, 1, 4), (16385, 1, 1), (8193, 1, 2), (1 << 31, 1 << 31, 1), (16384, 16384, 1), (4096, 4097, 4),
  ])
  func sizesThatAreEmptyOrOverflowAreRefused(width: Int, height: Int, scale: Int) {
    #expect(throws: PictureError.size(width: width, height: height, scale: scale)) {
      try Canvas(width: width, height: height, scale: scale, fonts: fonts)
    }
  }

  @Test func theLargestSizesAreAccepted() throws {
    #expect(try Canvas.pixelCount(width: 16384, height: 4096, scale: 1) * 4 == Canvas.maximumBytes)
    #expect(try Canvas.pixelCount(width: 4096, height: 1024, scale: 4) * 4 == Canvas.maximumBytes)
    let canvas = try Canvas(width: 16384, height: 1, fonts: fonts)
    canvas.fill(Rect(x: 16383, y: 0, width: 1, height: 1), .blue)
    #expect(canvas.color(atFilePixel: 16383, 0) == .blue)
  }

  @Test func rectanglesCoverExactlyTheirPixels() throws {
    let canvas = try Canvas(width: 10, height: 10, scale: 2, fonts: fonts)
    canvas.fill(Rect(x: 2, y: 3, width: 4, height: 1.5), .green)
    #expect(canvas.inked == Rect(x: 4, y: 6, width: 8, height: 3))
    #expect(canvas.color(atFilePixel: 4, 6) == .green)
    #expect(canvas.color(atFilePixel: 11, 8) == .green)
  }

  @Test func thinRectanglesDoNotVanish() throws {
    let canvas = try Canvas(width: 10, height: 10, fonts: fonts)
    canvas.fill(Rect(x: 4.2, y: 0, width: 0.01, height: 10), .black)
    #expect(canvas.inked == Rect(x: 4, y: 0, width: 1, height: 10))
  }

  @Test func translucentRectanglesLetTheGroundShowThrough() throws {
    let canvas = try Canvas(width: 4, height: 4, fonts: fonts)
    canvas.fill(canvas.bounds, Color.black.with(opacity: 51))
    // A fifth of black on white.
    let gray = try #require(canvas.color(atFilePixel: 1, 1))
    #expect(abs(Int(gray.red) - 204) <= 1 && gray.red == gray.green && gray.green == gray.blue)
  }

  @Test func whatIsOutsideOrNoNumberIsNotDrawn() throws {
    let canvas = try Canvas(width: 10, height: 10, fonts: fonts)
    let style = LineStyle(width: 2, color: .black)
    canvas.fill(Rect(x: .nan, y: 0, width: 5, height: 5), .black)
    canvas.fill(Rect(x: 0, y: 0, width: .infinity, height: 5), .black)
    canvas.fill(Rect(x: 20, y: 20, width: 5, height: 5), .black)
    canvas.fill(Rect(x: -1e300, y: -1e300, width: 5, height: 5), .black)
    canvas.line(from: Point(.nan, 0), to: Point(5, 5), style)
    canvas.line(from: Point(100, -1e9), to: Point(100, 1e9), style)
    canvas.fill(polygon: [Point(0, 0), Point(5, .infinity), Point(5, 5)], .black)
    canvas.fill(circleAt: Point(5, 5), radius: .nan, .black)
    canvas.arrow(from: Point(5, 5), to: Point(5, 5), style)
    canvas.text("far", at: Point(1e200, 1e200), TextStyle(size: 12))
    canvas.text("huge", at: Point(0, 0), TextStyle(size: 1e9))
    #expect(canvas.inked == nil)
  }

  @Test func linesFromFarOutsideCrossTheCanvasWhereTheyShould() throws {
    let canvas = try Canvas(width: 20, height: 20, fonts: fonts)
    // Far beyond what pixman's 16-bit coordinates hold.
    canvas.line(from: Point(-1e7, 10), to: Point(1e7, 10), LineStyle(width: 2, color: .blue))
    #expect(canvas.inked == Rect(x: 0, y: 9, width: 20, height: 2))
    #expect(canvas.color(atFilePixel: 19, 9) == .blue)
  }

  @Test func slantedLinesAreAntialiased() throws {
    let canvas = try Canvas(width: 20, height: 20, fonts: fonts)
    canvas.line(from: Point(2, 2), to: Point(18, 9), LineStyle(width: 2, color: .black))
    let levels = Set((0..<400).compactMap { canvas.color(atFilePixel: $0 % 20, $0 / 20)?.red })
    #expect(levels.contains(0) && levels.contains(255) && levels.count > 6)
  }

  @Test func aTranslucentPolylineIsEvenWhereItsPartsMeet() throws {
    let canvas = try Canvas(width: 30, height: 30, fonts: fonts)
    canvas.polyline(
      [Point(5, 5), Point(25, 5), Point(25, 25)], LineStyle(width: 6, color: .black.with(opacity: 128)))
    let corner = try #require(canvas.color(atFilePixel: 24, 5))
    let side = try #require(canvas.color(atFilePixel: 12, 5))
    #expect(corner == side)
    #expect(side.red > 120 && side.red < 135)
  }

  @Test func dashesLeaveGaps() throws {
    let canvas = try Canvas(width: 40, height: 4, fonts: fonts)
    canvas.line(from: Point(0, 2), to: Point(40, 2), LineStyle(width: 2, color: .black, dashes: [6, 4]))
    let row = (0..<40).map { canvas.color(atFilePixel: $0, 1) == .black }
    #expect(row == (0..<40).map { $0 % 10 < 6 })
  }

  @Test func dashesOfNoLengthEnd() throws {
    let canvas = try Canvas(width: 8, height: 4, fonts: fonts)
    canvas.line(from: Point(0, 2), to: Point(8, 2), LineStyle(width: 2, color: .black, dashes: [0, .nan, -5]))
    #expect(canvas.inked != nil)
  }

  @Test func anArrowHasItsPointAtItsEnd() throws {
    let canvas = try Canvas(width: 40, height: 20, fonts: fonts)
    canvas.arrow(from: Point(4, 10), to: Point(34, 10), head: 10, LineStyle(width: 2, color: .black))
    let inked = try #require(canvas.inked)
    #expect(inked.x == 4 && inked.right == 34)
    func column(_ x: Int) -> Int { (0..<20).filter { canvas.color(atFilePixel: x, $0) != .white }.count }
    // A thin shaft, a wide neck, a point.
    #expect(column(10) == 2)
    #expect(column(25) >= 7)
    #expect(column(33) <= 2)
  }

  @Test func nothingIsDrawnOutsideOfAClip() throws {
    let canvas = try Canvas(width: 20, height: 20, fonts: fonts)
    canvas.clipped(to: Rect(x: 5, y: 6, width: 4, height: 3)) { canvas.fill(canvas.bounds, .black) }
    #expect(canvas.inked == Rect(x: 5, y: 6, width: 4, height: 3))
    canvas.clipped(to: Rect(x: 50, y: 6, width: 4, height: 3)) { canvas.fill(canvas.bounds, .black) }
    canvas.fill(Rect(x: 19, y: 19, width: 1, height: 1), .black)
    #expect(canvas.inked == Rect(left: 5, top: 6, right: 20, bottom: 20))
    #expect(canvas.color(atFilePixel: 0, 0) == .white)
  }

  @Test func theInkOnAColourIsLegible() {
    #expect(Color.blue.legibleInk == .white)
    #expect(Color.black.legibleInk == .white)
    #expect(Color.yellow.legibleInk == .black)
    #expect(Color.orange.legibleInk == .black)
    #expect(Color.skyBlue.legibleInk == .black)
  }
}
