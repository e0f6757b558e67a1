// SPDX-License-Identifier: Apache-2.0
// What the drive tells of a disc (MMC-6: READ TOC/PMA/ATIP, READ DISC INFORMATION and others).
import Testing

@testable import AHCI
@testable import Block

@Suite struct ATAPIDiscTests {
  private func readTOC(format: UInt8, track: UInt8 = 0, asTime: Bool = false, allocation: UInt8 = 0xff) -> [UInt8] {
    [0x43, asTime ? 2 : 0, format, 0, 0, 0, track, 0, allocation, 0]
  }

  private func dvd() throws -> ATAPIKit { try ATAPIKit(NullDriver(byteCount: 4_000_000_000)) }

  @Test func capacityIsTheLastBlock() throws {
    #expect(try ATAPIKit().answer([0x25]) == [0, 0, 0, 63, 0, 0, 8, 0])
  }

  // MARK: READ TOC

  @Test func tracksAreOneAndTheLeadOut() throws {
    let kit = try ATAPIKit()
    let track: [UInt8] = [0, 0x14, 1, 0, 0, 0, 0, 0]
    let leadOut: [UInt8] = [0, 0x14, 0xaa, 0, 0, 0, 0, 64]
    for first: UInt8 in [0, 1] {
      #expect(kit.answer(readTOC(format: 0, track: first)) == [0, 18, 1, 1] + track + leadOut)
    }
    #expect(kit.answer(readTOC(format: 0, track: 0xaa)) == [0, 10, 1, 1] + leadOut)
    for first: UInt8 in [2, 0xa9, 0xab, 0xff] {
      #expect(kit.failure(readTOC(format: 0, track: first)) == [5, 0x24, 0])
    }
  }

  /// Two seconds before address 0: 64 blocks end at frame 214.
  @Test func tracksCanBeToldAsTimes() throws {
    let kit = try ATAPIKit()
    #expect(
      kit.answer(readTOC(format: 0, asTime: true))
        == [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xaa, 0, 0, 0, 2, 64])
    #expect(kit.answer(readTOC(format: 1, asTime: true))[8...] == [0, 0, 2, 0])
  }

  @Test func timesThatAreTooLongAreTheLongest() throws {
    #expect(try dvd().answer(readTOC(format: 0, track: 0xaa, asTime: true))[8...] == [0, 0xff, 59, 74])
  }

  @Test func sessionIsTheFirstAndOnly() throws {
    let kit = try ATAPIKit()
    let answer: [UInt8] = [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]
    #expect(kit.answer(readTOC(format: 1)) == answer)
    // The format where it was before MMC-2.
    #expect(kit.answer([0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40]) == answer)
  }

  @Test func rawTOCHasItsPoints() throws {
    let data = try ATAPIKit().answer(readTOC(format: 2))
    #expect(data.count == 4 + 4 * 11 && bigEndian(data[0..<2]) == data.count - 2)
    let entries = stride(from: 4, to: data.count, by: 11).map { Array(data[$0..<$0 + 11]) }
    #expect(entries.map { $0[3] } == [0xa0, 0xa1, 0xa2, 1])
    #expect(entries.allSatisfy { $0[0] == 1 && $0[1] == 0x14 && $0[2] == 0 })
    #expect(entries.map { Array($0[8...]) } == [[1, 0, 0], [1, 0, 0], [0, 2, 64], [0, 2, 0]])
  }

  @Test func otherTOCsAreRefused() throws {
    let kit = try ATAPIKit()
    for format: UInt8 in [3, 4, 5, 15] { #expect(kit.failure(readTOC(format: format)) == [5, 0x24, 0]) }
    #expect(kit.failure(readTOC(format: 2, track: 2)) == [5, 0x24, 0])
  }

  @Test func truncatedTOCTellsItsWholeLength() throws {
    #expect(try ATAPIKit().answer(readTOC(format: 0, allocation: 4)) == [0, 18, 1, 1])
  }

  // MARK: Others

  @Test func discIsFinished() throws {
    let kit = try ATAPIKit()
    let data = kit.answer([0x51, 0, 0, 0, 0, 0, 0, 1, 0])
    #expect(data.count == 34 && bigEndian(data[0..<2]) == 32)
    #expect(data[2] == 0x0e && Array(data[3..<7]) == [1, 1, 1, 1])
    #expect(data[16..<24].allSatisfy { $0 == 0xff })
    #expect(kit.failure([0x51, 1, 0, 0, 0, 0, 0, 1, 0]) == [5, 0x24, 0])
  }

  @Test func subChannelHasAPositionAndNoAudio() throws {
    let kit = try ATAPIKit()
    #expect(kit.answer([0x42, 0, 0, 0, 0, 0, 0, 0, 64]) == [0, 0x15, 0, 0])
    #expect(
      kit.answer([0x42, 2, 0x40, 1, 0, 0, 0, 0, 64])
        == [0, 0x15, 0, 12, 1, 0x14, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0])
    for format: UInt8 in [2, 3] {
      let data = kit.answer([0x42, 0, 0x40, format, 0, 0, 0, 0, 64])
      #expect(data.count == 24 && data[3] == 20 && data[4] == format && data[8] == 0)
    }
    #expect(kit.failure([0x42, 0, 0x40, 0, 0, 0, 0, 0, 64]) == [5, 0x24, 0])
    #expect(kit.failure([0x42, 0, 0x40, 4, 0, 0, 0, 0, 64]) == [5, 0x24, 0])
  }

  @Test func speedIsTaken() throws {
    #expect(try ATAPIKit().packet([0xbb, 0, 0xff, 0xff]).status == 0x50)
  }

  // MARK: READ DVD STRUCTURE

  private func readStructure(_ format: UInt8, media: UInt8 = 0, layer: UInt8 = 0) -> [UInt8] {
    [0xad, media, 0, 0, 0, 0, layer, format, 0xff, 0xff]
  }

  @Test func aCDHasNoStructuresOfADVD() throws {
    #expect(try ATAPIKit().failure(readStructure(0)) == [5, 0x30, 2])
  }

  @Test func aDVDHasStructures() throws {
    let kit = try dvd()
    let blocks = 4_000_000_000 / 2048
    let physical = kit.answer(readStructure(0))
    #expect(physical.count == 2052 && bigEndian(physical[0..<2]) == 2050)
    #expect(bigEndian(physical[8..<12]) == 0x30000 && bigEndian(physical[12..<16]) == 0x30000 + blocks - 1)
    #expect(kit.answer(readStructure(1)) == [0, 6, 0, 0, 0, 0, 0, 0])
    #expect(kit.answer(readStructure(4)).count == 2052)
    let list = kit.answer(readStructure(0xff))
    #expect(bigEndian(list[0..<2]) == list.count - 2)
    for entry in stride(from: 4, to: list.count, by: 4) {
      #expect(kit.answer(readStructure(list[entry])).count == bigEndian(list[entry + 2..<entry + 4]))
    }
    for refused in [readStructure(2), readStructure(3), readStructure(0, layer: 1), readStructure(0, media: 1)] {
      #expect(kit.failure(refused) == [5, 0x24, 0])
    }
  }
}
