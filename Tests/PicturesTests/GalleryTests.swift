// SPDX-License-Identifier: Apache-2.0
import CPNG
import Foundation
import Pictures
import Testing

struct GalleryTests {
  @Test func writesPictures() throws {
    let folder = ProcessInfo.processInfo.environment["GALLERY"] ?? NSTemporaryDirectory()
    let fonts = try Fonts()
    try Examples.lost.draw(fonts: fonts).writePNG(to: folder + "/lost.png")
    try Examples.elided.draw(fonts: fonts).writePNG(to: folder + "/elided.png")
    try Examples.latencies.draw(fonts: fonts).writePNG(to: folder + "/latencies.png")
  }
}
