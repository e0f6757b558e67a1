// SPDX-License-Identifier: Apache-2.0
// The DMA interface and the files of firmware configuration (QEMU, docs/specs/fw_cfg).
import GuestMemory
import Machine
import Platform
import Testing

private final class FirmwareKit {
  static let description: UInt64 = 0x1000
  static let target: UInt64 = 0x2000
  let machine: Machine
  let firmware = FirmwareConfig(memoryBytes: 1 << 20, processorCount: 1)

  init() throws {
    machine = try makeMachine()
    machine.add(firmware)
  }

  /// Starts a transfer and returns its control field afterwards.
  func transfer(
    _ control: UInt32, _ length: UInt32, to target: UInt64 = FirmwareKit.target,
    at description: UInt64 = FirmwareKit.description
  ) throws -> UInt32 {
    try machine.memory.store(control.bigEndian, at: description)
    try machine.memory.store(length.bigEndian, at: description + 4)
    try machine.memory.store(target.bigEndian, at: description + 8)
    start(description)
    return UInt32(bigEndian: try machine.memory.load(at: description))
  }

  func start(_ address: UInt64) {
    machine.exitPortWrite(0x514, width: 4, value: UInt32(address >> 32).byteSwapped)
    machine.exitPortWrite(0x518, width: 4, value: UInt32(truncatingIfNeeded: address).byteSwapped)
  }

  func bytes(_ count: Int) throws -> [UInt8] { try machine.memory.bytes(at: Self.target, count: count) }

  /// The bytes of an item, through the ports.
  func item(_ key: UInt16, _ count: Int) -> [UInt8] {
    machine.exitPortWrite(0x510, width: 2, value: UInt32(key))
    return (0..<count).map { _ in UInt8(machine.exitPortRead(0x511, width: 1)) }
  }
}

@Suite struct FirmwareDMATests {
  private static let selectAndRead: UInt32 = 0x0a

  @Test func registerReadsAsItsSignature() throws {
    let kit = try FirmwareKit()
    #expect(kit.machine.exitPortRead(0x514, width: 4).littleEndianBytes == Array("QEMU".utf8))
    #expect(kit.machine.exitPortRead(0x518, width: 4).littleEndianBytes == Array(" CFG".utf8))
    #expect(kit.machine.exitPortRead(0x51b, width: 1) == 0x47)
  }

  @Test func selectedItemIsCopiedAndZeroesFollow() throws {
    let kit = try FirmwareKit()
    try kit.machine.memory.fill(address: FirmwareKit.target, byteCount: 16, with: 0xee)
    #expect(try kit.transfer(Self.selectAndRead, 6) == 0)
    #expect(try kit.bytes(7) == Array("QEMU".utf8) + [0, 0, 0xee])
  }

  @Test func transfersGoOnWhereTheLastOneOrThePortsStopped() throws {
    let kit = try FirmwareKit()
    kit.firmware.add(key: 0x8000, bytes: [1, 2, 3, 4, 5, 6])
    kit.machine.exitPortWrite(0x510, width: 2, value: 0x8000)
    #expect(kit.machine.exitPortRead(0x511, width: 1) == 1)
    #expect(try kit.transfer(4, 2) == 0)
    #expect(try kit.transfer(2, 1) == 0)
    #expect(try kit.bytes(1) == [4])
    #expect(kit.machine.exitPortRead(0x511, width: 1) == 5)
  }

  @Test func selectAloneMovesNothing() throws {
    let kit = try FirmwareKit()
    #expect(try kit.transfer(0x0003_0008, 100) == 0)
    #expect(try kit.bytes(4) == [0, 0, 0, 0])
    #expect(kit.machine.exitPortRead(0x511, width: 1) == 0)
    #expect(kit.machine.exitPortRead(0x511, width: 1) == 0)
    #expect(kit.machine.exitPortRead(0x511, width: 1) == 0x10)
  }

  @Test(arguments: [
    (UInt32(0x0a), UInt32(16), UInt64(0x10_0000)), (0x0a, 16, 0xf_fff1), (0x0a, 1, UInt64.max), (0x0a, 2, UInt64.max),
    (0x0a, UInt32.max, 0), (0x0a, 0x4000_0000, 0x2000), (0x18, 4, 0x2000), (0x10, 0, 0x2000),
  ])
  func transferThatCannotBeSetsTheErrorBit(control: UInt32, length: UInt32, target: UInt64) throws {
    let kit = try FirmwareKit()
    #expect(try kit.transfer(control, length, to: target) == 1)
    #expect(try kit.bytes(4) == [0, 0, 0, 0])
    // The next one works.
    #expect(try kit.transfer(Self.selectAndRead, 4) == 0)
  }

