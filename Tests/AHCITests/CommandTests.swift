// SPDX-License-Identifier: Apache-2.0
// Commands through a port: interrupts, FISes, PRDBC, region lists, NCQ (AHCI 1.3.1 §4.2, §5).
import Block
import DeviceTestKit
import Machine
import Testing

@testable import AHCI

@Suite struct CommandTests {
  let kit: HBAKit
  init() throws {
    kit = try HBAKit()
    kit.start()
  }

  private static let sector = [Region(HBAKit.data, 512)]

  // MARK: What each protocol leaves behind

  struct Row: Sendable, CustomTestStringConvertible {
    let name: String
    let command: Command
    let interrupts: UInt32
    let moved: UInt32
    /// Transfer count of the PIO set-up FIS; nil where there is none.
    var block: UInt16?
    var testDescription: String { name }
  }
  private static let four = [Region(HBAKit.data, 2048)]
  static let rows: [Row] = [
    Row(name: "DMA in", command: Command(0xc8, count: 1, regions: sector), interrupts: 0x1, moved: 512),
    Row(name: "DMA in EXT", command: Command(0x25, count: 4, regions: four), interrupts: 0x1, moved: 2048),
    Row(
      name: "DMA out", command: Command(0xca, count: 1, regions: sector, isWrite: true), interrupts: 0x1, moved: 512),
    Row(name: "flush", command: Command(0xe7), interrupts: 0x1, moved: 0),
    Row(name: "native max", command: Command(0xf8), interrupts: 0x1, moved: 0),
    Row(
      name: "PIO in, 1 sector", command: Command(0x20, count: 1, regions: sector), interrupts: 0x3, moved: 512,
      block: 512),
    Row(
      name: "PIO in, 4 sectors", command: Command(0x24, count: 4, regions: four), interrupts: 0x3, moved: 2048,
      block: 512),
    Row(
      name: "PIO out, 1 sector", command: Command(0x30, count: 1, regions: sector, isWrite: true), interrupts: 0x1,
      moved: 512, block: 512),
    Row(
      name: "PIO out, 4 sectors", command: Command(0x34, count: 4, regions: four, isWrite: true), interrupts: 0x3,
      moved: 2048, block: 512),
    Row(name: "IDENTIFY", command: Command(0xec, regions: sector), interrupts: 0x3, moved: 512, block: 512),
  ]

  /// §5.5 and §5.6: exactly these bits of PxIS, PRDBC, the FISes, and only then PxCI.
  @Test(arguments: rows)
  func commandEndsAsItsProtocolSays(_ row: Row) throws {
    try kit.memory.fill(address: HBAKit.received(), byteCount: 256, with: 0)
    try kit.run(row.command)
    #expect(kit.isr == row.interrupts)
    #expect(try kit.moved() == row.moved)
    #expect(kit.issued == 0)
    let registers = try kit.fis(0x40, 4)
    #expect(registers == [0x34, 0x40, UInt8(kit.taskFile & 0xff), UInt8(kit.taskFile >> 8)])
    #expect(kit.taskFile & 0x89 == 0)
    let setup = try kit.fis(0x20, 18)
    if let block = row.block {
      #expect(setup[0] == 0x5f)
      #expect(setup[1] & 0x20 == (row.command.isWrite ? 0 : 0x20))
      #expect(setup[1] & 0x40 == (row.interrupts & 2 != 0 ? 0x40 : 0))
      #expect(UInt16(setup[16]) | UInt16(setup[17]) << 8 == block)
    } else {
      #expect(setup.allSatisfy { $0 == 0 })
    }
    #expect(kit.port(PortRegister.sataError) == 0)
  }

  @Test func dataArriveWhereTheRegionsSay() throws {
    let regions = [Region(HBAKit.data + 0x1000, 600), Region(HBAKit.data, 400), Region(HBAKit.data + 0x800, 24)]
    try kit.run(Command(0x25, lba: 3, count: 2, regions: regions))
    let whole = Array(kit.driver.bytes[3 * 512..<5 * 512])
    let parts =
      try kit.bytes(600, at: HBAKit.data + 0x1000) + kit.bytes(400) + kit.bytes(24, at: HBAKit.data + 0x800)
    #expect(parts == whole)
    #expect(try kit.moved() == 1024)
  }

