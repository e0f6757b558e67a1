// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import Bench

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure the way of a request beside peers in the same run.",
    subcommands: [Virtio.self, AHCI.self, BenchEngineCommand.self, HotPathCommand.self])

  struct Virtio: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "The virtio-blk device path beside fio on the same file, and over a disk with no bytes.",
      discussion: """
        A guest driver on one thread drives the device on another. Without --file
        a temporary file of 512 MiB is made in TMPDIR (or /var/tmp) and removed
        afterwards. A named file is only read, unless --overwrite is given.

        Examples:
          spindle bench virtio
          spindle bench virtio --file /dev/nvme0n1 --depths 1,32 --seconds 5
          spindle bench virtio --json
        """)

    @Option(help: "The file or block device to load.")
    var file: String?
    @Flag(help: "Measure writes on --file too; its content is lost.")
    var overwrite = false
    @Option(help: "Requests in flight, separated by commas.")
    var depths = "1,16,64"
    @Option(help: "Seconds of each measurement.")
    var seconds = 2
    @Option(help: "Measurements of each row, in turn with the peer's.")
    var rounds = 3
    @Flag(help: "Print one JSON object instead of the table.")
    var json = false

    func run() throws {
      var bench = VirtioBench()
      bench.path = file
      bench.measuresWrites = file == nil || overwrite
      bench.seconds = seconds
      bench.rounds = rounds
      bench.depths = try BenchCommand.depths(depths, max: 64)
      try BenchCommand.check(seconds: seconds, rounds: rounds)
      if !json { bench.print = { print($0) } }
      let results = try bench.run()
      if json { try printJSON(command: "bench virtio", results: results) }
    }
  }

  struct AHCI: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "ahci", abstract: "A SATA disk's queued commands beside fio and virtio-blk on the same file.",
      discussion: """
        AHCI and virtio-blk are served by the main loop, and their guests sleep
        until an interrupt; fio has the file for itself. All run in turn. Without
        --file a temporary file of 512 MiB is made in TMPDIR (or /var/tmp) and
        removed afterwards. A named file is only read, unless --overwrite is given.

        Examples:
          spindle bench ahci
          spindle bench ahci --file /dev/nvme0n1 --depths 1,32 --seconds 5
          spindle bench ahci --json
        """)

    @Option(help: "The file or block device to load.")
    var file: String?
    @Flag(help: "Measure writes on --file too; its content is lost.")
    var overwrite = false
    @Option(help: "Requests in flight, up to \(AHCIBench.depthMax), separated by commas.")
    var depths = "1,16,32"
    @Option(help: "Seconds of each measurement.")
    var seconds = 2
    @Option(help: "Measurements of each row, in turn with the others'.")
    var rounds = 3
    @Option(help: "Who enters the kernel for what the guest queues on AHCI: loop or vcpu.")
    var submit = "loop"
    @Flag(help: "Print one JSON object instead of the table.")
    var json = false

    func run() throws {
      var bench = AHCIBench()
      bench.submission = try LoopOption.submission(submit)
      bench.path = file
      bench.measuresWrites = file == nil || overwrite
      bench.seconds = seconds
      bench.rounds = rounds
      bench.depths = try BenchCommand.depths(depths, max: AHCIBench.depthMax)
      try BenchCommand.check(seconds: seconds, rounds: rounds)
      if !json { bench.print = { print($0) } }
      let results = try bench.run()
      if json { try printJSON(command: "bench ahci", results: results) }
    }
  }

  /// Checks `--seconds` and `--rounds`.
  static func check(seconds: Int, rounds: Int) throws {
    guard (1...600).contains(seconds), (1...99).contains(rounds) else {
      throw UsageError("--seconds \(seconds) --rounds \(rounds): give 1 to 600 seconds and 1 to 99 rounds")
    }
  }

  /// Takes `--depths`.
  static func depths(_ text: String, max: Int) throws -> [Int] {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    let depths = parts.compactMap { Int($0) }
    guard depths.count == parts.count, depths.allSatisfy({ (1...max).contains($0) }) else {
      throw UsageError("--depths \(text): give numbers from 1 to \(max), separated by commas, such as 1,16,64")
    }
    return depths
  }

  struct HotPathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "hot-path", abstract: "Serve requests over the null driver on one thread (for Tools/instructions).",
      shouldDisplay: false)

    enum Layer: String, CaseIterable, ExpressibleByArgument {
      case device, ahci, block
    }

    @Option(help: "Where requests come in: the virtio device, the AHCI controller, or the block layer.")
    var layer = Layer.device
    @Option(help: "Batches of \(HotPath.batch) requests.")
    var passes = 1000

    func run() throws {
      switch layer {
      case .device:
        var path = try HotPath()
        print("\(try path.run(passes: passes)) requests")
      case .ahci:
        print("\(try AHCIHotPath().run(passes: passes)) requests")
      case .block:
        print("\(try NullPath().run(passes: passes)) requests")
      }
    }
  }
}
