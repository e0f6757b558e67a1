// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// A client of the QMP monitor, as far as cases need one: commands, and waiting for events by name.
/// Belongs to one thread.
public final class MonitorClient {
  private static let waitMillisecondsMax: Int32 = 10_000
  private static let lineBytesMax = 1 << 20

  private let descriptor: OwnedDescriptor
  private var received: [UInt8] = []
  /// Names of the events that came and that nobody has waited for, oldest first.
  private var events: [String] = []

  /// Takes a connected socket, reads the greeting and negotiates.
  init(taking descriptor: consuming OwnedDescriptor) throws(TransportError) {
    self.descriptor = descriptor
    let greeting = try nextLine()
    guard greeting.hasPrefix("{\"QMP\":") else {
      throw TransportError(.badReply, "the monitor's greeting is \(greeting)")
    }
    try execute("qmp_capabilities")
  }

  /// Executes a command.
  /// - Parameters:
  ///   - command: its name.
  ///   - arguments: a JSON object in one line.
  public func execute(_ command: String, _ arguments: String = "{}") throws(TransportError) {
    try send("{\"execute\":\"\(command)\",\"arguments\":\(arguments)}\n")
    while true {
      let line = try nextLine()
      if line.hasPrefix("{\"return\":") { return }
      guard note(line) else { throw TransportError(.refused, "the monitor answered \(command) by \(line)") }
    }
  }

  /// Waits until an event has come, and takes it.
  public func waitForEvent(_ name: String) throws(TransportError) {
    while true {
      if let index = events.firstIndex(of: name) {
        events.remove(at: index)
        return
      }
      let line = try nextLine()
      guard note(line) else { throw TransportError(.badReply, "the monitor sent \(line) instead of the event \(name)") }
    }
  }

  private func note(_ line: String) -> Bool {
    let key = "\"event\":\""
    guard let start = line.firstRange(of: key)?.upperBound, let end = line[start...].firstIndex(of: "\"") else {
      return false
    }
    events.append(String(line[start..<end]))
    return true
  }

  private func send(_ text: String) throws(TransportError) {
    let bytes = Array(text.utf8)
    let count = bytes.withUnsafeBytes {
      Glibc.send(descriptor.number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
    }
    guard count == bytes.count else { throw TransportError(.closed, "the monitor takes no more commands") }
  }

  /// The next line without any blanks, which no name that cases look for contains.
  private func nextLine() throws(TransportError) -> String {
    while true {
      if let end = received.firstIndex(of: 10) {
        let line = received[..<end].filter { $0 > 32 }
        received.removeSubrange(...end)
        return String(decoding: line, as: UTF8.self)
      }
      guard received.count < Self.lineBytesMax else {
        throw TransportError(.badReply, "the monitor's line does not end")
      }
      var entry = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, Self.waitMillisecondsMax) != 0 else {
        throw TransportError(.timedOut, "the monitor is silent")
      }
      var chunk = [UInt8](repeating: 0, count: 4096)
      let count = recv(descriptor.number, &chunk, chunk.count, 0)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw TransportError(.closed, "the monitor closed the connection") }
      received += chunk[..<count]
    }
  }
}

extension String {
  /// Where `text` is first found.
  fileprivate func firstRange(of text: String) -> Range<String.Index>? {
    var start = startIndex
    while start < endIndex {
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}
