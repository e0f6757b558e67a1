// SPDX-License-Identifier: Apache-2.0
// Reading the disc (MMC-6: READ, READ CD) and raw sectors (ECMA-130).
import EventLoop
import Glibc
import Testing

@testable import AHCI
@testable import Block

@Suite struct ATAPIReadTests {
  /// READ (10) and READ (12).
  private func read10(_ address: UInt32, _ blocks: UInt16) -> [UInt8] {
    let address = withUnsafeBytes(of: address.bigEndian, Array.init)
    return [0x28, 0] + address + [0, UInt8(blocks >> 8), UInt8(blocks & 0xff), 0]
  }

  private func read12(_ address: UInt32, _ blocks: UInt32) -> [UInt8] {
    [0xa8, 0] + withUnsafeBytes(of: address.bigEndian, Array.init) + withUnsafeBytes(of: blocks.bigEndian, Array.init)
  }

  private func readCD(_ address: UInt32, _ blocks: UInt32, parts: UInt8, type: UInt8 = 0, sub: UInt8 = 0) -> [UInt8] {
    [0xbe, type << 2] + withUnsafeBytes(of: address.bigEndian, Array.init)
      + withUnsafeBytes(of: blocks.bigEndian, Array.init)[1...] + [parts, sub]
  }

  private func block(_ range: Range<Int>, of kit: ATAPIKit) -> [UInt8] {
    Array(ATAPIKit.content(blocks: 64)[range.lowerBound * 2048..<range.upperBound * 2048])
  }

  @Test func readsGiveTheDiscsBytes() throws {
    let kit = try ATAPIKit()
    #expect(kit.answer(read10(5, 1)) == block(5..<6, of: kit))
    #expect(kit.link.slot.pointee.movedBytes == 2048)
    #expect(kit.answer(read10(61, 3)) == block(61..<64, of: kit))
    #expect(kit.answer(read12(7, 2)) == block(7..<9, of: kit))
    #expect(kit.answer(read12(0, 64)) == block(0..<64, of: kit))
  }

  @Test func readsByPIOEndWithAWholeBlock() throws {
    let kit = try ATAPIKit()
    for (blocks, limit) in [(1, 2048), (3, 2048), (3, 4096)] as [(UInt16, UInt64)] {
      #expect(kit.packet(read10(0, blocks), limit: limit).status == 0x50)
      #expect(kit.link.received == block(0..<Int(blocks), of: kit))
      let pio = kit.link.slot.pointee.pio
      #expect(pio.blockBytes == 2048 && pio.isInput && pio.interrupts)
    }
  }

  @Test func readsOfNothingSucceed() throws {
    let kit = try ATAPIKit()
    for command in [read10(3, 0), read12(3, 0), readCD(3, 0, parts: 0xf8), readCD(.max, 0, parts: 0x10)] {
      #expect(kit.packet(command, limit: 0).status == 0x50)
      #expect(kit.link.received.isEmpty && kit.link.slot.pointee.pio.blockBytes == 12)
    }
    #expect(kit.packet(readCD(3, 5, parts: 0x00), limit: 0).status == 0x50)
    #expect(kit.link.received.isEmpty)
  }

  /// Neither a sum that is too large nor one that wraps around.
  @Test func readsBeyondTheEndFailAndMoveNothing() throws {
    let kit = try ATAPIKit()
    let commands = [
      read10(64, 1), read10(63, 2), read10(0, 65), read10(.max, 1), read10(.max, .max), read12(1, .max),
      read12(.max, .max), read12(0, 0x8000_0000), read12(0xffff_ffc0, 0x80), readCD(64, 1, parts: 0x10),
      readCD(60, 5, parts: 0xf8), readCD(.max, 0xff_ffff, parts: 0xf8), read10(64, 0),
    ]
    for command in commands {
      #expect(kit.failure(command, limit: 2048) == [5, 0x21, 0])
      kit.packet(command)
      #expect(kit.link.received.isEmpty && kit.link.slot.pointee.movedBytes == 0)
    }
  }

  @Test func seekChecksItsAddress() throws {
    let kit = try ATAPIKit()
    #expect(kit.packet([0x2b, 0, 0, 0, 0, 63]).status == 0x50)
    #expect(kit.failure([0x2b, 0, 0, 0, 0, 64]) == [5, 0x21, 0])
  }

