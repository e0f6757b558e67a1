// SPDX-License-Identifier: Apache-2.0
// The commands that move data (ACS-3 §7: READ and WRITE SECTORS, MULTIPLE, DMA, FPDMA QUEUED).
import Block
import Glibc
import Testing

@testable import AHCI

/// A command that moves data, as the tables of ACS-3 §7 describe it.
struct DataCommand: CustomTestStringConvertible, Sendable {
  var code: UInt8
  var name: String
  var isWrite = false
  var is48 = false
  var isQueued = false
  var isDurable = false
  /// Sectors of a DRQ block; 0 for DMA.
  var blockSectors: UInt64 = 0

  var testDescription: String { name }

  static let all: [DataCommand] = [
    DataCommand(code: 0x20, name: "READ SECTORS", blockSectors: 1),
    DataCommand(code: 0x21, name: "READ SECTORS without retry", blockSectors: 1),
    DataCommand(code: 0x24, name: "READ SECTORS EXT", is48: true, blockSectors: 1),
    DataCommand(code: 0x25, name: "READ DMA EXT", is48: true),
    DataCommand(code: 0x29, name: "READ MULTIPLE EXT", is48: true, blockSectors: 16),
    DataCommand(code: 0x30, name: "WRITE SECTORS", isWrite: true, blockSectors: 1),
    DataCommand(code: 0x31, name: "WRITE SECTORS without retry", isWrite: true, blockSectors: 1),
    DataCommand(code: 0x34, name: "WRITE SECTORS EXT", isWrite: true, is48: true, blockSectors: 1),
    DataCommand(code: 0x35, name: "WRITE DMA EXT", isWrite: true, is48: true),
    DataCommand(code: 0x39, name: "WRITE MULTIPLE EXT", isWrite: true, is48: true, blockSectors: 16),
    DataCommand(code: 0x3d, name: "WRITE DMA FUA EXT", isWrite: true, is48: true, isDurable: true),
    DataCommand(code: 0x60, name: "READ FPDMA QUEUED", is48: true, isQueued: true),
    DataCommand(code: 0x61, name: "WRITE FPDMA QUEUED", isWrite: true, is48: true, isQueued: true),
    DataCommand(code: 0xc4, name: "READ MULTIPLE", blockSectors: 16),
    DataCommand(code: 0xc5, name: "WRITE MULTIPLE", isWrite: true, blockSectors: 16),
    DataCommand(code: 0xc8, name: "READ DMA"),
    DataCommand(code: 0xc9, name: "READ DMA without retry"),
    DataCommand(code: 0xca, name: "WRITE DMA", isWrite: true),
    DataCommand(code: 0xcb, name: "WRITE DMA without retry", isWrite: true),
    DataCommand(
      code: 0xce, name: "WRITE MULTIPLE FUA EXT", isWrite: true, is48: true, isDurable: true, blockSectors: 16),
  ]

  /// Runs it in the form that it has its address and count in.
  func run(_ kit: ATAKit, lba: UInt64, count: UInt16, deviceRegister: UInt8 = 0x40) -> TaskFile {
    let nibble = is48 ? 0 : UInt8(lba >> 24)
    let address = is48 ? lba : lba & 0xff_ffff
    // A queued command has its tag where others have the count.
    return kit.run(
      code, features: isQueued ? count : 0, lba: address, count: isQueued ? 0 : count,
      deviceRegister: deviceRegister | nibble)
  }

  /// The address in the answer, in the same form.
  func address(_ answer: TaskFile) -> UInt64 {
    is48 ? answer.lba : answer.lba & 0xff_ffff | UInt64(answer.device & 0xf) << 24
  }
}

@Suite struct ATADataTests {
  private static let all = DataCommand.all

