// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct ChecksumTests {
  @Test(
    arguments: [("123456789", 0xCBF4_3926), ("", 0), ("a", 0xE8B7_BE43), ("abc", 0x3524_41C2)] as [(String, UInt32)])
  func crc32IsThatOfTheStandard(text: String, expected: UInt32) {
    let crc = CRC32()
    let state = text.utf8.reduce(CRC32.start) { crc.advanced($0, by: $1) }
    #expect(CRC32.finish(state) == expected)
  }

  @Test func crc32OfRAMIsThatOfItsBytes() {
    let bus = FakeMachine()
    for (index, byte) in "123456789".utf8.enumerated() {
      bus.ramWrite8(FakeMachine.ramBase + UInt64(index), byte)
    }
    #expect(CRC32().checksum(bus, address: FakeMachine.ramBase, byteCount: 9) == 0xCBF4_3926)
  }

  @Test func sumIsTheOneThatItsDefinitionSays() {
    var sum = WordSum()
    for word: UInt64 in [1, 2, 3] {
      sum.add(word)
    }
    // a: 1, 3, 6; b: 1, 1 + 3, 4 + 6.
    #expect(sum.a == 6 && sum.b == 10 && sum.wordCount == 3)
  }

  @Test func sumSeesExchangedWords() {
    var one = WordSum()
    var other = WordSum()
    for word: UInt64 in [5, 9] { one.add(word) }
    for word: UInt64 in [9, 5] { other.add(word) }
    #expect(one.a == other.a && one.b != other.b)
  }

  @Test func sumOfRAMAndOfPartsIsTheSumOfTheWords() {
    let bus = FakeMachine()
    var words = XorShift64(seed: 7)
    var whole = WordSum()
    for index in UInt64(0)..<192 {
      let word = words.next()
      whole.add(word)
      bus.ramWrite64(FakeMachine.ramBase + 8 * index, word)
    }
    var parts = WordSum()
    for (offset, byteCount) in [(0, 512), (512, 64), (576, 960)] as [(UInt64, UInt64)] {
      var part = WordSum()
      part.add(bus, address: FakeMachine.ramBase + offset, byteCount: byteCount)
      parts.append(part)
    }
    #expect(parts == whole)
  }

  @Test func patternIsTheOneThatItsDefinitionSays() {
    let pattern = ScratchPattern(seed: 42)
    for index: UInt64 in [0, 1, 99_999] {
      let state = 42 &+ (index &+ 1) &* 0x9E37_79B9_7F4A_7C15
      #expect(pattern.word(index) == (state ^ (state >> 32)) &* 0xD6E8_FEB8_6659_FD93)
    }
    #expect(pattern.word(0) == 0x3165_BA8F_58D5_99F2)
  }

  @Test func patternInRAMMatchesUntilOneBitDiffers() {
    let bus = FakeMachine()
    let pattern = ScratchPattern(seed: 3)
    pattern.fill(bus, address: FakeMachine.ramBase, firstIndex: 1000, wordCount: 64)
    #expect(bus.ramRead64(FakeMachine.ramBase + 8) == pattern.word(1001))
    #expect(pattern.matches(bus, address: FakeMachine.ramBase, firstIndex: 1000, wordCount: 64))
    #expect(!pattern.matches(bus, address: FakeMachine.ramBase, firstIndex: 1001, wordCount: 64))
    bus.ramWrite8(FakeMachine.ramBase + 511, bus.ramRead8(FakeMachine.ramBase + 511) ^ 0x80)
    #expect(!pattern.matches(bus, address: FakeMachine.ramBase, firstIndex: 1000, wordCount: 64))
  }
}
