// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct TextTests {
  private let fonts: Fonts

  init() throws { fonts = try Fonts() }

  @Test(arguments: [TextAlignment.left, .center, .right], [false, true])
  func textStaysWithinItsRectangle(alignment: TextAlignment, upwards: Bool) throws {
    let canvas = try Canvas(width: 500, height: 500, scale: 2, fonts: fonts)
    let bounds = canvas.text(
      "Latency (\u{b5}s), gjpqy\u{c4}\u{2026}", at: Point(250, 250), TextStyle(size: 12), alignment: alignment,
      upwards: upwards)
    let inked = try #require(canvas.inked)
    let wanted = Rect(x: bounds.x * 2, y: bounds.y * 2, width: bounds.width * 2, height: bounds.height * 2)
    // Anti-aliasing may reach a pixel of the file further.
    #expect(wanted.grown(1, 1).contains(inked), "\(inked) in \(wanted)")
    // And it fills its length, so that what is placed beside it is where it seems to be.
    let length = upwards ? inked.height / wanted.height : inked.width / wanted.width
    #expect(length > 0.93)
  }

  @Test func alignmentPutsTheTextBesideItsPlace() {
    let style = TextStyle(size: 20, weight: .bold)
    let width = fonts.width(of: "430 ms", style)
    let place = Point(50, 60)
    #expect(fonts.bounds(of: "430 ms", at: place, style).x == 50)
    #expect(fonts.bounds(of: "430 ms", at: place, style, alignment: .center).x == 50 - width / 2)
    #expect(fonts.bounds(of: "430 ms", at: place, style, alignment: .right).right == 50)
    // Upwards, the text begins below and ends above.
    #expect(fonts.bounds(of: "430 ms", at: place, style, upwards: true).bottom == 60)
    #expect(fonts.bounds(of: "430 ms", at: place, style, alignment: .right, upwards: true).y == 60)
  }

  @Test func uprightTextIsTheSameTextTurnedAgainstTheClock() throws {
    let flat = try Canvas(width: 60, height: 60, fonts: fonts)
    flat.text("L7", at: Point(0, 0), TextStyle(size: 24))
    let turned = try Canvas(width: 60, height: 60, fonts: fonts)
    turned.text("L7", at: Point(0, 60), TextStyle(size: 24), upwards: true)
    // The shift between the two comes from rounding to whole pixels.
    let from = try #require(flat.inked)
    let to = try #require(turned.inked)
    #expect(from.width == to.height && from.height == to.width)
    for column in 0..<Int(from.width) {
      for row in 0..<Int(from.height) {
        #expect(
          flat.color(atFilePixel: Int(from.x) + column, Int(from.y) + row)
            == turned.color(atFilePixel: Int(to.x) + row, Int(to.bottom) - 1 - column))
      }
    }
  }

  @Test func boldIsWiderAndLargerIsWider() {
    let regular = fonts.width(of: "queued", TextStyle(size: 12))
    #expect(fonts.width(of: "queued", TextStyle(size: 12, weight: .bold)) > regular)
    #expect(abs(fonts.width(of: "queued", TextStyle(size: 24)) - 2 * regular) < 1e-9)
    #expect(fonts.width(of: "", TextStyle(size: 12)) == 0)
  }

  @Test func kerningDrawsPairsTogether() {
    let style = TextStyle(size: 100)
    #expect(fonts.width(of: "AV", style) < fonts.width(of: "A", style) + fonts.width(of: "V", style))
  }

  @Test func longTextsEndWithAnEllipsisWithinTheirRoom() {
    let style = TextStyle(size: 12)
    let text = "completes the request and raises the interrupt"
    for room in stride(from: 0.0, through: 300, by: 7) {
      let short = fonts.shortened(text, to: room, style)
      #expect(fonts.width(of: short, style) <= room)
      if short != text, !short.isEmpty {
        #expect(short.hasSuffix("\u{2026}") && !short.hasSuffix(" \u{2026}"))
        #expect(text.hasPrefix(String(short.dropLast())))
      }
    }
    #expect(fonts.shortened(text, to: 1000, style) == text)
    #expect(fonts.shortened(text, to: 3, style) == "")
  }

  @Test func controlCharactersAreSpacesAndEndlessTextsEnd() {
    let style = TextStyle(size: 12)
    #expect(fonts.width(of: "a\n\u{0}\u{7f}b", style) == fonts.width(of: "a   b", style))
    let limit = FontFace.maximumCharacters
    let endless = String(repeating: "n", count: limit * 10)
    #expect(fonts.width(of: endless, style) == fonts.width(of: String(endless.prefix(limit)), style))
  }

  @Test func aMissingFontNamesItsPackage() {
    let folder = ScratchFolder()
    let error = #expect(throws: PictureError.missingFont(file: "DejaVuSans.ttf")) {
      try Fonts(folders: [folder.path, folder.path + "/nowhere"])
    }
    #expect(error?.description.contains("fonts-dejavu-core") == true)
    #expect(throws: PictureError.missingFont(file: "DejaVuSans.ttf")) { try Fonts(folders: []) }
  }

  @Test func aFileThatIsNoFontIsNamed() {
    let folder = ScratchFolder()
    folder.write("DejaVuSans.ttf", "no font")
    let error = #expect(throws: PictureError.self) { try Fonts(folders: [folder.path]) }
    guard case .unusableFont(folder.path + "/DejaVuSans.ttf", let code) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(code != 0)
  }
}
