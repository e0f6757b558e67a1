// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestDrivers
import HostSystem
import Synchronization

/// Sleeps; only ever for what a case says the guest does meanwhile, never to wait for something.
func hostSleep(microseconds: UInt32) { usleep(microseconds) }

/// What came of a case.
public enum Verdict: Equatable, Sendable {
  /// It behaves as the specification says.
  case passed
  /// It does not: expected and seen.
  case failed(String)
  /// It was not tried, and why.
  case skipped(String)
  /// It differs as it is known to: the reason, and what was seen.
  case knownDifference(String, seen: String)
  /// It passed although it is known to differ: the list of differences is wrong. Counts as a failure.
  case missingDifference(String)
}

/// A case with what came of it.
public struct CaseResult: Sendable {
  /// The case.
  public var testCase: ConformanceCase
  /// What came of it.
  public var verdict: Verdict
  /// How long it took, starting the machine included.
  public var seconds: Double
}

/// A run of the suites against a target.
public struct ConformanceRun: Sendable {
  /// What is run, and how.
  public struct Options: Sendable {
    /// Where machines come from.
    public var target: QTestTarget
    /// Cases are run where their id contains one of these; all of them where there are none.
    public var filters: [String] = []
    /// Only cases of this kind of machine; nil for all kinds.
    public var machine: MachineKind?
    /// How many machines run at once, at least 1.
    public var jobs = 1
    /// What random numbers begin with.
    public var seed: UInt64 = 1
    /// The cases to choose from.
    public var cases = ConformanceSuites.all
    /// The differences that are known.
    public var differences = ConformanceSuites.differences

    /// All cases, one at a time.
    public init(target: QTestTarget) {
      self.target = target
    }

    /// The cases that the filters let through, in order.
    public var chosen: [ConformanceCase] {
      cases.filter { one in
        (machine == nil || one.machine == machine)
          && (filters.isEmpty || filters.contains { one.id.containsText($0) })
      }
    }
  }

  private let options: Options

  /// Describes a run.
  public init(_ options: Options) {
    self.options = options
  }

  /// Runs the chosen cases and waits for all of them. `report` hears of each result as it comes, on some thread, never
  /// of two at once.
  /// - Throws: where the target's program cannot be started at all.
  public func run(report: @escaping @Sendable (CaseResult) -> Void = { _ in }) throws(TransportError)
    -> ConformanceResults
  {
    let launcher = try QTestLauncher(options.target)
    let chosen = options.chosen
    let queue = CaseQueue(CaseQueue.batches(of: chosen, sharing: options.target), report: report)
    let workerCount = Self.isSequential(options.target) ? 1 : max(1, min(options.jobs, queue.batchCount))
    var threads: [HostThread] = []
    for _ in 1..<max(2, workerCount) where workerCount > 1 {
      let options = options
      let thread = try? HostThread(name: "conform") {
        CaseWorker(launcher: launcher, options: options, queue: queue).work()
      }
      // With fewer threads than asked for the run takes longer, nothing else.
      if let thread { threads.append(thread) }
    }
    CaseWorker(launcher: launcher, options: options, queue: queue).work()
    for thread in threads { thread.join() }
    return ConformanceResults(kind: launcher.kind, seed: options.seed, cases: queue.results(inOrderOf: chosen))
  }

  /// One machine that runs already serves one case after the other.
  private static func isSequential(_ target: QTestTarget) -> Bool {
    if case .socket = target { return true }
    return false
  }
}

/// The cases that wait, in batches that one machine can serve, and the results so far. Any thread may ask.
final class CaseQueue: Sendable {
  private struct State {
    var batches: [[ConformanceCase]]
    var results: [String: CaseResult] = [:]
  }

  /// No batch is larger, so that the last ones do not keep one worker busy alone.
  private static let batchCasesMax = 12

  let batchCount: Int
  private let state: Mutex<State>
  private let report: @Sendable (CaseResult) -> Void

