// SPDX-License-Identifier: Apache-2.0
// A whole machine with a disk and a CD-ROM drive under a monitor, run on a thread of its own.
import Assembly
import Block
import CLinux
import EventLoop
import Glibc
import HostSystem
import Machine
import Platform
import Synchronization
import Testing
import Tracing

@testable import Monitor

/// A file of one byte's value that is gone when the test is over.
private final class ImageOnDisk {
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
private final class RunningMachine {
  private static let patienceSeconds = 60
  let disk: ImageOnDisk
  let disc: ImageOnDisk
  let assembled: AssembledMachine
  private let monitor: Monitor
  private let descriptor: OwnedDescriptor
  private var thread: HostThread?
  private let ending = Mutex<ShutdownReason?>(nil)
  private var parser = JSONParser()
  private var received: [JSONValue] = []

  init(iothread: Bool = false, resets: Bool = true) throws {
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
    monitor = Monitor(target: MachineControl(assembled, name: "under test"), address: .descriptor(theirs))
    try monitor.start()
    let handed = Handed(value: (assembled, monitor, self))
    thread = try HostThread(name: "machine") {
      let (assembled, monitor, kit) = handed.value
      let reason = try? assembled.run()
      monitor.close()
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

@Suite struct MachineControlTests {
  @Test func theTrayMovesAsQEMUsTestsWantIt() throws {
    let machine = try RunningMachine()
    #expect(try machine.outline("blockdev-remove-medium", #"{"id":"cd0"}"#) == ["Tray of device 'cd0' is not open"])
    #expect(try machine.outline("blockdev-open-tray", #"{"id":"cd0"}"#) == ["DEVICE_TRAY_MOVED", "{}"])
    #expect(try machine.outline("blockdev-open-tray", #"{"id":"cd0"}"#) == ["{}"])
    #expect(try machine.outline("blockdev-remove-medium", #"{"id":"cd0"}"#) == ["{}"])
    #expect(try machine.outline("blockdev-remove-medium", #"{"id":"cd0"}"#) == ["{}"])
    let node = #"{"node-name":"node0","driver":"raw","file":{"driver":"file","filename":"\#(machine.disc.path)"}}"#
    #expect(try machine.outline("blockdev-add", node) == ["{}"])
    #expect(try machine.outline("blockdev-add", node) == ["Duplicate nodes with node-name='node0'"])
    let insert = #"{"id":"cd0","node-name":"node0"}"#
    #expect(try machine.outline("blockdev-insert-medium", insert) == ["{}"])
    #expect(try machine.outline("blockdev-insert-medium", insert) == ["Node 'node0' is already in use"])
    #expect(try machine.outline("blockdev-del", #"{"node-name":"node0"}"#) == ["Node node0 is in use"])
    #expect(try machine.outline("blockdev-close-tray", #"{"id":"cd0"}"#) == ["DEVICE_TRAY_MOVED", "{}"])
    let drives = try #require(try machine.execute("query-block").last?["return"]?.elements)
    #expect(drives[1]["inserted"]?["node-name"] == "node0" && drives[1]["tray_open"] == false)
    #expect(try machine.outline("eject", #"{"id":"cd0"}"#) == ["DEVICE_TRAY_MOVED", "{}"])
    // A node that its user has made stays when it leaves the drive.
    #expect(try machine.outline("blockdev-insert-medium", insert) == ["{}"])
    #expect(try machine.outline("eject", #"{"id":"cd0"}"#) == ["{}"])
    #expect(try machine.outline("blockdev-del", #"{"node-name":"node0"}"#) == ["{}"])
    #expect(try machine.outline("blockdev-insert-medium", insert) == ["Node 'node0' not found"])
    try machine.quit()
  }

  @Test func aMediumIsChangedInOneStep() throws {
    let machine = try RunningMachine()
    let other = try ImageOnDisk(byteCount: 4096, value: 9)
    let missing = #"{"id":"cd0","filename":"/nowhere/c.iso"}"#
    #expect(
      try machine.outline("blockdev-change-medium", missing)
        == ["Could not open '/nowhere/c.iso': No such file or directory"])
    #expect(
      try machine.outline("blockdev-change-medium", #"{"id":"cd0","filename":"\#(other.path)"}"#)
        == ["DEVICE_TRAY_MOVED", "DEVICE_TRAY_MOVED", "{}"])
    #expect(try machine.human("qemu-io cd0 \"read -P 9 0 4096\"") == "read 4096/4096 bytes at offset 0\r\n")
    #expect(try machine.human("change cd0 \(machine.disc.path)") == "")
    #expect(try machine.human("qemu-io cd0 \"read -q -P 7 4096 4096\"") == "")
    #expect(try machine.human("eject d0") == "Error: Device 'd0' is not removable\r\n")
    try machine.quit()
  }

  @Test(arguments: [false, true])
  func drivesAreReadAndWrittenBesideTheGuest(iothread: Bool) throws {
    let machine = try RunningMachine(iothread: iothread)
    #expect(try machine.human("qemu-io d0 \"write -P 5 512 1k\"") == "wrote 1024/1024 bytes at offset 512\r\n")
    #expect(try machine.human("qemu-io d0 \"flush\"") == "")
    #expect(try machine.human("qemu-io d0 \"read -q -P 5 512 1k\"") == "")
    #expect(try machine.human("qemu-io d0 \"aio_write -P 6 0 512\"") == "")
    #expect(try machine.human("qemu-io d0 \"read -q -P 6 0 512\"") == "")
    #expect(try machine.human("qemu-io d0 \"write 1M 512\"") == "write failed: Invalid argument\r\n")
    #expect(try machine.human("qemu-io cd0 \"write 0 512\"") == "write failed: Operation not permitted\r\n")
    #expect(
      try machine.human("qemu-io d0 \"read 1 512\"")
        == "read failed: offset 1 and length 512 must be multiples of 512\r\n")
    #expect(
      try machine.human("qemu-io d0 \"read 0 1G\"")?.hasPrefix("read failed: length 1073741824 is more than") == true)
    let stats = try #require(try machine.execute("query-blockstats").last?["return"]?.elements?.first)
    #expect(stats["stats"]?["wr_operations"] == 2 && stats["stats"]?["rd_bytes"] == 1536)
    try machine.quit()
    let bytes = try readWholeFile(machine.disk.path)
    #expect(bytes[..<512].allSatisfy { $0 == 6 } && bytes[512..<1536].allSatisfy { $0 == 5 } && bytes[1536] == 0)
  }