  @Test func aPartOfABlockAtTheEndIsNotReachable() throws {
    let kit = try ATAPIKit(MemoryDriver(byteCount: 2 * 2048 + 1536))
    #expect(bigEndian(kit.answer([0x25])[0..<4]) == 1)
    #expect(kit.failure(read10(2, 1)) == [5, 0x21, 0])
  }

  @Test func aDiscWithoutABlockIsNotReadable() throws {
    let kit = try ATAPIKit(MemoryDriver(byteCount: 512))
    for command in [[0x00], [0x25], read10(0, 1), [0x43, 0, 0, 0, 0, 0, 0, 0, 12]] as [[UInt8]] {
      #expect(kit.failure(command) == [2, 0x30, 0])
    }
  }

  @Test func addressesHave32Bits() throws {
    let kit = try ATAPIKit(NullDriver(byteCount: 1 << 50))
    #expect(kit.answer([0x25]) == [0xff, 0xff, 0xff, 0xfe, 0, 0, 8, 0])
    #expect(kit.answer(read12(0xffff_fffe, 1)).count == 2048)
    #expect(kit.failure(read12(.max, 1)) == [5, 0x21, 0])
  }

  // MARK: Errors of the host

  private func failing(_ rule: FaultRule, blocks: Int = 64) throws -> ATAPIKit {
    let loop = try EventLoop(name: "faults")
    let disc = try MemoryDriver(byteCount: UInt64(blocks * 2048), initial: ATAPIKit.content(blocks: blocks))
    return try ATAPIKit(FaultDriver(over: disc, rules: [rule], loop: loop))
  }

  @Test func hostErrorIsAMediumErrorAndTheNextReadIsServed() throws {
    let kit = try failing(FaultRule(.read, .error(EIO), range: 4096..<6144, occurrence: .only(1)))
    #expect(kit.failure(read10(2, 1)) == [3, 0x11, 0])
    #expect(kit.answer(read10(2, 1)) == block(2..<3, of: kit))
  }

  @Test func hostErrorInTheMiddleOfRawSectorsEndsTheCommandOnce() throws {
    let kit = try failing(FaultRule(.read, .error(EIO), occurrence: .only(2)))
    #expect(kit.failure(readCD(0, 64, parts: 0xf8)) == [3, 0x11, 0])
    kit.packet(readCD(0, 64, parts: 0xf8))
    #expect(kit.link.received.count == 64 * 2352)
  }

  // MARK: READ CD

  @Test func userDataOfSectorsAreBlocks() throws {
    let kit = try ATAPIKit()
    #expect(kit.answer(readCD(9, 3, parts: 0x10)) == block(9..<12, of: kit))
    #expect(kit.answer(readCD(9, 1, parts: 0x10, type: 2)) == block(9..<10, of: kit))
  }