  @Test(arguments: all) func dataGoWhereTheCommandSays(command: DataCommand) throws {
    // Known failure 46: the upper bytes of addresses count.
    let lba: UInt64 = command.is48 ? 0x12_3456_7890 : 0x0876_5432
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1 << 40))
    kit.link.guestData = (0..<3 * 512).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    let answer = command.run(kit, lba: lba, count: 3)
    #expect(answer.isGood)
    #expect(
      kit.driver.entries == [
        .init(operation: command.isWrite ? .write : .read, lba: lba, sectors: 3, isDurable: command.isDurable)
      ])
    if command.isWrite {
      #expect(kit.driver.written == kit.link.guestData)
    } else {
      #expect(kit.link.received == RecordingDriver.content(lba: lba, sectors: 3))
    }
    #expect(kit.link.slot.pointee.movedBytes == 1536)
  }

  @Test(arguments: all) func countOfZeroIsTheLargestCount(command: DataCommand) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 70_000))
    kit.link.guestData = [UInt8](repeating: 1, count: 65536 * 512)
    #expect(command.run(kit, lba: 5, count: 0).isGood)
    #expect(kit.driver.entries.map(\.sectors) == [command.is48 ? 65536 : 256])
  }

  @Test(arguments: all) func allSixteenBitsOfTheCountAreTaken(command: DataCommand) throws {
    // ACS-3 has eight in 28-bit commands; drivers for QEMU send more.
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 1, count: 512 * 512)
    #expect(command.run(kit, lba: 0, count: 512).isGood)
    #expect(kit.driver.entries.map(\.sectors) == [512])
  }

  @Test(arguments: all) func lastSectorIsInReachAndNothingIsBehindIt(command: DataCommand) throws {
    // Known failure 46: IDNF with the first address that does not exist, no wrap, and no data.
    let kit = try ATAKit(driver: RecordingDriver(sectors: 4096))
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    #expect(command.run(kit, lba: 4095, count: 1).isGood)
    kit.driver.entries = []
    let top: UInt64 = command.is48 ? 0xffff_ffff_ffff : 0x0fff_ffff
    for (lba, count, first): (UInt64, UInt16, UInt64) in [
      (4095, 2, 4096), (4096, 1, 4096), (4000, 0, 4096), (9000, 1, 9000), (top, 1, top), (top, 0xffff, top),
      (4095, 0xffff, 4096),
    ] {
      let answer = command.run(kit, lba: lba, count: count)
      #expect(answer.isNotFound)
      #expect(command.address(answer) == first)
      #expect(kit.link.slot.pointee.movedBytes == 0)
      #expect(kit.link.slot.pointee.pio.blockBytes == 0)
    }
    #expect(kit.driver.entries.isEmpty)
  }

  /// ACS-3: words 60-61 are at most 0FFFFFFFh, so that the drive does not count the last address of 28 bits among those that
  /// these commands reach. It serves it all the same, as QEMU does, whose AHCI tests write it on large disks.
  @Test(arguments: [0x20, 0xc8, 0x30, 0xca, 0x40] as [UInt8])
  func theLastAddressOf28BitsIsServed(code: UInt8) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1 << 29))
    kit.link.guestData = [UInt8](repeating: 1, count: 1024)
    #expect(kit.run(code, lba: 0xff_ffff, count: 1, deviceRegister: 0x4f).isGood)
    #expect(kit.driver.entries.map(\.lba) == [0x0fff_ffff])
    let words = kit.identity()
    #expect(words[60] == 0xffff && words[61] == 0x0fff)
    kit.driver.entries = []
    // The address that does not exist has no 28 bits; the answer has the nearest that does.
    let answer = kit.run(code, lba: 0xff_ffff, count: 2, deviceRegister: 0x4f)
    #expect(answer.isNotFound && answer.lba == 0xff_ffff && answer.device & 0x0f == 0x0f)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test(arguments: all) func pioSetupTellsOfTheLastBlock(command: DataCommand) throws {
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 1, count: 64 * 512)
    for count: UInt16 in [1, 2, 15, 16, 17, 32, 33, 64] {
      #expect(command.run(kit, lba: 0, count: count).isGood)
      let pio = kit.link.slot.pointee.pio
      guard command.blockSectors > 0 else {
        #expect(pio.blockBytes == 0)
        continue
      }
      let last = (UInt64(count) - 1) % command.blockSectors + 1
      #expect(UInt64(pio.blockBytes) == last * 512)
      #expect(pio.isInput == !command.isWrite)
      let isUnasked = command.isWrite && UInt64(count) <= command.blockSectors
      #expect(pio.interrupts == !isUnasked)
    }
  }

  @Test(arguments: all.filter { $0.blockSectors == 16 })
  func multipleFollowsItsSettingAndIsAbortedWithoutOne(command: DataCommand) throws {
    // ACS-3, SET MULTIPLE MODE.
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 1, count: 64 * 512)
    #expect(kit.run(0xc6, count: 4).isGood)
    #expect(command.run(kit, lba: 0, count: 11).isGood)
    #expect(kit.link.slot.pointee.pio.blockBytes == 3 * 512)
    #expect(kit.run(0xc6, count: 0).isGood)
    kit.driver.entries = []
    #expect(command.run(kit, lba: 0, count: 1).isAborted)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test(arguments: all) func forcedUnitAccessIsOfQueuedWritesAndTheCommandsNamedSo(command: DataCommand) throws {
    // SATA 3.3 §13.6: bit 7 of the device register; in other commands it is obsolete.
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    #expect(command.run(kit, lba: 0, count: 1, deviceRegister: 0xc0).isGood)
    let isDurable = command.isDurable || (command.isQueued && command.isWrite)
    #expect(kit.driver.entries.map(\.isDurable) == [isDurable])
  }

  @Test func priorityOfQueuedCommandsIsIgnored() throws {
    let kit = try ATAKit()
    #expect(kit.run(0x60, features: 1, count: 0xc000 | 5 << 3).isGood)
    #expect(kit.driver.entries.map(\.sectors) == [1])
  }

  @Test(arguments: all.filter(\.isWrite)) func readOnlyDiskAbortsWrites(command: DataCommand) throws {
    let kit = try ATAKit(readOnly: true)
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    #expect(command.run(kit, lba: 0, count: 1).isAborted)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test(arguments: all) func hostErrorsAreUncorrectableDataOrAborts(command: DataCommand) throws {
    let table: [(code: Int32, read: UInt8, write: UInt8)] = [
      (EIO, 0x40, 0x04), (ENODATA, 0x40, 0x04), (EILSEQ, 0x40, 0x04), (EBADMSG, 0x40, 0x04), (EREMOTEIO, 0x40, 0x04),
      (ENOSPC, 0x04, 0x04), (ENOMEM, 0x04, 0x04), (EACCES, 0x04, 0x04), (ENXIO, 0x04, 0x04),
    ]
    for (code, read, write) in table {
      let kit = try ATAKit(rules: [FaultRule([.read, .write], .error(code), occurrence: .only(1))])
      kit.link.guestData = [UInt8](repeating: 1, count: 512)
      let answer = command.run(kit, lba: 77, count: 1)
      #expect(answer.isError(command.isWrite ? write : read))
      #expect(command.address(answer) == 77)
      // No block of data was ready, and the next command is none the worse.
      #expect(kit.link.slot.pointee.pio.blockBytes == 0)
      #expect(command.run(kit, lba: 77, count: 1).isGood)
    }
  }

  // MARK: Cylinders, heads and sectors (ATA/ATAPI-5)

  @Test(arguments: all.filter { !$0.is48 }) func addressesWithoutTheLBABitAreCylinderHeadAndSector(
    command: DataCommand
  ) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1_000_000))
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    // Cylinder 0x123, head 7, sector 9 of 16 heads and 63 sectors.
    #expect(kit.run(command.code, lba: 0x01_2309, count: 1, deviceRegister: 0x07).isGood)
    let expected: UInt64 = (0x123 * 16 + 7) * 63 + 8
    #expect(kit.driver.entries.map(\.lba) == [expected])
    kit.driver.entries = []
    for (lba, device): (UInt64, UInt8) in [(0x01_2300, 7), (0x01_2340, 7), (0xffff01, 0), (992 << 8 | 1, 0)] {
      let answer = kit.run(command.code, lba: lba, count: 1, deviceRegister: device)
      #expect(answer.isNotFound)
      #expect(answer.lba == lba && answer.device == device)
    }
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func initializeDeviceParametersChangesTheGeometry() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 4096))
    #expect(kit.run(0x91, count: 32, deviceRegister: 0x03).isGood)
    #expect(kit.run(0x20, lba: 0x201, count: 1, deviceRegister: 0x03).isGood)
    let expected: UInt64 = (2 * 4 + 3) * 32
    #expect(kit.driver.entries.map(\.lba) == [expected])
    #expect(kit.run(0x20, lba: 0x201, count: 1, deviceRegister: 0x04).isNotFound)
    #expect(kit.run(0x20, lba: 33, count: 1, deviceRegister: 0).isNotFound)
    let words = kit.identity()
    #expect(words[54...58] == [32, 4, 32, 4096, 0])
    // The count has eight bits; what is in the upper half of the FIS's is not dropped.
    for count in [0, 0x100, 0x120, 0xffff] {
      #expect(kit.run(0x91, count: UInt16(count), deviceRegister: 0x03).isAborted, "\(count)")
    }
    #expect(kit.identity()[54...58] == [32, 4, 32, 4096, 0])
    // A geometry that has more sectors than the disk does not make the disk larger.
    #expect(kit.run(0x91, count: 255, deviceRegister: 0x0f).isGood)
    // The geometry's last sector is sector 4079.
    #expect(kit.run(0x20, lba: 255, count: 17, deviceRegister: 0x0f).isGood)
    #expect(kit.run(0x20, lba: 255, count: 18, deviceRegister: 0x0f).isNotFound)
  }
}

