// SPDX-License-Identifier: Apache-2.0
// Drives without a device, and devices that take them and go again, as QEMU's drive_del test has it.
import Foundation
import Testing

@Suite struct DriveChangeTests {
  private static let null = "file=null-co://,file.read-zeroes=on,format=raw"

  private func human(_ machine: Machine, _ line: String) throws -> String {
    try machine.monitor.execute("human-monitor-command", ["command-line": line]) as? String ?? "no text"
  }

  private func names(_ machine: Machine, _ command: String = "query-block", _ key: String = "device") throws -> [String]
  {
    let list = try machine.monitor.execute(command) as? [[String: Any]] ?? []
    return list.compactMap { $0[key] as? String }
  }

  private func addDevice(_ machine: Machine, id: String = "dev0") throws {
    try machine.monitor.execute("device_add", ["driver": "virtio-blk-pci", "drive": "drive0", "id": id])
  }

  /// The guest that lets a device go is the reset.
  private func removeDevice(_ machine: Machine, id: String = "dev0") throws {
    try machine.monitor.execute("device_del", ["id": id])
    try machine.monitor.execute("system_reset")
    #expect(try machine.monitor.event("DEVICE_DELETED")["device"] as? String == id)
  }

  @Test func emptyDriveIsListedDeletedAndAddedAgain() throws {
    let machine = try Machine("-drive if=none,id=drive0")
    #expect(try names(machine) == ["drive0"])
    #expect(try human(machine, "drive_add 0 if=none,id=drive0") == "Error: Duplicate ID 'drive0' for drive\r\n")
    #expect(try human(machine, "drive_del drive0") == "")
    #expect(try names(machine) == [])
    #expect(try human(machine, "drive_del drive0") == "Error: Device 'drive0' not found\r\n")
    #expect(try human(machine, "drive_add 0 if=none,id=drive0") == "OK\r\n")
    #expect(try names(machine) == ["drive0"])
    #expect(machine.process.end() == 0)
  }

  @Test func deviceThatFindsNoMediumIsRefusedAndHoldsNoDrive() throws {
    let machine = try Machine("-drive if=none,id=drive0")
    let refusal = try machine.monitor.refusal("device_add", ["driver": "virtio-blk-pci", "drive": "drive0"])
    #expect(refusal.kind == "GenericError")
    #expect(refusal.text == "Device needs media, but drive is empty")
    #expect(try human(machine, "drive_del drive0") == "")
    #expect(try human(machine, "drive_add 0 if=none,id=drive0") == "OK\r\n")
  }

  @Test(arguments: [true, false]) func driveGoesWithItsDevice(isFromCommandLine: Bool) throws {
    let machine = try Machine("-machine pc" + (isFromCommandLine ? " -drive if=none,id=drive0,\(Self.null)" : ""))
    if !isFromCommandLine {
      #expect(try human(machine, "drive_add 0 if=none,id=drive0,\(Self.null)") == "OK\r\n")
    }
    #expect(try names(machine) == ["drive0"])
    try addDevice(machine)
    #expect(try names(machine) == ["drive0"])
    #expect(
      try human(machine, "drive_del drive0")
        == "Error: Device 'drive0' is in use by 'dev0'; unplug that, and the drive goes with it\r\n")
    try removeDevice(machine)
    #expect(try names(machine) == [])
    #expect(machine.process.end() == 0)
  }

  @Test func nodeServesOneDeviceAtATimeAndStays() throws {
    let machine = try Machine("-machine pc")
    try machine.monitor.execute(
      "blockdev-add",
      ["driver": "raw", "node-name": "drive0", "file": ["driver": "null-co", "read-zeroes": true] as [String: Any]])
    for _ in 0..<2 {
      try addDevice(machine)
      #expect(try names(machine, "query-named-block-nodes", "node-name") == ["drive0"])
      let second = try machine.monitor.refusal(
        "device_add", ["driver": "virtio-blk-pci", "drive": "drive0", "id": "dev1"])
      #expect(second.text == "Drive 'drive0' is already in use by another device")
      try removeDevice(machine)
      #expect(try names(machine, "query-named-block-nodes", "node-name") == ["drive0"])
    }
    try machine.monitor.execute("blockdev-del", ["node-name": "drive0"])
    #expect(try names(machine, "query-named-block-nodes", "node-name") == [])
  }

  @Test func nodeOfTheCommandLineIsNoDriveButServesADevice() throws {
    let machine = try Machine("-machine pc -blockdev driver=null-co,node-name=drive0,read-zeroes=on")
    #expect(try names(machine) == [])
    #expect(try names(machine, "query-named-block-nodes", "node-name") == ["drive0"])
    try addDevice(machine)
    try removeDevice(machine)
    #expect(try names(machine, "query-named-block-nodes", "node-name") == ["drive0"])
  }

  @Test func otherBusIsRefused() throws {
    let machine = try Machine("-machine pc -drive if=none,id=drive0,\(Self.null)")
    let refusal = try machine.monitor.refusal(
      "device_add", ["driver": "virtio-blk-pci", "drive": "drive0", "id": "dev0", "bus": "b1"])
    #expect(refusal.text == "Bus 'b1' not found")
  }

  @Test func driveWhoseImageIsMissingEndsTheStart() throws {
    let folder = try Folder()
    let process = try ShellProcess(
      "-qtest stdio -display none -accel qtest -drive if=none,id=drive0,file=/nonexistent,format=raw", folder: folder)
    #expect(process.waitForEnd() == 1)
    #expect(
      process.standardError
        == "qemu-system-x86_64: -drive: Could not open '/nonexistent': No such file or directory\n")
  }
}
