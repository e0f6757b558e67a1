// SPDX-License-Identifier: Apache-2.0
import Assembly
import Testing

@testable import Monitor

@Suite struct HumanCommandTests {
  private func human(_ kit: MonitorKit, _ line: String) throws -> String? {
    let quoted = JSONValue.string(line).jsonText
    let replies = try kit.execute("human-monitor-command", #"{"command-line": \#(quoted)}"#)
    kit.target.finishWaiting()
    return (replies + (try kit.ask(" "))).compactMap { $0["return"]?.text }.last
  }

  @Test(arguments: [
    ("info status", "VM status: running\r\n"), ("info version", "7.2.0 spindle test\r\n"), ("", ""),
    ("zz", "unknown command: 'zz'\r\n"), ("info zz", "unknown command: 'info zz'\r\n"),
    ("info kvm", "kvm support: disabled\r\n"), ("eject", "Error: eject: block device name expected\r\n"),
    ("eject zz", "Error: Device 'zz' not found\r\n"), ("eject d0", "Error: Device 'd0' is not removable\r\n"),
    ("qemu-io zz \"read 0 512\"", "Error: Cannot find device='' nor node-name='zz'\r\n"),
    ("qemu-io d0 \"zz\"", "command \"zz\" not found\r\n"),
    ("qemu-io d0 \"read 0\"", "bad argument count 1 to read, expected at least 2 arguments\r\n"),
    ("qemu-io d0 \"read -P 500 0 512\"", "500 is not a valid pattern byte\r\n"),
    ("qemu-io d0 \"read -P\"", " is not a valid pattern byte\r\n"),
    ("qemu-io d0 \"write x 512\"", "cvtnum() failed: 'x' is not a size\r\n"),
    ("qemu-io d0 \"break write_aio\"", "bad argument count 1 to break, expected exactly 2 arguments\r\n"),
    ("qemu-io d0 \"break write_aio a\"", ""), ("qemu-io d0 \"remove_break a\"", ""),
    ("qemu-io d0 length", "1048576 bytes\r\n"), ("qemu-io d0 \"flush\"", ""),
    ("qemu-io d0 \"write -P 5 1k 0x200\"", "wrote 512/512 bytes at offset 1024\r\n"),
    ("stop \"", "unterminated string literal\r\n"), ("device_del v0", ""), ("eject -f cd0", ""),
    ("device_add zz,id=x", "Error: 'zz' is not a valid device model name\r\n"),
    ("drive_add 0 if=none,id=n", "OK\r\n"), ("drive_del n", ""),
    ("drive_add", "Error: drive_add: string expected\r\n"), ("drive_add 0", "Error: drive_add: string expected\r\n"),
    ("drive_add 0 id=n", "Error: Can't hot-add drive to type ide; write if=none\r\n"),
    ("drive_add 0 if=virtio,id=n", "Error: Can't hot-add drive to type virtio; write if=none\r\n"),
    (
      "drive_add 0 if=none,file=a,aio=warp",
      "Error: drive_add: aio=warp is unknown; choose one of "
        + "auto, io_uring, linux-aio, threads, native\r\n"
    ),
    ("drive_del", "Error: drive_del: block device name expected\r\n"),
  ])
  func linesAreAnsweredInLines(line: String, answer: String) throws {
    #expect(try human(try MonitorKit(), line) == answer)
  }

  @Test func drivesAreShown() throws {
    let kit = try MonitorKit()
    let expected = [
      "d0 (#block000): a.img (raw)", "    Attached to:      /machine/peripheral/v0/virtio-backend",
      "    Cache mode:       writeback", "", "n0: b.iso (raw, read-only)", "    Attached to:      cd0",
      "    Removable device: not locked, tray closed", "    Cache mode:       writeback", "",
    ]
    #expect(try human(kit, "info block") == expected.joined(separator: "\r\n"))
    #expect(try human(kit, "info qtree")?.contains("dev: ide-cd, id \"cd0\"") == true)
    #expect(try human(kit, "savevm a")?.hasPrefix("Error: savevm: ") == true)
  }

  @Test func theMachineIsAsked() throws {
    let kit = try MonitorKit()
    for line in [
      "stop", "cont", "change cd0 c.iso", "device_add virtio-blk-pci,id=v9,drive=d9",
      "qemu-io d0 \"aio_write -P 7 0 512\"",
      "qemu-io cd0 \"read -q 512 1k\"", "qemu-io d0 \"write -z -u 0 512\"", "qemu-io d0 \"discard 0 512\"", "quit",
    ] { #expect(try human(kit, line) != nil, "\(line)") }
    #expect(
      kit.target.log == [
        "stop", "cont", "change device(\"cd0\") file(path: \"c.iso\") force=false", "add virtio-blk-pci drive=d9,id=v9",
        "write d0 0 512 7", "read cd0 512 1024 205", "writeZeroes d0 0 512 205", "discard d0 0 512 205", "quit",
      ])
  }

  @Test func drivesAreAddedAndTakenAway() throws {
    let kit = try MonitorKit()
    for line in [
      "drive_add 0 if=none,id=n", "drive_add -n 0 file=a.img,if=none,format=raw", "drive_add 0 if=none,file=a,,b,id=n",
      "drive_add 0 file=null-co://,file.read-zeroes=on,if=none,id=z", "drive_del n",
    ] { #expect(try human(kit, line) != nil) }
    #expect(
      kit.target.log == [
        "add-drive n empty", "add-drive none0 file(path: \"a.img\")", "add-drive n file(path: \"a,b\")",
        "add-drive z null(byteCount: 1073741824, latencyNs: 0)", "remove-drive n",
      ])
  }

  @Test func driveWithoutADeviceIsShownAsSuch() throws {
    let kit = try MonitorKit()
    kit.target.drives = [DriveReport(name: "n", deviceID: "", model: "")]
    #expect(
      try human(kit, "info block") == "n: [not inserted]\r\n    Removable device: not locked, tray closed\r\n")
    let listed = try #require(try kit.execute("query-block").last?["return"]?.elements?.first)
    #expect(listed["device"]?.text == "n")
    #expect(listed["qdev"] == nil)
    #expect(listed["io-status"] == nil)
    #expect(listed["removable"] == true)
  }

