// SPDX-License-Identifier: Apache-2.0
// SET FEATURES, SET MULTIPLE MODE, FLUSH CACHE, power modes, resets, and commands that a disk has not (ACS-3 §7).
import Block
import Glibc
import Testing

@testable import AHCI

@Suite struct ATASettingsTests {
  @Test func unknownFeaturesAndTransferModesAreAborted() throws {
    let kit = try ATAKit()
    let before = kit.identity()
    let known: Set<UInt8> = [0x02, 0x82, 0x03, 0xaa, 0x55, 0x66, 0xcc]
    for subcommand in UInt8.min...UInt8.max where !known.contains(subcommand) {
      #expect(kit.set(subcommand).isAborted, "\(subcommand)")
    }
    let modes: Set<UInt16> = [0, 1, 8, 9, 10, 11, 12, 0x20, 0x21, 0x22, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46]
    for mode: UInt16 in 0...255 where !modes.contains(mode) {
      #expect(kit.set(0x03, count: mode).isAborted, "\(mode)")
    }
    #expect(kit.identity() == before)
    for mode in modes { #expect(kit.set(0x03, count: mode).isGood, "\(mode)") }
  }

  @Test func multipleModeTakesPowersOfTwoUpToItsLimit() throws {
    let kit = try ATAKit()
    for count: UInt16 in 0...255 {
      let isPossible = [0, 1, 2, 4, 8, 16].contains(count)
      let before = kit.identity()[59]
      #expect(kit.run(0xc6, count: count).isGood == isPossible)
      let after: UInt16 = count == 0 ? 0 : 0x100 | count
      #expect(kit.identity()[59] == (isPossible ? after : before))
    }
  }

  // MARK: The write cache

  @Test func turningTheWriteCacheOffFlushesAndMakesWritesDurable() throws {
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 1, count: 512)
    kit.run(0x35, count: 1)
    #expect(kit.driver.entries.last?.isDurable == false)
    #expect(kit.set(0x82).isGood)
    #expect(!kit.driver.entries(.flush).isEmpty)
    #expect(!kit.backend.writeCacheEnabled)
    kit.run(0x35, count: 1)
    #expect(kit.driver.entries.last?.isDurable == true)
    // Off already: nothing is left to flush.
    kit.driver.entries = []
    #expect(kit.set(0x82).isGood)
    #expect(kit.driver.entries.isEmpty)
    #expect(kit.set(0x02).isGood)
    #expect(kit.backend.writeCacheEnabled)
  }

  @Test func writeCacheThatCannotBeFlushedAbortsTheCommandAndIsOff() throws {
    let kit = try ATAKit(rules: [FaultRule(.flush, .error(EIO))])
    #expect(kit.set(0x82).isAborted)
    #expect(!kit.backend.writeCacheEnabled)
  }

  @Test(arguments: [0xe7, 0xea] as [UInt8]) func flushReachesTheDiskAndItsErrorTheGuest(code: UInt8) throws {
    let kit = try ATAKit(rules: [FaultRule(.flush, .error(EIO), occurrence: .only(2))])
    #expect(kit.run(code).isGood)
    #expect(kit.driver.entries == [.init(operation: .flush)])
    #expect(kit.run(code).isAborted)
    #expect(kit.run(code).isGood)
  }

  // MARK: Resets (SET FEATURES 66h, CCh)

  private func change(_ kit: ATAKit) {
    #expect(kit.set(0x82).isGood)
    #expect(kit.set(0x55).isGood)
    #expect(kit.set(0x03, count: 0x21).isGood)
    #expect(kit.run(0xc6, count: 4).isGood)
    #expect(kit.run(0x91, count: 32, deviceRegister: 0x03).isGood)
  }

  @Test func hardResetBringsAllDefaultsBack() throws {
    let kit = try ATAKit()
    let before = kit.identity()
    change(kit)
    #expect(kit.identity() != before)
    kit.drive.hardReset()
    #expect(kit.identity() == before)
    #expect(kit.backend.writeCacheEnabled)
    let through = try ATAKit(cache: .writethrough)
    #expect(through.set(0x02).isGood)
    through.drive.hardReset()
    #expect(!through.backend.writeCacheEnabled)
  }

  @Test func softResetKeepsSettingsUnlessTheGuestWantsTheDefaults() throws {
    let kit = try ATAKit()
    let before = kit.identity()
    change(kit)
    let changed = kit.identity()
    kit.drive.softReset()
    #expect(kit.identity() == changed)
    #expect(kit.set(0xcc).isGood)
    kit.drive.softReset()
    // Transfer modes stay: words 63 and 88, and the checksum with them.
    let after = kit.identity()
    #expect(before.indices.filter { before[$0] != after[$0] } == [63, 88, 255])
    change(kit)
    #expect(kit.set(0x66).isGood)
    kit.drive.softReset()
    #expect(kit.identity() == changed)
    // A hard reset forgets the choice.
    #expect(kit.set(0xcc).isGood)
    kit.drive.hardReset()
    change(kit)
    kit.drive.softReset()
    #expect(kit.identity() == changed)
  }

