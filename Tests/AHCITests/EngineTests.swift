// SPDX-License-Identifier: Apache-2.0
// What starts, stops and resets a port: PxCMD, PxSCTL, the signature, hot plug (AHCI 1.3.1 §7, §10).
import DeviceTestKit
import Testing

@testable import AHCI

@Suite struct EngineTests {
  let kit: HBAKit
  init() throws { kit = try HBAKit() }

  private func command(_ number: Int = 0) -> UInt32 { kit.port(PortRegister.command, number) }

  // MARK: FIS receive (§3.3.7 FRE, FR; §10.3.2)

  @Test func enablingReceiveDeliversTheSignatureAtOnce() throws {
    kit.setPort(PortRegister.receivedFIS, UInt32(HBAKit.received()))
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(command() & PortCommand.receiveRunning != 0)
    // BSY and DRQ are clear; the diagnostic code says that the device is well (ACS-3 §7.9).
    #expect(kit.taskFile == 0x0150)
    #expect(kit.port(PortRegister.signature) == 0x0000_0101)
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.port(PortRegister.sataStatus) & 0xf == 3)
    #expect(try kit.fis(0x40, 13) == [0x34, 0x40, 0x50, 0x01, 0x01, 0, 0, 0, 0, 0, 0, 0, 0x01])
  }

  // MARK: Bus master enable (§2.1.2)

  private func setBusMaster(_ isMaster: Bool) {
    kit.controller.configurationWrite(offset: 4, width: 2, value: isMaster ? 7 : 3)
    kit.loop.runUntilIdle()
  }

  @Test func enginesStartWhenTheControllerBecomesBusMaster() throws {
    setBusMaster(false)
    kit.start()
    #expect(command() & (PortCommand.receiveRunning | PortCommand.listRunning) == 0)
    #expect(kit.port(PortRegister.signature) == 0xffff_ffff)
    #expect(try kit.fis(0x40, 1) == [0])
    setBusMaster(true)
    #expect(command() & PortCommand.receiveRunning != 0 && command() & PortCommand.listRunning != 0)
    #expect(kit.port(PortRegister.signature) == 0x0000_0101)
    #expect(try kit.fis(0x40, 1) == [0x34])
  }

  @Test func commandsStayIssuedWhileTheControllerIsNoBusMaster() throws {
    kit.start()
    try kit.prepare(0, Command(0x25, count: 1, regions: [Region(HBAKit.data, 512)]))
    setBusMaster(false)
    kit.issue(1)
    #expect(kit.issued == 1 && kit.driver.held.isEmpty)
    setBusMaster(true)
    kit.completeAll()
    #expect(kit.issued == 0)
    #expect(try kit.moved() == 512)
  }

  @Test func interruptThatCouldNotBeSentIsSentToTheBusMaster() throws {
    kit.controller.configurationWrite(offset: 0x84, width: 4, value: 0xfee0_0000)
    kit.controller.configurationWrite(offset: 0x82, width: 2, value: 1)
    kit.start()
    try kit.prepare(0, Command(0x25, count: 1, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1)
    setBusMaster(false)
    kit.completeAll()
    #expect(kit.issued == 0 && kit.interrupts.messages.isEmpty)
    setBusMaster(true)
    #expect(kit.interrupts.messages.count == 1)
  }

  @Test func aCDROMDriveHasThePacketSignature() throws {
    kit.controller.connect(ATAPIDrive(backend: nil), to: 3)
    kit.start(3)
    #expect(kit.port(PortRegister.signature, 3) == 0xeb14_0101)
    #expect(kit.port(PortRegister.taskFile, 3) & 0x88 == 0)
  }

  @Test func receiveOnAPortWithoutADeviceDeliversNothing() {
    kit.setPort(PortRegister.receivedFIS, UInt32(HBAKit.received(1)), 1)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable, 1)
    #expect(command(1) & PortCommand.receiveRunning != 0)
    #expect(kit.port(PortRegister.taskFile, 1) == 0x7f)
    #expect(kit.port(PortRegister.interruptStatus, 1) == 0)
  }

  @Test func disablingReceiveStopsItAtOnce() throws {
    kit.start()
    kit.setPort(PortRegister.command, 0)
    #expect(command() & (PortCommand.receiveRunning | PortCommand.listRunning) == 0)
  }

  /// Known failure 40: PxFB outside memory.
  @Test(arguments: [UInt32(0xf000_0000), UInt32(HBAKit.ramBytes), UInt32(HBAKit.abar)])
  func receiveDoesNotStartOutsideMemory(_ address: UInt32) {
    kit.setPort(PortRegister.receivedFIS, address)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(command() & (PortCommand.receiveRunning | PortCommand.receiveEnable) == 0)
    #expect(kit.isr & PortInterrupt.hostBusFatal != 0)
    // It starts where the guest has mended the address.
    kit.start()
    #expect(command() & PortCommand.receiveRunning != 0)
  }

  // MARK: The command list (§3.3.7 ST, CR)

  @Test func startRunsTheListAtOnceAndStopClearsWhatWasIssued() {
    kit.start()
    #expect(command() & PortCommand.listRunning != 0)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(command() & (PortCommand.start | PortCommand.listRunning) == 0)
    #expect(kit.issued == 0)
    #expect(kit.taskFile == 0x0150)
  }

  /// Known failure 40: PxCLB outside memory, or over its end.
  @Test(arguments: [UInt32(0xf000_0000), UInt32(HBAKit.ramBytes), UInt32(HBAKit.abar)])
  func listDoesNotStartOutsideMemory(_ address: UInt32) {
    kit.setPort(PortRegister.receivedFIS, UInt32(HBAKit.received()))
    kit.setPort(PortRegister.commandList, address)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.start)
    #expect(command() & (PortCommand.start | PortCommand.listRunning) == 0)
    #expect(kit.isr & PortInterrupt.hostBusFatal != 0)
  }

  @Test func issuingWhileTheListStandsStillIsIgnored() {
    kit.issue(0xff)
    kit.setPort(PortRegister.sataActive, 0xff)
    #expect(kit.issued == 0)
    #expect(kit.active == 0)
  }

  /// §10.3.1 asks software not to; here the commands wait, and go when FISes can be received.
  @Test func commandsIssuedWithoutFISReceiveWaitForIt() throws {
    kit.start()
    kit.setPort(PortRegister.command, PortCommand.start)
    try kit.prepare(0, Command(0xe7))
    kit.issue(1)
    kit.completeAll()
    #expect(kit.issued == 1)
    kit.setPort(PortRegister.command, PortCommand.start | PortCommand.receiveEnable)
    kit.completeAll()
    #expect(kit.issued == 0)
  }

  @Test func commandsIssuedWithoutADeviceWaitUntilTheListIsStopped() throws {
    kit.start(2)
    try kit.prepare(0, Command(0xe7), 2)
    kit.issue(1, 2)
    #expect(kit.port(PortRegister.commandIssue, 2) == 1)
    kit.restart(2)
    #expect(kit.port(PortRegister.commandIssue, 2) == 0)
  }

  /// Addresses that change while the list runs count from the next start on.
  @Test func movingTheListWhileItRunsChangesNothing() throws {
    kit.start()
    kit.setPort(PortRegister.commandList, 0xf000_0000)
    kit.setPort(PortRegister.receivedFIS, 0xf000_0000)
    try kit.run(Command(0xe7))
    #expect(kit.issued == 0)
    #expect(kit.isr == PortInterrupt.registerFIS)
  }

  @Test func currentSlotFollowsTheCommandsAndIsZeroWhenStopped() throws {
    kit.start()
    try kit.prepare(9, Command(0xe7))
    kit.issue(1 << 9)
    kit.completeAll()
    #expect(command() >> 8 & 0x1f == 9)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    #expect(command() >> 8 & 0x1f == 0)
  }

  /// CLO clears BSY and DRQ while the list stands still (§3.3.7); a table outside memory leaves BSY behind.
  @Test func listOverrideForgetsBusy() throws {
    kit.start()
    try kit.prepare(0, Command(0xec, regions: [Region(0xf000_0000, 512)]))
    kit.issue(1)
    #expect(kit.taskFile & 0x80 != 0)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.listOverride)
    #expect(kit.taskFile & 0x88 == 0)
    #expect(command() & PortCommand.listOverride == 0)
  }

  // MARK: Link resets (§10.4.2)

  @Test func linkResetHoldsThePortDownAndBringsTheDeviceBack() throws {
    kit.start()
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    kit.setPort(PortRegister.sataControl, 0x301)
    #expect(kit.port(PortRegister.sataStatus) == 0)
    #expect(kit.taskFile == 0x7f)
    #expect(kit.port(PortRegister.signature) == 0xffff_ffff)
    kit.setPort(PortRegister.sataControl, 0x300)
    #expect(kit.port(PortRegister.sataStatus) == 0x113)
    #expect(kit.taskFile == 0x0150)
    #expect(kit.port(PortRegister.signature) == 0x101)
    // COMINIT was received (§3.3.12 DIAG.X), and PxIS says so until PxSERR is cleared.
    #expect(kit.isr & PortInterrupt.connectChange != 0)
    kit.setPort(PortRegister.interruptStatus, UInt32.max)
    #expect(kit.isr & PortInterrupt.connectChange != 0)
    kit.setPort(PortRegister.sataError, UInt32.max)
    #expect(kit.isr == 0)
  }

  /// Known failure 42: PxSCTL.DET written while ST is set.
  @Test func linkResetWhileTheListRunsHoldsCommandsUntilItIsRestarted() throws {
    kit.start()
    try kit.prepare(0, Command(0x25, count: 1, regions: [Region(HBAKit.data, 512)]))
    kit.issue(1)
    kit.setPort(PortRegister.sataControl, 1)
    kit.setPort(PortRegister.sataControl, 0)
    kit.completeAll()
    #expect(kit.port(PortRegister.sataStatus) == 0x113)
    #expect(kit.driver.held.isEmpty)
    kit.setPort(PortRegister.sataError, UInt32.max)
    kit.restart()
    try kit.run(Command(0x25, count: 1, regions: [Region(HBAKit.data, 512)]))
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.issued == 0)
  }

  @Test func aPortTakenOfflineShowsItAndComesBack() {
    kit.start()
    kit.setPort(PortRegister.sataControl, 4)
    #expect(kit.port(PortRegister.sataStatus) == 4)
    kit.setPort(PortRegister.sataControl, 0)
    #expect(kit.port(PortRegister.sataStatus) == 0x113)
  }

  @Test func linkResetOfAnEmptyPortFindsNothing() {
    kit.setPort(PortRegister.sataControl, 1, 4)
    kit.setPort(PortRegister.sataControl, 0, 4)
    #expect(kit.port(PortRegister.sataStatus, 4) == 0)
    #expect(kit.port(PortRegister.sataError, 4) == 0)
  }

  // MARK: Hot plug (§7.4)

  @Test func aDeviceThatIsPluggedInIsDetected() throws {
    kit.start(5)
    kit.controller.connect(try kit.memoryDrive(), to: 5)
    #expect(kit.port(PortRegister.sataStatus, 5) == 0x113)
    #expect(kit.port(PortRegister.signature, 5) == 0x101)
    let wanted = PortInterrupt.connectChange | PortInterrupt.phyReadyChange | PortInterrupt.registerFIS
    #expect(kit.port(PortRegister.interruptStatus, 5) == wanted)
    #expect(kit.hba(HBARegister.interruptStatus) == 1 << 5)
    try kit.run(Command(0xe7), 5)
    #expect(kit.port(PortRegister.commandIssue, 5) == 0)
  }

  @Test func aDeviceThatIsPulledOutIsGone() throws {
    kit.start()
    kit.controller.disconnect(port: 0)
    #expect(kit.port(PortRegister.sataStatus) == 0)
    #expect(kit.taskFile == 0x7f)
    #expect(kit.isr & (PortInterrupt.connectChange | PortInterrupt.phyReadyChange) != 0)
    #expect(!kit.controller.hasDevice(port: 0))
    // And another one takes its place.
    kit.controller.connect(try kit.memoryDrive(), to: 0)
    kit.setPort(PortRegister.sataError, UInt32.max)
    kit.restart()
    try kit.run(Command(0xe7))
    #expect(kit.issued == 0)
  }

  // MARK: The controller's reset (§10.4.3)

  @Test func controllerResetBringsEverythingBackTwice() throws {
    for _ in 0..<2 {
      kit.start()
      try kit.run(Command(0xe7))
      kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
      #expect(kit.hba(HBARegister.control) == 0x8000_0000)
      #expect(kit.hba(HBARegister.interruptStatus) == 0)
      for register in stride(from: UInt64(0), to: 0x48, by: 4) {
        let expected: UInt32 =
          switch register {
          case PortRegister.command: 6
          case PortRegister.taskFile: 0x7f
          case PortRegister.signature: 0xffff_ffff
          case PortRegister.sataStatus: 0x113
          default: 0
          }
        #expect(kit.port(register) == expected, "register \(register)")
      }
    }
  }

  // MARK: Software reset (§10.4.1; SATA 3.3 §11.4)

  @Test func softwareResetEndsWithTheSignature() throws {
    kit.start()
    var first = Command(0)
    first.flags = 0
    first.control = 0x04
    try kit.prepare(0, first)
    kit.issue(1)
    #expect(kit.issued == 0)
    #expect(kit.taskFile & 0x80 != 0)
    // A command has to wait until the reset is over.
    try kit.prepare(1, Command(0xe7))
    kit.issue(2)
    #expect(kit.issued == 2)
    first.control = 0
    kit.setPort(PortRegister.command, PortCommand.receiveEnable)
    kit.setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.start)
    kit.clearInterrupts()
    try kit.prepare(0, first)
    kit.issue(1)
    #expect(kit.issued == 0)
    #expect(kit.taskFile == 0x0150)
    #expect(kit.port(PortRegister.signature) == 0x101)
    #expect(kit.isr == PortInterrupt.registerFIS)
  }
}
