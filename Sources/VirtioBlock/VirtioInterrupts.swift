// SPDX-License-Identifier: Apache-2.0
import CLinux
import Machine
import Tracing

// How the device tells the driver of news: by message, or by the interrupt status register and a line. On the loop, or under
// the machine lock.
extension VirtioBlockDevice {
  /// The used ring of queue `index` has news that the guest wants to hear of.
  @inline(__always)
  func interruptQueue(_ index: Int) {
    if let msix, msix.isEnabled {
      let vector = clinux_load16(vectors + index + 1)
      if vector != Self.noVector { msix.notify(Int(vector)) }
    } else {
      raiseInterruptStatus(1)
    }
  }

  /// The device configuration has changed, or the device has broken.
  func interruptConfiguration(status: UInt8 = 2) {
    if let msix, msix.isEnabled {
      // With messages too the bit is set before the driver is told (§4.1.4.5.1); the pin has nothing to do with it then.
      interruptStatus.bitwiseOr(2, ordering: .relaxed)
      let vector = clinux_load16(vectors)
      if vector != Self.noVector { msix.notify(Int(vector)) }
    } else {
      raiseInterruptStatus(status)
    }
  }

  private func raiseInterruptStatus(_ bit: UInt8) {
    interruptStatus.bitwiseOr(bit, ordering: .relaxed)
    guard let machine else { return }
    if machine.lock.isHeld {
      setLine(asserted: true)
    } else {
      machine.mainLoop.execute { [self] in setLine(asserted: interruptStatus.load(ordering: .relaxed) != 0) }
    }
  }

  /// The interrupt pin, or the line of a place on the board. Machine lock held.
  func setLine(asserted: Bool) {
    guard let slot = options.mmioSlot else { return setInterruptLine(asserted: asserted) }
    machine?.interrupts.setLine(VirtioMMIO.lines[slot], asserted: asserted)
  }

  /// What the interrupt status register of the memory-mapped transport shows.
  var pendingInterruptStatus: UInt8 { interruptStatus.load(ordering: .relaxed) }

  /// The guest has seen these interrupts (§4.2.2, InterruptACK); the line stays while there are others. Machine lock held.
  func acknowledgeInterrupt(_ bits: UInt8) {
    let (_, left) = interruptStatus.bitwiseAnd(~bits, ordering: .relaxed)
    Tracing.record(.acknowledged, value: UInt32(bits))
    setLine(asserted: left != 0)
  }

  /// The guest reads the ISR register, which clears it and the line. Machine lock held.
  func takeInterruptStatus() -> UInt8 {
    let value = interruptStatus.exchange(0, ordering: .relaxed)
    Tracing.record(.acknowledged, value: UInt32(value))
    setLine(asserted: false)
    return value
  }
}
