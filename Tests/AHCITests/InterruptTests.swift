// SPDX-License-Identifier: Apache-2.0
// The controller's interrupt: PxIS, PxIE, IS, GHC.IE, the pin and the message (AHCI 1.3.1 §10.7).
import DeviceTestKit
import Machine
import Testing

@testable import AHCI

@Suite struct InterruptTests {
  let kit: HBAKit
  /// INTA# of device 31 is PIRQ A, input 16.
  private static let line = 16
  init() throws {
    kit = try HBAKit()
    kit.start()
  }

  private var isAsserted: Bool { kit.interrupts.line[Self.line] ?? false }

  private func enableMSI() {
    kit.controller.configurationWrite(offset: 0x84, width: 4, value: 0xfee0_0000)
    kit.controller.configurationWrite(offset: 0x8c, width: 2, value: 0x41)
    kit.controller.configurationWrite(offset: 0x82, width: 2, value: 1)
  }

  @Test func thePinFollowsISUntilItIsCleared() throws {
    try kit.run(Command(0xe7))
    #expect(isAsserted)
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
    // IS keeps its bit when PxIS is cleared (§3.1.3).
    kit.setPort(PortRegister.interruptStatus, UInt32.max)
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
    #expect(isAsserted)
    kit.setHBA(HBARegister.interruptStatus, 1)
    #expect(kit.hba(HBARegister.interruptStatus) == 0)
    #expect(!isAsserted)
  }

  /// Cleared in the wrong order, the bit of a port with something pending comes back (§10.7.1.1).
  @Test func clearingISBeforePxISDoesNotLoseTheInterrupt() throws {
    try kit.run(Command(0xe7))
    kit.setHBA(HBARegister.interruptStatus, 1)
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
    #expect(isAsserted)
  }

  @Test func nothingIsRaisedForBitsThatPxIELeavesOut() throws {
    kit.setPort(PortRegister.interruptEnable, ~PortInterrupt.registerFIS)
    try kit.run(Command(0xe7))
    #expect(kit.isr == PortInterrupt.registerFIS)
    #expect(kit.hba(HBARegister.interruptStatus) == 0)
    #expect(!isAsserted)
    // Enabling what is pending raises it (§3.3.6).
    kit.setPort(PortRegister.interruptEnable, PortInterrupt.registerFIS)
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
    #expect(isAsserted)
  }

  @Test func theGlobalEnableHoldsThePin() throws {
    kit.setHBA(HBARegister.control, 0)
    try kit.run(Command(0xe7))
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
    #expect(!isAsserted)
    kit.setHBA(HBARegister.control, UInt64(HBAControl.interruptEnable))
    #expect(isAsserted)
    kit.setHBA(HBARegister.control, 0)
    #expect(!isAsserted)
  }

  @Test func aMessageIsSentForEachPieceOfNews() throws {
    enableMSI()
    try kit.run(Command(0xe7))
    #expect(kit.interrupts.messages == [MSIMessage(address: 0xfee0_0000, data: 0x41)])
    #expect(!isAsserted)
    // The same bit again, not cleared in between, is no news.
    try kit.run(Command(0xe7))
    #expect(kit.interrupts.messages.count == 1)
    // Cleared: the next one is.
    kit.setPort(PortRegister.interruptStatus, UInt32.max)
    try kit.run(Command(0xe7))
    #expect(kit.interrupts.messages.count == 2)
  }

  /// A completion between the guest's clearing of PxIS and of IS must not be lost (§10.7.2.1).
  @Test func aMessageIsSentAgainWhereISIsClearedWithSomethingPending() throws {
    enableMSI()
    try kit.run(Command(0xe7))
    kit.setPort(PortRegister.interruptStatus, UInt32.max)
    try kit.run(Command(0xe7))
    let count = kit.interrupts.messages.count
    kit.setHBA(HBARegister.interruptStatus, 1)
    #expect(kit.interrupts.messages.count == count + 1)
    #expect(kit.hba(HBARegister.interruptStatus) == 1)
  }

  @Test func turningTheMessageOnReleasesThePin() throws {
    try kit.run(Command(0xe7))
    #expect(isAsserted)
    enableMSI()
    #expect(!isAsserted)
    kit.controller.configurationWrite(offset: 0x82, width: 2, value: 0)
    #expect(isAsserted)
  }

  /// Command register bit 10 (PCI 3.0 §6.2.2).
  @Test func theInterruptDisableBitHoldsThePin() throws {
    kit.controller.configurationWrite(offset: 4, width: 2, value: 0x407)
    try kit.run(Command(0xe7))
    #expect(!isAsserted)
    #expect(kit.controller.configurationRead(offset: 6, width: 2) & 8 != 0)
    kit.controller.configurationWrite(offset: 4, width: 2, value: 7)
    #expect(isAsserted)
  }

  @Test func controllerResetReleasesThePin() throws {
    try kit.run(Command(0xe7))
    kit.setHBA(HBARegister.control, UInt64(HBAControl.reset))
    #expect(!isAsserted)
    #expect(kit.hba(HBARegister.interruptStatus) == 0)
  }
}
