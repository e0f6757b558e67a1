// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

/// What is built and parsed without an HBA: MSI, FISes, command tables, IDENTIFY data.
@Suite struct AHCIBuildingTests {
  private func makeIdentity(_ change: (inout [UInt16]) -> Void) -> ATAIdentity {
    let bus = FakeMachine()
    var words = FakeHBA.makeIdentity()
    change(&words)
    for (index, word) in words.enumerated() {
      bus.ramWrite16(FakeMachine.ramBase + UInt64(2 * index), word)
    }
    return ATAIdentity(bus, address: FakeMachine.ramBase)
  }

  // MARK: IDENTIFY

  @Test func identityOfAModernDiskIsRead() {
    let identity = makeIdentity {
      $0[10] = 0x2020
      $0[11] = 0x4142
      $0[12] = 0x4320
      $0[19] = 0x2020
      $0[100] = 0x1111
      $0[101] = 0x2222
      $0[102] = 0x3333
      $0[106] = 1 << 14 | 1 << 13 | 3
      $0[169] = 1
      $0[217] = 7200
    }
    #expect(identity.sectorCount == 0x3333_2222_1111 && identity.sectorCount28 == 256)
    #expect(identity.logicalSectorBytes == 512 && identity.physicalSectorBytes == 4096)
    #expect(identity.queueDepth == 32 && identity.hasCommandQueuing && identity.has48BitAddresses)
    #expect(identity.hasForcedUnitAccess && identity.hasLogging && identity.hasFlush && identity.hasFlushExt)
    #expect(identity.hasWriteCache && identity.isWriteCacheOn && identity.hasTrim && identity.rotationRate == 7200)
    #expect(identity.serial == Array("ABC".utf8))
    #expect(!identity.isATAPI && identity.checksumHolds == nil)
  }

  @Test func wordsThatAreNotMarkedAsValidSayNothing() {
    let identity = makeIdentity {
      $0[83] = 0x7FFF & ~(1 << 14)
      $0[84] = 0xFFFF
      $0[76] = 0xFFFF
      $0[82] = 0xFFFF
      $0[106] = 0xFFFF
    }
    #expect(!identity.has48BitAddresses && !identity.hasFlush && !identity.hasLogging && !identity.hasForcedUnitAccess)
    #expect(!identity.hasCommandQueuing && identity.queueDepth == 1 && !identity.hasWriteCache)
    #expect(identity.sectorCount == 256 && identity.physicalSectorBytes == 512)
  }

  @Test func logicalSectorsMayBeLarger() {
    let identity = makeIdentity {
      $0[106] = 1 << 14 | 1 << 12
      $0[117] = 2048
    }
    #expect(identity.logicalSectorBytes == 4096 && identity.physicalSectorBytes == 4096)
  }

  @Test(arguments: [(0, true), (1, false)] as [(UInt16, Bool)])
  func theChecksumIsThatOfAllBytes(damage: UInt16, holds: Bool) {
    let identity = makeIdentity { words in
      words[255] = 0xA5
      let sum = words.reduce(UInt8(0)) { $0 &+ UInt8($1 & 0xFF) &+ UInt8($1 >> 8) }
      words[255] |= UInt16(0 &- sum) << 8
      words[20] ^= damage
    }
    #expect(identity.checksumHolds == holds)
  }

  // MARK: FIS, packet

  /// The bytes of a slot's command table after `prepare`.
  private func table(_ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil) throws -> (
    table: [UInt8], header: [UInt32]
  ) {
    let bus = FakeMachine.withHBA()
    let topology = PCITopology(bus: bus)
    let entry = try #require(topology.entries.first { AHCIController<FakeMachine>.drives($0.function) })
    let controller = try AHCIController(topology: topology, entry: entry)
    try controller.start(waitMode: .poll)
    let memory = controller.ports[0].engine.memory
    memory.prepare(slot: 3, command, buffer, packet: packet)
    let bytes = (0..<UInt64(0xC0)).map { bus.ramRead8(memory.table(3) + $0) }
    #expect(bus.ramRead64(memory.list + 3 * 32 + 8) == memory.table(3))
    return (bytes, (0..<UInt64(2)).map { bus.ramRead32(memory.header(3) + 4 * $0) })
  }

  @Test func anExtendedCommandHas48BitsOfAddressAnd16OfCount() throws {
    let command = ATACommand(ATAOpcode.readDMAExt, lba: 0x6655_4433_2211, count: 0xA1B2)
    let expected: [UInt8] = [0x27, 0x80, 0x25, 0, 0x11, 0x22, 0x33, 0x40, 0x44, 0x55, 0x66, 0, 0xB2, 0xA1, 0, 0]
    #expect(try Array(table(command).table[0..<16]) == expected)
  }

  @Test func a28BitCommandHasTheUpperBitsInTheDeviceRegister() throws {
    let command = ATACommand(ATAOpcode.readSectors, lba: 0xABC_DEF0, count: 256)
    let expected: [UInt8] = [0x27, 0x80, 0x20, 0, 0xF0, 0xDE, 0xBC, 0x4A, 0, 0, 0, 0, 0, 1, 0, 0]
    #expect(try Array(table(command).table[0..<16]) == expected)
  }

