// SPDX-License-Identifier: Apache-2.0
import Assembly
import EventLoop
import Testing

@testable import WakeupLab

@Suite struct VerdictTests {
  private func outcome(never: Double, always: Double, elided: Double, virtio: Double) -> Reproduction.Outcome {
    var outcome = Reproduction.Outcome()
    outcome.floorSeconds = 1.15
    outcome.diskSeconds = 0.10
    outcome.batchCount = 16
    let seconds = [never, 1.3, always, elided, 1.3, virtio]
    for (scenario, seconds) in zip(WakeupScenario.all(activityHz: 1000), seconds) {
      var figures = WakeupFigures()
      figures.seconds = seconds
      figures.requestCount = 1024
      figures.eventWrites = 64
      outcome.rows.append((scenario, figures))
    }
    return outcome
  }

  @Test func theBugShowsAndTheFixHolds() {
    let (lines, isGood) = Reproduction.verdict(outcome(never: 30, always: 1.26, elided: 1.25, virtio: 1.24))
    #expect(isGood)
    #expect(lines.filter { $0.hasPrefix("yes: ") }.count == 6)
  }

  @Test(arguments: [
    (12.0, 1.26, 1.25, 1.24), (30, 1.40, 1.25, 1.39), (30, 1.26, 1.31, 1.24), (30, 1.26, 1.25, 1.10),
  ])
  func whatIsNotSoIsSaid(_ row: (never: Double, always: Double, elided: Double, virtio: Double)) {
    let (lines, isGood) = Reproduction.verdict(
      outcome(never: row.never, always: row.always, elided: row.elided, virtio: row.virtio))
    #expect(!isGood)
    #expect(lines.contains { $0.hasPrefix("NO:  ") })
  }

  @Test func moreThanOneWriteOfTheEventfdForABatchIsSaid() {
    var measured = outcome(never: 30, always: 1.26, elided: 1.25, virtio: 1.24)
    measured.rows[3].figures.eventWrites = 65
    let (lines, isGood) = Reproduction.verdict(measured)
    #expect(!isGood)
    #expect(lines.contains { $0.hasPrefix("NO:  elided writes") })
  }

  @Test func guestThatTakesTimeItselfIsNotHeldAgainstTheFloor() {
    var measured = outcome(never: 30, always: 1.60, elided: 1.60, virtio: 1.60)
    #expect(!Reproduction.verdict(measured).isGood)
    measured.guest = .kvm
    #expect(Reproduction.verdict(measured).isGood)
  }

  @Test func scenariosHaveTheNamesOfTheResults() {
    #expect(
      WakeupScenario.all(activityHz: 10).map(\.id) == [
        "wakeup/ahci/never", "wakeup/ahci/never+activity", "wakeup/ahci/always", "wakeup/ahci/elided",
        "wakeup/ahci/elided+submit-vcpu", "wakeup/virtio-blk/always",
      ])
  }
}
