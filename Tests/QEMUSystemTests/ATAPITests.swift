// SPDX-License-Identifier: Apache-2.0
// A CD-ROM drive on an AHCI port: packets, and its tray between guest and monitor.
import Foundation
import Testing

@Suite struct ATAPITests {
  private static func disc(_ folder: Folder, blocks: Int = 64, seed: UInt8 = 5) throws -> (path: String, bytes: [UInt8])
  {
    let bytes = pattern(2048 * blocks, seed: seed)
    let path = folder.file("disc-\(seed).iso")
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    return (path, bytes)
  }

  private static func port(_ folder: Folder, _ path: String) throws -> Port {
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(path),format=raw -device ide-cd,drive=drive0", folder: folder)
    return try HBA(machine).prepared(5)
  }

  private static func read10(_ block: UInt32, _ count: UInt16) -> [UInt8] {
    [0x28, 0] + block.bytes.reversed() + [0] + count.bytes.reversed() + [0, 0, 0]
  }
  private static let requestSense: [UInt8] = [0x03, 0, 0, 0, 18, 0]
  private static let testUnitReady: [UInt8] = [0, 0, 0, 0, 0, 0]

  /// Key and additional code of what went wrong last.
  private static func sense(_ port: Port) throws -> [UInt8] {
    let data = try port.run(.packet(requestSense, limit: 18), reading: 18).data
    return [data[2] & 15, data[12]]
  }

