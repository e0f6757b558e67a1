// SPDX-License-Identifier: Apache-2.0
// Errors that a test injects, the machine that stops for them, and resets while requests are under way.
import Testing

@Suite struct ErrorPolicyTests {
  /// The rules that QEMU's tests write: the first event fails, later ones pass.
  static func rules(_ event: String) -> String {
    """
    [inject-error]
    event = "\(event)"
    errno = "5"
    state = "1"
    immediately = "off"
    once = "on"

    [set-state]
    event = "\(event)"
    state = "1"
    new_state = "2"

    """
  }

  private static func port(_ folder: Folder, _ image: String, _ event: String) throws -> Port {
    let rules = try folder.text("blkdebug.conf", rules(event))
    let machine = try Machine(
      "-M q35 -drive file=blkdebug:\(rules):\(image),if=none,id=drive0,format=raw,cache=writeback,rerror=stop,werror=stop "
        + "-device ide-hd,drive=drive0", folder: folder)
    return try HBA(machine).prepared(5)
  }

  @Test(arguments: [
    Command(0x35, sector: 3, count: 1), Command(0xca, sector: 3, count: 1), Command(0x30, sector: 3, count: 1),
    Command(0x34, sector: 3, count: 1), .queued(0x61, sector: 3, count: 1),
  ])
  func failedWriteStopsTheMachineAndIsTriedAgain(_ command: Command) throws {
    let folder = try Folder()
    let image = try folder.image()
    let port = try Self.port(folder, image, "write_aio")
    let monitor = port.machine.monitor
    let data = pattern(512, seed: command.fis[2])
    try port.clearStatus()
    monitor.forget()
    let issued = try port.issue(command.writing(), writing: data)
    let error = try monitor.event("BLOCK_IO_ERROR")
    #expect(error["operation"] as? String == "write")
    #expect(error["action"] as? String == "stop")
    try monitor.event("STOP")
    #expect(monitor.history == ["BLOCK_IO_ERROR", "STOP"])
    #expect(try port.isPending(issued))
    let status = try #require(try monitor.execute("query-status") as? [String: Any])
    #expect(status["running"] as? Bool == false)
    #expect(status["status"] as? String == "io-error")
    try monitor.execute("cont")
    try monitor.event("RESUME")
    #expect(monitor.history.suffix(2) == ["RESUME", "return"])
    try port.wait(for: issued).expectSuccess()
    #expect(try port.run(.readDMA(sector: 3, count: 1), reading: 512).data == data)
    #expect(try fileBytes(image, at: 3 * 512, count: 512) == data)
  }

