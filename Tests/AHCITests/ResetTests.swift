// SPDX-License-Identifier: Apache-2.0
// Resets, stops and removal with requests in flight: nothing late reaches guest memory, nothing is lost or done twice
// (AHCI 1.3.1 §10.4; known failures 34, 35, 36, 43, 51 and 52).
import Block
import DeviceTestKit
import Glibc
import Machine
import Testing

@testable import AHCI

@Suite struct ResetTests {
  let kit: HBAKit
  init() throws {
    kit = try HBAKit()
    kit.start()
  }

  private func startAllTags(write: Bool = false) throws {
    for tag in 0..<32 {
      let region = Region(HBAKit.data + UInt64(tag) * 512, 512)
      try kit.prepare(tag, .queued(write: write, tag: tag, lba: UInt64(tag) + 16, regions: [region]))
    }
    kit.issue(UInt32.max, queued: true)
    #expect(kit.driver.held.count == 32)
  }

  private func expectService() throws {
    kit.start()
    try kit.run(Command(0x25, lba: 1, count: 1, regions: [Region(HBAKit.data, 512)]))
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.issued == 0)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[512..<1024]))
    #expect(kit.controller.inFlight == 0)
  }

  /// GHC.HR stays set until the last request is back, so a guest that waits for it can use its memory for other things.
  @Test func controllerResetWaitsForAllThirtyTwoTags() throws {
    try startAllTags()
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    kit.loop.runUntilIdle()
    for left in (0..<32).reversed() {
      #expect(kit.hba(HBARegister.control) & 1 == 1)
      kit.completeOne(at: left / 2)
    }
    #expect(kit.hba(HBARegister.control) == 0x8000_0000)
    #expect(kit.isr == 0)
    #expect(kit.active == 0)
    try expectService()
  }

  /// The list has stopped only when nothing can reach guest memory any more (§3.3.7 CR).
  @Test func stoppingTheListWaitsForAllThirtyTwoTags() throws {
    try startAllTags()
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(kit.active == 0)
    while !kit.driver.held.isEmpty {
      #expect(kit.port(PortRegister.command) & PortCommand.listRunning != 0)
      kit.completeOne()
    }
    #expect(kit.port(PortRegister.command) & PortCommand.listRunning == 0)
    // Nothing tells of the commands that were given up.
    #expect(kit.isr == 0)
    try expectService()
  }

  /// A driver that does not wait: what it issues meanwhile is held, and done once.
  @Test func aListRestartedTooEarlyBeginsWhenTheOldRequestsAreBack() throws {
    try startAllTags()
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.start)
    try kit.prepare(0, Command(0x25, lba: 3, count: 1, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1)
    #expect(kit.driver.held.count == 32)
    for _ in 0..<32 { kit.completeOne() }
    #expect(kit.driver.held.count == 1)
    kit.completeAll()
    #expect(kit.issued == 0)
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[3 * 512..<4 * 512]))
  }

  @Test func linkResetShowsTheDeviceWhenTheOldRequestsAreBack() throws {
    try startAllTags()
    kit.setPort(PortRegister.sataControl, 1)
    kit.setPort(PortRegister.sataControl, 0)
    while !kit.driver.held.isEmpty {
      #expect(kit.port(PortRegister.sataStatus) == 0)
      #expect(kit.taskFile == 0x7f)
      kit.completeOne()
    }
    #expect(kit.port(PortRegister.sataStatus) == 0x113)
    #expect(kit.taskFile == 0x0150)
    kit.restart()
    try expectService()
  }

  /// Known failure 34: a write that is in flight when the reset comes lands where it was meant to, and only there.
  @Test func aWriteInFlightAtAResetLandsWholeAtItsOwnPlace() throws {
    try kit.memory.fill(address: HBAKit.data, byteCount: 1024, with: 0x5a)
    let before = kit.driver.bytes
    try kit.prepare(0, Command(0x35, lba: 40, count: 2, regions: [Region(HBAKit.data, 1024)], isWrite: true))
    kit.issue(1)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    kit.completeAll()
    var expected = before
    for index in 40 * 512..<42 * 512 { expected[index] = 0x5a }
    #expect(kit.driver.bytes == expected)
    #expect(kit.hba(HBARegister.control) & 1 == 0)
  }

  /// Known failure 35: a software-reset FIS with queued commands under way.
  @Test func softwareResetWithCommandsUnderWayEndsWithTheSignature() throws {
    for tag in 0..<4 { try kit.prepare(tag, .queued(tag: tag, lba: 0, regions: [Region(HBAKit.data, 512)])) }
    kit.issue(0xf, queued: true)
    var control = Command(0)
    control.flags = 0
    control.control = 4
    try kit.prepare(8, control)
    kit.issue(1 << 8)
    control.control = 0
    try kit.prepare(9, control)
    kit.issue(1 << 9)
    #expect(kit.isr == 0)
    kit.completeAll()
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.taskFile == 0x0150)
    // PxSACT is not the device's to clear (§3.3.13).
    #expect(kit.active == 0xf)
    kit.restart()
    try expectService()
  }

  /// Known failure 43, and §7.4.2: the device is pulled out under load.
  @Test func removalWithAllTagsInFlightTouchesNothingAfterwards() throws {
    try startAllTags()
    kit.controller.disconnect(port: 0)
    #expect(kit.port(PortRegister.sataStatus) == 0)
    let isr = kit.isr
    kit.completeAll()
    #expect(kit.isr == isr)
    #expect(kit.active == UInt32.max)
    #expect(kit.controller.inFlight == 0)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    #expect(kit.port(PortRegister.sataStatus) == 0)
  }

  @Test func removalOfAnEmptyDriveWithACommandUnderWayIsSafe() throws {
    kit.controller.connect(ATAPIDrive(backend: nil), to: 1)
    kit.start(1)
    try kit.prepare(0, Command(0xa0, packet: [0x28] + [UInt8](repeating: 0, count: 15)), 1)
    kit.issue(1, 1)
    kit.controller.disconnect(port: 1)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    #expect(kit.hba(HBARegister.control) & 1 == 0)
  }

  /// Requests that failed under `rerror=stop` wait for the machine to go on; a reset does not wait for that.
  @Test func aResetGivesUpRequestsThatWaitForTheMachineToGoOn() throws {
    var configuration = BlockConfiguration()
    configuration.readErrorPolicy = .stop
    let kit = try HBAKit(configuration: configuration)
    var stops = 0
    kit.backend.onStop = { _, _ in stops += 1 }
    kit.start()
    try kit.prepare(0, Command(0x25, count: 1, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1)
    kit.completeOne(result: -EIO)
    #expect(stops == 1)
    #expect(kit.issued == 1)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    kit.loop.runUntilIdle()
    #expect(kit.hba(HBARegister.control) & 1 == 0)
    #expect(kit.backend.inFlight == 0)
  }

  /// Writes that wait for their time under a limit do not keep a reset waiting for it, and land whole where they belong.
  @Test func aResetLetsThrottledWritesLandWhole() throws {
    var limits = ThrottleLimits()
    limits.bytes.write = ThrottleLimits.Limit(1)
    let kit = try HBAKit(limits: limits)
    kit.start()
    var expected = kit.driver.bytes
    for tag in 0..<3 {
      let (place, bytes) = (HBAKit.data + UInt64(tag) * 1024, [UInt8](repeating: UInt8(0xa0 + tag), count: 1024))
      try kit.memory.write(bytes, at: place)
      try kit.prepare(
        tag, .queued(write: true, tag: tag, lba: UInt64(tag * 8), sectors: 2, regions: [Region(place, 1024)]))
      expected.replaceSubrange(tag * 4096..<tag * 4096 + 1024, with: bytes)
    }
    kit.issue(7, queued: true)
    #expect(kit.driver.held.count == 1)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    kit.completeAll()
    kit.loop.runUntilIdle()
    #expect(kit.hba(HBARegister.control) & 1 == 0)
    #expect(kit.backend.inFlight == 0)
    #expect(kit.driver.bytes == expected)
  }

  /// A request that waited is tried again when the machine goes on, and ends as if nothing had been.
  @Test func aStoppedRequestIsRetriedAndKeepsItsSlot() throws {
    var configuration = BlockConfiguration()
    configuration.readErrorPolicy = .stop
    let kit = try HBAKit(configuration: configuration)
    kit.backend.onStop = { _, _ in }
    kit.start()
    try kit.prepare(6, .queued(tag: 6, lba: 2, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1 << 6, queued: true)
    kit.completeOne(result: -EIO)
    #expect(kit.active == 1 << 6)
    kit.backend.resume()
    kit.completeAll()
    #expect(kit.active == 0)
    #expect(kit.isr == PortInterrupt.setDeviceBitsFIS)
    #expect(try kit.bytes(512) == Array(kit.driver.bytes[1024..<1536]))
  }

  /// Known failures 51 and 52: many resets under load; the counters come back to zero every time.
  @Test func thousandsOfResetsUnderLoadLeaveNothingBehind() throws {
    for round in 0..<2000 {
      try kit.prepare(0, .queued(tag: 0, lba: 0, regions: [Region(HBAKit.data, 512)]))
      try kit.prepare(1, .queued(write: true, tag: 1, lba: 1, regions: [Region(HBAKit.data, 512)]))
      kit.issue(3, queued: true)
      switch round % 4 {
      case 0: kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
      case 1: kit.setPort(PortRegister.command, PortCommand.receiveEnable)
      case 2:
        kit.setPort(PortRegister.sataControl, 1)
        kit.setPort(PortRegister.sataControl, 0)
        kit.setPort(PortRegister.command, PortCommand.receiveEnable)
      default: kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
      }
      kit.completeAll()
      #expect(kit.controller.inFlight == 0)
      kit.start()
    }
    try expectService()
  }

  /// Known failure 52: plugged in and pulled out under load, again and again; nothing of the drives stays.
  @Test func drivesThatArePulledOutAreLetGo() throws {
    final class Weak { weak var drive: ATADrive? }
    let kit = kit
    kit.start(1)
    for _ in 0..<500 {
      let weak = Weak()
      try {
        let drive = try kit.memoryDrive()
        weak.drive = drive
        kit.controller.connect(drive, to: 1)
        try kit.prepare(0, .queued(tag: 0, lba: 0, regions: [Region(HBAKit.data, 512)]), 1)
        kit.setHBA(0x100 + 0x80 + PortRegister.sataActive, 1)
        kit.setHBA(0x100 + 0x80 + PortRegister.commandIssue, 1)
        kit.controller.disconnect(port: 1)
      }()
      kit.loop.runUntilIdle()
      #expect(weak.drive == nil)
      kit.setPort(PortRegister.sataError, UInt32.max, 1)
      kit.restart(1)
    }
    #expect(kit.controller.inFlight == 0)
  }

  // MARK: The machine's own reset and end

  @Test func quiescingLetsCommandsFinishAndTakesNoNewOnes() throws {
    try startAllTags()
    kit.controller.quiesce()
    #expect(!kit.controller.isQuiet)
    for _ in 0..<32 { kit.completeOne() }
    #expect(kit.controller.isQuiet)
    // What was under way has ended for the guest.
    #expect(kit.active == 0)
    try kit.prepare(0, Command(0xe7))
    kit.issue(1)
    #expect(kit.driver.held.isEmpty)
    kit.controller.resume()
    kit.loop.runUntilIdle()
    kit.completeAll()
    #expect(kit.issued == 0)
  }

  @Test func machineResetBringsTheFunctionBack() throws {
    try kit.run(Command(0xe7))
    kit.controller.quiesce()
    kit.controller.reset()
    kit.controller.resume()
    #expect(kit.controller.configurationRead(offset: 0x24, width: 4) == 0)
    kit.enableFunction()
    #expect(kit.hba(HBARegister.control) == 0x8000_0000)
    #expect(kit.port(PortRegister.sataStatus) == 0x113)
    try expectService()
  }
}
