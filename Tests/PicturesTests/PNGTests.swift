// SPDX-License-Identifier: Apache-2.0
import CPNG
import Glibc
import Testing

@testable import Pictures

struct PNGTests {
  private let fonts: Fonts

  init() throws { fonts = try Fonts() }

  private func sample() throws -> Canvas {
    let canvas = try Canvas(width: 31, height: 17, scale: 2, fonts: fonts)
    canvas.fill(Rect(x: 0, y: 0, width: 10, height: 5), .vermilion)
    canvas.fill(Rect(x: 30, y: 16, width: 1, height: 1), .blue)
    canvas.text("abc", at: Point(10, 2), TextStyle(size: 9))
    return canvas
  }

  @Test func aFileHasTheSignatureTheSizeAndEveryPixel() throws {
    let canvas = try sample()
    let folder = ScratchFolder()
    try canvas.writePNG(to: folder.path + "/sample.png")
    let bytes = folder.read("sample.png")
    // The PNG specification, third edition, 5.2.
    #expect(Array(bytes.prefix(8)) == [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
    var message = ""
    let decoded = try #require(DecodedPicture(bytes, message: &message))
    #expect(decoded.width == 62 && decoded.height == 34)
    for y in 0..<34 {
      for x in 0..<62 where decoded.color(x, y) != canvas.color(atFilePixel: x, y) {
        Issue.record("pixel \(x), \(y)")
      }
    }
  }

  @Test func theBytesAreThoseOfTheFile() throws {
    let canvas = try sample()
    let folder = ScratchFolder()
    try canvas.writePNG(to: folder.path + "/sample.png")
    #expect(try canvas.encodedPNG() == folder.read("sample.png"))
  }

  @Test func noiseFitsTheBound() throws {
    let canvas = try Canvas(width: 64, height: 64, fonts: fonts)
    var state: UInt32 = 1
    for index in canvas.pixels.indices {
      state = state &* 1_664_525 &+ 1_013_904_223
      canvas.pixels[index] = state
    }
    var message = ""
    #expect(DecodedPicture(try canvas.encodedPNG(), message: &message)?.width == 64)
  }

  @Test func aFileThatCannotBeWrittenIsAnErrorWithItsName() throws {
    let folder = ScratchFolder()
    let path = folder.path + "/missing/sample.png"
    let error = #expect(throws: PictureError.self) { try sample().writePNG(to: path) }
    guard case .png(path, let message) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(!message.isEmpty)
    #expect(error?.description.hasPrefix(path + ": ") == true)
  }

  @Test func aFileThatDoesNotFitItsDiskIsAnError() throws {
    // Every write to this device fails for want of space. The link keeps the device itself out of reach of a mistake.
    let folder = ScratchFolder()
    let path = folder.path + "/full"
    #expect(symlink("/dev/full", path) == 0)
    #expect(throws: PictureError.self) { try sample().writePNG(to: path) }
    #expect(folder.names == ["full"], "what is no regular file is not removed")
  }

  @Test func noPartOfAFileStaysBehind() {
    let folder = ScratchFolder()
    var message = [CChar](repeating: 0, count: Int(cpng_message_bytes))
    // libpng refuses a picture without columns when the file is open already.
    #expect(cpng_write_file(folder.path + "/empty.png", [0, 0, 0], 0, 1, &message) == 0)
    #expect(message[0] != 0)
    #expect(folder.names == [])
  }

  @Test func brokenFilesAreRefusedWithAMessage() throws {
    let bytes = try sample().encodedPNG()
    var message = ""
    #expect(DecodedPicture([], message: &message) == nil)
    #expect(!message.isEmpty)
    #expect(DecodedPicture(Array("no picture at all".utf8), message: &message) == nil)
    #expect(!message.isEmpty)
    // The error comes in the middle of the pixels, where libpng leaves by longjmp.
    #expect(DecodedPicture(Array(bytes.prefix(bytes.count / 2)), message: &message) == nil)
    #expect(!message.isEmpty)
  }

  @Test func aPictureThatDoesNotFitTheRoomIsNotDecoded() throws {
    let bytes = try sample().encodedPNG()
    var pixels = [UInt8](repeating: 7, count: 62 * 34 * 3 - 1)
    var message = [CChar](repeating: 0, count: Int(cpng_message_bytes))
    #expect(cpng_decode(bytes, bytes.count, &pixels, pixels.count, &message) == 0)
    #expect(pixels.allSatisfy { $0 == 7 })
  }
}
