// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import AsyncIO
import Bench

struct AIOCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "aio", abstract: "Show the I/O engines of this host, and which one a file would get and why.",
    discussion: """
      Without a file: every engine and loop monitor, and the reason where one is
      missing. With a file: what aio=auto takes for it under each cache mode, the
      alignment of direct I/O, and how durable writes are made. Nothing is written.

      Examples:
        spindle aio
        spindle aio disk.img
        spindle aio /dev/nvme0n1 --measure
        spindle aio disk.img --json
      """)

  @Argument(help: "An image file or block device.")
  var file: String?
  @Flag(help: "Read from the file with each engine for a moment, side by side.")
  var measure = false
  @Flag(help: "Print one JSON object instead of text.")
  var json = false

  func run() throws {
    if measure && file == nil { throw UsageError("--measure: name the file that is to be read") }
    var report = EngineReport()
    if let file { report.file = try FileReport(path: file, engines: report.engines) }
    if !json { report.print() }
    if measure, let file = report.file {
      let engines = report.engines.filter { $0.isUsable && (file.isDirectPossible || $0.kind != .linuxAIO) }
      if !json { print("") }
      report.file?.measured = try EngineComparison.run(
        path: file.path, byteCount: file.byteCount, isDirect: file.isDirectPossible, engines: engines.map(\.kind),
        print: { if !json { print($0) } })
    }
    if json { try printJSON(report) }
  }
}
