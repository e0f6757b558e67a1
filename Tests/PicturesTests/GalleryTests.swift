// SPDX-License-Identifier: Apache-2.0
import Glibc
import Pictures
import Testing

/// Pictures to look at: `SPINDLE_GALLERY=FOLDER swift test --filter GalleryTests` leaves them there.
struct GalleryTests {
  @Test func everyPictureBecomesAFile() throws {
    let fonts = try Fonts()
    let scratch = ScratchFolder()
    let folder = getenv("SPINDLE_GALLERY").map { String(cString: $0) } ?? scratch.path
    let timelines = [
      "lost": Examples.lost, "elided": Examples.elided, "crowded": Examples.crowded, "extreme": Examples.extreme,
    ]
    for (name, picture) in timelines { try picture.draw(fonts: fonts).writePNG(to: "\(folder)/\(name).png") }
    let plots = ["latencies": Examples.latencies, "curves": Examples.manyCurves]
    for (name, picture) in plots { try picture.draw(fonts: fonts).writePNG(to: "\(folder)/\(name).png") }
    for name in Array(timelines.keys) + plots.keys { #expect(access("\(folder)/\(name).png", R_OK) == 0) }
  }
}
