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
    #expect(try machine.execute("query-status").last?["return"]?["status"] == "prelaunch")
    #expect(try machine.outline("cont") == ["RESUME", "{}"])
    #expect(try machine.outline("system_reset") == ["RESET", "{}"])
    #expect(try machine.execute("query-name").last?["return"]?["name"] == "under test")
    try machine.quit()
  }

  @Test func aMachineThatEndsAtAResetEnds() throws {
    let machine = try RunningMachine(resets: false)
    let replies = try machine.execute("system_reset")
    #expect(replies.count == 2 && replies[0]["event"] == "SHUTDOWN" && replies[1] == ["return": [:]])
    #expect(replies[0]["data"] == ["guest": false, "reason": "host-qmp-system-reset"])
    #expect(machine.end() == .hostReset)
  }

  @Test func aMachineThatStaysWaitsForItsReset() throws {
    let machine = try RunningMachine()
    #expect(try machine.outline("set-action", #"{"shutdown":"pause"}"#) == ["{}"])
    machine.assembled.machine.requestShutdown(.powerOff)
    let events = [try machine.receive(), try machine.receive()]
    #expect(events.map { $0["event"] } == ["SHUTDOWN", "STOP"])
    #expect(events[0]["data"] == ["guest": true, "reason": "guest-shutdown"])
    #expect(try machine.execute("query-status").last?["return"]?["status"] == "shutdown")
    #expect(try machine.outline("cont") == ["Resetting the Virtual Machine is required"])
    #expect(try machine.outline("system_reset") == ["RESET", "{}"])
    #expect(try machine.outline("cont") == ["RESUME", "{}"])
    // The stop is told of before the answer.
    #expect(try machine.outline("set-action", #"{"reboot":"shutdown"}"#) == ["{}"])
    #expect(try machine.outline("system_reset") == ["SHUTDOWN", "STOP", "{}"])
    #expect(try machine.outline("system_reset") == ["SHUTDOWN", "{}"])
    try machine.quit()
  }

  private static func limits(_ changes: String) -> String {
    #"{\#(changes), "bps_rd":0, "bps_wr":0, "iops":0, "iops_rd":0, "iops_wr":0}"#
  }

  @Test(arguments: [false, true]) func speedsAreLimitedWhileTheMachineRuns(iothread: Bool) throws {
    let machine = try RunningMachine(iothread: iothread)
    #expect(try machine.human("qemu-io d0 \"write -q 0 64k\"") == "")
    // No test lives long enough to see the second write's turn.
    #expect(try machine.outline("block_set_io_throttle", Self.limits(#""device":"d0","bps":1"#)) == ["{}"])
    let shown = try machine.execute("query-block").last?["return"]?.elements?[0]["inserted"]
    #expect(shown?["bps"] == 1 && shown?["group"] == "d0")
    #expect(try machine.human("qemu-io d0 \"write -q 0 64k\"") == "")
    #expect(try machine.human("qemu-io d0 \"aio_write 0 64k\"") == "")
    let stats = try machine.execute("query-blockstats").last?["return"]?.elements?[0]["stats"]
    #expect(stats?["wr_operations"] == 2)
    // Who waits for it does not wait for its turn.
    #expect(try machine.human("qemu-io d0 \"aio_flush\"") == "")
    let after = try machine.execute("query-blockstats").last?["return"]?.elements?[0]["stats"]
    #expect(after?["wr_operations"] == 3)
    #expect(try machine.human("qemu-io d0 \"aio_write 0 64k\"") == "")
    // By the path that clients find as `qdev`.
    let path = #""id":"/machine/peripheral/d0/virtio-backend","bps":0"#
    #expect(try machine.outline("block_set_io_throttle", Self.limits(path)) == ["{}"])
    #expect(try machine.human("qemu-io d0 \"aio_flush\"") == "")
    #expect(try machine.execute("query-block").last?["return"]?.elements?[0]["inserted"]?["group"] == nil)
    #expect(
      try machine.outline("block_set_io_throttle", Self.limits(#""device":"zz","bps":1"#)) == ["Device 'zz' not found"])
    try machine.quit()
  }

  @Test func limitsAreTheDrivesWhateverIsInIt() throws {
    let machine = try RunningMachine()
    #expect(try machine.outline("block_set_io_throttle", Self.limits(#""id":"cd0","bps":123"#)) == ["{}"])
    #expect(try machine.human("change cd0 \(machine.disc.path)") == "")
    #expect(try machine.execute("query-block").last?["return"]?.elements?[1]["inserted"]?["bps"] == 123)
    #expect(machine.assembled.backends.contains { $0.limits.bytes.total.average == 123 })
    #expect(try machine.outline("eject", #"{"id":"cd0"}"#).last == "{}")
    #expect(
      try machine.outline("block_set_io_throttle", Self.limits(#""id":"cd0","bps":1"#))
        == ["Device 'cd0' has no medium"])
    #expect(try machine.outline("block_resize", #"{"device":"cd0","size":512}"#) == ["Device 'cd0' has no medium"])
    try machine.quit()
  }

  @Test func aNodeIsInOneDeviceAndStaysWhenThatGoes() throws {
    let machine = try RunningMachine()
    #expect(
      try machine.outline("blockdev-add", #"{"driver":"null-co","node-name":"low","size":1048576}"#) == ["{}"])
    #expect(
      try machine.outline("blockdev-add", #"{"driver":"raw","node-name":"up","file":"none"}"#)
        == ["Cannot find device='none' nor node-name='none'"])
    #expect(try machine.outline("blockdev-add", #"{"driver":"raw","node-name":"up","file":"low"}"#) == ["{}"])
    #expect(try machine.outline("blockdev-del", #"{"node-name":"low"}"#) == ["Node low is in use"])
    let plug = #"{"driver":"virtio-blk-pci","drive":"up","id":"v9","bus":"pcie.0","addr":"8"}"#
    for (change, text) in [
      ("\"1v\"", "Parameter 'id' expects an identifier"), ("\"a/b\"", "Parameter 'id' expects an identifier"),
    ] { #expect(try machine.outline("device_add", plug.replacing("\"v9\"", with: change)) == [text]) }
    #expect(try machine.outline("device_add", plug.replacing("pcie.0", with: "usb.0")) == ["Bus 'usb.0' not found"])
    #expect(
      try machine.outline("device_add", plug.replacing("\"up\"", with: "\"low\""))
        == ["Drive 'low' is already in use by another device"])
    #expect(try machine.outline("device_add", plug) == ["{}"])
    #expect(
      try machine.outline("device_add", plug.replacing("v9", with: "v10"))
        == ["Drive 'up' is already in use by another device"])
    #expect(try machine.outline("blockdev-del", #"{"node-name":"up"}"#) == ["Node up is in use"])
    let drive = try #require(try machine.execute("query-block").last?["return"]?.elements?.last)
    #expect(drive["device"] == "" && drive["inserted"]?["node-name"] == "up")
    #expect(
      try machine.execute("qom-get", #"{"path":"v9","property":"hotplugged"}"#).last == ["return": true])
    // The guest has ejected its slot: a reset does that too.
    #expect(try machine.outline("device_del", #"{"id":"v9"}"#) == ["{}"])
    #expect(try machine.outline("device_del", #"{"id":"cd0"}"#) == ["Bus 'ide.1' does not support hotplugging"])
    let told = try machine.outline("system_reset")
    #expect(told.last == "{}" && told.contains("RESET"))
    while !(try machine.execute("query-block").last?["return"]?.elements?.count == 2) {}
    #expect(try machine.outline("device_add", plug.replacing("\"8\"", with: "\"9\"")) == ["{}"])
    try machine.quit()
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
