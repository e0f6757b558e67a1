// SPDX-License-Identifier: Apache-2.0
import Bench
import EventLoop
import GuestDrivers
import Pictures
import Tracing

/// `spindle wakeup`: the published table on this machine, beside its floor, with a verdict in words.
public struct Reproduction {
  /// Runs the workload.
  public var lab: WakeupRun
  /// The rows.
  public var scenarios: [WakeupScenario]
  /// Takes each line as it is known.
  public var print: (String) -> Void = { _ in }

  /// How much slower `never` has to be than `always` for the bug to show.
  public static let slowdownMin = 10.0
  /// How far above virtio-blk `always` and `elided` may be for the fix to hold.
  public static let overVirtioMax = 1.04
  /// How far above the thoughts and the disk's own time they may be.
  public static let overFloorMax = 1.08

  /// Reproduces `scenarios` with `lab`.
  public init(lab: WakeupRun, scenarios: [WakeupScenario]) {
    self.lab = lab
    self.scenarios = scenarios
  }

  /// What was measured.
  public struct Outcome: Sendable {
    /// The rows, in order.
    public var rows: [(scenario: WakeupScenario, figures: WakeupFigures)] = []
    /// What carried the guest.
    public var guest = WakeupGuest.hosted
    /// Requests that were submitted together.
    public var batchCount = 1
    /// The thoughts alone, and the reads alone, seconds.
    public var floorSeconds = 0.0, diskSeconds = 0.0
    /// How long this host takes to wake a thread by an eventfd; nil before it was measured.
    public var hostWake: LatencySummary?
    /// The trace of the first row, which is the bug's.
    public var trace = Trace(threads: [])

    /// An outcome without rows.
    public init() {}

    func seconds(_ interface: String, _ policy: WakePolicy) -> Double? {
      rows.first { $0.scenario.id == "wakeup/\(interface)/\(policy.rawValue)" }?.figures.seconds
    }
  }

  private static let table = BenchTable(widths: [32, 9, 12, 9, 9, 15, 9])

  /// Measures everything, prints the table and the verdict.
  public func run() throws -> Outcome {
    let parameters = lab.parameters
    print(
      "\(parameters.totalBytes >> 20) MiB in reads of \(parameters.requestBytes >> 10) KiB, batches of "
        + "\(parameters.batchCount); the guest thinks \(Self.milliseconds(parameters.batchThinkNs)) ms before each batch "
        + "and \(Self.milliseconds(parameters.completionThinkNs)) ms after each completion")
    print(
      "O_DIRECT, io_uring, \(lab.guest.rawValue) guest; the main loop wakes by itself every \(lab.heartbeatNs / 1_000_000) ms"
    )
    print(Self.table.row(["id", "seconds", "QEMU, 2026", "x floor", "wakeups", "eventfd/request", "requests"]))
    var outcome = Outcome()
    outcome.guest = lab.guest
    outcome.batchCount = parameters.batchCount
    outcome.floorSeconds = try lab.floorSeconds()
    outcome.diskSeconds = try EngineAlone(
      requestBytes: Int(parameters.requestBytes), batchCount: parameters.batchCount
    ).run(path: lab.path, totalBytes: parameters.totalBytes)
    printRow("wakeup/floor", outcome.floorSeconds, nil, outcome.floorSeconds, nil)
    printRow("wakeup/disk", outcome.diskSeconds, nil, outcome.floorSeconds, nil)
    for scenario in scenarios {
      let (figures, trace) = try lab.run(scenario)
      if outcome.rows.isEmpty { outcome.trace = trace }
      outcome.rows.append((scenario, figures))
      printRow(scenario.id, figures.seconds, scenario.publishedSeconds, outcome.floorSeconds, figures)
    }
    outcome.hostWake = try HostWakeLatency.measure()
    printSteps(outcome)
    return outcome
  }

  private static let stepTable = BenchTable(widths: [32, 24, 10, 10, 10, 10])

