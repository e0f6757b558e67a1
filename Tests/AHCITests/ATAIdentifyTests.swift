// SPDX-License-Identifier: Apache-2.0
// IDENTIFY DEVICE (ACS-3 §7.12): what it claims, and that it is true.
import Block
import Testing

@testable import AHCI

@Suite struct ATAIdentifyTests {
  @Test func answerIsOnePIOBlockWithAValidChecksum() throws {
    let kit = try ATAKit()
    #expect(kit.run(0xec).isGood)
    #expect(kit.link.received.count == 512)
    #expect(kit.link.received[510] == 0xa5)
    #expect(ATAKit.sum(kit.link.received) == 0)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.blockBytes == 512 && pio.isInput && pio.interrupts)
    #expect(kit.link.slot.pointee.movedBytes == 512)
  }

  @Test func listThatIsTooShortGetsWhatFitsAndOverflows() throws {
    let kit = try ATAKit()
    kit.link.listBytes = 100
    #expect(kit.run(0xec).isGood)
    #expect(kit.link.received.count == 100)
    #expect(kit.link.slot.pointee.overflowed)
  }

  @Test func wordsThatNeverChangeAreWhatTheStandardAsksFor() throws {
    let words = try ATAKit().identity()
    let expected: [Int: UInt16] = [
      0: 0x0040, 5: 512, 47: 0x8010, 48: 0x4000, 49: 0x0f00, 50: 0x4000, 53: 0x0007, 59: 0x0110, 63: 0x0007,
      64: 0x0003, 65: 120, 66: 120, 67: 120, 68: 120, 69: 0, 75: 31, 76: 0x810e, 77: 0x0002, 78: 0, 79: 0,
      80: 0x07f0, 82: 0x4069, 83: 0x7400, 84: 0x4060, 85: 0x4069, 86: 0xb400, 87: 0x4060, 88: 0x407f, 93: 0,
      106: 0x4000, 119: 0x4008, 120: 0x4008, 128: 0, 206: 0, 209: 0x4000, 217: 1, 222: 0x11ff,
    ]
    for (word, value) in expected { #expect(words[word] == value, "word \(word)") }
  }

  @Test func aDiskOfAnotherLengthSaysSoAndServesIt() throws {
    let kit = try ATAKit()
    func sectors() -> UInt64 {
      let words = kit.identity()
      return (0..<4).reduce(0) { $0 | UInt64(words[100 + $1]) << (16 * UInt64($1)) }
    }
    #expect(sectors() == 4096)
    #expect(!kit.run(0x25, lba: 4096, count: 1).isGood)
    try kit.backend.resize(to: 5000 * 512)
    #expect(sectors() == 5000)
    #expect(kit.identity()[60] == 5000)
    #expect(kit.run(0x25, lba: 4999, count: 1).isGood)
    #expect(kit.link.received == RecordingDriver.content(lba: 4999, sectors: 1))
    try kit.backend.resize(to: 100 * 512)
    #expect(sectors() == 100)
    #expect(!kit.run(0x25, lba: 100, count: 1).isGood)
    #expect(kit.run(0x25, lba: 99, count: 1).isGood)
  }

  @Test(arguments: [UInt64(200) << 21, 8 << 31]) func largeDisksAreReachedByTheirLastSector(sectors: UInt64) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: sectors))
    let words = kit.identity()
    #expect(words[60...61] == [0xffff, 0x0fff])
    #expect((0..<4).map { words[100 + $0] } == (0..<4).map { UInt16(truncatingIfNeeded: sectors >> (16 * $0)) })
    #expect(kit.run(0x25, lba: sectors - 1, count: 1).isGood)
    #expect(kit.link.received == RecordingDriver.content(lba: sectors - 1, sectors: 1))
    #expect(!kit.run(0x25, lba: sectors, count: 1).isGood)
  }

  @Test func aGeometryThatTheUserChoosesIsTold() throws {
    var options = ATADriveOptions()
    options.geometry = ATADriveGeometry(cylinders: 1024, heads: 4, sectors: 255)
    let kit = try ATAKit(options: options)
    let words = kit.identity()
    #expect([1, 3, 6, 54, 55, 56].map { words[$0] } == [1024, 4, 255, 1024, 4, 255])
    // Never more than the disk has.
    #expect(words[57] == 4096 && words[58] == 0)
    // INITIALIZE DEVICE PARAMETERS sets another one, and a reset brings this one back.
    kit.drive.hardReset()
    #expect(kit.identity()[56] == 255)
  }

  @Test func stringsAreSwappedInPairsAndPaddedWithSpaces() throws {
    var options = ATADriveOptions()
    options.serial = "AB\u{e9}1"
    options.firmware = "9.87654321"
    options.model = "A disk"
    let words = try ATAKit(options: options).identity()
    #expect(words[10] == 0x4142)
    #expect(ATAKit.text(words[10...19]) == "AB?1" + String(repeating: " ", count: 16))
    #expect(ATAKit.text(words[23...26]) == "9.876543")
    #expect(ATAKit.text(words[27...46]) == "A disk" + String(repeating: " ", count: 34))
  }

  @Test func serialNumberIsTheOptionsOrTheBackendsOrMadeUp() throws {
    var options = ATADriveOptions()
    options.serial = "mine"
    #expect(try ATAKit(serial: "theirs", options: options).drive.serial == "mine")
    #expect(try ATAKit(serial: "theirs").drive.serial == "theirs")
    let kits = [try ATAKit(), try ATAKit()]
    let serials = kits.map { ATAKit.text($0.identity()[10...19]) }
    #expect(serials.allSatisfy { $0.hasPrefix("SPINDLE0") })
    #expect(serials[0] != serials[1])
    kits[0].drive.hardReset()
    #expect(ATAKit.text(kits[0].identity()[10...19]) == serials[0])
  }

  @Test func worldWideNameIsClaimedWhereThereIsOne() throws {
    #expect(try ATAKit().identity()[108...111] == [0, 0, 0, 0])
    var options = ATADriveOptions()
    options.worldWideName = 0x5000_1234_5678_9abc
    options.rotationRate = 7200
    let words = try ATAKit(options: options).identity()
    #expect(words[108...111] == [0x5000, 0x1234, 0x5678, 0x9abc])
    #expect(words[84] == 0x4160 && words[87] == 0x4160)
    #expect(words[217] == 7200)
  }

  @Test(arguments: [1, 64, 1008, 4096, 0x0fff_fffe, 0x0fff_ffff, 0x1000_0000, 1 << 40] as [UInt64])
  func capacityIsInAllItsPlaces(sectors: UInt64) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: sectors))
    let words = kit.identity()
    func number(_ word: Int, _ count: Int) -> UInt64 {
      (0..<count).reduce(0) { $0 | UInt64(words[word + $1]) << UInt64(16 * $1) }
    }
    #expect(number(60, 2) == min(sectors, 0x0fff_ffff))
    #expect(number(100, 4) == sectors)
    let cylinders = min(max(sectors / 1008, 1), 16383)
    #expect(words[1] == cylinders && words[3] == 16 && words[6] == 63 && words[4] == 63 * 512)
    #expect(words[54] == cylinders && words[55] == 16 && words[56] == 63)
    #expect(number(57, 2) == min(cylinders * 1008, sectors))
    // READ NATIVE MAX ADDRESS (EXT), ATA/ATAPI-7.
    let answer = kit.run(0x27)
    #expect(answer.isGood && answer.lba == sectors - 1)
    let short = kit.run(0xf8)
    let last = min(sectors, 0x0fff_ffff) - 1
    #expect(short.isGood && short.lba == last & 0xff_ffff && short.device == 0x40 | UInt8(last >> 24))
  }

  @Test func physicalSectorsAreTold() throws {
    for (bytes, word): (Int, UInt16) in [(512, 0x4000), (4096, 0x6003), (16384, 0x6005)] {
      let kit = try ATAKit(driver: RecordingDriver(physicalBytes: bytes))
      #expect(kit.identity()[106] == word)
    }
  }

  @Test func trimIsOfferedWhereTheDiskServesIt() throws {
    let words = try ATAKit().identity()
    #expect(words[169] == 1 && words[105] == 8)
    for kit in [try ATAKit(driver: RecordingDriver(servesDiscards: false)), try ATAKit(readOnly: true)] {
      let words = kit.identity()
      #expect(words[169] == 0 && words[105] == 0)
    }
  }

  @Test func settingsShowAndTheChecksumFollows() throws {
    let kit = try ATAKit()
    let steps: [(UInt8, UInt16, Int, UInt16)] = [
      (0x82, 0, 85, 0x4049), (0x02, 0, 85, 0x4069), (0x55, 0, 85, 0x4029), (0xaa, 0, 85, 0x4069),
      (0x03, 0x22, 63, 0x0407), (0x03, 0x21, 63, 0x0207), (0x03, 0x22, 88, 0x007f), (0x03, 0x45, 88, 0x207f),
      (0x03, 0x40, 63, 0x0007), (0x03, 0x08, 88, 0x017f),
    ]
    for (subcommand, count, word, value) in steps {
      #expect(kit.set(subcommand, count: count).isGood)
      #expect(kit.identity()[word] == value, "\(subcommand) \(count)")
      #expect(ATAKit.sum(kit.link.received) == 0)
    }
    #expect(kit.run(0xc6, count: 8).isGood)
    #expect(kit.identity()[59] == 0x0108)
    #expect(kit.run(0xc6, count: 0).isGood)
    #expect(kit.identity()[59] == 0)
    #expect(kit.smart(0xd9).isGood)
    #expect(kit.identity()[85] & 1 == 0)
  }

  @Test func writeThroughDiskHasNoWriteCache() throws {
    let kit = try ATAKit(cache: .writethrough)
    #expect(kit.identity()[85] & 0x20 == 0)
    #expect(kit.identity()[82] & 0x20 != 0)
  }
}
