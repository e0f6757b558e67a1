// SPDX-License-Identifier: Apache-2.0
// A monitor with a client whose every step the test takes itself, on one thread.
import Assembly
import CLinux
import EventLoop
import Glibc
import HostSystem
import Machine
import Testing

@testable import Monitor

/// The numbers of two ends of a connection, for whoever takes them.
func makeSocketPair() throws -> (Int32, Int32) {
  var ends: [Int32] = [-1, -1]
  try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
  return (ends[0], ends[1])
}

/// The client's end of a connection, which never blocks: what is not there yet is not read.
final class MonitorClient {
  private let descriptor: OwnedDescriptor
  private var parser = JSONParser()
  private(set) var isAtEnd = false
  /// Bytes that were read so far.
  private(set) var byteCount = 0

  init(_ descriptor: consuming OwnedDescriptor) {
    self.descriptor = descriptor
    _ = clinux_fcntl(self.descriptor.number, F_SETFL, Int(O_NONBLOCK))
  }

  convenience init(connectedTo path: String) throws { self.init(try StreamSocket.connect(path: path)) }

  /// Writes what fits.
  /// - Returns: the bytes that did.
  @discardableResult
  func send(_ text: String) -> Int { send(Array(text.utf8)) }

  @discardableResult
  func send(_ bytes: [UInt8]) -> Int { max(0, clinux_send(descriptor.number, bytes, bytes.count)) }

  /// The bytes that are there.
  func read() -> [UInt8] {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = clinux_read(descriptor.number, &buffer, buffer.count)
      if count == 0 || count == -Int(ECONNRESET) { isAtEnd = true }
      guard count > 0 else { return all }
      all += buffer[..<count]
      byteCount += count
    }
  }

  /// The values that are there.
  func receive() -> [JSONValue] {
    var input = read()[...]
    var values: [JSONValue] = []
    while let result = parser.next(&input) {
      if case .success(let value) = result { values.append(value) } else { Issue.record("the monitor writes bad JSON") }
    }
    return values
  }
}

/// A monitor on a scripted machine and one client.
final class MonitorKit {
  let loop: EventLoop
  let target: ScriptedTarget
  let monitor: Monitor
  let client: MonitorClient

  /// - Parameter negotiates: the client has taken the greeting and left the negotiation behind.
  init(
    negotiates: Bool = true, target make: (EventLoop) -> ScriptedTarget = { ScriptedTarget(loop: $0) },
    settings: MonitorSettings = MonitorKit.settings
  ) throws {
    loop = try EventLoop(name: "test")
    target = make(loop)
    let (ours, theirs) = try makeSocketPair()
    client = MonitorClient(OwnedDescriptor(taking: ours))
    monitor = Monitor(target: target, address: .descriptor(theirs), settings: settings)
    try monitor.start()
    if negotiates {
      #expect(try ask(#"{"execute": "qmp_capabilities"}"#).count == 2)
    }
  }

  static var settings: MonitorSettings {
    var settings = MonitorSettings()
    settings.now = { (7, 9) }
    settings.package = "spindle test"
    return settings
  }

  /// Lets the monitor do what it can.
  func run() { while loop.runOnce(mayBlock: false) {} }

  /// Sends bytes as they are, and gives what comes back.
  func ask(_ text: String) throws -> [JSONValue] { try ask(Array(text.utf8)) }

  func ask(_ bytes: [UInt8]) throws -> [JSONValue] {
    var rest = bytes[...]
    var values: [JSONValue] = []
    while !rest.isEmpty {
      let count = client.send(Array(rest))
      run()
      values += client.receive()
      try #require(count > 0, "the monitor does not read")
      rest = rest.dropFirst(count)
    }
    while true {
      run()
      let before = client.byteCount
      values += client.receive()
      if client.byteCount == before { return values }
    }
  }

  /// What a command answers, the events before it included.
  func execute(_ command: String, _ arguments: String = "{}") throws -> [JSONValue] {
    try ask(#"{"execute": "\#(command)", "arguments": \#(arguments)}"#)
  }

  /// What a command returns, where it returns something.
  func value(_ command: String, _ arguments: String = "{}") throws -> JSONValue {
    let replies = try execute(command, arguments)
    return try #require(replies.last?["return"], "\(replies.map(\.jsonText))")
  }

  /// The class and description with which a command fails.
  func failure(_ command: String, _ arguments: String = "{}") throws -> String {
    let error = try #require(try execute(command, arguments).last?["error"])
    return "\(error["class"]?.text ?? "?"): \(error["desc"]?.text ?? "?")"
  }
}
