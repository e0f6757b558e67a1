// SPDX-License-Identifier: Apache-2.0
import Assembly

/// `qemu-io DRIVE "break EVENT TAG"` and its companions: requests that are held on their way to the disk.
extension MonitorCommands {
  /// Reads a command of this kind.
  /// - Returns: nil for another command.
  static func breakpoint(_ words: [String]) throws(ControlError) -> BreakpointCommand? {
    guard let name = words.first, let count = breakpointArguments[name] else { return nil }
    guard words.count == 1 + count else {
      throw ControlError("bad argument count \(words.count - 1) to \(name), expected exactly \(count) arguments")
    }
    switch name {
    case "break": return .hold(event: words[1], tag: words[2])
    case "resume": return .resume(tag: words[1])
    case "remove_break": return .remove(tag: words[1])
    default: return .wait(tag: words[1])
    }
  }

  private static let breakpointArguments = ["break": 2, "resume": 1, "remove_break": 1, "wait_break": 1]

  /// Does it; the answer is empty where all went well.
  func debug(_ command: BreakpointCommand, drive: String, _ answer: @escaping HumanAnswer) {
    let failure =
      switch command {
      case .hold: "Could not set a breakpoint"
      case .resume: "Could not resume request"
      case .remove: "Could not remove a breakpoint"
      case .wait: "Could not wait for a breakpoint"
      }
    target.debug(command, drive: drive) { error in answer(error.map { "\(failure): \($0)\n" } ?? "") }
  }
}
