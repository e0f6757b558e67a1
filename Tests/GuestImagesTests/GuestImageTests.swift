// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import GuestImages

@Suite struct GuestImageTests {
  @Test func base64IsDecodedWithAndWithoutPaddingAndLineEnds() {
    #expect(GuestImage.decode("") == [])
    #expect(GuestImage.decode("Zg==") == Array("f".utf8))
    #expect(GuestImage.decode("Zm9v\nYmFy\n") == Array("foobar".utf8))
    #expect(GuestImage.decode("+/+/") == [0xFB, 0xFF, 0xBF])
  }

  @Test func theTestGuestIsAStaticELFImageOfThisMachine() {
    let image = GuestImage.testguest
    #expect(image.prefix(5) == [0x7F, 0x45, 0x4C, 0x46, 2])
    // e_type is ET_EXEC, e_machine is x86-64.
    #expect(image[16] == 2 && image[18] == 62)
    #expect(image.count < 256 << 10)
  }

  @Test func theTestGuestHasAPVHEntryNote() {
    let image = GuestImage.testguest
    let note: [UInt8] = [4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 0x58, 0x65, 0x6E, 0]
    let found = (0..<(image.count - note.count)).contains { start in
      image[start] == note[0] && Array(image[start..<(start + note.count)]) == note
    }
    #expect(found)
  }
}