/// READ VERIFY and SEEK: the disk is asked, and nothing moves.
@Suite struct ATAVerifyTests {
  private static let codes: [UInt8] = [0x40, 0x41, 0x42]

  @Test(arguments: codes) func verifyReadsEverythingAndMovesNothing(code: UInt8) throws {
    let kit = try ATAKit()
    #expect(kit.run(code, lba: 100, count: 300).isGood)
    #expect(kit.driver.entries.allSatisfy { $0.operation == .read && $0.sectors <= 128 })
    #expect(kit.driver.entries.map(\.lba) == [100, 228, 356])
    #expect(kit.driver.entries.map(\.sectors) == [128, 128, 44])
    #expect(kit.link.received.isEmpty)
    #expect(kit.link.slot.pointee.movedBytes == 0)
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
    #expect(kit.link.slot.pointee.pio.blockBytes == 0)
  }

  @Test(arguments: codes) func verifyFindsSectorsThatCannotBeRead(code: UInt8) throws {
    let kit = try ATAKit(rules: [FaultRule(.read, .error(EIO), range: 400 * 512..<401 * 512)])
    let answer = kit.run(code, lba: 100, count: 400)
    #expect(answer.isError(0x40))
    // The first sector of the piece that has the bad one.
    #expect(answer.lba == 356)
    #expect(kit.link.slot.pointee.deviceBuffer == nil)
    #expect(kit.driver.entries.map(\.lba) == [100, 228])
    #expect(kit.run(code, lba: 401, count: 100).isGood)
  }

  @Test func verifyIsRangeCheckedAndZeroIsTheLargestCount() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 65537))
    #expect(kit.run(0x40, count: 0).isGood)
    #expect(kit.driver.entries.reduce(0) { $0 + $1.sectors } == 256)
    kit.driver.entries = []
    #expect(kit.run(0x42, lba: 1, count: 0).isGood)
    #expect(kit.driver.entries.reduce(0) { $0 + $1.sectors } == 65536)
    kit.driver.entries = []
    let answer = kit.run(0x42, lba: 2, count: 0)
    #expect(answer.isNotFound && answer.lba == 65537)
    #expect(kit.run(0x40, lba: 0, count: 1, deviceRegister: 0).isNotFound)
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func seekIsRangeCheckedAndRecalibrateAlwaysSucceeds() throws {
    let kit = try ATAKit()
    #expect(kit.run(0x70, lba: 4095).isGood)
    #expect(kit.run(0x70, lba: 4096).isNotFound)
    #expect(kit.run(0x70, lba: 0, deviceRegister: 0).isNotFound)
    #expect(kit.run(0x10).isGood)
    for code: UInt8 in 0x11...0x1f { #expect(kit.run(code).isAborted) }
    #expect(kit.driver.entries.isEmpty)
  }
}
