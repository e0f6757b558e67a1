// SPDX-License-Identifier: Apache-2.0
// The command line: parses what the user asked for, has a machine put together, and prints.
import ArgumentParser
import Assembly
import Glibc
import HostSystem
import Logging
import Synchronization

@main
struct Spindle: ParsableCommand {
  static let version = "0.1.0"

  static let configuration = CommandConfiguration(
    commandName: "spindle",
    abstract: "A small machine process for people who build and debug virtual disks.",
    discussion: """
      Examples:
        spindle run --drive file=disk.img,if=virtio,cache=none
        spindle run --accel hosted --cpus 2 --drive file=disk.img,queues=2
        spindle aio disk.img
        spindle bench virtio --file disk.img
        spindle wakeup --reproduce
        spindle conform
      """,
    version: version,
    subcommands: [
      Run.self, AIOCommand.self, BenchCommand.self, WakeupCommand.self, ConformCommand.self, Image.self,
      DurabilityCommand.self,
    ])

  /// What machines that are made from here on say in their logs.
  static let logLevel = Mutex(Logger.Level.notice)

  static func main() {
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = logLevel.withLock { $0 }
      return handler
    }
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let error as UsageError {
      fail(error.description, status: 2)
    } catch let error as ExitCode {
      Glibc.exit(error.rawValue)
    } catch let error as CleanExit {
      exit(withError: error)
    } catch {
      // The parser's own errors are usage errors; every other type describes itself in one line.
      let code = exitCode(for: error)
      if code == .validationFailure { fail("\(message(for: error)); 'spindle help' lists what there is", status: 2) }
      if code == .success { exit(withError: error) }
      fail("\(error)", status: 1)
    }
  }

  private static func fail(_ line: String, status: Int32) -> Never {
    StandardError.print("spindle: \(line)")
    Glibc.exit(status)
  }
}
