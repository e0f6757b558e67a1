// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import Bench
import Conformance
import Glibc
import HostSystem
import QEMUCommandLine

struct ConformCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "conform",
    abstract: "Hold disk controllers against their specifications: ours, or those of another machine.",
    discussion: """
      Each case names the behaviour and the section that lays it down. A machine is
      driven over a qtest socket; QEMU is one of the machines that can be tried.
      Exit status 1 where a case fails.

      Examples:
        spindle conform
        spindle conform --list --filter virtio/
        spindle conform --target command:qemu-system-x86_64 --jobs 2
        spindle conform --machine ahci --prepare folder
        spindle conform --machine ahci --target socket:qtest.sock --format tap
        spindle conform reproducer.qts --target command:qemu-system-x86_64
        spindle conform --round-trips
      """)

  @Argument(
    help: ArgumentHelp("Scripts of qtest lines to run instead of the suites' cases.", valueName: "file.qts"))
  var scripts: [String] = []
  @Flag(help: "List the cases with their sections instead of running them.")
  var list = false
  @Option(help: "Only cases whose id contains this text; may be given several times.")
  var filter: [String] = []
  @Option(
    help: ArgumentHelp(
      "Whose machines: builtin (a new one in this process for each batch of cases), command:'PROGRAM ARGUMENT …' "
        + "(a program with QEMU's command line), or socket:PATH (one machine that runs and listens).",
      valueName: "target"))
  var target = "builtin"
  @Option(
    help: ArgumentHelp(
      "Only cases of one kind of machine, as --list names them; a machine behind a socket is of one kind.",
      valueName: "kind"))
  var machine: String?
  @Option(
    help: ArgumentHelp(
      "Make this folder with the images of --machine instead, and print QEMU's options for such a machine.",
      valueName: "folder"))
  var prepare: String?
  @Option(help: "How results are printed: text, tap, junit or json.")
  var format = "text"
  @Flag(help: "The same as --format json.")
  var json = false
  @Option(help: "How many machines run at once.")
  var jobs = 1
  @Option(help: "What the random numbers of the cases begin with.")
  var seed: UInt64 = 1
  @Flag(
    name: .customLong("round-trips"),
    help: "Measure what a qtest request takes instead, beside QEMU where it is installed.")
  var roundTrips = false

  private static let jobsMax = 64

  func run() throws {
    let chosenFormat = try chooseFormat()
    guard (1...Self.jobsMax).contains(jobs) else {
      throw UsageError("--jobs \(jobs): give a number from 1 to \(Self.jobsMax)")
    }
    let choice: TargetChoice
    do throws(TargetChoice.Mistake) { choice = try TargetChoice(parsing: target) } catch {
      throw UsageError("--target \(target): \(error)")
    }
    // A machine that goes away is told by the write's result.
    signal(SIGPIPE, SIG_IGN)
    let kind = try chooseMachine()
    try checkScripts()
    if let prepare { return try writeImages(of: kind, into: prepare) }
    if roundTrips { return try measure(choice, chosenFormat) }
    if !scripts.isEmpty { return try runScripts(on: Self.machines(of: choice), chosenFormat) }
    var options = ConformanceRun.Options(target: Self.machines(of: choice))
    options.filters = filter
    options.machine = kind
    options.jobs = jobs
    options.seed = seed
    guard !options.chosen.isEmpty else {
      let kinds = machine.map { " of --machine \($0)" } ?? ""
      throw UsageError("--filter \(filter.joined(separator: ", ")): no case\(kinds) has it in its id; see --list")
    }
    if list { return try printList(options.chosen, chosenFormat) }
    Self.silenceMachines()
    try report(try ConformanceRun(options).run(), chosenFormat)
  }

  private func report(_ results: ConformanceResults, _ format: ResultFormat) throws {
    print(results.text(format, version: Spindle.version), terminator: "")
    if !results.isGood { throw ExitCode(1) }
  }

  /// A machine of ours would tell of every wrong thing that a case does on purpose.
  private static func silenceMachines() { Spindle.logLevel.withLock { $0 = .critical } }

  // MARK: Scripts

  private func checkScripts() throws {
    guard let first = scripts.first else { return }
    if let other = scripts.first(where: { !$0.hasSuffix(".qts") }) {
      throw UsageError("\(other): the name of a script ends in .qts; cases are chosen by --filter")
    }
    let others = [
      ("--list", list), ("--round-trips", roundTrips), ("--filter", !filter.isEmpty), ("--machine", machine != nil),
      ("--prepare", prepare != nil),
    ]
    if let other = others.first(where: { $0.1 }) {
      throw UsageError("\(first): \(other.0) is about the suites' cases; leave it out to run scripts")
    }
  }

  private func runScripts(on target: QTestTarget, _ format: ResultFormat) throws {
    var options = QTScriptRun.Options(target: target)
    options.jobs = jobs
    Self.silenceMachines()
    do {
      try report(try QTScriptRun(options).run(files: scripts), format)
    } catch let error as QTScriptError {
      throw UsageError("\(error)")
    }
  }

  private func chooseFormat() throws -> ResultFormat {
    guard let chosen = ResultFormat(rawValue: format) else {
      throw UsageError("--format \(format): unknown; choose text, tap, junit or json")
    }
    return json ? .json : chosen
  }

  private func chooseMachine() throws -> MachineKind? {
    guard let machine else { return nil }
    guard let kind = MachineKind(rawValue: machine) else {
      let kinds = MachineKind.allCases.map(\.rawValue).joined(separator: ", ")
      throw UsageError("--machine \(machine): unknown; choose one of \(kinds)")
    }
    return kind
  }

  private func writeImages(of kind: MachineKind?, into folder: String) throws {
    guard let kind else { throw UsageError("--prepare \(folder): name the kind of machine with --machine") }
    guard mkdir(folder, 0o777) == 0 else {
      throw SetupError("--prepare \(folder): \(SystemError.text(of: errno)); name a folder that is not there yet")
    }
    let words = try kind.prepare(inFolder: folder)
    print(words.joined(separator: " "))
  }

  private static func machines(of choice: TargetChoice) -> QTestTarget {
    switch choice {
    case .builtin: .builtin { try BuiltinQEMUMachine($0) }
    case .command(let words): .command(words)
    case .socket(let path): .socket(path)
    }
  }

  private func printList(_ cases: [ConformanceCase], _ format: ResultFormat) throws {
    switch format {
    case .text: print(CaseList.text(of: cases), terminator: "")
    case .json: print(CaseList.json(of: cases, version: Spindle.version), terminator: "")
    case .tap, .junit: throw UsageError("--list --format \(format.rawValue): a list is text or json")
    }
  }

  // MARK: Round trips

  private static let roundTripCount = 20_000
  private static let referee = "qemu-system-x86_64"

  private func measure(_ choice: TargetChoice, _ format: ResultFormat) throws {
    guard format == .text || format == .json else {
      throw UsageError("--round-trips --format \(format.rawValue): figures are text or json")
    }
    let figures = try RoundTrips.compare(
      Self.machines(of: choice), with: PeerTool.isInstalled(Self.referee) ? .command([Self.referee]) : nil,
      count: Self.roundTripCount)
    let ours = Double(figures.median) / 1000
    var result = BenchResult(id: "qtest/round-trip/\(choice.word)", value: ours, unit: "us")
    if let peer = figures.peerMedian.map({ Double($0) / 1000 }) {
      result.peer = "QEMU"
      result.peerValue = peer
      result.ratio = peer / ours
    }
    if format == .json { return try printJSON(command: "conform", results: [result]) }
    print("a qtest round trip, median of \(Self.roundTripCount): \(Self.tenths(ours)) us (\(choice.word))")
    if let peer = result.peerValue {
      print("QEMU, same client, same run: \(Self.tenths(peer)) us, \(Self.tenths(peer / ours)) times ours")
    } else {
      print("\(Self.referee) is not installed, so there is nothing beside it")
    }
  }

  private static func tenths(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }
}

/// A machine of this process for a batch of cases.
private final class BuiltinQEMUMachine: BuiltinMachine {
  private let machine: InProcessMachine

  init(_ words: [String]) throws { machine = try InProcessMachine(words) }

  func takeSocket() -> OwnedDescriptor {
    guard let socket = machine.takeQTestSocket() else { preconditionFailure("the socket is taken once") }
    return socket
  }

  func takeMonitorSocket() -> OwnedDescriptor? { machine.takeMonitorSocket() }

  func end() { machine.end() }
}