  @Test func failedFlushStopsTheMachineAndIsTriedAgain() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try folder.image(), "flush_to_disk")
    let monitor = port.machine.monitor
    try port.run(.writeDMA(sector: 0, count: 1), writing: pattern(512)).expectSuccess(1)
    try port.clearStatus()
    monitor.forget()
    let issued = try port.issue(.flush)
    try monitor.event("STOP")
    #expect(monitor.history == ["BLOCK_IO_ERROR", "STOP"])
    #expect(try port.isPending(issued))
    try monitor.execute("cont")
    try monitor.event("RESUME")
    try port.wait(for: issued).expectSuccess(1)
    try port.run(.flush).expectSuccess(1)
  }

  @Test func machineThatWasStoppedCanBeResetAndEnded() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try folder.image(), "write_aio")
    let issued = try port.issue(.writeDMA(sector: 0, count: 1), writing: pattern(512))
    try port.machine.monitor.event("STOP")
    #expect(try port.isPending(issued))
    try port.hba.reset()
    #expect(try port.register(Port.Offset.issue) == 0)
    try port.machine.monitor.execute("cont")
    let again = try port.hba.prepared(5)
    try again.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
    #expect(port.machine.process.end() == 0)
  }

  @Test func machineEndsWhileItIsStopped() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try folder.image(), "write_aio")
    _ = try port.issue(.writeDMA(sector: 0, count: 1), writing: pattern(512))
    try port.machine.monitor.event("STOP")
    #expect(port.machine.process.end() == 0)
  }

  @Test func reportedErrorsReachTheGuestAndKeepTheirBits() throws {
    let folder = try Folder()
    let rules = try folder.text("blkdebug.conf", Self.rules("write_aio"))
    let image = try folder.image()
    for (command, code) in [
      (Command.writeDMA(sector: 0, count: 1), "dma"), (.queued(0x61, sector: 0, count: 1), "ncq"),
    ] {
      let machine = try Machine(
        "-M q35 -drive file=blkdebug:\(rules):\(image),if=none,id=drive0,format=raw,werror=report -device ide-hd,drive=drive0",
        folder: folder)
      let port = try HBA(machine).prepared(5)
      let issued = try port.issue(command, writing: pattern(512))
      let failed = try port.waitForError(issued)
      #expect(failed.taskFile & 0x89 == 1, "\(code)")
      #expect(try port.isPending(issued))
      try port.restart()
      try port.run(command, writing: pattern(512)).expectSuccess()
    }
  }

  @Test func rulesMayBeLeftOut() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-M q35 -drive file=blkdebug::\(image),if=none,id=drive0,format=raw -device ide-hd,drive=drive0", folder: folder)
    try HBA(machine).prepared(5).run(.writeDMA(sector: 0, count: 1), writing: pattern(512)).expectSuccess(1)
  }

  private static func slowPort(_ folder: Folder, _ image: String) throws -> Port {
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(image),cache=writeback,format=raw,throttling.bps-write=6144 "
        + "-device ide-hd,drive=drive0", folder: folder)
    return try HBA(machine).prepared(5)
  }

  @Test func writeUnderWayAtAResetLandsWholeInItsPlace() throws {
    let folder = try Folder()
    let image = try folder.image()
    let port = try Self.slowPort(folder, image)
    let first = pattern(4096, seed: 1), second = pattern(4096, seed: 2)
    // The first leaves so much in the bucket that the second has to wait.
    try port.run(.writeDMA(sector: 0, count: 8), writing: first).expectSuccess(1)
    _ = try port.issue(.writeDMA(sector: 8, count: 8), writing: second)
    try port.hba.reset()
    #expect(try port.hba.register(0x04) & 1 == 0)
    let again = try port.hba.prepared(5)
    #expect(try again.run(.readDMA(sector: 0, count: 8), reading: 4096).data == first)
    #expect(try again.run(.readDMA(sector: 8, count: 8), reading: 4096).data == second)
    #expect(try fileBytes(image, at: 8192, count: 1 << 20).allSatisfy { $0 == 0 })
    #expect(port.machine.process.end() == 0)
  }

  @Test func queuedWriteUnderWayAtAResetIsWholeOrNotAtAll() throws {
    let folder = try Folder()
    let image = try folder.image()
    let port = try Self.slowPort(folder, image)
    let data = pattern(4096, seed: 1)
    try port.run(.writeDMA(sector: 0, count: 8), writing: data).expectSuccess(1)
    _ = try port.issue(.queued(0x61, sector: 800, count: 8), writing: data)
    try port.hba.reset()
    #expect(try port.hba.register(0x04) & 1 == 0)
    #expect(try port.register(Port.Offset.active) == 0)
    let after = try port.hba.prepared(5).run(.readDMA(sector: 800, count: 8), reading: 4096).data
    #expect(after == data || after.allSatisfy { $0 == 0 })
    #expect(try fileBytes(image, at: 4096, count: 792 * 512).allSatisfy { $0 == 0 })
    #expect(try fileBytes(image, at: 808 * 512, count: 1 << 20).allSatisfy { $0 == 0 })
  }

  @Test func limitsDoNotHoldUpTheEndNorAReset() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(image),cache=writeback,format=raw,throttling.bps-write=512 "
        + "-device ide-hd,drive=drive0", folder: folder)
    var port = try HBA(machine).prepared(5)
    let data = pattern(65536)
    // At this rate each takes two minutes, which is longer than anyone waits here.
    try port.run(.writeDMA(sector: 0, count: 128), writing: data).expectSuccess(1)
    _ = try port.issue(.writeDMA(sector: 128, count: 128), writing: data)
    try port.hba.reset()
    port = try port.hba.prepared(5)
    #expect(try port.run(.readDMA(sector: 128, count: 128), reading: 65536).data == data)
    _ = try port.issue(.writeDMA(sector: 256, count: 128), writing: data)
    #expect(machine.process.end() == 0)
    #expect(try fileBytes(image, at: 256 * 512, count: 65536) == data)
  }
}