  @Test func theMachineStopsGoesOnAndIsReset() throws {
    let machine = try RunningMachine()
    #expect(try machine.outline("stop") == ["STOP", "{}"])
    #expect(try machine.execute("query-status").last?["return"]?["status"] == "paused")
    #expect(try machine.outline("system_reset") == ["RESET", "{}"])
    #expect(try machine.outline("cont") == ["RESUME", "{}"])
    #expect(try machine.outline("system_reset") == ["RESET", "{}"])
    #expect(try machine.execute("query-name").last?["return"]?["name"] == "under test")
    try machine.quit()
  }

  @Test func aMachineThatEndsAtAResetEnds() throws {
    let machine = try RunningMachine(resets: false)
    #expect(try machine.outline("system_reset") == ["SHUTDOWN", "{}"])
    #expect(machine.end() == .hostRequest)
  }

  @Test func theGuestsEndIsTold() throws {
    let machine = try RunningMachine()
    machine.assembled.machine.requestShutdown(.guestExit(status: 1))
    let event = try machine.receive()
    #expect(event["event"] == "SHUTDOWN" && event["data"]?["reason"] == "guest-shutdown")
    #expect(machine.end() == .guestExit(status: 1))
  }

  @Test func theBusShowsWhatTheMachineHas() throws {
    let machine = try RunningMachine()
    let bus = try #require(try machine.execute("query-pci").last?["return"]?.elements?.first)
    let devices = try #require(bus["devices"]?.elements)
    #expect(devices.compactMap { $0["slot"]?.jsonText } == ["0", "3", "31", "31"])
    let ahci = try #require(devices.last)
    #expect(ahci["class_info"] == ["class": 0x0106, "desc": "SATA controller"] && ahci["function"] == 2)
    #expect(ahci["regions"]?.elements?.last?["bar"] == 5)
    #expect(try machine.execute("x-spindle-wakeups").last?["return"]?.elements?.first?["loop"] == "main")
    #expect(try machine.execute("x-spindle-engine").last?["return"]?["notes"]?.elements?.count == 2)
    try machine.quit()
  }

  @Test func aSilentClientDoesNotKeepTheMachine() throws {
    let machine = try RunningMachine()
    machine.assembled.machine.requestShutdown(.signal(15))
    #expect(machine.end() == .signal(15))
  }
}
