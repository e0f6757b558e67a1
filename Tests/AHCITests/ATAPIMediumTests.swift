// SPDX-License-Identifier: Apache-2.0
// The tray and the disc, from the guest's side and from the host's (MMC-6: START STOP UNIT and others).
import Testing

@testable import AHCI
@testable import Block

@Suite struct ATAPIMediumTests {
  private let eject: [UInt8] = [0x1b, 0, 0, 0, 2]
  private let load: [UInt8] = [0x1b, 0, 0, 0, 3]
  private let lock: [UInt8] = [0x1e, 0, 0, 0, 1]
  private let unlock: [UInt8] = [0x1e, 0, 0, 0, 0]
  private let noMediumOpen: [UInt8] = [2, 0x3a, 2]
  private let noMediumClosed: [UInt8] = [2, 0x3a, 1]

  /// Where the tray has been moved to, since it was asked for.
  private final class Moves {
    var seen: [Bool] = []
    init(_ kit: ATAPIKit) { kit.drive.onTrayMoved = { [weak self] in self?.seen.append($0) } }
  }

  @Test func aDiscThatIsInAtTheStartIsReadyAtOnce() throws {
    let kit = try ATAPIKit()
    #expect(kit.testUnitReady().status == 0x50)
    kit.drive.hardReset()
    #expect(kit.testUnitReady().status == 0x50)
  }

