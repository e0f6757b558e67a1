// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Synchronization

/// A run of scripts against a target, each on a machine of its own; its results are printed like those of the suites.
public struct QTScriptRun: Sendable {
  /// What is run, and how.
  public struct Options: Sendable {
    /// Where machines come from.
    public var target: QTestTarget
    /// How many machines run at once, at least 1.
    public var jobs = 1

    /// One script at a time.
    public init(target: QTestTarget) {
      self.target = target
    }
  }

  private let options: Options

  /// Describes a run.
  public init(_ options: Options) {
    self.options = options
  }

  /// Reads scripts from files and runs them; nothing is started where one of them cannot be read. `report` hears of
  /// each result as it comes, on some thread, never of two at once.
  /// - Throws: `QTScriptError` for a file that is wrong, `TransportError` where the target's program cannot be started.
  public func run(
    files: [String], report: @escaping @Sendable (CaseResult) -> Void = { _ in }
  ) throws -> ConformanceResults {
    try run(try files.map { try QTScript(contentsOf: $0) }, report: report)
  }

  /// Runs scripts and waits for all of them.
  /// - Throws: where the target's program cannot be started at all.
  public func run(
    _ scripts: [QTScript], report: @escaping @Sendable (CaseResult) -> Void = { _ in }
  ) throws(TransportError) -> ConformanceResults {
    let launcher = try QTestLauncher(options.target)
    let queue = Queue(scripts, report)
    var jobs = max(1, min(options.jobs, scripts.count))
    // One machine that runs already serves one script after the other.
    if case .socket = options.target { jobs = 1 }
    var threads: [HostThread] = []
    for _ in 1..<max(2, jobs) where jobs > 1 {
      // With fewer threads than asked for the run takes longer, nothing else.
      if let thread = try? HostThread(name: "script", { queue.work(launcher) }) { threads.append(thread) }
    }
    queue.work(launcher)
    for thread in threads { thread.join() }
    return ConformanceResults(kind: launcher.kind, seed: 0, cases: queue.results)
  }

  /// Runs one script on a machine of its own. Any thread may call.
  public static func run(_ script: QTScript, on launcher: QTestLauncher) -> CaseResult {
    let testCase = ConformanceCase(script.name, script.title, script.section, .bare) { _ in }
    let start = HostClock.nanoseconds
    var verdict = seen(script, launcher)
    if launcher.kind == .qemu, let reason = script.knownDifference {
      verdict = KnownDifference(script.name, .qemu, reason).judge(verdict)
    }
    return CaseResult(testCase: testCase, verdict: verdict, seconds: Double(HostClock.nanoseconds - start) / 1e9)
  }

  private static func seen(_ script: QTScript, _ launcher: QTestLauncher) -> Verdict {
    if case .socket = launcher.target, script.describesMachine { return .skipped("it needs a machine of its own") }
    do {
      let folder = try TemporaryFolder()
      let connection = try launcher.launch(try script.prepare(in: folder))
      var execution = QTScriptExecution(connection.client)
      do throws(ConformanceFailure) { try execution.run(script) } catch {
        // A process that died explains a reply that did not come.
        return .failed(connection.epitaph.map { "\(error); \($0)" } ?? error.description)
      }
      return .passed
    } catch {
      return .failed("\(error)")
    }
  }

  /// The scripts that wait and the results so far. Any thread may work.
  private final class Queue: Sendable {
    private struct State {
      var next = 0
      var results: [CaseResult?]
    }

    private let scripts: [QTScript]
    private let state: Mutex<State>
    private let report: @Sendable (CaseResult) -> Void

    init(_ scripts: [QTScript], _ report: @escaping @Sendable (CaseResult) -> Void) {
      self.scripts = scripts
      self.report = report
      state = Mutex(State(results: [CaseResult?](repeating: nil, count: scripts.count)))
    }

    /// All results, once nobody works any more.
    var results: [CaseResult] { state.withLock { $0.results.compactMap { $0 } } }

    func work(_ launcher: QTestLauncher) {
      while let index = take() {
        let result = QTScriptRun.run(scripts[index], on: launcher)
        state.withLock {
          $0.results[index] = result
          report(result)
        }
      }
    }

    private func take() -> Int? {
      state.withLock { state in
        guard state.next < scripts.count else { return nil }
        state.next += 1
        return state.next - 1
      }
    }
  }
}
