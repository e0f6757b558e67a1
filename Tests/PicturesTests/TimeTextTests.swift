// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct TimeTextTests {
  @Test(arguments: [
    (0, "0 ns"), (1, "1 ns"), (999, "999 ns"), (1000, "1 \u{b5}s"), (1234, "1.23 \u{b5}s"), (1005, "1.01 \u{b5}s"),
    (12_340, "12.3 \u{b5}s"), (123_400, "123 \u{b5}s"), (999_400, "999 \u{b5}s"), (999_600, "1 ms"),
    (9_996_000, "10 ms"), (99_960_000, "100 ms"), (430_000_000, "430 ms"), (999_999_999, "1 s"),
    (25_760_000_000, "25.8 s"), (599_000_000_000, "599 s"),
    (600_000_000_000, "10 min"), (3_600_000_000_000, "60 min"), (36_000_000_000_000, "10 h"),
    (UInt64.max, "5124096 h"),
  ])
  func durationsHaveThreeDigitsAndAUnit(nanoseconds: UInt64, text: String) {
    #expect(TimeText.text(nanoseconds) == text.replacing(" ", with: "\u{a0}"))
  }

  @Test(arguments: [1, 2, 7, 1000, 130_000, 441_000_000, 90_000_000_000, 3_600_000_000_000, UInt64(Int64.max)])
  func ticksAreFewAndCoverTheRange(range: UInt64) {
    let ticks = TimeTicks(range: range, atMost: 9)
    let offsets = ticks.offsets(from: 0, to: Int64(range))
    #expect((2...10).contains(offsets.count))
    #expect(offsets.first == 0)
    #expect(range - UInt64(offsets.last!) < ticks.step)
  }

  @Test func ticksBeforeZeroAreMultiplesToo() {
    let ticks = TimeTicks(range: 100, atMost: 10)
    #expect(ticks.offsets(from: -25, to: 12) == [-20, -10, 0, 10])
    #expect(ticks.offsets(from: 12, to: 38) == [20, 30])
    #expect(ticks.offsets(from: -38, to: -12) == [-30, -20])
    #expect(ticks.offsets(from: 11, to: 19) == [])
  }

  @Test func theNumbersOfAnAxisHaveOneUnit() {
    func texts(_ range: UInt64, _ count: Int) -> [String] {
      let ticks = TimeTicks(range: range, atMost: count)
      return ticks.offsets(from: 0, to: Int64(range)).map { ticks.text($0, largest: range) }
    }
    func spaced(_ texts: [String]) -> [String] { texts.map { $0.replacing(" ", with: "\u{a0}") } }
    #expect(texts(2_000_000_000, 4) == spaced(["0", "0.5 s", "1 s", "1.5 s", "2 s"]))
    #expect(texts(300_000, 3) == spaced(["0", "100 \u{b5}s", "200 \u{b5}s", "300 \u{b5}s"]))
    #expect(texts(3_600_000_000_000, 2) == spaced(["0", "0.5 h", "1 h"]))
    #expect(TimeTicks(range: 100, atMost: 10).text(-20, largest: 100) == "\u{2212}20\u{a0}ns")
    #expect(TimeTicks(range: 100, atMost: 10).text(20, largest: 100, plus: true) == "+20\u{a0}ns")
  }
}
