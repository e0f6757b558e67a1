// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
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

  /// What the monitor sends, as far as anyone here looks at it.
  private struct Message: Decodable {
    struct Anything: Decodable { init(from decoder: any Decoder) {} }
    var QMP: Anything?
    var `return`: Anything?
    var event: String?
  }

  /// Takes a connected socket, reads the greeting and negotiates.
  init(taking descriptor: consuming OwnedDescriptor) throws(TransportError) {
    self.descriptor = descriptor
    let (greeting, line) = try nextMessage()
    guard greeting.QMP != nil else { throw TransportError(.badReply, "the monitor's greeting is \(line)") }
    try execute("qmp_capabilities")
  }

  /// Executes a command.
  /// - Parameters:
  ///   - command: its name.
  ///   - arguments: a JSON object in one line.
  public func execute(_ command: String, _ arguments: String = "{}") throws(TransportError) {
    try send("{\"execute\":\"\(command)\",\"arguments\":\(arguments)}\n")
    while true {
      let (message, line) = try nextMessage()
      if message.return != nil { return }
      guard let event = message.event else {
        throw TransportError(.refused, "the monitor answered \(command) by \(line)")
      }
      events.append(event)
    }
  }

  /// Waits until an event has come, and takes it.
  public func waitForEvent(_ name: String) throws(TransportError) {
    while true {
      if let index = events.firstIndex(of: name) {
        events.remove(at: index)
        return
      }
      let (message, line) = try nextMessage()
      guard let event = message.event else {
        throw TransportError(.badReply, "the monitor sent \(line) instead of the event \(name)")
      }
      events.append(event)
    }
  }

  private func send(_ text: String) throws(TransportError) {
    let bytes = Array(text.utf8)
    let count = bytes.withUnsafeBytes {
      Glibc.send(descriptor.number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
    }
    guard count == bytes.count else { throw TransportError(.closed, "the monitor takes no more commands") }
  }

  /// The next message, and the line that it was.
  private func nextMessage() throws(TransportError) -> (Message, line: String) {
    let bytes = try nextLine()
    let line = String(decoding: bytes, as: UTF8.self)
    guard let message = try? JSONDecoder().decode(Message.self, from: Data(bytes)) else {
      throw TransportError(.badReply, "the monitor sent \(line), which is no message")
    }
    return (message, line)
  }

  private func nextLine() throws(TransportError) -> [UInt8] {
    while true {
      if let end = received.firstIndex(of: 10) {
        let line = Array(received[..<end])
        received.removeSubrange(...end)
        return line
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
