// SPDX-License-Identifier: Apache-2.0
// DATA SET MANAGEMENT with TRIM (ACS-3 §7, DATA SET MANAGEMENT).
import Block
import Glibc
import Testing

@testable import AHCI

@Suite struct ATATrimTests {
  private typealias Range = (lba: UInt64, count: UInt16)

  /// Blocks of 64 ranges; what is left of the last one is empty ranges.
  private func blocks(_ ranges: [Range]) -> [UInt8] {
    var bytes: [UInt8] = []
    for range in ranges {
      withUnsafeBytes(of: (range.lba | UInt64(range.count) << 48).littleEndian) { bytes += $0 }
    }
    return bytes + [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512)
  }

  private func trim(_ kit: ATAKit, _ ranges: [Range]) -> TaskFile {
    kit.link.guestData = blocks(ranges)
    return kit.run(0x06, features: 1, count: UInt16(kit.link.guestData.count / 512))
  }

  @Test func rangesAreDiscardedInOrderAndEmptyOnesSkipped() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1 << 40))
    let ranges: [Range] = [(8, 16), (0, 0), (1 << 39, 0xffff), (100, 1), (0xffff_ffff_ffff, 0)]
    #expect(trim(kit, ranges).isGood)
    #expect(
      kit.driver.entries == [
        .init(operation: .discard, lba: 8, sectors: 16), .init(operation: .discard, lba: 1 << 39, sectors: 0xffff),
        .init(operation: .discard, lba: 100, sectors: 1),
      ])
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
    #expect(kit.link.slot.pointee.movedBytes == 512)
    #expect(kit.link.slot.pointee.pio.blockBytes == 0)
  }

  @Test func commandOfEmptyRangesSucceedsWithoutTheDisk() throws {
    let kit = try ATAKit()
    #expect(trim(kit, [(5, 0)]).isGood)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func asManyBlocksAsWord105SaysAreServed() throws {
    let kit = try ATAKit()
    let most = Int(kit.identity()[105])
    let ranges = (0..<most * 64).map { (UInt64($0), UInt16(1)) }
    #expect(trim(kit, ranges).isGood)
    #expect(kit.driver.entries(.discard).map(\.lba) == ranges.map { $0.0 })
    kit.driver.entries = []
    #expect(trim(kit, ranges + [(0, 1)]).isAborted)
    #expect(kit.run(0x06, features: 1, count: 0).isAborted)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func rangeBeyondTheEndAbortsAndNothingIsDiscarded() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 4096))
    #expect(trim(kit, [(4095, 1)]).isGood)
    kit.driver.entries = []
    for bad: Range in [(4095, 2), (4096, 1), (0, 4097), (0xffff_ffff_ffff, 1), (0xffff_ffff_ffff, 0xffff)] {
      #expect(trim(kit, [(0, 1), bad]).isAborted)
      #expect(kit.link.slot.pointee.deviceBuffer == nil)
    }
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func guestThatGivesTooFewBytesIsAborted() throws {
    let kit = try ATAKit()
    kit.link.guestData = Array(blocks([(0, 1)]).prefix(100))
    #expect(kit.run(0x06, features: 1, count: 1).isAborted)
    #expect(kit.link.slot.pointee.overflowed)
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func withoutTheTrimBitOrADiskThatServesItTheCommandIsAborted() throws {
    let kit = try ATAKit()
    kit.link.guestData = blocks([(0, 1)])
    for features: UInt16 in [0, 2, 0xfffe] { #expect(kit.run(0x06, features: features, count: 1).isAborted) }
    #expect(kit.driver.entries.isEmpty)
    for kit in [try ATAKit(driver: RecordingDriver(servesDiscards: false)), try ATAKit(readOnly: true)] {
      #expect(trim(kit, [(0, 1)]).isAborted)
      #expect(kit.driver.entries.isEmpty)
    }
  }

  @Test func failedRangeEndsTheCommandAndTheNextOneIsWhole() throws {
    let kit = try ATAKit(rules: [FaultRule(.discard, .error(EIO), occurrence: .only(2))])
    #expect(trim(kit, [(0, 1), (1, 1), (2, 1)]).isAborted)
    #expect(kit.driver.entries.map(\.lba) == [0])
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
    #expect(trim(kit, [(0, 1), (1, 1), (2, 1)]).isGood)
    #expect(kit.driver.entries.map(\.lba) == [0, 0, 1, 2])
  }

  @Test func memoryIsGivenBackAndReadsAsZeroes() throws {
    // MemoryDriver rather than a record: whole pages read as zeroes, parts of pages keep what they had.
    let driver = try MemoryDriver(byteCount: 64 << 10, initial: [UInt8](repeating: 0xaa, count: 64 << 10))
    let kit = try MemoryKit(driver: driver)
    kit.link.guestData = blocks([(0, 8), (9, 1)])
    #expect(kit.link.run(0x06, features: 1, count: 1).isGood)
    #expect(kit.link.run(0x25, count: 16).isGood)
    #expect(kit.link.received.prefix(4096).allSatisfy { $0 == 0 })
    #expect(kit.link.received.dropFirst(4096).allSatisfy { $0 == 0xaa })
  }
}
