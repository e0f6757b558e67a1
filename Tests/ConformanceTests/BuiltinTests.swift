// SPDX-License-Identifier: Apache-2.0
import Conformance
import HostSystem
import QEMUCommandLine
import Testing

/// Spindle's own machines, each on a thread of this process.
private final class OwnMachine: BuiltinMachine {
  private let machine: InProcessMachine

  init(_ words: [String]) throws { machine = try InProcessMachine(words) }

  func takeSocket() -> OwnedDescriptor { machine.takeQTestSocket()! }
  func takeMonitorSocket() -> OwnedDescriptor? { machine.takeMonitorSocket() }
  func end() { machine.end() }
}

@Suite struct BuiltinTests {
  private static func run(_ differences: [KnownDifference] = [], filter: [String] = []) throws -> ConformanceResults {
    var options = ConformanceRun.Options(target: .builtin { try OwnMachine($0) })
    options.filters = filter
    options.differences = differences
    return try ConformanceRun(options).run()
  }

  @Test func everyCaseHoldsOnOurOwnMachines() throws {
    let results = try Self.run()
    let failures = results.cases.filter { $0.verdict.isFailure }
      .map { "\($0.testCase.id): \($0.verdict.detail ?? "")" }
    #expect(failures == [])
    #expect(results.skippedCount == 0)
    #expect(results.passedCount == ConformanceSuites.all.count)
  }

  @Test func aRoundTripIsMeasuredBesideAPeer() throws {
    let target = QTestTarget.builtin { try OwnMachine($0) }
    let figures = try RoundTrips.compare(target, with: target, count: 50)
    #expect(figures.median > 0)
    #expect((figures.peerMedian ?? 0) > 0)
    #expect(try RoundTrips.compare(target, with: nil, count: 50).peerMedian == nil)
  }

  @Test func knownDifferencesEndTheTextAsATable() throws {
    let known = KnownDifference("pci/ahci-class", .other, "it is so")
    let good = try Self.run([], filter: ["pci/ahci-class"])
    #expect(good.isGood)
    #expect(!good.text(.text, version: "1").contains("what it does instead"))
    // A difference that is not there is a failure, and no row of the table.
    let missing = try Self.run([known], filter: ["pci/ahci-class"])
    #expect(!missing.isGood)
    #expect(!missing.text(.text, version: "1").contains("what it does instead"))
    var seen = good
    seen.cases[0].verdict = .knownDifference("it is so", seen: "expected 1, saw 2")
    let lines = seen.text(.text, version: "1").split(separator: "\n")
    #expect(
      lines == [
        "case            held against       what it does instead", "pci/ahci-class  AHCI 1.3.1 §2.1.5  it is so",
        "1 cases: 1 passed (1 of them by a known difference), 0 failed, 0 skipped; seed 1",
      ])
  }
}
