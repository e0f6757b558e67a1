// SPDX-License-Identifier: Apache-2.0
import Machine

/// The interrupt wiring of a PC's board, for machines whose accelerator has no interrupt controllers: lines go to the two
/// 8259s and to the I/O APIC, whose messages go on to the accelerator like those of devices.
///
/// It takes the place of the accelerator's controller in `Machine.interrupts` and passes everything on to it.
public final class BoardInterrupts: InterruptController, @unchecked Sendable {
  /// The two 8259s.
  public let pics: PICPair
  /// The I/O APIC.
  public let ioapic: IOAPIC
  /// Told of each change of a line's level (`InterruptController.setLine`), before it takes effect. Machine lock held.
  public var onInputChange: (_ line: Int, _ asserted: Bool) -> Void = { _, _ in }

  private static let firstPCILine = 16
  private static let timerLine = 0
  /// The timer's input of the I/O APIC, as firmware's tables tell of PCs (ACPI 6.5, section 5.2.12.5).
  private static let timerInput = 2

  private let accelerator: InterruptController
  private let bridge: ISABridge
  private var levels = [Bool](repeating: false, count: IOAPIC.inputCount)

  /// Puts the controllers into `machine`, whose accelerator is there already. Machine lock held.
  public init(machine: Machine) {
    let accelerator = machine.interrupts
    self.accelerator = accelerator
    bridge = machine.pci.isaBridge
    pics = PICPair()
    ioapic = IOAPIC { accelerator.send($0) }
    super.init()
    machine.add(pics)
    machine.add(ioapic)
    bridge.onRoutesChanged = { [weak self] in self?.updateAllPICInputs() }
    machine.interrupts = self
  }

  public override func makeRoute() -> InterruptRoute { accelerator.makeRoute() }

  public override func send(_ message: MSIMessage) { accelerator.send(message) }

  public override func pinChanged(of function: PCIAddress, pin: UInt8, asserted: Bool) {
    accelerator.pinChanged(of: function, pin: pin, asserted: asserted)
  }

  public override func setLine(_ line: Int, asserted: Bool) {
    guard levels.indices.contains(line), levels[line] != asserted else { return }
    onInputChange(line, asserted)
    levels[line] = asserted
    if line < Self.firstPCILine {
      updatePICInput(line)
    } else if let input = bridge.legacyInput(ofLine: line) {
      updatePICInput(input)
    }
    ioapic.setInput(line == Self.timerLine ? Self.timerInput : line, asserted: asserted)
    accelerator.setLine(line, asserted: asserted)
  }

  /// An input of the 8259s is asserted while its own line is, or one of the PCI lines that are routed to it.
  private func updatePICInput(_ input: Int) {
    let isAsserted =
      levels[input]
      || (Self.firstPCILine..<levels.count).contains { levels[$0] && bridge.legacyInput(ofLine: $0) == input }
    pics.setInput(input, asserted: isAsserted)
  }

  private func updateAllPICInputs() { for input in 0..<PICPair.inputCount { updatePICInput(input) } }
}
