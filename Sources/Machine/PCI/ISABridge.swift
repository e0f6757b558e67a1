// SPDX-License-Identifier: Apache-2.0

/// The ICH9 LPC bridge, 00:1f.0: where the power management registers are, how PCI interrupt lines go to the 8259s, and
/// the header that tells an enumeration of more functions (ICH9 data sheet, section 13.1).
///
/// Only what these registers decide for others is here; the ports behind PMBASE belong to who sets `onPowerBlockMoved`.
public final class ISABridge: PCIFunction {
  /// Offsets of the registers.
  public enum Register {
    /// PMBASE, 32 bits: ports of the power management block.
    public static let powerBase = 0x40
    /// ACPI_CNTL, 8 bits: whether the block answers, and the input of its interrupt.
    public static let acpiControl = 0x44
    /// PIRQ[A-D]_ROUT, 8 bits each.
    public static let routeA = 0x60
    /// PIRQ[E-H]_ROUT, 8 bits each.
    public static let routeE = 0x68
    /// GEN_PMCON_1, 16 bits.
    public static let powerControl = 0xa0
    /// RCBA, 32 bits: chip set registers in memory.
    public static let rootComplexBase = 0xf0
  }

  private static let acpiEnable: UInt8 = 0x80
  private static let powerBaseMask: UInt32 = 0xff80
  private static let routeDisabled: UInt8 = 0x80
  private static let routeMask: UInt8 = 0x0f

  /// Told where the power management ports are to be, or nil where they do not answer. Machine lock held.
  public var onPowerBlockMoved: (UInt64?) -> Void = { _ in }

  /// Told when the routes of PCI interrupt lines may have changed. Machine lock held.
  public var onRoutesChanged: () -> Void = {}

  init() {
    super.init(
      name: "isa-bridge", address: PCIAddress(device: 0x1f),
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x2918, classCode: 0x060100, revision: 2, subsystemVendor: 0x1af4, subsystem: 0x1100))
    configuration.define(PCIRegister.headerType, UInt8(0x80))
    configuration.define(Register.powerBase, UInt32(1), writeMask: Self.powerBaseMask)
    configuration.define(Register.acpiControl, UInt8(0), writeMask: 0x87)
    for first in [Register.routeA, Register.routeE] {
      configuration.define(
        first, bytes: [UInt8](repeating: Self.routeDisabled, count: 4),
        writeMask: [UInt8](repeating: Self.routeDisabled | Self.routeMask, count: 4))
    }
    configuration.define(Register.powerControl, UInt16(0), writeMask: 0x061f)
    configuration.define(Register.rootComplexBase, UInt32(0), writeMask: 0xffff_c001)
  }

  /// Where the power management ports are; nil where they do not answer. Machine lock held.
  public var powerBlock: UInt64? {
    let base = configuration.load(UInt32.self, at: Register.powerBase) & Self.powerBaseMask
    let control = configuration.load(UInt8.self, at: Register.acpiControl)
    return control & Self.acpiEnable != 0 && base != 0 ? UInt64(base) : nil
  }

  /// The input of the power management interrupt: 9, 10, 11, 20 or 21 (section 13.1.14, SCI_IRQ_SEL). Machine lock held.
  public var powerInterruptLine: Int {
    switch configuration.load(UInt8.self, at: Register.acpiControl) & 7 {
    case 1: 10
    case 2: 11
    case 4: 20
    case 5: 21
    default: 9
    }
  }

  /// The input of the 8259s, 3 to 15, that a PCI interrupt line (16 to 23) goes to; nil where it goes to none: disabled, or
  /// to an input that section 13.1.17 reserves. Machine lock held.
  public func legacyInput(ofLine line: Int) -> Int? {
    let index = line - PCIInterruptPins.firstLine
    guard (0..<PCIInterruptPins.lineCount).contains(index) else { return nil }
    let route = configuration.load(
      UInt8.self, at: index < 4 ? Register.routeA + index : Register.routeE + index - 4)
    let input = Int(route & Self.routeMask)
    return route & Self.routeDisabled != 0 || [0, 1, 2, 8, 13].contains(input) ? nil : input
  }

  public override func configurationWrite(offset: Int, width: Int, value: UInt32) {
    let before = powerBlock
    super.configurationWrite(offset: offset, width: width, value: value)
    if powerBlock != before { onPowerBlockMoved(powerBlock) }
    if (offset..<offset + width).overlaps(Register.routeA..<Register.routeE + 4) { onRoutesChanged() }
  }

  public override func reset() {
    super.reset()
    onPowerBlockMoved(powerBlock)
    onRoutesChanged()
  }
}