  @Test func signatureAndIdentityAreAPacketDevices() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try Self.disc(folder).path)
    #expect(try port.register(Port.Offset.signature) == 0xeb14_0101)
    let identity = try port.identity(packet: true)
    #expect(identity.littleEndian16(at: 0) & 0xc000 == 0x8000)
  }

  @Test(arguments: [1, 3]) func blocksAreReadByDMAAndByPIO(_ count: Int) throws {
    let folder = try Folder()
    let disc = try Self.disc(folder)
    let port = try Self.port(folder, disc.path)
    let wanted = Array(disc.bytes[(7 * 2048)..<((7 + count) * 2048)])
    let packet = Self.read10(7, UInt16(count))
    let viaDMA = try port.run(.packet(packet, usesDMA: true), reading: wanted.count)
    viaDMA.expectSuccess(1)
    #expect(viaDMA.data == wanted)
    #expect(viaDMA.bytesDone == UInt32(wanted.count))
    #expect(viaDMA.setupFIS[0] == 0x5f)
    #expect([12, 16].contains(viaDMA.setupFIS.littleEndian16(at: 16)))
    for limit in [2048, 4096] as [UInt16] {
      let viaPIO = try port.run(.packet(packet, limit: limit), reading: wanted.count)
      viaPIO.expectSuccess(3)
      #expect(viaPIO.data == wanted)
      #expect(viaPIO.bytesDone == UInt32(wanted.count))
      let last = wanted.count % Int(limit) == 0 ? Int(limit) : wanted.count % Int(limit)
      #expect(viaPIO.setupFIS.littleEndian16(at: 16) == UInt16(last))
    }
  }

  @Test func readOfNothingSucceedsWithoutALimit() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try Self.disc(folder).path)
    let outcome = try port.run(.packet([0xbe, 0, 0, 0, 0, 0, 0, 0, 0, 0xf8, 0, 0]))
    outcome.expectSuccess(1)
    #expect(outcome.bytesDone == 0)
  }

  @Test func wholeSectorsHaveTheirDataInTheMiddle() throws {
    let folder = try Folder()
    let disc = try Self.disc(folder)
    let port = try Self.port(folder, disc.path)
    let outcome = try port.run(.packet([0xbe, 0, 0, 0, 0, 9, 0, 0, 1, 0xf8, 0, 0], usesDMA: true), reading: 2352)
    outcome.expectSuccess(1)
    #expect(Array(outcome.data[16..<2064]) == Array(disc.bytes[(9 * 2048)..<(10 * 2048)]))
  }

  @Test func senseKeyIsAllThatTheErrorRegisterHolds() throws {
    let folder = try Folder()
    let port = try Self.port(folder, try Self.disc(folder, blocks: 16).path)
    let issued = try port.issue(.packet(Self.read10(16, 1), usesDMA: true), reading: 2048)
    let failed = try port.waitForError(issued)
    #expect(failed.taskFile & 0x89 == 1)
    #expect(failed.taskFile >> 8 == 0x50)
    try port.restart()
    #expect(try Self.sense(port) == [5, 0x21])
  }

  /// A node made on the command line is a disc too.
  @Test func nodeIsADisc() throws {
    let folder = try Folder()
    let disc = try Self.disc(folder)
    let machine = try Machine(
      "-M q35 -blockdev node-name=drive0,driver=file,filename=\(disc.path) -device ide-cd,id=cd0,drive=drive0",
      folder: folder)
    let port = try HBA(machine).prepared(5)
    #expect(
      try port.run(.packet(Self.read10(0, 1), usesDMA: true), reading: 2048).data == Array(disc.bytes[..<2048]))
  }

  // MARK: Trays

  private func ready(_ port: Port) throws -> UInt32 {
    try port.clearStatus()
    let issued = try port.issue(.packet(Self.testUnitReady))
    try port.machine.wait("TEST UNIT READY") {
      try !port.isPending(issued) || port.register(Port.Offset.interruptStatus) & 0x4000_0000 != 0
    }
    let taskFile = try port.register(Port.Offset.taskFile)
    if taskFile & 1 != 0 { try port.restart() }
    return taskFile >> 8 & 0xff
  }

  @Test func mediumIsChangedByTheMonitorAndTheGuestIsTold() throws {
    let folder = try Folder()
    let first = try Self.disc(folder), second = try Self.disc(folder, seed: 9)
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(first.path),format=raw -device ide-cd,id=cd0,drive=drive0", folder: folder
    )
    let port = try HBA(machine).prepared(5)
    _ = try ready(port)
    _ = try Self.sense(port)
    let monitor = machine.monitor
    monitor.forget()
    try monitor.execute("blockdev-open-tray", ["id": "cd0"])
    #expect(monitor.history == ["DEVICE_TRAY_MOVED", "return"])
    let opened = try monitor.event("DEVICE_TRAY_MOVED")
    #expect(opened["tray-open"] as? Bool == true && opened["id"] as? String == "cd0")
    try monitor.execute("blockdev-remove-medium", ["id": "cd0"])
    try monitor.execute(
      "blockdev-add",
      ["node-name": "disc2", "driver": "raw", "file": ["driver": "file", "filename": second.path]])
    try monitor.execute("blockdev-insert-medium", ["id": "cd0", "node-name": "disc2"])
    monitor.forget()
    try monitor.execute("blockdev-close-tray", ["id": "cd0"])
    #expect(monitor.history == ["DEVICE_TRAY_MOVED", "return"])
    #expect(try monitor.event("DEVICE_TRAY_MOVED")["tray-open"] as? Bool == false)
    #expect(try ready(port) == 0x20)
    #expect(try Self.sense(port) == [2, 0x3a])
    #expect(try ready(port) == 0x60)
    #expect(try Self.sense(port) == [6, 0x28])
    #expect(try ready(port) == 0)
    #expect(try Self.sense(port) == [0, 0])
    let read = try port.run(.packet(Self.read10(3, 1), usesDMA: true), reading: 2048)
    #expect(read.data == Array(second.bytes[(3 * 2048)..<(4 * 2048)]))
  }

  @Test(arguments: [true, false]) func guestMovesTheTray(_ hasMedium: Bool) throws {
    let folder = try Folder()
    let drive =
      hasMedium
      ? "-drive if=none,id=drive0,file=\(try Self.disc(folder).path),format=raw -device ide-cd,id=cd0,drive=drive0"
      : "-device ide-cd,id=cd0"
    let machine = try Machine("-M q35 \(drive)", folder: folder)
    let port = try HBA(machine).prepared(5)
    for isOpen in [true, false] {
      machine.monitor.forget()
      try port.run(.packet([0x1b, 0, 0, 0, isOpen ? 2 : 3, 0])).expectSuccess(1)
      #expect(try machine.monitor.event("DEVICE_TRAY_MOVED")["tray-open"] as? Bool == isOpen)
    }
    #expect(machine.process.end() == 0)
  }

  @Test func lockedTrayStaysShutAndTheGuestIsAsked() throws {
    let folder = try Folder()
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(try Self.disc(folder).path),format=raw -device ide-cd,id=cd0,drive=drive0",
      folder: folder)
    let port = try HBA(machine).prepared(5)
    _ = try ready(port)
    _ = try Self.sense(port)
    try port.run(.packet([0x1e, 0, 0, 0, 1, 0])).expectSuccess(1)
    machine.monitor.forget()
    #expect(try machine.monitor.refusal("eject", ["id": "cd0"]).kind == "GenericError")
    try machine.monitor.execute("blockdev-open-tray", ["id": "cd0"])
    #expect(machine.monitor.history == ["error", "return"])
    // GET EVENT STATUS NOTIFICATION of the medium's class: an eject request.
    let event = try port.run(.packet([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], limit: 8), reading: 8)
    #expect(event.data[2] & 7 == 4 && event.data[4] & 15 == 1)
    try port.run(.packet([0x1e, 0, 0, 0, 0, 0])).expectSuccess(1)
    try machine.monitor.execute("eject", ["id": "cd0"])
    #expect(try machine.monitor.event("DEVICE_TRAY_MOVED")["tray-open"] as? Bool == true)
  }
}