  /// Where the time goes: how long each step took, microseconds.
  private func printSteps(_ outcome: Outcome) {
    print("")
    print(Self.stepTable.row(["microseconds", "step", "p50", "p99", "p99.9", "max"]))
    if let host = outcome.hostWake { printStep("this host", "eventfd to woken", host) }
    for row in outcome.rows {
      for step in row.figures.steps { printStep(row.scenario.id, step.name, step.latency) }
    }
    print("")
  }

  private func printStep(_ id: String, _ name: String, _ latency: LatencySummary) {
    let times = [latency.p50, latency.p99, latency.p999, latency.max]
    print(Self.stepTable.row([id, name] + times.map { BenchTable.fraction(Double($0) / 1000) }))
  }

  private func printRow(
    _ id: String, _ seconds: Double, _ published: Double?, _ floor: Double, _ figures: WakeupFigures?
  ) {
    print(
      Self.table.row([
        id, BenchTable.fraction(seconds), BenchTable.fraction(published), BenchTable.fraction(seconds / floor),
        figures.map { "\($0.wakeups)" } ?? "-",
        BenchTable.fraction(figures.map { Double($0.eventWrites) / Double($0.requestCount) }),
        figures.map { "\($0.requestCount)" } ?? "-",
      ]))
  }

  private static func milliseconds(_ ns: UInt64) -> String { BenchTable.fraction(Double(ns) / 1e6) }

  /// Whether the bug shows and the fix holds.
  /// - Returns: lines in words, and whether all of it is as it should be.
  public static func verdict(_ outcome: Outcome) -> (lines: [String], isGood: Bool) {
    var lines: [String] = []
    var isGood = true
    func state(_ holds: Bool, _ words: String) {
      lines.append((holds ? "yes: " : "NO:  ") + words)
      isGood = isGood && holds
    }
    let fixed = outcome.seconds("ahci", .always)
    if let bug = outcome.seconds("ahci", .never), let fixed {
      state(
        bug >= slowdownMin * fixed,
        "the bug shows: without the wakeup AHCI takes \(BenchTable.fraction(bug / fixed)) times as long "
          + "(at least \(Int(slowdownMin)))")
    }
    let best = outcome.floorSeconds + outcome.diskSeconds
    for policy in [WakePolicy.always, .elided] {
      guard let seconds = outcome.seconds("ahci", policy) else { continue }
      if let virtio = outcome.seconds("virtio-blk", .always) {
        state(
          seconds <= overVirtioMax * virtio,
          "\(policy.rawValue) takes \(BenchTable.fraction(seconds / virtio)) of virtio-blk's time "
            + "(at most \(BenchTable.fraction(overVirtioMax)))")
      }
      let words =
        "\(policy.rawValue) takes \(BenchTable.fraction(seconds / best)) of the thoughts and the disk's own time"
      if outcome.guest == .hosted {
        state(seconds <= overFloorMax * best, words + " (at most \(BenchTable.fraction(overFloorMax)))")
      } else {
        // Neither of the two has the guest's own instructions, and its exits, which cost time in a real one.
        lines.append(words)
      }
    }
    lines += Self.announcements(outcome, state)
    return (lines, isGood)
  }

  /// How often `elided` writes the eventfd, and how long work waits for a loop that has nothing else to do.
  private static func announcements(_ outcome: Outcome, _ state: (Bool, String) -> Void) -> [String] {
    guard let row = outcome.rows.first(where: { $0.scenario.id == "wakeup/ahci/elided" }) else { return [] }
    let batches = (row.figures.requestCount + UInt64(outcome.batchCount) - 1) / UInt64(outcome.batchCount)
    state(
      row.figures.eventWrites <= batches,
      "elided writes the eventfd \(row.figures.eventWrites) times for \(batches) batches (at most once each)")
    guard let step = row.figures.steps.first(where: { $0.name == "queued idle to submitted" }),
      let host = outcome.hostWake
    else { return [] }
    return [
      "elided hands the first request of a batch to the kernel \(TimeText.text(step.latency.p99)) after it was queued "
        + "(p99; this host's own eventfd wakes a thread in \(TimeText.text(host.p99)))"
    ]
  }
}
