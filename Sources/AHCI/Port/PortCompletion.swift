// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import Tracing

/// From the device back to the guest: received FISes, PxTFD, PxIS, PxCI and PxSACT (AHCI 1.3.1 §5.4 to §5.6).
///
/// The order is the specification's and drivers rely on it: data, PRDBC, FIS, PxIS, PxTFD, and then the bit in PxCI or
/// PxSACT.
extension AHCIPort {
  /// The device has ended a command.
  func end(_ slot: UnsafeMutablePointer<CommandSlot>) {
    precondition(slot.pointee.isExecuting && !slot.pointee.isLent, "a command ends once, when its request is back")
    slot.pointee.isExecuting = false
    if slot.pointee.bounce != nil || slot.pointee.deviceBuffer != nil { slot.pointee.freeBuffers() }
    if slot.pointee.isQueued { finishQueued(slot) } else { finishSingle(slot) }
  }

  // MARK: Commands that are not queued

  private func finishSingle(_ slot: UnsafeMutablePointer<CommandSlot>) {
    current = nil
    let index = slot.pointee.number
    list?.storeBytes(
      of: UInt32(truncatingIfNeeded: slot.pointee.movedBytes),
      toByteOffset: index * PortLayout.headerBytes + PortLayout.headerByteCount, as: UInt32.self)
    var interrupts = slot.pointee.overflowed ? PortInterrupt.overflow : 0
    if slot.pointee.overflowed { report("slot \(index): the region list is shorter than the data") }
    if slot.pointee.faulted {
      // The command never ends on the link, so PxTFD.STS.BSY stays until a reset (§6.1.1).
      report("slot \(index): a region is not in guest memory")
      return halt(interrupts | PortInterrupt.hostBusFatal)
    }
    if slot.pointee.pio.blockBytes != 0 {
      receivePIOSetup(slot.pointee.pio, slot.pointee.answer)
      if slot.pointee.pio.interrupts { interrupts |= PortInterrupt.pioSetupFIS }
    }
    receiveRegisters(slot.pointee.answer, interrupts: true)
    interrupts |= PortInterrupt.registerFIS
    if slot.pointee.answer.hasFailed {
      interrupts |= PortInterrupt.taskFileError
      isHalted = true
    } else {
      commandIssue &= ~(1 << UInt32(index))
    }
    raise(interrupts)
    takeCommands()
  }

  // MARK: Queued commands

  private func finishQueued(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let bit = UInt32(1) << UInt32(slot.pointee.number)
    queued &= ~bit
    if slot.pointee.overflowed || slot.pointee.faulted || slot.pointee.answer.hasFailed { return failQueued(slot) }
    finished |= bit
    publisher.deferToBatchEnd()
  }

  /// The end of a queued command that failed. The device stops working on all others (SATA 3.3 §13.6.3.1), whose bits
  /// stay in PxSACT with its own.
  @inline(never)
  private func failQueued(_ slot: UnsafeMutablePointer<CommandSlot>) {
    publishFinished()
    var interrupts: UInt32 = 0
    if slot.pointee.overflowed {
      report("tag \(slot.pointee.number): the region list is shorter than the data")
      interrupts |= PortInterrupt.overflow
      slot.pointee.fail(ATAError.abort)
    }
    if slot.pointee.faulted {
      report("tag \(slot.pointee.number): a region is not in guest memory")
      abandonCommands()
      return halt(interrupts | PortInterrupt.hostBusFatal)
    }
    device?.queueFailed(slot)
    abandonCommands()
    isHalted = true
    receiveDeviceBits(status: slot.pointee.answer.status, error: slot.pointee.answer.error, finished: 0)
    raise(interrupts | PortInterrupt.setDeviceBitsFIS | PortInterrupt.taskFileError)
  }

  /// One set-device-bits FIS and one interrupt for all queued commands that are done (SATA 3.3 §10.5.7).
  func publishFinished() {
    let bits = finished
    if bits == 0 { return }
    finished = 0
    receiveDeviceBits(status: ATAStatus.good, error: 0, finished: bits)
    interruptStatusGains(PortInterrupt.setDeviceBitsFIS)
    sataActive &= ~bits
    takeCommands()
  }

  // MARK: Received FISes

  /// A register FIS from the device: into the area, PxTFD and PxSIG's neighbours (§4.2.1).
  func receiveRegisters(_ registers: TaskFile, interrupts: Bool) {
    taskFileStatus = registers.status
    taskFileError = registers.error
    guard let received else { return }
    storeRegisters(
      received + PortLayout.registerFIS, type: FISType.registerD2H, flags: interrupts ? 0x40 : 0, registers)
  }

  private func receivePIOSetup(_ setup: PIOSetup, _ registers: TaskFile) {
    guard let received else { return }
    let fis = received + PortLayout.pioSetupFIS
    var before = registers
    before.status = ATAStatus.good | ATAStatus.dataRequest
    storeRegisters(
      fis, type: FISType.pioSetup, flags: (setup.isInput ? 0x20 : 0) | (setup.interrupts ? 0x40 : 0), before)
    // The status after the block, and the block's length (SATA 3.3 §10.5.11).
    fis.storeBytes(of: registers.status, toByteOffset: 15, as: UInt8.self)
    fis.storeBytes(of: setup.blockBytes, toByteOffset: 16, as: UInt16.self)
  }

  @inline(__always)
  private func storeRegisters(_ fis: UnsafeMutableRawPointer, type: UInt8, flags: UInt8, _ registers: TaskFile) {
    let word0 =
      UInt32(type) | UInt32(flags) << 8 | UInt32(registers.status) << 16 | UInt32(registers.error) << 24
    fis.storeBytes(of: word0, as: UInt32.self)
    fis.storeBytes(
      of: UInt32(truncatingIfNeeded: registers.lba & 0xff_ffff) | UInt32(registers.device) << 24, toByteOffset: 4,
      as: UInt32.self)
    fis.storeBytes(of: UInt32(truncatingIfNeeded: registers.lba >> 24 & 0xff_ffff), toByteOffset: 8, as: UInt32.self)
    fis.storeBytes(of: UInt32(registers.count), toByteOffset: 12, as: UInt32.self)
    fis.storeBytes(of: 0, toByteOffset: 16, as: UInt32.self)
  }

  /// A set-device-bits FIS: BSY and DRQ of PxTFD stay as they are (§4.2.1).
  private func receiveDeviceBits(status: UInt8, error: UInt8, finished: UInt32) {
    let changes: UInt8 = 0x77
    taskFileStatus = taskFileStatus & ~changes | status & changes
    taskFileError = error
    guard let received else { return }
    let fis = received + PortLayout.setDeviceBitsFIS
    let word0 =
      UInt32(FISType.setDeviceBits) | 0x4000 | UInt32(status & changes) << 16 | UInt32(error) << 24
    fis.storeBytes(of: word0, as: UInt32.self)
    fis.storeBytes(of: finished, toByteOffset: 4, as: UInt32.self)
  }

  // MARK: Interrupts

  /// Sets bits of PxIS, and interrupts the guest where it wants to know of one that was not set before.
  func raise(_ bits: UInt32) { interruptStatusGains(bits) }

  @inline(__always)
  private func interruptStatusGains(_ bits: UInt32) {
    let isNews = bits & ~interruptStatus & interruptEnable != 0
    // Also where the guest has not acknowledged the one before: it will find this one with it.
    if bits & interruptEnable != 0 { Tracing.record(.interrupt, value: Tracing.tag(of: self)) }
    interruptStatus |= bits
    if isNews { controller.portInterrupts(self) }
  }
}
