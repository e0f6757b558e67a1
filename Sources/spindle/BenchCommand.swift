// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import Bench

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure the way of a request beside peers in the same run.",
    subcommands: [Virtio.self, HotPathCommand.self])

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
      bench.depths = depths.split(separator: ",").compactMap { Int($0) }
      guard !bench.depths.isEmpty, bench.depths.allSatisfy({ (1...64).contains($0) }) else {
        throw UsageError("--depths \(depths): give numbers from 1 to 64, separated by commas, such as 1,16,64")
      }
      guard (1...600).contains(seconds), (1...99).contains(rounds) else {
        throw UsageError("--seconds \(seconds) --rounds \(rounds): give 1 to 600 seconds and 1 to 99 rounds")
      }
      if !json { bench.print = { print($0) } }
      let results = try bench.run()
      if json { try printJSON(command: "bench virtio", results: results) }
    }
  }

  struct HotPathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "hot-path", abstract: "Serve requests over the null driver on one thread (for Tools/instructions).",
      shouldDisplay: false)

    @Option(help: "Batches of \(HotPath.batch) requests.")
    var passes = 1000

    func run() throws {
      var path = try HotPath()
      print("\(try path.run(passes: passes)) requests")
    }
  }
}