  @Test func commandsAboutTheDiscFailWithoutOne() throws {
    let kit = try ATAPIKit.empty()
    let commands: [UInt8] = [0x00, 0x25, 0x28, 0x2b, 0x42, 0x43, 0x51, 0xa8, 0xad, 0xbe]
    for command in commands { #expect(kit.failure([command]) == noMediumClosed) }
    try kit.drive.openTray(force: false)
    for command in commands { #expect(kit.failure([command]) == noMediumOpen) }
    for command: [UInt8] in [[0x12, 0, 0, 0, 36], [0x03, 0, 0, 0, 18], [0xbb], [0x5a, 0, 0x2a], [0xbd]] {
      #expect(kit.packet(command).status == 0x50)
    }
  }

  /// Guests that do not ask for events see the drive empty, then that the disc may have changed, then the disc.
  @Test func aNewDiscIsSeenInThreeSteps() throws {
    let kit = try ATAPIKit()
    let moves = Moves(kit)
    try kit.drive.openTray(force: false)
    try kit.drive.removeMedium()
    #expect(kit.failure([0x00]) == noMediumOpen)
    #expect(kit.packet(load).status == 0x50)
    #expect(kit.failure([0x00]) == noMediumClosed)
    #expect(kit.packet(eject).status == 0x50)
    try kit.drive.insert(try kit.disc())
    #expect(kit.failure([0x00]) == noMediumOpen)
    kit.drive.closeTray()
    #expect(moves.seen == [true, false, true, false])
    #expect(kit.failure([0x00]) == noMediumOpen)
    #expect(kit.failure([0x00]) == [6, 0x28, 0])
    #expect(kit.testUnitReady().status == 0x50)
    #expect(kit.fetchSense() == [0, 0, 0])
    #expect(bigEndian(kit.answer([0x25])[0..<4]) == 7)
  }

  @Test func aChangeIsToldEvenWhereTheGuestLoadsTheDiscAndAfterAReset() throws {
    let kit = try ATAPIKit()
    kit.packet(eject)
    try kit.drive.removeMedium()
    try kit.drive.insert(try kit.disc())
    #expect(kit.packet(load).status == 0x50)
    kit.drive.hardReset()
    #expect(kit.failure([0x28, 0, 0, 0, 0, 0, 0, 0, 1]) == noMediumOpen)
    kit.link.run(0x08)
    #expect(kit.failure([0x5a, 0, 0x2a, 0, 0, 0, 0, 1, 0]) == [6, 0x28, 0])
    #expect(kit.testUnitReady().status == 0x50)
  }

  /// SAM-3: unit attention.
  @Test func someCommandsAreServedWhileAChangeIsToBeTold() throws {
    let kit = try ATAPIKit()
    try kit.drive.openTray(force: false)
    kit.drive.closeTray()
    let commands: [[UInt8]] = [
      [0x12, 0, 0, 0, 36], [0x03, 0, 0, 0, 18], [0x46, 0, 0, 0, 0, 0, 0, 0, 8], [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8],
    ]
    for _ in 0..<2 { for command in commands { #expect(kit.packet(command).status == 0x50) } }
    #expect(kit.failure([0x00]) == noMediumOpen)
    for command in commands { #expect(kit.packet(command).status == 0x50) }
    #expect(kit.failure([0x00]) == [6, 0x28, 0])
    #expect(kit.testUnitReady().status == 0x50)
  }

  @Test func theGuestsOwnEjectAndLoadTellNothingNew() throws {
    let kit = try ATAPIKit()
    let moves = Moves(kit)
    #expect(kit.packet(eject).status == 0x50)
    #expect(kit.drive.isTrayOpen)
    #expect(kit.failure([0x00]) == noMediumOpen)
    #expect(kit.packet(eject).status == 0x50)
    #expect(kit.packet(load).status == 0x50)
    #expect(kit.packet(load).status == 0x50)
    #expect(moves.seen == [true, false])
    #expect(kit.testUnitReady().status == 0x50)
  }

  @Test func startStopAndPowerConditionsLeaveTheTrayAlone() throws {
    let kit = try ATAPIKit()
    for byte: UInt8 in [0x00, 0x01, 0x12, 0x22, 0x32, 0x52] {
      #expect(kit.packet([0x1b, 0, 0, 0, byte]).status == 0x50)
      #expect(!kit.drive.isTrayOpen)
    }
  }

  // MARK: Locks

  @Test func aLockedDiscIsEjectedByNobody() throws {
    let kit = try ATAPIKit()
    kit.packet(lock)
    #expect(kit.drive.isLocked)
    #expect(kit.failure(eject) == [5, 0x53, 2])
    #expect(throws: ATAPITrayError.locked) { try kit.drive.openTray(force: false) }
    #expect(!kit.drive.isTrayOpen)
    kit.packet(unlock)
    #expect(!kit.drive.isLocked)
    try kit.drive.openTray(force: false)
    #expect(kit.drive.isTrayOpen)
  }

  /// MMC-6, PREVENT ALLOW MEDIUM REMOVAL: each lock is ended by its own kind of command.
  @Test func thePersistentLockIsAnother() throws {
    let kit = try ATAPIKit()
    kit.packet([0x1e, 0, 0, 0, 3])
    kit.packet(unlock)
    #expect(kit.failure(eject) == [5, 0x53, 2])
    kit.packet(lock)
    kit.packet([0x1e, 0, 0, 0, 2])
    #expect(kit.failure(eject) == [5, 0x53, 2])
    kit.packet(unlock)
    #expect(kit.packet(eject).status == 0x50)
  }

  @Test func forceOpensALockedTrayAndEndsTheLock() throws {
    let kit = try ATAPIKit()
    kit.packet(lock)
    try kit.drive.openTray(force: true)
    #expect(kit.drive.isTrayOpen && !kit.drive.isLocked)
  }

  @Test func aHardResetUnlocksAndASoftOneDoesNot() throws {
    let kit = try ATAPIKit()
    kit.packet(lock)
    kit.drive.softReset()
    kit.link.run(0x08)
    #expect(kit.drive.isLocked)
    kit.drive.hardReset()
    #expect(!kit.drive.isLocked)
  }

  // MARK: The host's side

  @Test func theHostNeedsAnOpenTrayAndRoom() throws {
    let kit = try ATAPIKit()
    let moves = Moves(kit)
    let other = try kit.disc()
    #expect(throws: ATAPITrayError.trayClosed) { try kit.drive.insert(other) }
    #expect(throws: ATAPITrayError.trayClosed) { try kit.drive.removeMedium() }
    try kit.drive.openTray(force: false)
    try kit.drive.openTray(force: false)
    #expect(throws: ATAPITrayError.occupied) { try kit.drive.insert(other) }
    let first = kit.drive.backend
    #expect(try kit.drive.removeMedium() === first)
    #expect(kit.drive.backend == nil)
    #expect(throws: ATAPITrayError.empty) { try kit.drive.removeMedium() }
    try kit.drive.insert(other)
    #expect(kit.drive.backend === other)
    kit.drive.closeTray()
    kit.drive.closeTray()
    #expect(moves.seen == [true, false])
  }

  /// The disc of a read under way stays until the read is back, and the read ends well.
  @Test(arguments: [[0x28, 0, 0, 0, 0, 0, 0, 0, 20], [0xbe, 0, 0, 0, 0, 0, 0, 0, 20, 0xf8]] as [[UInt8]])
  func aDiscIsNotTakenFromUnderARead(command: [UInt8]) throws {
    let disc = WatchedDriver(blocks: 64)
    let kit = try ATAPIKit(disc)
    var attempts = 0
    disc.onSubmit = { _ in
      attempts += 1
      try? kit.drive.openTray(force: true)
      #expect(throws: ATAPITrayError.busy) { try kit.drive.removeMedium() }
      return 0
    }
    #expect(kit.packet(command).status == 0x50)
    #expect(attempts > 0)
    #expect(kit.drive.isTrayOpen)
    #expect(try kit.drive.removeMedium().driver === disc)
    #expect(kit.failure(command) == noMediumOpen)
    kit.drive.hardReset()
  }

  // MARK: GET EVENT STATUS NOTIFICATION

  /// The event and the status of a poll for media events.
  private func poll(_ kit: ATAPIKit) -> [UInt8] {
    let data = kit.answer([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])
    #expect(Array(data[0..<4]) == [0, 6, 4, 0x10])
    return Array(data[4..<6])
  }

  @Test func eventsAreToldOnce() throws {
    let kit = try ATAPIKit()
    #expect(poll(kit) == [0, 2])
    try kit.drive.openTray(force: false)
    #expect(poll(kit) == [3, 1])
    #expect(poll(kit) == [0, 1])
    try kit.drive.removeMedium()
    kit.packet(load)
    #expect(poll(kit) == [0, 0])
    kit.packet(eject)
    try kit.drive.insert(try kit.disc())
    kit.drive.closeTray()
    #expect(poll(kit) == [2, 2])
    #expect(poll(kit) == [0, 2])
  }

  @Test func theWishToEjectALockedDiscIsAnEvent() throws {
    let kit = try ATAPIKit()
    kit.packet(lock)
    #expect(throws: ATAPITrayError.locked) { try kit.drive.openTray(force: false) }
    // Too little room for the event: it is kept.
    #expect(kit.answer([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 4]).count == 4)
    #expect(poll(kit) == [1, 2])
    #expect(poll(kit) == [0, 2])
  }

  @Test func eventsAreForThoseWhoPollForKnownClasses() throws {
    let kit = try ATAPIKit()
    #expect(kit.failure([0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8]) == [5, 0x24, 0])
    #expect(kit.answer([0x4a, 1, 0, 0, 0x40, 0, 0, 0, 8]) == [0, 2, 0x80, 0x10])
    #expect(kit.answer([0x4a, 1, 0, 0, 0, 0, 0, 0, 8]) == [0, 2, 0x80, 0x10])
    #expect(kit.answer([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 0]).isEmpty)
  }

  @Test func mechanismStatusTellsOfTheTray() throws {
    let kit = try ATAPIKit()
    #expect(kit.answer([0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8]) == [0, 0, 0, 0, 0, 0, 0, 0])
    kit.packet(eject)
    #expect(kit.answer([0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 2]) == [0, 0x10])
  }
}
