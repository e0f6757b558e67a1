// SPDX-License-Identifier: Apache-2.0
// A whole machine under a monitor.
import Assembly
import HostSystem
import Machine
import Testing
import TracingTestKit

@testable import Monitor

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
    #expect(try machine.human("qemu-io d0 \"aio_flush\"") == "")
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

  @Test func aTraceIsRecordedMeasuredAndWritten() throws {
    try withTracing {
      let machine = try RunningMachine()
      let file = try ImageOnDisk(byteCount: 0)
      let tooEarly = #"{"action":"start","filename":"x"}"#
      #expect(try machine.outline("x-spindle-trace", tooEarly) == ["Parameter 'filename' goes with action 'stop'"])
      #expect(try machine.outline("x-spindle-trace", #"{"action":"start"}"#) == ["{}"])
      for _ in 0..<5 { #expect(try machine.human("qemu-io d0 \"write -q 0 4k\"") == "") }
      let running = try #require(try machine.execute("x-spindle-latency").last?["return"])
      #expect(running["tracing"] == true)
      let steps = try #require(running["latencies"]?.elements)
      let submitted = try #require(steps.first { $0["step"] == "submitted to completed" })
      guard case .integer(let count)? = submitted["count"], case .integer(let longest)? = submitted["max"] else {
        Issue.record("no counts in \(submitted)")
        return
      }
      #expect(count >= 5 && longest > 0)
      let stop = #"{"action":"stop","filename":"\#(file.path)"}"#
      #expect(try machine.execute("x-spindle-trace", stop).last?["return"]?["dropped"] == 0)
      #expect(try machine.execute("x-spindle-latency").last?["return"]?["tracing"] == false)
      #expect(try readWholeFile(file.path).count > 100)
      let nowhere = #"{"action":"stop","filename":"/nowhere/t"}"#
      #expect(try machine.outline("x-spindle-trace", nowhere).first?.hasPrefix("Could not write '/nowhere/t'") == true)
      try machine.quit()
    }
  }

  @Test func aSilentClientDoesNotKeepTheMachine() throws {
    let machine = try RunningMachine()
    machine.assembled.machine.requestShutdown(.signal(15))
    #expect(machine.end() == .signal(15))
  }
}
