// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import Bench
import EventLoop
import Glibc
import HostSystem
import Pictures
import WakeupLab

struct WakeupCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wakeup",
    abstract: "Show the lost vCPU wakeup on this machine, and that the fix holds.",
    discussion: """
      A guest reads a file in batches and thinks in between, so the main loop goes
      to sleep. Its doorbell at an AHCI port is handled by the vCPU's thread, which
      queues the requests on the main loop's ring. Under --wake never nobody tells
      the loop, which sleeps on till its next timer: QEMU's bug of February 2026.

      Examples:
        spindle wakeup --reproduce
        spindle wakeup --wake never --activity 1000
        spindle wakeup --reproduce --guest kvm
        spindle wakeup --device virtio --file disk.img --mib 64
      """)

  @Flag(help: "Run the whole published table, and say whether bug and fix show; exit status 1 where not.")
  var reproduce = false
  @Option(help: "What the disk is behind: ahci or virtio.")
  var device = "ahci"
  @Option(help: "What the guest runs on: hosted (a thread of this process) or kvm (the built-in image).")
  var guest = "hosted"
  @Option(help: "When the loop is woken for what a vCPU has queued: always, elided or never.")
  var wake = "elided"
  @Option(help: "Wakeups a second that other work gives the main loop (with --reproduce: of the row with activity).")
  var activity: UInt64?
  @Option(help: "Milliseconds between the wakeups that the main loop has by itself.")
  var heartbeat: UInt64 = 500
  @Flag(help: "A display is attached, which the main loop refreshes every 30 ms.")
  var display = false
  @Option(help: "The file to read (default: a temporary one); it is only read.")
  var file: String?
  @Option(help: "MiB that are read.")
  var mib: UInt64 = 128
  @Option(name: .customLong("request-kib"), help: "KiB of each request.")
  var requestKiB: UInt32 = 128
  @Option(help: "Requests of a batch.")
  var batch = 16
  @Option(name: .customLong("batch-think-us"), help: "Microseconds of thought before each batch.")
  var batchThinkUs: UInt64 = 1000
  @Option(name: .customLong("completion-think-us"), help: "Microseconds of thought after each completion.")
  var completionThinkUs: UInt64 = 1000
  @Option(help: "Who enters the kernel for what the vCPU queues: loop or vcpu.")
  var submit = "loop"
  @Option(
    help: "Write the first run's trace to this file, for Perfetto (--reproduce: \(Self.traceDefault) by default).")
  var trace: String?
  @Option(
    help: ArgumentHelp(
      "Draw the longest stall of the first run into this file, and the latencies of all into one beside it "
        + "(--reproduce: \(Self.pictureDefault) by default)."))
  var png: String?
  @Flag(help: "Print one JSON object instead of the table.")
  var json = false

  private static let traceDefault = "wakeup-trace.json"
  private static let pictureDefault = "wakeup.png"
  /// Wakeups a second of a busy ssh session.
  private static let activityDefault: UInt64 = 1000

  func run() throws {
    let scenarios = try chosenScenarios()
    let guest = try chosenGuest()
    try checkNumbers()
    let recording = try (trace ?? (reproduce ? Self.traceDefault : nil)).map { try TraceRecording(path: $0) }
    let pictures = try openPictures()
    let (outcome, lab) = try BenchFile.withPath(file, byteCount: mib << 20) { path in
      let lab = makeLab(path, guest)
      var reproduction = Reproduction(lab: lab, scenarios: scenarios)
      if !json { reproduction.print = { print($0) } }
      return (try reproduction.run(), lab)
    }
    if let recording { StandardError.print("spindle: \(try recording.write(outcome.trace))") }
    if let pictures { try draw(pictures, outcome, lab) }
    let (lines, isGood) = Reproduction.verdict(outcome)
    if json {
      try printJSON(command: "wakeup", results: results(outcome))
    } else if reproduce {
      lines.forEach { print($0) }
      print(isGood ? "the bug shows, and the fix holds" : "the bug does not show, or the fix does not hold")
    }
    if reproduce && !isGood { throw ExitCode(1) }
  }

  private func makeLab(_ path: String, _ guest: WakeupGuest) -> WakeupRun {
    var lab = WakeupRun(path: path)
    lab.guest = guest
    lab.parameters.totalBytes = mib << 20
    lab.parameters.requestBytes = requestKiB << 10
    lab.parameters.batchCount = batch
    lab.parameters.batchThinkNs = batchThinkUs * 1000
    lab.parameters.completionThinkNs = completionThinkUs * 1000
    lab.hasDisplay = display
    lab.heartbeatNs = heartbeat * 1_000_000
    return lab
  }

  private func openPictures() throws -> WakeupPictures? {
    do {
      return try (png ?? (reproduce ? Self.pictureDefault : nil)).map { try WakeupPictures(path: $0) }
    } catch let error as PictureError {
      if let png { throw SetupError("--png \(png): \(error)") }
      StandardError.print("spindle: no pictures: \(error)")
      return nil
    }
  }

  private func draw(_ pictures: WakeupPictures, _ outcome: Reproduction.Outcome, _ lab: WakeupRun) throws {
    do throws(PictureError) {
      let files = try pictures.write(outcome, parameters: lab.parameters)
      StandardError.print("spindle: pictures: \(files.joined(separator: ", "))")
    } catch {
      throw SetupError("--png: \(error)")
    }
  }

  private func chosenScenarios() throws -> [WakeupScenario] {
    if reproduce { return WakeupScenario.all(activityHz: activity ?? Self.activityDefault) }
    let policy = try LoopOption.wakePolicy(wake)
    let interfaces: [String: DriveConfiguration.Interface] = ["ahci": .ahci, "virtio": .virtio]
    guard let interface = interfaces[device] else {
      throw UsageError("--device \(device): unknown; choose ahci or virtio")
    }
    let submission = try LoopOption.submission(submit)
    return [
      WakeupScenario(interface: interface, policy: policy, activityHz: activity ?? 0, submission: submission)
    ]
  }

  private func chosenGuest() throws -> WakeupGuest {
    guard let choice = WakeupGuest(rawValue: guest) else {
      throw UsageError("--guest \(guest): unknown; choose hosted or kvm")
    }
    try choice.check()
    return choice
  }

  private func checkNumbers() throws {
    guard (1...32).contains(batch) else { throw UsageError("--batch \(batch): give a number from 1 to 32") }
    guard (1...1024).contains(requestKiB), (1...(1 << 20)).contains(mib), mib << 10 % UInt64(requestKiB) == 0 else {
      throw UsageError(
        "--mib \(mib) --request-kib \(requestKiB): give 1 to 1048576 MiB in whole requests of 1 to 1024 KiB")
    }
    guard (1...60_000).contains(heartbeat) else {
      throw UsageError("--heartbeat \(heartbeat): give 1 to 60000 milliseconds")
    }
    guard (activity ?? 0) <= 100_000 else {
      throw UsageError("--activity \(activity ?? 0): give at most 100000 a second")
    }
    guard batchThinkUs <= 1_000_000, completionThinkUs <= 1_000_000 else {
      throw UsageError("--batch-think-us, --completion-think-us: give at most 1000000 microseconds")
    }
  }

  /// Rows of the hosted guest have the names of the design; those of others say so.
  private func identifier(_ id: String) -> String {
    guest == WakeupGuest.hosted.rawValue ? id : id.replacing("wakeup/", with: "wakeup/\(guest)/")
  }

  private func results(_ outcome: Reproduction.Outcome) -> [BenchResult] {
    var results = [
      BenchResult(id: identifier("wakeup/floor"), value: outcome.floorSeconds, unit: "s"),
      BenchResult(id: identifier("wakeup/disk"), value: outcome.diskSeconds, unit: "s"),
    ]
    for (scenario, figures) in outcome.rows {
      var result = BenchResult(id: identifier(scenario.id), value: figures.seconds, unit: "s")
      if let published = scenario.publishedSeconds {
        result.peer = "QEMU, February 2026"
        result.peerValue = published
        result.ratio = published / figures.seconds
      }
      results.append(result)
    }
    if let host = outcome.hostWake {
      results += steps("wakeup/host", WakeupStep(name: "eventfd to woken", latency: host))
    }
    for (scenario, figures) in outcome.rows {
      for step in figures.steps { results += steps(scenario.id, step) }
    }
    return results
  }

  private func steps(_ id: String, _ step: WakeupStep) -> [BenchResult] {
    let name = identifier(id) + "/" + step.name.replacing(" ", with: "-")
    let latency = step.latency
    return [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)].map {
      BenchResult(id: name + "/" + $0.0, value: Double($0.1) / 1000, unit: "us")
    }
  }
}
