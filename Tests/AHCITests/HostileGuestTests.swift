// SPDX-License-Identifier: Apache-2.0
// What a hostile or broken guest can write, and what becomes of it (AHCI 1.3.1 §6; known failures 34 to 52).
import Block
import DeviceTestKit
import Glibc
import Machine
import Testing

@testable import AHCI

@Suite struct HostileGuestTests {
  let kit: HBAKit
  init() throws {
    kit = try HBAKit()
    kit.start()
  }

  private static let sector = [Region(HBAKit.data, 512)]
  private static let readOne = Command(0x25, count: 1, regions: sector)

  /// The port works again after ST was cleared and set (§6.2.2.1), where BSY was left behind after a link reset.
  private func expectRecovery() throws {
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(kit.port(PortRegister.command) & PortCommand.listRunning == 0)
    if kit.taskFile & 0x88 != 0 {
      kit.setPort(PortRegister.sataControl, 1)
      kit.setPort(PortRegister.sataControl, 0)
    }
    kit.setPort(PortRegister.sataError, UInt32.max)
    kit.restart()
    try kit.run(Self.readOne)
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.issued == 0)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[0..<512]))
    kit.clearInterrupts()
  }

  // MARK: Headers and tables

  /// Known failure 41: CTBA outside memory, or a table over the end of memory.
  @Test(arguments: [0xffff_ffff_ffff_ff80, 0xe000_0000, HBAKit.ramBytes, HBAKit.ramBytes - 0x80])
  func tableOutsideMemoryIsAHostBusError(_ address: UInt64) throws {
    try kit.prepare(0, Self.readOne)
    try kit.memory.store(address, at: HBAKit.list() + 8)
    kit.issue(1)
    #expect(kit.isr == PortInterrupt.hostBusFatal)
    #expect(kit.issued == 1)
    #expect(kit.driver.held.isEmpty)
    try expectRecovery()
  }

  @Test func tableOfAllRegionsThatEndsBeyondMemoryIsAHostBusError() throws {
    try kit.prepare(0, Self.readOne)
    try kit.memory.store(UInt32(5 | 0xffff_0000), at: HBAKit.list())
    try kit.memory.store(HBAKit.ramBytes - 0x10_0000, at: HBAKit.list() + 8)
    kit.issue(1)
    // 65535 regions are a mebibyte less 16 bytes, and the table's head is 128.
    #expect(kit.isr == PortInterrupt.hostBusFatal)
    try expectRecovery()
  }

  /// A region that is not memory: nothing is moved there (known failure 19).
  @Test(arguments: [0xffff_ffff_ffff_0000, HBAKit.abar, HBAKit.ramBytes - 256])
  func regionOutsideMemoryIsAHostBusError(_ address: UInt64) throws {
    for code: UInt8 in [0x25, 0x35, 0xec] {
      try kit.run(Command(code, count: 1, regions: [Region(address, 512)]))
      #expect(kit.isr == PortInterrupt.hostBusFatal)
      #expect(kit.issued == 1)
      #expect(kit.driver.held.isEmpty)
      try expectRecovery()
    }
    try kit.prepare(0, .queued(tag: 0, lba: 0, regions: [Region(address, 512)]))
    kit.issue(1, queued: true)
    #expect(kit.isr == PortInterrupt.hostBusFatal)
    #expect(kit.active == 1)
    try expectRecovery()
  }

  @Test(arguments: [0, 1, 2, 4, 17, 31] as [UInt32])
  func fisLengthOutOfRangeBreaksTheLinkOff(_ words: UInt32) throws {
    var command = Self.readOne
    command.fisWords = words
    try kit.run(command)
    #expect(kit.isr & PortInterrupt.interfaceFatal != 0)
    #expect(kit.port(PortRegister.sataError) & PortError.protocol != 0)
    #expect(kit.driver.held.isEmpty)
    try expectRecovery()
  }

  /// A slot that nobody has filled in: its header is all zeroes.
  @Test func issuingAnEmptySlotBreaksTheLinkOff() throws {
    kit.issue(1 << 17)
    #expect(kit.isr & (PortInterrupt.interfaceFatal | PortInterrupt.hostBusFatal) != 0)
    #expect(kit.issued == 1 << 17)
    try expectRecovery()
  }

  @Test(arguments: [0x00, 0x34, 0x39, 0x41, 0x46, 0x5f, 0xa1, 0xff] as [UInt8])
  func fisOfAnotherTypeBreaksTheLinkOff(_ type: UInt8) throws {
    var command = Self.readOne
    command.type = type
    try kit.run(command)
    #expect(kit.isr & PortInterrupt.interfaceFatal != 0)
    try expectRecovery()
  }

  @Test(arguments: [1, 7, 15] as [UInt8])
  func fisForAPortMultiplierBreaksTheLinkOff(_ port: UInt8) throws {
    var command = Self.readOne
    command.flags = 0x80 | port
    try kit.run(command)
    #expect(kit.isr & PortInterrupt.interfaceFatal != 0)
    try expectRecovery()
  }

  @Test func commandsOfTheOtherKindOfDeviceAreAborted() throws {
    try kit.run(Command(0xa0, packet: [UInt8](repeating: 0, count: 16), regions: Self.sector))
    #expect(kit.isr == PortInterrupt.registerFIS | PortInterrupt.taskFileError)
    #expect(kit.taskFile >> 8 == 0x04)
    try expectRecovery()
    kit.controller.connect(ATAPIDrive(backend: nil), to: 1)
    kit.start(1)
    for code: UInt8 in [0x25, 0x35, 0x60, 0x61, 0xf8, 0x27] {
      try kit.run(Command(code, count: 1, regions: Self.sector), 1)
      #expect(kit.port(PortRegister.interruptStatus, 1) & PortInterrupt.taskFileError != 0)
      #expect(kit.port(PortRegister.taskFile, 1) >> 8 & 0x04 != 0)
      kit.restart(1)
    }
  }

  // MARK: Region lists of the wrong length (known failures 38 and 39)

  @Test func aLongListMovesWhatTheCommandHas() throws {
    try kit.run(Command(0x25, count: 1, regions: [Region(HBAKit.data, 65536)]))
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(try kit.moved() == 512)
    #expect(try kit.bytes(1024).suffix(512).allSatisfy { $0 == 0 })
  }

  /// A read moves what fits and says that there was more (§6.1.5).
  @Test(arguments: [2, 510, 514, 1024, 1536] as [UInt32])
  func aReadIntoAShortListMovesWhatFitsAndSetsOFS(_ room: UInt32) throws {
    try kit.run(Command(0x25, lba: 1, count: 4, regions: [Region(HBAKit.data, room)]))
    #expect(kit.isr == PortInterrupt.registerFIS | PortInterrupt.overflow)
    #expect(try kit.moved() == room)
    #expect(kit.issued == 0)
    let expected = Array(kit.driver.bytes[512..<512 + Int(room)])
    #expect(try kit.bytes(Int(room)) == expected)
    #expect(try kit.bytes(512, at: HBAKit.data + UInt64(room)).allSatisfy { $0 == 0 })
  }

  @Test func aWriteFromAShortListFailsAndWritesNothing() throws {
    let before = kit.driver.bytes
    try kit.run(Command(0x35, count: 4, regions: [Region(HBAKit.data, 1024)], isWrite: true))
    #expect(kit.isr == PortInterrupt.registerFIS | PortInterrupt.overflow | PortInterrupt.taskFileError)
    #expect(kit.driver.bytes == before)
    try expectRecovery()
  }

  @Test func dataCommandsWithoutRegionsEndWithAnError() throws {
    for code: UInt8 in [0x20, 0x24, 0x25, 0x30, 0x35, 0xc8, 0xca] {
      try kit.run(Command(code, count: 1))
      #expect(kit.isr & PortInterrupt.overflow != 0)
      #expect(kit.driver.held.isEmpty)
      kit.restart()
    }
    try expectRecovery()
  }

  @Test func aQueuedCommandWithAShortListFailsWithOFS() throws {
    for isWrite in [false, true] {
      try kit.prepare(
        2, .queued(write: isWrite, tag: 2, lba: 0, sectors: 8, regions: [Region(HBAKit.data, 1024)]))
      kit.issue(4, queued: true)
      kit.completeAll()
      #expect(kit.isr & PortInterrupt.overflow != 0)
      #expect(kit.isr & PortInterrupt.taskFileError != 0)
      #expect(kit.active == 4)
      try expectRecovery()
    }
  }

  /// Byte counts are even (§4.2.3.3): the lowest bit of the field counts as 1.
  @Test func anOddByteCountIsRoundedUp() throws {
    try kit.run(Command(0x25, count: 1, regions: [Region(HBAKit.data, 511)]))
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(try kit.moved() == 512)
    // A field of zero: one word.
    try kit.run(Command(0x25, count: 1, regions: [Region(HBAKit.data, 1), Region(HBAKit.data + 2, 510)]))
    #expect(try kit.moved() == 512)
  }

  /// The same for packet commands: a CD's blocks into a list of one and a half.
  @Test func aPacketReadIntoAShortListMovesWhatFitsAndSetsOFS() throws {
    let disc = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 2048 &* 50 &+ $0) }
    let driver = try MemoryDriver(byteCount: 8192, initial: disc)
    let backend = BlockBackend(driver: driver, loop: kit.loop, configuration: BlockConfiguration())
    kit.controller.connect(ATAPIDrive(backend: backend), to: 1)
    kit.start(1)
    let read: [UInt8] = [0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0]
    for features: UInt16 in [0, 1] {
      let command = Command(
        0xa0, features: features, lba: 0xfffe00, packet: read, regions: [Region(HBAKit.data, 3072)])
      try kit.run(command, 1)
      #expect(kit.port(PortRegister.interruptStatus, 1) & PortInterrupt.overflow != 0)
      #expect(try kit.moved(0, 1) == 3072)
      #expect(try kit.bytes(3072) == Array(disc[2048..<5120]))
      #expect(try kit.bytes(512, at: HBAKit.data + 3072).allSatisfy { $0 == 0 })
      kit.restart(1)
    }
  }

  // MARK: Errors hold what follows (§6.2.2)

  @Test func afterAnErrorNothingIsTakenUntilTheListIsRestarted() throws {
    try kit.prepare(0, Command(0x25, count: 1, regions: Self.sector))
    try kit.prepare(1, Command(0xe7))
    kit.issue(3)
    kit.completeOne(result: -EIO)
    #expect(kit.isr == PortInterrupt.registerFIS | PortInterrupt.taskFileError)
    #expect(kit.taskFile & 1 == 1)
    #expect(kit.issued == 3)
    kit.issue(4)
    kit.completeAll()
    #expect(kit.issued == 7)
    #expect(kit.driver.held.isEmpty)
    let error = kit.taskFile
    kit.restart()
    // The registers keep the error; BSY and DRQ are clear, and the next good command clears ERR.
    #expect(kit.taskFile == error)
    #expect(kit.taskFile & 0x88 == 0)
    try expectRecovery()
    #expect(kit.taskFile & 1 == 0)
  }

  // MARK: NCQ misuse (known failure 37)

  private func startThreeTags() throws {
    for tag in 0..<3 {
      try kit.prepare(tag, .queued(tag: tag, lba: UInt64(tag), regions: [Region(HBAKit.data, 512)]))
    }
    kit.issue(7, queued: true)
  }

  @Test func aQueuedCommandThatFailsLeavesAllOthersActive() throws {
    try startThreeTags()
    kit.completeOne()
    #expect(kit.active == 6)
    kit.clearInterrupts()
    kit.completeOne(result: -EIO)
    #expect(kit.isr == PortInterrupt.setDeviceBitsFIS | PortInterrupt.taskFileError)
    #expect(kit.taskFile & 1 == 1)
    #expect(kit.active == 6)
    // The third comes back and is nobody's any more.
    kit.completeAll()
    #expect(kit.active == 6)
    try expectRecovery()
    // READ LOG EXT page 10h names the tag (ACS-3 annex A).
    try kit.run(Command(0x2f, lba: 0x10, count: 1, regions: Self.sector))
    #expect(try kit.bytes(1)[0] & 0x9f == 1)
  }

  @Test func aTagInUseIsRefused() throws {
    try startThreeTags()
    kit.issue(2, queued: true)
    #expect(kit.isr & PortInterrupt.taskFileError != 0)
    #expect(kit.active == 7)
    kit.completeAll()
    #expect(kit.active == 7)
    try expectRecovery()
  }

  @Test func aTagThatIsNotTheSlotsIsRefused() throws {
    try kit.prepare(4, .queued(tag: 5, lba: 0, regions: Self.sector))
    kit.issue(1 << 4, queued: true)
    #expect(kit.isr & PortInterrupt.taskFileError != 0)
    #expect(kit.taskFile & 1 == 1)
    #expect(kit.driver.held.isEmpty)
    try expectRecovery()
  }

  @Test func aCommandThatIsNotQueuedAmongQueuedOnesFailsThemAll() throws {
    try startThreeTags()
    try kit.prepare(9, Command(0xe7))
    kit.issue(1 << 9)
    #expect(kit.isr == PortInterrupt.registerFIS | PortInterrupt.taskFileError)
    #expect(kit.active == 7)
    #expect(kit.issued == 1 << 9)
    kit.completeAll()
    try expectRecovery()
    try kit.run(Command(0x2f, lba: 0x10, count: 1, regions: Self.sector))
    #expect(try kit.bytes(1)[0] & 0x80 == 0x80)
  }

  /// A bit in PxCI without one in PxSACT: the device knows nothing of PxSACT, and the command ends.
  @Test func aQueuedCommandWithoutItsActiveBitEnds() throws {
    try kit.prepare(3, .queued(tag: 3, lba: 0, regions: Self.sector))
    kit.issue(1 << 3)
    kit.completeAll()
    #expect(kit.issued == 0)
    #expect(kit.active == 0)
    #expect(kit.isr == PortInterrupt.setDeviceBitsFIS)
  }

  // MARK: Tables that change (known failure 11)

  @Test func tablesThatChangeAfterTheCommandWasTakenChangeNothing() throws {
    try kit.prepare(0, Command(0x25, lba: 5, count: 1, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1)
    try kit.memory.fill(address: HBAKit.table(0), byteCount: 0x100, with: 0xff)
    try kit.memory.store(UInt32.max, at: HBAKit.list())
    kit.completeAll()
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[5 * 512..<6 * 512]))
  }

  /// The data overwrite the table, the list and the FIS area that describe them.
  @Test func dataOverItsOwnTableEndTheCommandAllTheSame() throws {
    for address in [HBAKit.table(0), HBAKit.list(), HBAKit.received()] {
      try kit.run(Command(0x25, count: 2, regions: [Region(address, 1024)]))
      #expect(kit.issued == 0)
      #expect(kit.isr & PortInterrupt.registerFIS != 0)
      kit.restart()
    }
    try expectRecovery()
  }

  // MARK: Anything at all

  /// Random registers, headers, tables and completions: nothing traps, everything comes back, and a reset restores service.
  @Test(arguments: 1...12)
  func randomGuestsDoNoHarm(_ seed: Int) throws {
    var random = Seeded(seed: UInt64(seed))
    kit.controller.connect(try kit.memoryDrive(), to: 1)
    kit.controller.connect(ATAPIDrive(backend: nil), to: 2)
    for number in 0..<3 { kit.start(number) }
    for _ in 0..<400 {
      let number = Int.random(in: 0..<3, using: &random)
      switch Int.random(in: 0..<8, using: &random) {
      case 0:
        let offset = UInt64.random(in: 0..<0x480, using: &random) & ~3
        // A list or FIS area over the tables would only end the experiment early.
        guard offset < 0x100 || offset & 0x7f >= 0x10 else { continue }
        kit.setHBA(offset, UInt64(UInt32.random(in: 0...UInt32.max, using: &random)))
      case 1: if !kit.driver.held.isEmpty { kit.completeOne(result: Bool.random(using: &random) ? 0 : -EIO) }
      case 2: kit.restart(number)
      default: try issueRandomly(number, &random)
      }
      kit.loop.runUntilIdle()
    }
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    kit.completeAll()
    #expect(kit.hba(HBARegister.control) == 0x8000_0000)
    #expect(kit.controller.inFlight == 0)
    kit.start()
    try kit.run(Self.readOne)
    #expect(kit.isr == PortInterrupt.registerFIS)
  }

  private func issueRandomly(_ number: Int, _ random: inout Seeded) throws {
    let slot = Int.random(in: 0..<32, using: &random)
    let likely: [UInt8] = [0x60, 0x61, 0x25, 0x35, 0x24, 0x30, 0xec, 0xa1, 0xa0, 0x2f, 0x06, 0xb0, 0xef, 0xe7, 0xc8]
    var command = Command(likely.randomElement(using: &random)!)
    if Int.random(in: 0..<4, using: &random) == 0 { command.code = UInt8.random(in: 0...255, using: &random) }
    command.features = UInt16.random(in: 0..<20, using: &random)
    command.lba = UInt64.random(in: 0..<80, using: &random)
    command.count = command.code & 0xfe == 0x60 ? UInt16(slot) << 3 : UInt16.random(in: 0..<16, using: &random)
    if Bool.random(using: &random) { command.packet = (0..<16).map { _ in UInt8.random(in: 0...255, using: &random) } }
    for _ in 0..<Int.random(in: 0..<5, using: &random) {
      let wild = Int.random(in: 0..<8, using: &random) == 0
      let address = wild ? UInt64.random(in: 0...UInt64.max, using: &random) : HBAKit.data
      command.regions.append(Region(address, UInt32.random(in: 1..<70_000, using: &random)))
    }
    try kit.prepare(slot, command, number)
    kit.issue(1 << UInt32(slot), queued: command.code & 0xfe == 0x60, number)
  }
}

/// A generator whose numbers follow from its seed.
struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }
  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_f491_4f6c_dd1d
  }
}