  @Test func smartStaysOffOverResets() throws {
    let kit = try ATAKit()
    #expect(kit.smart(0xd9).isGood)
    kit.drive.hardReset()
    kit.drive.softReset()
    #expect(kit.smart(0xda).isAborted)
    #expect(kit.smart(0xd8).isGood)
    #expect(kit.smart(0xda).isGood)
  }

  // MARK: Power modes (ACS-3, Power Management feature set)

  @Test(arguments: [0xe5, 0x98] as [UInt8]) func powerModeIsToldAndDataMakeTheDriveActive(code: UInt8) throws {
    let kit = try ATAKit()
    #expect(kit.run(code).count == 0xff)
    for (command, mode): (UInt8, UInt16) in [
      (0xe3, 0x80), (0xe1, 0x80), (0x97, 0x80), (0x95, 0x80), (0xe2, 0), (0xe0, 0), (0x96, 0), (0x94, 0),
    ] {
      #expect(kit.run(command, count: 12).isGood)
      let answer = kit.run(code)
      #expect(answer.isGood && answer.count == mode)
      // What needs no medium leaves it so.
      kit.identity()
      #expect(kit.run(code).count == mode)
      #expect(kit.run(0x25, count: 1).isGood)
      #expect(kit.run(code).count == 0xff)
    }
  }

  @Test(arguments: [0xe0, 0xe2, 0x94, 0x96, 0xe6, 0x99] as [UInt8])
  func whatWasWrittenIsFlushedBeforeTheDriveRests(code: UInt8) throws {
    let kit = try ATAKit()
    #expect(kit.run(code).isGood)
    #expect(kit.driver.entries == [.init(operation: .flush)])
    let failing = try ATAKit(rules: [FaultRule(.flush, .error(EIO))])
    #expect(failing.run(code).isAborted)
    #expect(failing.run(0xe5).count == 0xff)
  }

  @Test(arguments: [0xe6, 0x99] as [UInt8]) func onlyAResetWakesADriveThatSleeps(code: UInt8) throws {
    let kit = try ATAKit()
    for wakes in [kit.drive.softReset, kit.drive.hardReset] {
      #expect(kit.run(code).isGood)
      kit.driver.entries = []
      for command: UInt8 in [0xec, 0x25, 0x60, 0xe7, 0xe5, 0xe1] { #expect(kit.run(command, count: 1).isAborted) }
      #expect(kit.driver.entries.isEmpty)
      wakes()
      #expect(kit.run(0x25, count: 1).isGood)
    }
  }

  // MARK: Others

  @Test func diagnosticLeavesTheSignatureOfADisk() throws {
    let kit = try ATAKit()
    let answer = kit.run(0x90, lba: 0x12_3456_789a, count: 77, deviceRegister: 0xef)
    #expect(answer.status == 0x50 && answer.error == 0x01)
    #expect(answer.count == 1 && answer.lba == 1 && answer.device == 0)
    #expect(kit.drive.signature == 0x0000_0101)
  }

  /// Commands that a disk serves; all others are aborted.
  private static let served: Set<UInt8> = {
    let others: Set<UInt8> = [
      0x06, 0x10, 0x27, 0x2f, 0x40, 0x41, 0x42, 0x47, 0x70, 0x90, 0x91, 0xb0, 0xc6, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xef,
      0xf8,
    ]
    return others.union(DataCommand.all.map(\.code)).union(0x94...0x99).union(0xe0...0xe3)
  }()

  @Test func commandsThatADiskHasNotAreAborted() throws {
    // Among them NOP, DEVICE RESET, PACKET, IDENTIFY PACKET DEVICE, SET MAX and SECURITY.
    let kit = try ATAKit()
    kit.link.guestData = [UInt8](repeating: 0, count: 512)
    for code in UInt8.min...UInt8.max where !Self.served.contains(code) {
      let answer = kit.run(code, features: 1, count: 1)
      #expect(answer.isAborted, "\(code)")
      #expect(kit.link.slot.pointee.pio.blockBytes == 0)
      #expect(kit.link.slot.pointee.movedBytes == 0)
    }
    #expect(kit.driver.entries.isEmpty)
  }

  @Test func anyRegistersEndAnyCommandOnce() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1000))
    var state: UInt64 = 1
    func random() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 16 ^ state >> 40
    }
    for round in 0..<20 {
      for code in UInt8.min...UInt8.max {
        kit.link.guestData = (0..<4096).map { _ in UInt8(truncatingIfNeeded: random()) }
        kit.link.listBytes = round % 2 == 0 ? 1 << 20 : 300
        // Small numbers now and then, so that some of it is possible.
        let mask: UInt64 = round % 3 == 0 ? 0xff : 0xffff_ffff_ffff
        let answer = kit.run(
          code, features: UInt16(truncatingIfNeeded: random() & mask), lba: random() & mask,
          count: UInt16(truncatingIfNeeded: random() & mask), deviceRegister: UInt8(truncatingIfNeeded: random()))
        #expect(answer.isGood || answer.hasFailed || code == 0x90)
        #expect(kit.link.slot.pointee.deviceBuffer == nil)
        if code == 0xe6 || code == 0x99 { kit.drive.softReset() }
      }
    }
    #expect(kit.driver.entries.allSatisfy { $0.lba + $0.sectors <= 1000 })
    #expect(kit.backend.inFlight == 0)
  }
}
