// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import Bench

struct DurabilityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "durability",
    abstract: "Write until killed, noting what is durable; or check what was noted (for Tools/test-durability).",
    shouldDisplay: false)

  @Option(help: "The disk, as 'spindle run' takes it.")
  var drive: String
  @Option(help: "The file that notes what is durable.")
  var log: String
  @Option(help: "What the load follows from.")
  var seed: UInt64 = 1
  @Flag(help: "The disk has a thread and loop of its own.")
  var iothread = false
  @Flag(help: "Check the disk against the log.")
  var check = false

  func run() throws {
    let drive = try DriveConfiguration(parsing: drive, index: 0)
    let load = DurabilityLoad(drive: drive, log: log, seed: seed, usesIOThread: iothread)
    if check { print("\(try load.check()) promises kept") } else { try load.run() }
  }
}
