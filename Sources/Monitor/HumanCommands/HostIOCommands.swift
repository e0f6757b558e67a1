// SPDX-License-Identifier: Apache-2.0
import Assembly
import Block

/// `qemu-io DRIVE "COMMAND"`: reads and writes beside the guest, and breakpoints, for test programs.
extension MonitorCommands {
  /// What a command of `qemu-io` asks for.
  struct HostIO: Equatable {
    var transfer: HostTransfer
    /// The answer comes before the transfer is over (`aio_read`, `aio_write`).
    var isDetached = false
    /// What every byte read has to be (`read -P`).
    var expected: UInt8?
    var isQuiet = false
  }

  /// Runs a command line of `qemu-io` on a drive or node.
  func hostIO(drive: String, _ line: String, _ answer: @escaping HumanAnswer) throws(ControlError) {
    let isKnown =
      target.drives.contains { $0.name == drive || $0.deviceID == drive }
      || target.nodes.contains { $0.name == drive }
    guard isKnown else { throw ControlError("Cannot find device='' nor node-name='\(drive)'") }
    guard let words = CommandWords.split(line), let name = words.first else { return answer("") }
    if name == "length" {
      let size = size(of: drive)
      return answer("\(size) bytes\n")
    }
    if name == "aio_flush" {
      detached.wait { answer("") }
      // As QEMU: who waits does not wait for the time that limits of a drive make.
      return target.letWaitingGo()
    }
    let breakpoint: BreakpointCommand?
    do throws(ControlError) { breakpoint = try Self.breakpoint(words) } catch { return answer("\(error)\n") }
    if let breakpoint { return debug(breakpoint, drive: drive, answer) }
    let command: HostIO
    do throws(ControlError) { command = try HostIO(name, Array(words.dropFirst())) } catch {
      return answer("\(error)\n")
    }
    if command.isDetached { detached.began() }
    target.transfer(command.transfer, drive: drive) { [detached] result in
      if command.isDetached { detached.ended() } else { answer(command.text(of: result)) }
    }
    if command.isDetached { answer("") }
  }

  private func size(of drive: String) -> UInt64 {
    let found = target.drives.first { $0.name == drive || $0.deviceID == drive }?.medium
    return (found ?? target.nodes.first { $0.name == drive })?.byteCount ?? 0
  }
}

extension MonitorCommands.HostIO {
  /// Reads a command: its name, its options, and offset and length where it has them.
  init(_ name: String, _ words: [String]) throws(ControlError) {
    switch name {
    case "flush", "f":
      transfer = HostTransfer(.flush)
      isQuiet = true
      return
    case "read", "r", "aio_read": transfer = HostTransfer(.read)
    case "write", "w", "aio_write": transfer = HostTransfer(.write)
    case "discard", "d": transfer = HostTransfer(.discard)
    default: throw ControlError("command \"\(name)\" not found")
    }
    isDetached = name.hasPrefix("aio_")
    var numbers: [String] = []
    var rest = words[...]
    while let word = rest.popFirst() {
      guard word.hasPrefix("-"), word.count > 1 else {
        numbers.append(word)
        continue
      }
      for option in word.dropFirst() { try take(option, &rest, name) }
    }
    guard numbers.count == 2 else {
      throw ControlError("bad argument count \(numbers.count) to \(name), expected at least 2 arguments")
    }
    transfer.offset = try Self.size(numbers[0])
    transfer.byteCount = try Self.size(numbers[1])
  }

  private mutating func take(_ option: Character, _ rest: inout ArraySlice<String>, _ name: String) throws(ControlError)
  {
    switch option {
    case "q": isQuiet = true
    case "C", "p", "i": break
    case "f": transfer.isDurable = true
    case "z" where transfer.operation == .write: transfer.operation = .writeZeroes
    case "u": transfer.mayUnmap = true
    case "P":
      let text = rest.popFirst() ?? ""
      guard let number = try? Self.size(text), let pattern = UInt8(exactly: number) else {
        throw ControlError("\(text) is not a valid pattern byte")
      }
      if transfer.operation == .read { expected = pattern } else { transfer.pattern = pattern }
    default: throw ControlError("\(name): invalid option -- '\(option)'")
    }
  }

  /// A number in any of C's bases, or with a unit: k, M, G, T (powers of 1024).
  static func size(_ text: String) throws(ControlError) -> UInt64 {
    let lower = text.lowercased()
    let number =
      lower.hasPrefix("0x")
      ? UInt64(lower.dropFirst(2), radix: 16) : try? ByteSize.parse(text, option: "", defaultUnit: 1)
    guard let number, number <= UInt64(Int64.max) else {
      throw ControlError("cvtnum() failed: '\(text)' is not a size")
    }
    return number
  }

  /// What a person is told at the end.
  func text(of result: Result<[UInt8], ControlError>) -> String {
    let isRead = transfer.operation == .read
    switch result {
    case .failure(let error): return "\(isRead ? "read" : name) failed: \(error)\n"
    case .success(let bytes):
      var lines = ""
      if let expected, bytes.contains(where: { $0 != expected }) {
        lines += "Pattern verification failed at offset \(transfer.offset), \(transfer.byteCount) bytes\n"
      }
      if isQuiet { return lines }
      let done = isRead ? "read" : transfer.operation == .discard ? "discard" : "wrote"
      return lines + "\(done) \(transfer.byteCount)/\(transfer.byteCount) bytes at offset \(transfer.offset)\n"
    }
  }

  private var name: String {
    switch transfer.operation {
    case .read: "read"
    case .write, .writeZeroes: "write"
    case .flush: "flush"
    case .discard: "discard"
    }
  }
}

/// Transfers whose command was answered before they were over, and who waits for them (`aio_flush`).
final class DetachedTransfers {
  private var count = 0
  private var waiters: [() -> Void] = []

  func began() { count += 1 }

  func ended() {
    count -= 1
    guard count == 0 else { return }
    let all = waiters
    waiters = []
    for waiter in all { waiter() }
  }

  /// Calls `done` once none is under way.
  func wait(_ done: @escaping () -> Void) {
    if count == 0 { done() } else { waiters.append(done) }
  }
}
