// SPDX-License-Identifier: Apache-2.0
import Tracing

/// The port's registers as a guest reads and writes them (AHCI 1.3.1 §3.3).
extension AHCIPort {
  /// Reads the word at `offset` from the port's first register; reserved and vendor's words are 0.
  func readRegister(_ offset: UInt64) -> UInt32 {
    switch offset {
    case PortRegister.commandList: UInt32(truncatingIfNeeded: commandListAddress)
    case PortRegister.commandListUpper: UInt32(commandListAddress >> 32)
    case PortRegister.receivedFIS: UInt32(truncatingIfNeeded: receivedFISAddress)
    case PortRegister.receivedFISUpper: UInt32(receivedFISAddress >> 32)
    case PortRegister.interruptStatus: allInterruptStatus
    case PortRegister.interruptEnable: interruptEnable
    case PortRegister.command: commandRegister
    case PortRegister.taskFile: UInt32(taskFileError) << 8 | UInt32(taskFileStatus)
    case PortRegister.signature: signature
    case PortRegister.sataStatus: sataStatus
    case PortRegister.sataControl: sataControl
    case PortRegister.sataError: sataError
    case PortRegister.sataActive: sataActive
    case PortRegister.commandIssue: commandIssue
    case PortRegister.notification: notification
    default: 0
    }
  }

  /// Writes those bits of the word at `offset` that are set in `mask` (whole bytes), where a guest may.
  func writeRegister(_ offset: UInt64, _ value: UInt32, mask: UInt32) {
    func merged(_ old: UInt32) -> UInt32 { old & ~mask | value & mask }
    let ones = value & mask
    switch offset {
    case PortRegister.commandList:
      commandListAddress =
        commandListAddress & ~0xffff_ffff | UInt64(merged(UInt32(truncatingIfNeeded: commandListAddress)) & ~0x3ff)
    case PortRegister.commandListUpper:
      commandListAddress =
        commandListAddress & 0xffff_ffff | UInt64(merged(UInt32(commandListAddress >> 32))) << 32
    case PortRegister.receivedFIS:
      receivedFISAddress =
        receivedFISAddress & ~0xffff_ffff | UInt64(merged(UInt32(truncatingIfNeeded: receivedFISAddress)) & ~0xff)
    case PortRegister.receivedFISUpper:
      receivedFISAddress =
        receivedFISAddress & 0xffff_ffff | UInt64(merged(UInt32(receivedFISAddress >> 32))) << 32
    case PortRegister.interruptStatus:
      Tracing.record(.acknowledged, value: ones)
      interruptStatus &= ~(ones & PortInterrupt.clearMask)
    case PortRegister.interruptEnable:
      interruptEnable = merged(interruptEnable) & PortInterrupt.enableMask
      controller.portChanged(self)
    case PortRegister.command: writeCommand(merged(command), listOverride: ones & PortCommand.listOverride != 0)
    case PortRegister.sataControl: writeSATAControl(merged(sataControl))
    case PortRegister.sataError: sataError &= ~(ones & PortError.mask)
    case PortRegister.sataActive: writeSATAActive(ones)
    case PortRegister.commandIssue: writeCommandIssue(ones)
    case PortRegister.notification: notification &= ~(ones & 0xffff)
    default: break
    }
  }

  /// PxIS with the bits that show what PxSERR holds (§3.3.5).
  var allInterruptStatus: UInt32 {
    var status = interruptStatus
    if sataError & PortError.exchanged != 0 { status |= PortInterrupt.connectChange }
    if sataError & PortError.phyReadyChange != 0 { status |= PortInterrupt.phyReadyChange }
    return status
  }

  /// Whether the port asks for the controller's interrupt.
  var wantsInterrupt: Bool { allInterruptStatus & interruptEnable != 0 }

  private var commandRegister: UInt32 {
    var value = command | PortCommand.spinUpAndPowerOn
    if received != nil { value |= PortCommand.receiveRunning }
    if isListRunning { value |= PortCommand.listRunning }
    if command & PortCommand.start != 0 { value |= UInt32(lastSlot & 31) << PortCommand.currentSlotShift }
    return value
  }

  private func writeCommand(_ value: UInt32, listOverride: Bool) {
    command = value & PortCommand.writable
    // Only while the list stands still (§3.3.7), as a step before ST is set.
    if listOverride && list == nil && sataStatus == PortSATA.linkUp {
      taskFileStatus &= ~(ATAStatus.busy | ATAStatus.dataRequest)
    }
    updateEngines()
  }

  /// PxSACT: the guest sets bits before it issues queued commands; ignored while the list stands still (§3.3.13).
  private func writeSATAActive(_ bits: UInt32) {
    if command & PortCommand.start != 0 { sataActive |= bits }
  }
}
