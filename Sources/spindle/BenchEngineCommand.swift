// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import AsyncIO
import Bench
import EventLoop

struct BenchEngineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "engine",
    abstract: "Each I/O engine beside fio and qemu-img bench on the same file, and the block layer over no bytes.",
    discussion: """
      Operations go straight to the engine, without a device: 4 KiB random and
      128 KiB sequential reads and writes, and 4 KiB writes that must be durable,
      by a flush each or as FUA writes. Without --file a temporary file of 512 MiB
      is made in TMPDIR (or /var/tmp) and removed afterwards. A named file is only
      read, unless --overwrite is given.

      Examples:
        spindle bench engine --quick
        spindle bench engine --engines io_uring,threads --depths 1,32
        spindle bench engine --file /dev/nvme0n1 --seconds 2 --json
      """)

  @Option(help: "The file or block device to load.")
  var file: String?
  @Flag(help: "Measure writes on --file too; its content is lost.")
  var overwrite = false
  @Option(help: "Engines, separated by commas: io_uring, linux-aio, threads (default: all that the host has).")
  var engines: String?
  @Option(help: "What the loop waits with: auto, poll, epoll or io_uring.")
  var loop = "auto"
  @Flag(help: "Go through the page cache instead of O_DIRECT.")
  var buffered = false
  @Option(help: "Requests in flight, separated by commas (default: 1,16,64).")
  var depths: String?
  @Option(help: "Seconds of each measurement (default: 0.5).")
  var seconds: Double?
  @Option(help: "Measurements of each row, in turn with the peers' (default: 3).")
  var rounds: Int?
  @Flag(help: "One round of 1 second at depths 1 and 16, where nothing else is said.")
  var quick = false
  @Flag(help: "Print one JSON object instead of the table.")
  var json = false

  func run() throws {
    var bench = EngineBench()
    bench.path = file
    bench.measuresWrites = file == nil || overwrite
    bench.isDirect = !buffered
    bench.engines = try engines.map(Self.kinds)
    guard let monitor = LoopMonitor(rawValue: loop) else {
      throw UsageError("--loop \(loop): give auto, poll, epoll or io_uring")
    }
    bench.monitor = monitor
    if quick {
      bench.depths = [1, 16]
      bench.seconds = 1
      bench.rounds = 1
    }
    if let depths { bench.depths = try BenchCommand.depths(depths, max: EngineBench.depthMax) }
    bench.seconds = seconds ?? bench.seconds
    bench.rounds = rounds ?? bench.rounds
    guard (0.1...600).contains(bench.seconds), (1...99).contains(bench.rounds) else {
      throw UsageError(
        "--seconds \(bench.seconds) --rounds \(bench.rounds): give 0.1 to 600 seconds and 1 to 99 rounds")
    }
    if !json { bench.print = { print($0) } }
    let results = try bench.run()
    if json { try printJSON(command: "bench engine", results: results) }
  }

  private static func kinds(_ text: String) throws -> [EngineKind] {
    try text.split(separator: ",", omittingEmptySubsequences: false).map { name in
      guard let kind = EngineKind(name: String(name)) else {
        throw UsageError("--engines \(text): give io_uring, linux-aio or threads, separated by commas")
      }
      return kind
    }
  }
}
