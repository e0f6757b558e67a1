// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Bench

@Suite struct BenchResultTests {
  @Test func medianIsTheMiddle() {
    #expect(median([3, 1, 2]) == 2)
    #expect(median([4, 1, 2, 3]) == 2.5)
  }

  @Test func ratioIsTheMedianOfTheRoundsNotTheRatioOfMedians() {
    let result = BenchResult(
      id: "x", rounds: [100, 200, 900], unit: "iops", peer: "other", peerRounds: [400, 100, 300])
    #expect(result.value == 200)
    #expect(result.peerValue == 300)
    // Round by round 0.25, 2 and 3.
    #expect(result.ratio == 2)
  }

  @Test func withoutRoundsOfThePeerThereIsNoPeer() {
    let result = BenchResult(id: "x", rounds: [1], unit: "iops", peer: "other", peerRounds: [])
    #expect(result.peer == nil)
    #expect(result.peerValue == nil)
    #expect(result.ratio == nil)
  }

  @Test func fuaIsComparedWithFlushRoundByRoundForBothSides() {
    let result = BenchResult.ofRatios(
      id: "fua", own: ([1000, 3000, 2000], [500, 1000, 2000]), peer: "fio",
      peers: ([1500, 1000, 4000], [1000, 1000, 2000]))
    // Ours 2, 3 and 1; fio's 1.5, 1 and 2.
    #expect(result.value == 2)
    #expect(result.peerValue == 1.5)
    // 2 / 1.5, 3 / 1 and 1 / 2.
    #expect(result.ratio == 2 / 1.5)
    #expect(result.unit == "ratio")
  }

  @Test func fuaRatioWithoutFioHasNoPeer() {
    let result = BenchResult.ofRatios(id: "fua", own: ([3], [2]), peer: "fio", peers: ([], []))
    #expect(result.value == 1.5)
    #expect(result.peer == nil)
  }

  @Test func workloadsAreNamedByWhatTheyDo() {
    let fua = Workload(operation: .fuaWrite, blockBytes: 4096, spanBytes: 1 << 20)
    #expect(fua.name(depth: 1) == "fua-write/4k/qd1")
    let read = Workload(operation: .sequentialRead, blockBytes: 128 << 10, spanBytes: 1 << 20)
    #expect(read.name(depth: 64) == "seqread/128k/qd64")
  }

  @Test func tableColumnsKeepTheirSides() {
    let table = BenchTable(widths: [6, 5, 3])
    #expect(table.row(["ab", "12", "12345"]) == "ab        12 12345")
    #expect(BenchTable.fraction(1.005 * 100) == "100.50")
    #expect(BenchTable.fraction(0.049) == "0.05")
    #expect(BenchTable.fraction(nil) == "-")
    #expect(BenchTable.whole(2.5) == "3")
  }
}
