// SPDX-License-Identifier: Apache-2.0

/// The Power Management feature set (ACS-3 §4, and §7: CHECK POWER MODE, IDLE, STANDBY, SLEEP).
///
/// The drive rests when it is told to, and a command that needs the medium makes it active again. It has no standby timer:
/// IDENTIFY DEVICE word 49 says that the drive manages that itself, and so timer values in the count are accepted and
/// ignored. What was written is flushed before it stands by or sleeps.
extension ATADrive {
  func checkPowerMode(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.answer.count = UInt16(power.rawValue)
    finish(slot)
  }

  func rest(_ slot: UnsafeMutablePointer<CommandSlot>, _ mode: PowerMode) {
    power = mode
    finish(slot)
  }
}