  @Test func patternsAreChecked() throws {
    let kit = try MonitorKit()
    kit.target.bytes = [5, 5]
    let done = "read 512/512 bytes at offset 0\r\n"
    #expect(try human(kit, "qemu-io d0 \"read -P 5 0 512\"") == done)
    #expect(
      try human(kit, "qemu-io d0 \"read -P 6 0 512\"")
        == "Pattern verification failed at offset 0, 512 bytes\r\n" + done)
    kit.target.error = ControlError("Input/output error")
    #expect(try human(kit, "qemu-io d0 \"read 0 512\"") == "read failed: Input/output error\r\n")
    #expect(try human(kit, "qemu-io d0 \"write 0 512\"") == "write failed: Input/output error\r\n")
  }

  @Test func breakpointsAreSetAndEnded() throws {
    let kit = try MonitorKit()
    for line in ["break write_aio a", "wait_break a", "resume a", "remove_break a"] {
      #expect(try human(kit, "qemu-io d0 \"\(line)\"") == "", "\(line)")
    }
    #expect(
      kit.target.log == [
        "hold(event: \"write_aio\", tag: \"a\") d0", "wait(tag: \"a\") d0", "resume(tag: \"a\") d0",
        "remove(tag: \"a\") d0",
      ])
    kit.target.error = ControlError("nothing is held as 'a'")
    #expect(try human(kit, "qemu-io d0 \"resume a\"") == "Could not resume request: nothing is held as 'a'\r\n")
  }

  @Test func wordsKeepTogetherInQuotes() {
    #expect(CommandWords.split(#"a "b c"  d"e f""#) == ["a", "b c", "de f"])
    #expect(CommandWords.split(#""a\"b" """#) == ["a\"b", ""])
    #expect(CommandWords.split("\"a") == nil)
    #expect(CommandWords.split("") == [])
  }
}
