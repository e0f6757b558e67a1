// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Pictures

struct LabelPlacerTests {
  private func rect(_ x: Double, _ y: Double) -> Rect { Rect(x: x, y: y, width: 10, height: 10) }

  @Test func aPlaceThatIsTakenIsNotTakenAgain() {
    var placer = LabelPlacer()
    #expect(placer.place([rect(0, 0)]) == 0)
    #expect(placer.place([rect(5, 5), rect(9, 0), rect(10, 0)]) == 2)
    #expect(placer.place([rect(0, 5), rect(12, 0)]) == nil)
  }

  @Test func linesAreCrossedOnlyWhereThereIsNoOtherPlace() {
    var placer = LabelPlacer()
    placer.avoid([Point(5, -100), Point(5, 100)])
    #expect(placer.place([rect(0, 0), rect(20, 0)]) == 1)
    let crossing = placer.place([LabelPlacer.Candidate(label: rect(0, 0))])
    #expect(crossing?.index == 0 && crossing?.crosses == true)
  }

  @Test func leadersRunThroughNoLabel() {
    var placer = LabelPlacer()
    placer.take(rect(0, 10))
    let blocked = LabelPlacer.Candidate(label: rect(0, 0), leader: Rect(x: 4, y: 10, width: 2, height: 20))
    let free = LabelPlacer.Candidate(label: rect(20, 0), leader: Rect(x: 24, y: 10, width: 2, height: 20))
    #expect(placer.place([blocked, free])?.index == 1)
    // And later labels stay off the leader.
    #expect(placer.place([rect(20, 15)]) == nil)
    // Two that come from one place are one line.
    let sameFoot = LabelPlacer.Candidate(label: rect(20, -10), leader: Rect(x: 24, y: 10, width: 2, height: 20))
    #expect(placer.place([sameFoot])?.index == 0)
  }

  @Test(
    arguments: [
      [50, 50, 50, 50, 50], [0, 0, 0], [100, 99, 98, 97], [10, 12, 90, 91, 50], [-1000, 1000], [20],
    ] as [[Double]])
  func labelsAtTheSameHeightAreSpread(middles: [Double]) {
    let heights = middles.map { _ in 15.0 }
    let tops = LabelPlacer.spread(middles: middles, heights: heights, within: 0...100)
    let order = middles.indices.sorted { (middles[$0], $0) < (middles[$1], $1) }
    for (above, below) in zip(order, order.dropFirst()) { #expect(tops[above] + 15 <= tops[below] + 1e-9) }
    #expect(tops.allSatisfy { $0 >= 0 && $0 + 15 <= 100 })
  }

  @Test func labelsWithRoomStayWhereTheyWantToBe() {
    #expect(LabelPlacer.spread(middles: [80, 20], heights: [10, 10], within: 0...100) == [75, 15])
    #expect(LabelPlacer.spread(middles: [], heights: [], within: 0...100) == [])
  }
}