  @Test(arguments: [0xf_fff1, 0x10_0000, UInt64.max, UInt64.max - 15, 0x1_0000_1000] as [UInt64])
  func descriptionOutsideMemoryIsIgnored(address: UInt64) throws {
    let kit = try FirmwareKit()
    try kit.machine.memory.store(Self.selectAndRead.bigEndian, at: FirmwareKit.description)
    kit.start(address)
    #expect(try kit.machine.memory.load(UInt32.self, at: FirmwareKit.description) == Self.selectAndRead.bigEndian)
    // The upper half does not stay.
    #expect(try kit.transfer(Self.selectAndRead, 4) == 0)
  }

  @Test func descriptionMayLieInItsOwnTarget() throws {
    let kit = try FirmwareKit()
    #expect(try kit.transfer(Self.selectAndRead, 64, to: FirmwareKit.description) == 0)
  }

  @Test(arguments: [1, 2]) func halvesAreWrittenWhole(width: Int) throws {
    let kit = try FirmwareKit()
    try kit.machine.memory.store(Self.selectAndRead.bigEndian, at: 0)
    for port in 0x514...0x51a as ClosedRange<UInt16> { kit.machine.exitPortWrite(port, width: width, value: 0) }
    #expect(try kit.machine.memory.load(UInt32.self, at: 0) == Self.selectAndRead.bigEndian)
  }
}

@Suite struct FirmwareFileTests {
  @Test func directoryListsFilesByName() throws {
    let kit = try FirmwareKit()
    try kit.firmware.add(file: "opt/b", bytes: [7, 8])
    try kit.firmware.add(file: "opt/a", bytes: [9])
    let directory = kit.item(0x19, 4 + 2 * 64)
    #expect(directory[0..<4] == [0, 0, 0, 2])
    #expect(directory[4..<12] == [0, 0, 0, 1, 0, 0x21, 0, 0])
    #expect(Array(directory[12..<18]) == Array("opt/a".utf8) + [0])
    #expect(directory[68..<76] == [0, 0, 0, 2, 0, 0x20, 0, 0])
    #expect(Array(directory[76..<82]) == Array("opt/b".utf8) + [0])
    #expect(kit.item(0x20, 3) == [7, 8, 0])
    #expect(kit.item(0x21, 2) == [9, 0])
  }

  @Test(arguments: ["", String(repeating: "x", count: 56), "opt/a", "opt/ä", "opt/a b", "opt/\n"])
  func nameThatCannotBeIsRefused(name: String) throws {
    let kit = try FirmwareKit()
    try kit.firmware.add(file: "opt/a", bytes: [])
    let error = try #require(throws: FirmwareFileError.self) { try kit.firmware.add(file: name, bytes: []) }
    #expect(error.description.contains("name=\(name)"))
    #expect(kit.item(0x19, 4) == [0, 0, 0, 1])
  }

  @Test func fileThatChangesKeepsItsItem() throws {
    let kit = try FirmwareKit()
    try kit.firmware.add(file: "opt/a", bytes: [1])
    try kit.firmware.change(file: "opt/a", bytes: [2, 3, 4])
    #expect(kit.item(0x19, 12)[4..<12] == [0, 0, 0, 3, 0, 0x20, 0, 0])
    #expect(kit.item(0x20, 4) == [2, 3, 4, 0])
    try kit.firmware.change(file: "opt/a", bytes: [])
    #expect(kit.item(0x20, 1) == [0])
    #expect(throws: FirmwareFileError.self) { try kit.firmware.change(file: "opt/b", bytes: []) }
  }

  @Test func longestNameFits() throws {
    let kit = try FirmwareKit()
    try kit.firmware.add(file: String(repeating: "x", count: 55), bytes: [])
    #expect(kit.item(0x19, 4 + 64).suffix(2) == [0x78, 0])
  }

  @Test func memoryMapTellsEveryRegion() throws {
    let kit = try FirmwareKit()
    try kit.machine.memory.add(try GuestRegion(start: 1 << 32, byteCount: 1 << 16))
    try kit.firmware.addMemoryMap(kit.machine.memory.regions)
    let first = UInt64(0).littleEndianBytes + UInt64(1 << 20).littleEndianBytes + [1, 0, 0, 0]
    let second = UInt64(1 << 32).littleEndianBytes + UInt64(1 << 16).littleEndianBytes + [1, 0, 0, 0]
    #expect(kit.item(0x20, 40) == first + second)
  }
}