  @Test func dataAreTakenFromWhereTheRegionsSay() throws {
    let bytes = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 29 &+ 5) }
    try kit.memory.write(bytes, at: HBAKit.data)
    let regions = [Region(HBAKit.data, 2), Region(HBAKit.data + 2, 1020), Region(HBAKit.data + 1022, 2)]
    try kit.run(Command(0x35, lba: 7, count: 2, regions: regions, isWrite: true))
    #expect(Array(kit.driver.bytes[7 * 512..<9 * 512]) == bytes)
  }

  /// 128 regions of 32 bytes, as drivers' tests use them.
  @Test func smallRegionsAreServedAsOneRequest() throws {
    try kit.prepareLongTable(regions: (0..<128).map { Region(HBAKit.data + UInt64($0) * 64, 32) }, sectors: 8)
    kit.issue(1)
    #expect(kit.driver.held.count == 1)
    kit.completeAll()
    var gathered: [UInt8] = []
    for index in UInt64(0)..<128 { gathered += try kit.bytes(32, at: HBAKit.data + index * 64) }
    #expect(gathered == Array(kit.driver.bytes[0..<4096]))
    #expect(try kit.moved() == 4096)
  }

  /// More regions than a request has entries: the data go through a buffer, and arrive all the same (§4.2.3.3 allows 65535
  /// regions).
  @Test(arguments: [false, true])
  func regionsOfTwoBytesAreServed(_ isWrite: Bool) throws {
    let sectors = 12
    let regions = (0..<sectors * 256).map { Region(HBAKit.data + UInt64($0) * 4, 2) }
    for index in 0..<regions.count {
      try kit.memory.store(UInt16(truncatingIfNeeded: index &* 7), at: regions[index].address)
    }
    try kit.prepareLongTable(regions: regions, sectors: UInt16(sectors), isWrite: isWrite)
    kit.issue(1)
    kit.completeAll()
    var gathered: [UInt8] = []
    for region in regions { gathered += try kit.bytes(2, at: region.address) }
    #expect(gathered == Array(kit.driver.bytes[0..<sectors * 512]))
    #expect(try kit.moved() == UInt32(sectors * 512))
    #expect(kit.isr == PortInterrupt.registerFIS)
  }

  /// As many regions as a header can name (§4.2.2, PRDTL).
  @Test func allTheRegionsThatAHeaderCanNameAreServed() throws {
    let sectors = 255
    // The last regions are not needed, and every fourth word of memory is written.
    let regions = (0..<65535).map { Region(0x60_0000 + UInt64($0) * 8, 2) }
    let driver = ScriptedDriver(sectors: sectors)
    let kit = try HBAKit(driver: driver)
    kit.start()
    try kit.prepareLongTable(regions: regions, sectors: UInt16(sectors))
    kit.issue(1)
    kit.completeAll()
    var isSame = true
    for index in 0..<sectors * 256 {
      let word: UInt16 = try kit.memory.load(at: regions[index].address)
      isSame = isSame && word == UInt16(driver.bytes[2 * index]) | UInt16(driver.bytes[2 * index + 1]) << 8
    }
    #expect(isSame)
    #expect(try kit.moved() == UInt32(sectors * 512))
    #expect(kit.isr == PortInterrupt.registerFIS)
  }

  /// The prefetch, BIST and clear-busy hints change nothing (§4.2.2).
  @Test func hintsInTheHeaderAreIgnoredSafely() throws {
    try kit.prepare(0, Command(0x25, count: 1, regions: Self.sector))
    let header = HBAKit.list()
    let flags: UInt32 = try kit.memory.load(at: header)
    try kit.memory.store(flags | 0x680, at: header)
    kit.issue(1)
    kit.completeAll()
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[0..<512]))
  }

  /// CTBA's low seven bits are reserved (§4.2.2), and a region's lowest bit (§4.2.3.3).
  @Test func reservedAddressBitsAreIgnored() throws {
    try kit.prepare(0, Command(0x25, count: 1, regions: [Region(HBAKit.data | 1, 511)]))
    try kit.memory.store(HBAKit.table(0) | 0x7f, at: HBAKit.list() + 8)
    kit.issue(1)
    kit.completeAll()
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[0..<512]))
    #expect(try kit.moved() == 512)
  }

  // MARK: The order of commands

  @Test func commandsThatAreNotQueuedRunOneAfterTheOtherRoundRobin() throws {
    for slot in [3, 7, 30] {
      try kit.prepare(slot, Command(0x25, lba: UInt64(slot), count: 1, regions: Self.sector))
    }
    kit.issue(1 << 7)
    kit.issue(1 << 3 | 1 << 30)
    var order: [UInt64] = []
    while let request = kit.driver.held.first {
      #expect(kit.driver.held.count == 1)
      order.append(request.pointee.offset / 512)
      kit.completeOne()
    }
    #expect(order == [7, 30, 3])
    #expect(kit.issued == 0)
  }

  /// Known failure 45: a bit of PxCI that is set is written again.
  @Test func issuingACommandThatIsUnderWayIsIgnored() throws {
    try kit.prepare(0, Command(0x25, count: 1, regions: Self.sector))
    kit.issue(1)
    kit.issue(1)
    #expect(kit.driver.held.count == 1)
    kit.completeAll()
    #expect(kit.issued == 0)
    #expect(kit.driver.held.isEmpty)
  }

  // MARK: NCQ (§5.6.4; SATA 3.3 §13.6)

  /// A queued command is taken: its bit leaves PxCI with a register FIS without interrupt; PxSACT keeps it until it is
  /// done (§5.5.2; known failure 44).
  @Test func aQueuedCommandLeavesPxCIWhenItIsTakenAndPxSACTWhenItIsDone() throws {
    try kit.prepare(5, .queued(tag: 5, lba: 9, regions: Self.sector))
    kit.issue(1 << 5, queued: true)
    #expect(kit.issued == 0)
    #expect(kit.active == 1 << 5)
    #expect(kit.isr == 0)
    #expect(try kit.fis(0x40, 3) == [0x34, 0x00, 0x50])
    kit.completeAll()
    #expect(kit.active == 0)
    #expect(kit.isr == PortInterrupt.setDeviceBitsFIS)
    #expect(try kit.fis(0x58, 8) == [0xa1, 0x40, 0x50, 0, 0x20, 0, 0, 0])
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[9 * 512..<10 * 512]))
  }

  @Test func allThirtyTwoTagsAreInFlightAtOnceAndEndInAnyOrder() throws {
    for tag in 0..<32 {
      try kit.prepare(
        tag, .queued(tag: tag, lba: UInt64(63 - tag), regions: [Region(HBAKit.data + UInt64(tag) * 512, 512)]))
    }
    kit.issue(UInt32.max, queued: true)
    #expect(kit.driver.held.count == 32)
    #expect(kit.issued == 0)
    #expect(kit.active == UInt32.max)
    var left = UInt32.max
    for step in 0..<32 {
      let index = (step * 11) % kit.driver.held.count
      let tag = kit.driver.held[index].pointee.slot
      kit.completeOne(at: index)
      left &= ~(1 << UInt32(tag))
      #expect(kit.active == left)
    }
    for tag in 0..<32 {
      let expected = Array(kit.driver.bytes[(63 - tag) * 512..<(64 - tag) * 512])
      #expect(try kit.bytes(512, at: HBAKit.data + UInt64(tag) * 512) == expected)
    }
  }

  /// What completes in one round of the loop is one FIS and one interrupt.
  @Test func completionsOfOneRoundShareAnInterrupt() throws {
    for tag in 0..<4 { try kit.prepare(tag, .queued(tag: tag, lba: 0, regions: Self.sector)) }
    kit.issue(0xf, queued: true)
    kit.loop.beginBatch()
    kit.driver.completeAll()
    #expect(kit.active == 0xf)
    kit.loop.endBatch()
    #expect(kit.active == 0)
    #expect(try kit.fis(0x5c, 4) == [0xf, 0, 0, 0])
  }

  @Test func queuedWritesCarryTheForceUnitAccessBit() throws {
    var command = Command.queued(write: true, tag: 0, lba: 2, regions: Self.sector)
    command.device = 0xc0
    try kit.prepare(0, command)
    kit.issue(1, queued: true)
    #expect(kit.driver.held.first.map { $0.pointee.forceUnitAccess } == true)
    kit.completeAll()
    try kit.prepare(0, .queued(write: true, tag: 0, lba: 2, regions: Self.sector))
    kit.issue(1, queued: true)
    #expect(kit.driver.held.first.map { $0.pointee.forceUnitAccess } == false)
  }

  /// Requests that overlap are allowed, also of one tag after the other.
  @Test func overlappingRequestsAreServed() throws {
    for tag in 0..<8 {
      try kit.prepare(tag, .queued(write: tag % 2 == 1, tag: tag, lba: UInt64(tag / 4), sectors: 4, regions: Self.four))
    }
    kit.issue(0xff, queued: true)
    #expect(kit.driver.held.count == 8)
    kit.completeAll()
    #expect(kit.active == 0)
    #expect(kit.isr == PortInterrupt.setDeviceBitsFIS)
  }

  @Test func portsWorkSideBySide() throws {
    kit.controller.connect(try kit.memoryDrive(initial: [UInt8](repeating: 0x77, count: 512)), to: 1)
    kit.start(1)
    kit.start(0)
    try kit.prepare(0, .queued(tag: 0, lba: 0, regions: Self.sector))
    kit.issue(1, queued: true)
    try kit.run(Command(0x25, count: 1, regions: [Region(HBAKit.data + 0x1000, 512)]), 1)
    #expect(try kit.bytes(512, at: HBAKit.data + 0x1000) == [UInt8](repeating: 0x77, count: 512))
    kit.completeAll()
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[0..<512]))
    #expect(kit.hba(HBARegister.interruptStatus) == 3)
  }
}

extension HBAKit {
  /// Writes READ or WRITE DMA EXT from sector 0 into slot 0, with a table of its own for any number of regions.
  func prepareLongTable(regions: [Region], sectors: UInt16, isWrite: Bool = false, at table: UInt64 = 0x40_0000)
    throws
  {
    try prepare(0, Command(isWrite ? 0x35 : 0x25, count: sectors, isWrite: isWrite))
    try memory.write(Command(isWrite ? 0x35 : 0x25, count: sectors).fis, at: table)
    try memory.store(UInt32(5 | (isWrite ? 0x40 : 0)) | UInt32(regions.count) << 16, at: HBAKit.list())
    try memory.store(table, at: HBAKit.list() + 8)
    for (index, region) in regions.enumerated() {
      let entry = table + 0x80 + UInt64(index) * 16
      try memory.store(region.address, at: entry)
      try memory.store(region.byteCount &- 1, at: entry + 12)
    }
  }
}
