// SPDX-License-Identifier: Apache-2.0
// Requests that a test holds on their way to the disk (blkdebug, qemu-io's break), and what becomes of them when the port
// is stopped, the disk is drained or the controller is taken away.
import Foundation
import Testing

@Suite struct InFlightTests {
  /// Sends a command of qemu-io; nothing is said where all went well.
  private static func io(_ machine: Machine, _ command: String) throws -> String? {
    try machine.monitor.execute("human-monitor-command", ["command-line": "qemu-io drive0 \"\(command)\""]) as? String
  }

  private static func disk(_ folder: Folder, _ image: String) throws -> Port {
    let machine = try Machine(
      "-M q35 -drive file=blkdebug::\(image),if=none,id=drive0,format=raw,cache=writeback "
        + "-device ide-hd,drive=drive0", folder: folder)
    return try HBA(machine).prepared(5)
  }

  /// Reads the first block.
  private static let read10: [UInt8] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]

  @Test(arguments: [Command.writeDMA(sector: 5, count: 1), .queued(0x61, sector: 5, count: 1)])
  func heldRequestGoesOnWhenItIsTold(_ command: Command) throws {
    let folder = try Folder()
    let image = try folder.image()
    let port = try Self.disk(folder, image)
    let machine = port.machine
    #expect(try Self.io(machine, "break write_aio wr") == "")
    try port.clearStatus()
    let issued = try port.issue(command, writing: pattern(512))
    #expect(try Self.io(machine, "wait_break wr") == "")
    #expect(try port.isPending(issued))
    #expect(try fileBytes(image, at: 5 * 512, count: 512).allSatisfy { $0 == 0 })
    #expect(try Self.io(machine, "resume wr") == "")
    try port.wait(for: issued).expectSuccess()
    #expect(try fileBytes(image, at: 5 * 512, count: 512) == pattern(512))
    // A breakpoint is for one request.
    try port.run(command, writing: pattern(512, seed: 9)).expectSuccess()
    #expect(try Self.io(machine, "resume wr")?.hasPrefix("Could not resume request: ") == true)
  }

  @Test func breakpointCanBeTakenAway() throws {
    let folder = try Folder()
    let port = try Self.disk(folder, try folder.image())
    let machine = port.machine
    #expect(try Self.io(machine, "break read_aio rd") == "")
    #expect(try Self.io(machine, "remove_break rd") == "")
    try port.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
    #expect(try Self.io(machine, "remove_break rd")?.hasPrefix("Could not remove a breakpoint: ") == true)
    #expect(try Self.io(machine, "break warp rd")?.hasPrefix("Could not set a breakpoint: ") == true)
  }

  @Test(arguments: [false, true]) func packetReadIsForgottenWhenTheListStops(_ usesDMA: Bool) throws {
    let folder = try Folder()
    let path = folder.file("disc.iso")
    try Data(pattern(4096)).write(to: URL(fileURLWithPath: path))
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=blkdebug::\(path),format=raw,readonly=on -device ide-cd,drive=drive0",
      folder: folder)
    let port = try HBA(machine).prepared(5)
    #expect(try Self.io(machine, "break read_aio rd") == "")
    let held = try port.issue(.packet(Self.read10, usesDMA: usesDMA, limit: 2048), reading: 2048)
    #expect(try Self.io(machine, "wait_break rd") == "")
    try port.stop()
    #expect(try !port.isPending(held))
    try port.set(Port.Offset.command, try port.register(Port.Offset.command) | 1)
    #expect(try Self.io(machine, "resume rd") != "")
    #expect(try machine.bytes(held.buffer, 2048).allSatisfy { $0 == 0xa5 })
    let again = try port.run(.packet(Self.read10, usesDMA: usesDMA, limit: 2048), reading: 2048)
    again.expectSuccess(usesDMA ? 1 : 3)
    #expect(again.data == pattern(2048))
    #expect(machine.process.end() == 0)
  }

  @Test func heldWriteDoesNotReachTheDiskWhenTheListStops() throws {
    let folder = try Folder()
    let image = try folder.image()
    let port = try Self.disk(folder, image)
    let machine = port.machine
    #expect(try Self.io(machine, "break write_aio wr") == "")
    try port.clearStatus()
    _ = try port.issue(Command(short: 0x30, sector: 0, count: 2).writing(), writing: pattern(1024))
    #expect(try Self.io(machine, "wait_break wr") == "")
    // All at once, and without a look at the registers, as QEMU's test has it.
    try port.set(Port.Offset.command, try port.register(Port.Offset.command) & ~1)
    #expect(try Self.io(machine, "resume wr") != nil)
    #expect(try Self.io(machine, "aio_flush") == "")
    try port.set(Port.Offset.command, try port.register(Port.Offset.command) | 1)
    let issued = try port.issue(.readDMA(sector: 1, count: 1), reading: 512)
    let outcome = try port.wait(for: issued)
    // Nothing of the command that was given up is told.
    outcome.expectSuccess(1)
    #expect(outcome.data.allSatisfy { $0 == 0 })
    #expect(try fileBytes(image, at: 0, count: 1024).allSatisfy { $0 == 0 })
    #expect(try port.machine.monitor.execute("query-status") is [String: Any])
    #expect(!port.machine.monitor.history.contains("BLOCK_IO_ERROR"))
  }

  @Test(arguments: [false, true]) func delayedReadEndsWhenItsNodeIsDrained(_ usesDMA: Bool) throws {
    let folder = try Folder()
    let path = folder.file("disc.iso")
    try Data(pattern(3 * 2048)).write(to: URL(fileURLWithPath: path))
    // An hour: nobody waits for that.
    let machine = try Machine(
      "-blockdev driver=file,node-name=file0,filename=\(path),read-only=on "
        + "-blockdev driver=blkdebug,node-name=cd0,image=file0,read-only=on,inject-error.0.event=none,"
        + "inject-error.0.iotype=read,inject-error.0.errno=0,inject-error.0.delay-ns=3600000000000 "
        + "-M q35 -device ide-cd,drive=cd0", folder: folder)
    let port = try HBA(machine).prepared(5)
    try port.clearStatus()
    let issued = try port.issue(
      .packet([0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], usesDMA: usesDMA, limit: 4096), reading: 4096)
    #expect(try port.isPending(issued))
    // A read of several pieces may be drained one by one.
    try machine.wait("the read") {
      try machine.monitor.execute(
        "x-blockdev-set-iothread", ["node-name": "cd0", "iothread": NSNull(), "force": true])
      return try !port.isPending(issued)
    }
    #expect(try port.wait(for: issued).data == pattern(4096))
    #expect(
      try machine.monitor.refusal("x-blockdev-set-iothread", ["node-name": "cd0", "iothread": "t"]).text.hasPrefix(
        "Cannot move"))
    #expect(machine.process.end() == 0)
  }

  @Test func heldRequestDoesNotHoldUpTheEnd() throws {
    let folder = try Folder()
    let port = try Self.disk(folder, try folder.image())
    #expect(try Self.io(port.machine, "break read_aio rd") == "")
    _ = try port.issue(.readDMA(sector: 0, count: 1), reading: 512)
    #expect(port.machine.process.end() == 0)
  }
}

