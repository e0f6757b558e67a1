// SPDX-License-Identifier: Apache-2.0
// qemu-system-x86_64: Spindle in the place of QEMU, for test programs that start their machine by QEMU's command line. It
// prints nothing on standard output, which belongs to them.
import Assembly
import Block
import Glibc
import HostSystem
import Machine
import QEMUCommandLine

@main
struct QEMUSystem {
  private static let name = "qemu-system-x86_64"
  // Test programs write the command line; their users have the environment only.
  private static let dialectVariable = "SPINDLE_QEMU_VERSION"

  static func main() {
    // A client that goes away is told by the write's result.
    signal(SIGPIPE, SIG_IGN)
    do {
      exit(try run(Array(CommandLine.arguments.dropFirst())))
    } catch {
      StandardError.print("\(name): \(oneLine(line(error)))")
      exit(1)
    }
  }

  /// Options are called as they were written here.
  private static func line(_ error: any Error) -> String {
    if let image = error as? ImageError { return "-drive: \(image)" }
    let text = "\(error)"
    return text.hasPrefix("--drive") ? String(text.dropFirst()) : text
  }

  /// A name that a user has written may hold a line's end.
  private static func oneLine(_ text: String) -> String {
    text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? $0.escaped(asASCII: false) : String($0) }.joined()
  }

  private static func run(_ words: [String]) throws -> Int32 {
    let parent = ParentProcess()
    var plan = try QEMUPlan(words)
    if let text = getenv(dialectVariable).map({ String(cString: $0) }), !text.isEmpty {
      plan.dialect = try QEMUPlan.dialect(named: text, variable: dialectVariable)
    }
    if let question = plan.question {
      print(QEMUAnswers.text(of: question))
      return 0
    }
    // Before any thread starts, so that no thread is interrupted by them.
    let signals = try ShutdownSignals()
    if plan.endsWithParent { try parent.endWithIt() }
    if let path = plan.pidFile { try writeProcessNumber(path) }
    // As QEMU: the file is there as long as the process.
    defer { if let path = plan.pidFile { unlink(path) } }
    let machine = try QEMUMachine(plan, program: name)
    signals.watch(machine.assembled)
    switch try machine.run() {
    case .guestExit(let status): return status & 0xff
    case .guestFault: return 1
    // As QEMU: being told to end is no failure.
    case .signal, .hostRequest, .hostReset, .reset, .powerOff: return 0
    }
  }

  private static func writeProcessNumber(_ path: String) throws {
    do throws(SystemError) { try writeWholeFile(path, Array("\(getpid())\n".utf8)) } catch {
      throw SetupError("-pidfile \(path): \(SystemError.text(of: error.code))")
    }
  }
}