  init(_ batches: [[ConformanceCase]], report: @escaping @Sendable (CaseResult) -> Void) {
    batchCount = batches.count
    state = Mutex(State(batches: batches.reversed()))
    self.report = report
  }

  /// Puts cases that share a machine of the same kind together, the others alone.
  static func batches(of cases: [ConformanceCase], sharing target: QTestTarget) -> [[ConformanceCase]] {
    if case .socket = target { return [cases] }
    var batches: [[ConformanceCase]] = []
    var open: [MachineKind: Int] = [:]
    for one in cases {
      if one.sharesMachine, let index = open[one.machine], batches[index].count < batchCasesMax {
        batches[index].append(one)
        continue
      }
      batches.append([one])
      if one.sharesMachine { open[one.machine] = batches.count - 1 }
    }
    return batches
  }

  func take() -> [ConformanceCase]? { state.withLock { $0.batches.popLast() } }

  func note(_ result: CaseResult) {
    state.withLock {
      $0.results[result.testCase.id] = result
      report(result)
    }
  }

  func results(inOrderOf cases: [ConformanceCase]) -> [CaseResult] {
    state.withLock { state in cases.compactMap { state.results[$0.id] } }
  }
}

/// Runs batches of cases on machines of its own. Belongs to one thread.
struct CaseWorker {
  let launcher: QTestLauncher
  let options: ConformanceRun.Options
  let queue: CaseQueue

  func work() {
    while let batch = queue.take() { run(batch) }
  }

  private func run(_ batch: [ConformanceCase]) {
    var machine: RunningMachine?
    for one in batch {
      let start = HostClock.nanoseconds
      let seen = run(one, on: &machine)
      let seconds = Double(HostClock.nanoseconds - start) / 1e9
      queue.note(CaseResult(testCase: one, verdict: judge(one, seen), seconds: seconds))
      // What a failed case has left behind is nobody's business; the next one gets a machine of its own.
      if seen != .passed { machine = nil }
    }
  }

  private func run(_ one: ConformanceCase, on machine: inout RunningMachine?) -> Verdict {
    if case .socket = options.target, !one.sharesMachine { return .skipped("it needs a fresh machine of its own") }
    do {
      let running = try machine ?? RunningMachine(launcher, one.machine)
      machine = running
      let context = CaseContext(
        bus: running.bus, monitor: running.connection.monitor,
        random: SeededNumbers(seed: options.seed, name: one.id))
      try one.body(context)
      try context.checkTransport()
      return .passed
    } catch let skip as ConformanceSkip {
      return .skipped(skip.reason)
    } catch {
      return .failed(machine?.explain(error) ?? "\(error)")
    }
  }

  private func judge(_ one: ConformanceCase, _ seen: Verdict) -> Verdict {
    let known = options.differences.first { $0.caseID == one.id && $0.target == launcher.kind }
    return known?.judge(seen) ?? seen
  }
}

/// A machine with its images and the bus to it.
private final class RunningMachine {
  let connection: QTestConnection
  let bus: RemoteBus
  private let images: TemporaryFolder

  init(_ launcher: QTestLauncher, _ kind: MachineKind) throws(TransportError) {
    images = try TemporaryFolder()
    connection = try launcher.launch(try kind.prepare(in: images, for: launcher.kind), needsMonitor: kind.needsMonitor)
    try connection.client.checkByteOrder()
    bus = RemoteBus(client: connection.client, memoryBytes: MachineKind.memoryBytes)
  }

  /// What went wrong, in words; a connection that failed explains everything else, and a dead process that.
  func explain(_ error: any Error) -> String {
    guard let failure = bus.failure else {
      if let error = error as? DriverError { return "the driver gave up: \(error)" }
      return "\(error)"
    }
    return connection.epitaph.map { "\(failure); \($0)" } ?? "\(failure)"
  }
}

extension String {
  /// Whether `text` is found anywhere in it.
  func containsText(_ text: String) -> Bool {
    if text.isEmpty { return true }
    return utf8.indices.contains { utf8[$0...].starts(with: text.utf8) }
  }
}
