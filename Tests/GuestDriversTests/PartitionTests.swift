// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct PartitionTests {
  private static let address = FakeMachine.ramBase

  private func put(_ bus: FakeMachine, _ offset: UInt64, _ value: UInt64, byteCount: UInt64) {
    for index in 0..<byteCount {
      bus.ramWrite8(PartitionTests.address + offset + index, UInt8(truncatingIfNeeded: value >> (8 * index)))
    }
  }

  /// Writes both checksums over what is there.
  private func seal(_ bus: FakeMachine) {
    let crc = CRC32()
    put(
      bus, 512 + 88, UInt64(crc.checksum(bus, address: PartitionTests.address + 1024, byteCount: 128 * 128)),
      byteCount: 4)
    put(bus, 512 + 16, 0, byteCount: 4)
    put(bus, 512 + 16, UInt64(crc.checksum(bus, address: PartitionTests.address + 512, byteCount: 92)), byteCount: 4)
  }

  private func makeTable(_ name: String = "scratch") -> FakeMachine {
    let bus = FakeMachine()
    put(bus, 450, 0xEE, byteCount: 1)
    put(bus, 510, 0xAA55, byteCount: 2)
    let header: [(UInt64, UInt64, UInt64)] = [
      (0, 0x5452_4150_2049_4645, 8), (8, 0x1_0000, 4), (12, 92, 4), (24, 1, 8), (32, 16383, 8), (40, 34, 8),
      (48, 16350, 8), (72, 2, 8), (80, 128, 4), (84, 128, 4),
    ]
    for (offset, value, byteCount) in header {
      put(bus, 512 + offset, value, byteCount: byteCount)
    }
    for (entry, first, last) in [(0, 2048, 14335), (1, 14336, 16350)] as [(UInt64, UInt64, UInt64)] {
      let offset = 1024 + 128 * entry
      put(bus, offset, 0x1234, byteCount: 8)
      put(bus, offset + 32, first, byteCount: 8)
      put(bus, offset + 40, last, byteCount: 8)
    }
    for (index, unit) in name.utf16.enumerated() {
      put(bus, 1024 + 128 + 56 + UInt64(2 * index), UInt64(unit), byteCount: 2)
    }
    seal(bus)
    return bus
  }

  private func parse(_ bus: FakeMachine) -> (GUIDPartitionTable, GPTProblem?) {
    var table = GUIDPartitionTable()
    let problem = table.parse(bus, address: PartitionTests.address, crc: CRC32())
    return (table, problem)
  }

  @Test func aGoodTableGivesItsPartitions() {
    let (table, problem) = parse(makeTable())
    #expect(problem == nil)
    #expect(
      table.partitions == [
        GPTPartition(number: 1, firstBlock: 2048, lastBlock: 14335, isScratch: false),
        GPTPartition(number: 2, firstBlock: 14336, lastBlock: 16350, isScratch: true),
      ])
    #expect(table.backupBlock == 16383 && table.partition(2)?.blockCount == 2015)
  }

  @Test(arguments: ["scratchy", "scratc", "Scratch", ""])
  func onlyTheExactNameIsScratch(name: String) {
    let (table, problem) = parse(makeTable(name))
    #expect(problem == nil && table.partition(2)?.isScratch == false)
  }

  /// Each change is sealed with good checksums or not, and names what is wrong.
  @Test(
    arguments: [
      (512, 0, 1, false, GPTProblem.none), (510, 0, 1, false, .protectiveMBR), (450, 7, 1, false, .protectiveMBR),
      (512 + 24, 2, 8, true, .headerFields), (512 + 12, 4096, 4, true, .headerFields),
      (512 + 56, 1, 1, false, .headerChecksum), (1024 + 60, 0x41, 1, false, .arrayChecksum),
      (512 + 80, 0xFFFF_FFFF, 4, true, .arrayFields), (512 + 84, 64, 4, true, .arrayFields),
      (512 + 72, 99, 8, true, .arrayFields), (1024 + 40, 99_999_999, 8, true, .entryFields),
      (1024 + 32, 3, 8, true, .entryFields), (1024 + 32, 16350, 8, true, .entryFields),
    ] as [(UInt64, UInt64, UInt64, Bool, GPTProblem)])
  func damageIsNamed(offset: UInt64, value: UInt64, byteCount: UInt64, isSealed: Bool, expected: GPTProblem) {
    let bus = makeTable()
    put(bus, offset, value, byteCount: byteCount)
    if isSealed {
      seal(bus)
    }
    #expect(parse(bus).1 == expected)
  }

  @Test func ext4SuperblockIsRead() throws {
    let bus = FakeMachine()
    put(bus, 0, 1536, byteCount: 4)
    put(bus, 4, 6144, byteCount: 4)
    put(bus, 24, 0, byteCount: 4)
    put(bus, 56, 0xEF53, byteCount: 2)
    put(bus, 104, 0x0706_0504_0302_0100, byteCount: 8)
    put(bus, 0x150, 1, byteCount: 4)
    let small = try #require(Ext4Superblock(bus, address: PartitionTests.address))
    #expect(small.blockBytes == 1024 && small.blockCount == 6144 && small.inodeCount == 1536)
    #expect(small.uuid.high == 0x0001_0203_0405_0607)
    put(bus, 96, 0x80, byteCount: 4)
    #expect(Ext4Superblock(bus, address: PartitionTests.address)?.blockCount == 1 << 32 | 6144)
    put(bus, 24, 40, byteCount: 4)
    #expect(Ext4Superblock(bus, address: PartitionTests.address) == nil)
    put(bus, 24, 2, byteCount: 4)
    put(bus, 56, 0, byteCount: 2)
    #expect(Ext4Superblock(bus, address: PartitionTests.address) == nil)
  }
}
