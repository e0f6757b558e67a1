// SPDX-License-Identifier: Apache-2.0
// A whole machine with a disk and a CD-ROM drive, run on a thread of its own, and a client of its monitor.
import Assembly
import CLinux
import Glibc
import HostSystem
import Machine
import Platform
import Synchronization
import Testing

@testable import Monitor

/// A file of one byte's value that is gone when the test is over.
final class ImageOnDisk {
  let path = "/var/tmp/spindle-monitor-image-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
  init(byteCount: Int, value: UInt8 = 0) throws {
    try writeWholeFile(path, [UInt8](repeating: value, count: byteCount))
  }
  deinit { unlink(path) }
}

/// Carries a value to the machine's thread, which alone uses it.
private struct Handed<T>: @unchecked Sendable {
  let value: T
}

/// A machine that runs, and its client, which waits for answers at most `patienceSeconds`.
final class RunningMachine {
  private static let patienceSeconds = 60
  let disk: ImageOnDisk
  let disc: ImageOnDisk
  let assembled: AssembledMachine
  private let monitors: [Monitor]
  private let descriptor: OwnedDescriptor
  private var thread: HostThread?
  private let ending = Mutex<ShutdownReason?>(nil)
  private var parser = JSONParser()
  private var received: [JSONValue] = []

  /// - Parameter socket: where a second monitor listens.
  init(iothread: Bool = false, resets: Bool = true, socket: String? = nil) throws {
    disk = try ImageOnDisk(byteCount: 1 << 20)
    disc = try ImageOnDisk(byteCount: 8192, value: 7)
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 16 << 20
    configuration.usesIOThreads = iothread
    configuration.drives = [
      try DriveConfiguration(parsing: "file=\(disk.path),id=d0", index: 0),
      try DriveConfiguration(parsing: "file=\(disc.path),id=cd0,media=cdrom,port=1", index: 1),
    ]
    assembled = try AssembledMachine(configuration, serial: MemorySink())
    assembled.machine.resetPolicy = resets ? .resetDevices : .shutdown
    let (ours, theirs) = try makeSocketPair()
    descriptor = OwnedDescriptor(taking: ours)
    var limit = timeval(tv_sec: Self.patienceSeconds, tv_usec: 0)
    setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    let control = MachineControl(assembled, name: "under test")
    var addresses = [MonitorAddress.descriptor(theirs)]
    if let socket { addresses.append(.listenUnix(path: socket, waits: false)) }
    monitors = addresses.map { Monitor(target: control, address: $0) }
    for monitor in monitors { try monitor.start() }
    let handed = Handed(value: (assembled, monitors, self))
    thread = try HostThread(name: "machine") {
      let (assembled, monitors, kit) = handed.value
      let reason = try? assembled.run()
      for monitor in monitors { monitor.close() }
      kit.ending.withLock { $0 = reason }
    }
    #expect(try receive()["QMP"] != nil)
    #expect(try execute("qmp_capabilities") == [["return": [:]]])
  }

  /// The next value that the monitor writes.
  func receive() throws -> JSONValue {
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while received.isEmpty {
      let count = clinux_read(descriptor.number, &buffer, buffer.count)
      // Other tests of the process send signals.
      if count == -Int(EINTR) { continue }
      try #require(count > 0, "the monitor says nothing")
      var input = buffer[..<count]
      while let result = parser.next(&input) { received.append(try result.get()) }
    }
    return received.removeFirst()
  }

  /// What comes for a command, up to its return or error.
  func execute(_ command: String, _ arguments: String = "{}") throws -> [JSONValue] {
    let text = Array(#"{"execute": "\#(command)", "arguments": \#(arguments)}"#.utf8)
    try #require(clinux_send(descriptor.number, text, text.count) == text.count)
    var all: [JSONValue] = []
    repeat { all.append(try receive()) } while all.last?["return"] == nil && all.last?["error"] == nil
    return all
  }

  /// The names of the events before the return, and what it returns or fails with.
  func outline(_ command: String, _ arguments: String = "{}") throws -> [String] {
    try execute(command, arguments).map { value in
      if let event = value["event"]?.text { return event }
      return value["error"]?["desc"]?.text ?? value["return"]?.jsonText ?? "?"
    }
  }

  func human(_ line: String) throws -> String? {
    try execute("human-monitor-command", #"{"command-line": \#(JSONValue.string(line).jsonText)}"#).last?["return"]?
      .text
  }

  /// Waits for the machine's end.
  func end() -> ShutdownReason? {
    thread?.join()
    thread = nil
    return ending.withLock { $0 }
  }

  func quit() throws {
    #expect(try outline("quit") == ["SHUTDOWN", "{}"])
    #expect(end() == .hostRequest)
  }
}
