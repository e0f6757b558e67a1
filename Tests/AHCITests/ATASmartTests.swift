// SPDX-License-Identifier: Apache-2.0
// The SMART feature set (ACS-3 §7, SMART).
import Block
import Glibc
import Testing

@testable import AHCI

@Suite struct ATASmartTests {
  @Test func everythingNeedsTheKey() throws {
    let kit = try ATAKit()
    for subcommand in UInt8.min...UInt8.max {
      for lba: UInt64 in [0, 0x4f_c200, 0xc2_4e00, 0x2c_f400, 0xc2_0000, 0x4f00] {
        #expect(kit.run(0xb0, features: UInt16(subcommand), lba: lba, count: 1).isAborted)
      }
    }
    #expect(kit.smart(0xda).isGood)
  }

  @Test func onlyEnableIsServedWhileSmartIsOff() throws {
    let kit = try ATAKit()
    #expect(kit.smart(0xd9).isGood)
    for subcommand in UInt8.min...UInt8.max where subcommand != 0xd8 { #expect(kit.smart(subcommand).isAborted) }
    #expect(kit.smart(0xd8).isGood)
    #expect(kit.smart(0xd0).isGood)
  }

  @Test func subcommandsThatAreNotClaimedAreAborted() throws {
    // Among them the logs (D5h, D6h), which word 84 does not claim.
    let kit = try ATAKit()
    let known: Set<UInt8> = [0xd0, 0xd1, 0xd2, 0xd4, 0xd8, 0xd9, 0xda]
    for subcommand in UInt8.min...UInt8.max where !known.contains(subcommand) {
      #expect(kit.smart(subcommand, count: 1).isAborted)
    }
    #expect(kit.identity()[84] & 3 == 0)
  }

  @Test func statusIsGood() throws {
    let answer = try ATAKit().smart(0xda)
    #expect(answer.isGood)
    #expect(answer.lba >> 8 & 0xffff == 0xc24f)
  }

  /// Attributes of a data page: number, value, raw value.
  private func attributes(_ page: [UInt8]) -> [UInt8: (value: UInt8, raw: UInt64)] {
    var all: [UInt8: (value: UInt8, raw: UInt64)] = [:]
    for entry in stride(from: 2, to: 362, by: 12) where page[entry] != 0 {
      all[page[entry]] = (page[entry + 3], (0..<6).reduce(0) { $0 | UInt64(page[entry + 5 + $1]) << UInt64(8 * $1) })
    }
    return all
  }

  @Test func dataAndThresholdsHaveTheSameAttributesAndValidChecksums() throws {
    let kit = try ATAKit()
    #expect(kit.smart(0xd0).isGood)
    let data = kit.link.received
    let pio = kit.link.slot.pointee.pio
    #expect(data.count == 512 && pio.blockBytes == 512 && pio.isInput && pio.interrupts)
    #expect(ATAKit.sum(data) == 0)
    #expect(kit.smart(0xd1).isGood)
    let thresholds = kit.link.received
    #expect(thresholds.count == 512)
    #expect(ATAKit.sum(thresholds) == 0)
    let all = attributes(data)
    #expect(Set(all.keys) == [5, 9, 187, 199])
    for entry in stride(from: 2, to: 362, by: 12) {
      #expect(data[entry] == thresholds[entry])
      // No attribute is at its threshold, which is what the status says as well.
      if data[entry] != 0 { #expect(data[entry + 3] > thresholds[entry + 1]) }
    }
    #expect(all.values.allSatisfy { $0.raw == 0 })
  }

  @Test func errorsOfTheHostAreCounted() throws {
    let kit = try ATAKit(rules: [FaultRule([.read, .write], .error(EIO))])
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    kit.run(0x25, count: 1)
    kit.run(0x35, count: 1)
    kit.run(0x60, features: 1)
    kit.smart(0xd0)
    let errors = try #require(attributes(kit.link.received)[187])
    #expect(errors.raw == 3 && errors.value == 97)
    for _ in 0..<200 { kit.run(0x25, count: 1) }
    kit.smart(0xd0)
    let more = try #require(attributes(kit.link.received)[187])
    #expect(more.raw == 203 && more.value == 1)
    #expect(kit.smart(0xda).lba >> 8 & 0xffff == 0xc24f)
  }

  @Test func offlineCollectionIsTheOnlyTestThereIs() throws {
    // Known failure 49: the low byte of the address indexes nothing.
    let kit = try ATAKit()
    kit.smart(0xd0)
    #expect(kit.link.received[362] == 0)
    #expect(kit.link.received[367] == 1)
    for low in UInt8(1)...UInt8.max { #expect(kit.smart(0xd4, low: low).isAborted) }
    kit.smart(0xd0)
    #expect(kit.link.received[362] == 0)
    #expect(kit.smart(0xd4, low: 0).isGood)
    kit.smart(0xd0)
    #expect(kit.link.received[362] == 2)
    #expect(ATAKit.sum(kit.link.received) == 0)
  }

  @Test func autosaveTakesItsTwoValues() throws {
    let kit = try ATAKit()
    for count: UInt16 in 0...255 {
      #expect(kit.smart(0xd2, count: count).isGood == (count == 0 || count == 0xf1))
    }
  }
}