  @Test func aQueuedCommandHasItsCountInTheFeaturesAndItsTagInTheCount() throws {
    var command = ATACommand(ATAOpcode.writeQueued, lba: 1, count: 0x0102, tag: 31)
    command.device |= ATACommand.forcedUnitAccess
    let expected: [UInt8] = [0x27, 0x80, 0x61, 0x02, 1, 0, 0, 0xC0, 0, 0, 0, 0x01, 0xF8, 0, 0, 0]
    #expect(try Array(table(command).table[0..<16]) == expected)
  }

  @Test func controlFISesHaveNoCommandBit() throws {
    var command = ATACommand(0)
    command.updatesCommand = false
    command.control = 4
    command.multiplierPort = 0xF
    let bytes = try table(command).table
    #expect(bytes[1] == 0x0F && bytes[15] == 4)
  }

  @Test func packetsAreBigEndianAndFlagged() throws {
    let made = try table(
      ATACommand(ATAOpcode.packet), AHCIBuffer(address: FakeMachine.ramBase, byteCount: 2048),
      packet: .read10(block: 0x0102_0304, count: 0x0506))
    #expect(Array(made.table[0x40..<0x4C]) == [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0, 0, 0])
    #expect(made.header[0] == 5 | 1 << 5 | 1 << 16)
  }

  @Test func packetBytesAreReplacedOneByOne() {
    let packet = ATAPIPacket(0xFF).with(0, 0x12).with(7, 0x34).with(8, 0x56).with(11, 0x78)
    #expect(packet.low == 0x3400_0000_0000_0012 && packet.high == 0x7800_0056)
    #expect(ATAPIPacket.requestSense(byteCount: 18).low == 0x12_0000_0003)
  }

  // MARK: PRDs

  @Test func buffersAreCutIntoPieces() throws {
    let made = try table(
      ATACommand(ATAOpcode.writeDMAExt),
      AHCIBuffer(address: 0x1_0000_1000, byteCount: 80, writes: true, pieceBytes: 32))
    #expect(made.header == [5 | 1 << 6 | 3 << 16, 0])
    func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(made.table[offset + $1]) << UInt32(8 * $1) } }
    for (index, bytes) in [32, 32, 16].enumerated() {
      let place = 0x80 + 16 * index
      #expect(word(place) == 0x1000 + 32 * UInt32(index) && word(place + 4) == 1)
      #expect(word(place + 8) == 0 && word(place + 12) == UInt32(bytes - 1))
    }
  }

  @Test(arguments: [(4 << 20, 1), ((4 << 20) + 512, 2), (0, 0)] as [(UInt32, UInt32)])
  func aDescriptorCoversAtMost4MiB(byteCount: UInt32, count: UInt32) throws {
    let made = try table(ATACommand(ATAOpcode.readDMAExt), AHCIBuffer(address: 0, byteCount: byteCount))
    #expect(made.header[0] >> 16 == count)
  }

  // MARK: MSI

  private func makeCapability(_ bus: FakeMachine, _ header: UInt32) throws -> MSICapability<FakeMachine>? {
    bus.functions[1].put(0x80, header)
    return MSICapability(configuration: PCIConfiguration(bus: bus), function: bus.functions[1].address)
  }

  @Test(arguments: [(false, 0x88), (true, 0x8C)] as [(Bool, Int)])
  func theDataFollowsTheAddressInBothLayouts(is64Bit: Bool, dataOffset: Int) throws {
    let bus = FakeMachine.withHBA()
    let msi = try #require(try makeCapability(bus, is64Bit ? 0x00E0_0005 : 0x0060_0005))
    let message = MessageInterrupt(number: 0, address: 0xFEE0_1000, data: 0x41)
    #expect(msi.is64Bit == is64Bit && !msi.holds(message))
    let isProgrammed = msi.program(message)
    #expect(isProgrammed && bus.functions[1].read(0x80) & 1 << 16 == 0)
    msi.enable()
    #expect(bus.functions[1].read(0x84) == 0xFEE0_1000)
    #expect(bus.functions[1].read(dataOffset) & 0xFFFF == 0x41)
    // One message, whatever was enabled before.
    #expect(bus.functions[1].read(0x80) >> 16 & 0x71 == 1)
    #expect(msi.holds(message))
    msi.disable()
    #expect(!msi.holds(message))
  }

  @Test func perVectorMasksAreCleared() throws {
    let bus = FakeMachine.withHBA()
    bus.functions[1].put(0x90, 1)
    let msi = try #require(try makeCapability(bus, 0x0180_0005))
    let isProgrammed = msi.program(MessageInterrupt(number: 0, address: 0xFEE0_0000, data: 1))
    #expect(msi.hasMaskBits && isProgrammed && bus.functions[1].read(0x90) == 0)
  }

  @Test func messagesThatDoNotFitAreRefused() throws {
    let bus = FakeMachine.withHBA()
    let narrow = try #require(try makeCapability(bus, 0x0000_0005))
    #expect(!narrow.program(MessageInterrupt(number: 0, address: 1 << 32, data: 1)))
    #expect(!narrow.program(MessageInterrupt(number: 0, address: 0, data: 1 << 16)))
  }

  @Test func aFunctionWithoutTheCapabilityHasNone() throws {
    let bus = FakeMachine.withHBA()
    #expect(try makeCapability(bus, 0x0000_0011) == nil)
  }
}