  @Test func otherPartsAndTypesOfSectorsAreRefused() throws {
    let kit = try ATAPIKit()
    for parts: UInt8 in [0x08, 0x18, 0x20, 0x78, 0x80, 0xf0, 0x12, 0xfa, 0xfc] {
      #expect(kit.failure(readCD(0, 1, parts: parts)) == [5, 0x24, 0])
    }
    for sub: UInt8 in [1, 2, 4, 7] { #expect(kit.failure(readCD(0, 1, parts: 0x10, sub: sub)) == [5, 0x24, 0]) }
    for type: UInt8 in [1, 3, 4, 5, 6, 7] {
      #expect(kit.failure(readCD(0, 1, parts: 0x10, type: type)) == [5, 0x64, 0])
    }
    let dvd = try ATAPIKit(NullDriver(byteCount: 4_000_000_000))
    #expect(dvd.failure(readCD(0, 1, parts: 0xf8)) == [5, 0x64, 0])
  }

  /// More than one piece, and not a whole number of them.
  @Test func rawSectorsHaveTheBlocksInThem() throws {
    let kit = try ATAPIKit()
    #expect(kit.packet(readCD(3, 37, parts: 0xf8), limit: 2352).status == 0x50)
    #expect(kit.link.slot.pointee.pio.blockBytes == 2352)
    let data = kit.link.received
    #expect(data.count == 37 * 2352)
    for index in 0..<37 {
      let sector = Array(data[index * 2352..<(index + 1) * 2352])
      #expect(sector[0] == 0 && sector[1...10].allSatisfy { $0 == 0xff } && sector[11] == 0)
      #expect(Array(sector[16..<2064]) == block(3 + index..<4 + index, of: kit))
      #expect(sector[15] == 1)
    }
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
  }

  @Test func rawSectorsStopWhereTheListEnds() throws {
    let kit = try ATAPIKit()
    kit.link.listBytes = 20 * 2352 + 100
    #expect(kit.packet(readCD(0, 64, parts: 0xf8)).status == 0x50)
    #expect(kit.link.received.count == kit.link.listBytes && kit.link.slot.pointee.overflowed)
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
  }

  // MARK: Raw sectors

  private func sector(_ address: UInt32) -> [UInt8] {
    var sector = [UInt8](repeating: 0xaa, count: 2352)
    let data = (0..<2048).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 8 &+ Int(address)) }
    sector.withUnsafeMutableBytes { sector in
      data.withUnsafeBytes { RawSector.fill(sector, address: address, userData: $0) }
    }
    return sector
  }

  /// ECMA-130 §14.2; MMC-6, LBA to MSF translation: two digits each of minute, second, frame; address 0 is at two
  /// seconds.
  @Test(
    arguments: [
      (0, [0x00, 0x02, 0x00]), (1, [0x00, 0x02, 0x01]), (4349, [0x00, 0x59, 0x74]), (4350, [0x01, 0x00, 0x00]),
      (359_849, [0x79, 0x59, 0x74]), (359_999, [0x80, 0x01, 0x74]),
    ] as [(UInt32, [UInt8])])
  func sectorHeaderIsTheAddressAsTime(address: UInt32, header: [UInt8]) {
    #expect(Array(sector(address)[12..<16]) == header + [1])
  }

  /// ECMA-130 §14.3: the codeword is divisible by the product of the two polynomials.
  @Test func sectorPassesItsErrorDetection() {
    var product: UInt64 = 0
    for bit in [16, 15, 2, 0] as [UInt64] { product ^= 0x1_0007 << bit }
    #expect(product == 0x1_8001_801b)
    var rest: UInt64 = 0
    for byte in sector(1234)[..<2068] {
      for bit in 0..<8 {
        rest = rest << 1 | UInt64(byte >> bit & 1)
        if rest & 1 << 32 != 0 { rest ^= product }
      }
    }
    // What comes out after the code itself is shifted through; the code is written low bit first, as it is sent.
    #expect(rest == 0)
  }

  /// Multiplication in GF(2^8) with x^8 + x^4 + x^3 + x^2 + 1.
  private func product(_ left: UInt8, _ right: UInt8) -> UInt8 {
    var result: UInt16 = 0
    for bit in 0..<8 where right >> bit & 1 != 0 { result ^= UInt16(left) << UInt16(bit) }
    for bit in (8..<16).reversed() where result >> UInt16(bit) & 1 != 0 { result ^= 0x11d << UInt16(bit - 8) }
    return UInt8(result)
  }

  /// Both check sums of a codeword (ECMA-130 annex A).
  private func syndromes(_ word: [UInt8]) -> [UInt8] {
    var sum: UInt8 = 0, weighted: UInt8 = 0
    for byte in word {
      sum ^= byte
      weighted = product(weighted, 2) ^ byte
    }
    return [sum, weighted]
  }

  @Test func sectorPassesItsErrorCorrection() {
    let sector = sector(77)
    for half in 0..<2 {
      for column in 0..<43 {
        let word = (0..<26).map { sector[12 + (43 * $0 + column) * 2 + half] }
        #expect(syndromes(word) == [0, 0])
      }
      for diagonal in 0..<26 {
        let data = (0..<43).map { sector[12 + (44 * $0 + 43 * diagonal) % 1118 * 2 + half] }
        let parity = [1118 + diagonal, 1144 + diagonal].map { sector[12 + $0 * 2 + half] }
        #expect(syndromes(data + parity) == [0, 0])
      }
    }
    #expect(sector[2068..<2076].allSatisfy { $0 == 0 })
  }
}