@Suite struct ControllerRemovalTests {
  @Test(arguments: [
    Command.queued(0x60, sector: 0, count: 1), Command(short: 0xc8, sector: 0, count: 1),
    Command(short: 0x20, sector: 0, count: 1),
  ])
  func controllerThatIsACardCanBeEjectedWithARequestUnderWay(_ command: Command) throws {
    let folder = try Folder()
    let machine = try Machine(
      "-M pc -blockdev driver=null-co,node-name=drive0,read-zeroes=on,latency-ns=20000000 "
        + "-device ich9-ahci,addr=1f.2,id=ahci0 -device ide-hd,drive=drive0,bus=ahci0.0", folder: folder,
      library: .newest)
    let port = try HBA(machine).prepared(0)
    try port.clearStatus()
    _ = try port.issue(command, reading: 512)
    try machine.output(0xae10, 0)
    try machine.output(0xae08, 1 << 0x1f)
    #expect(try machine.monitor.event("DEVICE_DELETED")["device"] as? String == "ahci0")
    #expect(try machine.config(.ahci, 0) == 0xffff_ffff)
    #expect(try machine.register(HBA.registers) == 0)
    let status = try #require(try machine.monitor.execute("query-status") as? [String: Any])
    #expect(status["running"] as? Bool == true)
    #expect(try machine.monitor.execute("query-block") as? [Any] != nil)
    try machine.monitor.execute("system_reset")
    #expect(machine.process.end() == 0)
  }

  @Test func controllerLeavesWhenTheMonitorAsksAndTheGuestAgrees() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-M pc -drive if=none,id=drive0,format=raw,file=\(image) -device ich9-ahci,addr=1f.2,id=ahci0 "
        + "-device ide-hd,drive=drive0,bus=ahci0.0", folder: folder)
    try machine.monitor.execute("device_del", ["id": "ahci0"])
    #expect(try machine.input(0xae04) == 1 << 0x1f)
    #expect(try machine.monitor.refusal("device_del", ["id": "ahci0"]).text.contains("already"))
    try machine.output(0xae08, 1 << 0x1f)
    try machine.monitor.event("DEVICE_DELETED")
    // The image is free for others, as soon as the machine has turned round.
    for _ in 0..<2 { try machine.monitor.execute("query-status") }
    let other = try Machine(
      "-M q35 -drive if=none,id=drive0,format=raw,file=\(image) -device ide-hd,drive=drive0", folder: folder)
    #expect(try HBA(other).prepared(5).identity().littleEndian16(at: 0) & 0x8000 == 0)
    #expect(machine.process.end() == 0)
  }

  @Test func controllerOfTheBoardStays() throws {
    let machine = try Machine("-M q35 -device ich9-ahci,id=ahci0")
    #expect(try machine.monitor.refusal("device_del", ["id": "ahci0"]).kind == "DeviceNotFound")
    try machine.output(0xae08, 1 << 0x1f)
    #expect(try machine.config(.ahci, 0) == 0x2922_8086)
  }
}
