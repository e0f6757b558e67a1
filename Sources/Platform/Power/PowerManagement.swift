// SPDX-License-Identifier: Apache-2.0
import Machine

/// The power management ports of an ICH9 (data sheet, section 13.8): PM1 events and control, the timer, general purpose
/// events, and the two APM ports.
///
/// They answer where the LPC bridge's PMBASE says, once its ACPI_CNTL enables them. The general purpose events answer at
/// 0xafe0 too, where a PIIX4 board has them. Machine lock held for everything.
public final class PowerManagement: Device {
  /// Ports of the block.
  public static let portCount: UInt64 = 128
  /// The event that tells of functions that come and go (QEMU, docs/specs/acpi_pci_hotplug: GPE.1).
  public static let hotPlugEvent: UInt64 = 1

  /// Offsets of the registers, by 32-bit words (section 13.8.3).
  private enum Register {
    static let events = 0x00
    static let control = 0x04
    static let timer = 0x08
    static let generalEvents = 0x20
    static let generalEventsEnd = 0x30
    static let managementEnable = 0x30
  }

  /// Bits of PM1_STS and PM1_EN.
  private enum Event {
    static let timer: UInt16 = 1 << 0
    static let global: UInt16 = 1 << 5
    static let powerButton: UInt16 = 1 << 8
    static let realTimeClock: UInt16 = 1 << 10
    /// Enables that exist; of these all raise the interrupt.
    static let enables = timer | global | powerButton | realTimeClock
  }

  /// Bits of PM1_CNT.
  private enum Control {
    static let interruptEnable: UInt32 = 1 << 0
    static let kept: UInt32 = 0x1c03
    static let sleepTypeShift: UInt32 = 10
    static let sleepEnable: UInt32 = 1 << 13
    /// Sleep types that mean S5: the ICH9's own, and QEMU's.
    static let softOff: Set<UInt32> = [7, 0]
  }

  private let bridge: ISABridge
  private var status: UInt16 = 0
  private var enabled: UInt16 = 0
  private var control: UInt32 = 0
  private var managementEnable: UInt32 = 0
  private var generalEvents = GeneralPurposeEvents()
  private var timer = PowerTimer()
  private var overflow: OverflowTimer?
  private var assertedLine: Int?
  private lazy var block = PowerBlock(device: self)
  private lazy var eventPorts = EventPorts(device: self)

  /// Makes the ports behind `bridge`, which belongs to the same machine.
  public init(bridge: ISABridge) {
    self.bridge = bridge
    super.init(name: "power-management")
  }

  // MARK: The host's side

  /// Presses the power button: a guest that has enabled the event gets its interrupt.
  public func pressPowerButton() {
    status |= Event.powerButton
    updateInterrupt()
  }

  /// General purpose event `number`, 0 to 63, has happened.
  public func raiseGeneralEvent(_ number: UInt64) {
    precondition(number < 64, "no such event")
    generalEvents.raise(number)
    updateInterrupt()
  }

  /// Whether the guest has taken power management over from the firmware (SCI_EN).
  public var isACPIEnabled: Bool { control & Control.interruptEnable != 0 }

  /// Sets or clears SCI_EN, as firmware does for a guest that asks through the APM port.
  public func setACPI(enabled: Bool) {
    control = enabled ? control | Control.interruptEnable : control & ~Control.interruptEnable
    updateInterrupt()
  }

  // MARK: Device

  public override func added(to machine: Machine) {
    overflow = OverflowTimer(device: self, clock: machine.clock)
    machine.portSpace.map(eventPorts, at: EventPorts.firstPort, byteCount: EventPorts.portCount)
    bridge.onPowerBlockMoved = { [unowned self] base in moveBlock(to: base) }
    moveBlock(to: bridge.powerBlock)
  }

  public override func reset() {
    status = 0
    enabled = 0
    control = 0
    managementEnable = 0
    generalEvents = GeneralPurposeEvents()
    timer.clear(atNanoseconds: now)
    updateInterrupt()
  }

  public override func shutdown() {
    bridge.onPowerBlockMoved = { _ in }
    machine?.portSpace.unmap(block)
    machine?.portSpace.unmap(eventPorts)
    overflow?.cancel()
    releaseLine()
  }

  private func moveBlock(to base: UInt64?) {
    guard let machine else { return }
    machine.portSpace.unmap(block)
    if let base { machine.portSpace.map(block, at: base, byteCount: Self.portCount) }
  }

  private var now: UInt64 { machine?.clock.nanoseconds ?? 0 }

  // MARK: The interrupt

  private var currentStatus: UInt16 { timer.hasOverflowed(atNanoseconds: now) ? status | Event.timer : status }

  /// Without SCI_EN events go to the firmware (SMI), of which there is none.
  private var wantsInterrupt: Bool {
    isACPIEnabled && (currentStatus & enabled & Event.enables != 0 || generalEvents.isPending)
  }

  fileprivate func updateInterrupt() {
    guard let machine else { return }
    let line = bridge.powerInterruptLine
    if assertedLine != nil && (!wantsInterrupt || assertedLine != line) { releaseLine() }
    if wantsInterrupt && assertedLine == nil {
      assertedLine = line
      machine.interrupts.setLine(line, asserted: true)
    }
    if enabled & Event.timer != 0 && !timer.hasOverflowed(atNanoseconds: now) {
      overflow?.arm(atNanoseconds: timer.nextOverflow)
    } else {
      overflow?.cancel()
    }
  }

  private func releaseLine() {
    if let line = assertedLine { machine?.interrupts.setLine(line, asserted: false) }
    assertedLine = nil
  }

  // MARK: Registers

  private func word(_ offset: Int) -> UInt32 {
    switch offset {
    case Register.events: UInt32(currentStatus) | UInt32(enabled) << 16
    case Register.control: control
    case Register.timer: PowerTimer.value(atNanoseconds: now)
    case Register.generalEvents..<Register.generalEventsEnd:
      (0..<4).reduce(UInt32(0)) { value, index in
        value | UInt32(generalEvents.byte(offset - Register.generalEvents + index)) << UInt32(8 * index)
      }
    case Register.managementEnable: managementEnable
    default: 0
    }
  }

  /// Reads any bytes of the block out of its words, each of them read once.
  fileprivate func read(_ offset: Int, _ width: Int) -> UInt32 {
    let start = offset & ~3
    let end = offset + width
    let pair = UInt64(word(start)) | (end > start + 4 ? UInt64(word(start + 4)) << 32 : 0)
    return UInt32(truncatingIfNeeded: pair >> UInt64(8 * (offset - start)))
  }

  fileprivate func write(_ offset: Int, _ width: Int, _ value: UInt32) {
    for index in 0..<width { writeByte(offset + index, UInt8(truncatingIfNeeded: value >> UInt32(8 * index))) }
    updateInterrupt()
  }

  private func writeByte(_ offset: Int, _ value: UInt8) {
    let shift = (offset & 1) * 8
    switch offset {
    case Register.events, Register.events + 1:
      let cleared = UInt16(value) << UInt16(shift)
      status &= ~cleared
      if cleared & Event.timer != 0 { timer.clear(atNanoseconds: now) }
    case Register.events + 2, Register.events + 3:
      enabled = enabled & ~(0xff << UInt16(shift)) | (UInt16(value) << UInt16(shift) & Event.enables)
    case Register.control, Register.control + 1:
      writeControl(UInt32(value) << UInt32(shift), mask: 0xff << UInt32(shift))
    case Register.generalEvents..<Register.generalEventsEnd:
      generalEvents.write(offset - Register.generalEvents, value)
    case Register.managementEnable..<Register.managementEnable + 4:
      let position = UInt32(8 * (offset - Register.managementEnable))
      managementEnable = managementEnable & ~(0xff << position) | UInt32(value) << position
    default: break
    }
  }

  private func writeControl(_ value: UInt32, mask: UInt32) {
    control = control & ~mask | value & Control.kept
    guard value & Control.sleepEnable != 0 else { return }
    // S1 to S4 are not offered: nothing of this machine could wake it.
    if Control.softOff.contains(control >> Control.sleepTypeShift & 7) { machine?.requestShutdown(.powerOff) }
  }

  fileprivate func eventByte(_ index: Int) -> UInt8 { generalEvents.byte(index) }

  fileprivate func writeEventByte(_ index: Int, _ value: UInt8) {
    generalEvents.write(index, value)
    updateInterrupt()
  }
}

/// The block at PMBASE.
private final class PowerBlock: RegisterBlock {
  // The device owns this block.
  private unowned let device: PowerManagement
  init(device: PowerManagement) { self.device = device }

  override func read(offset: UInt64, width: Int) -> UInt64 { UInt64(device.read(Int(offset), width)) }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    device.write(Int(offset), width, UInt32(truncatingIfNeeded: value))
  }
}

/// The first 16 general purpose events at the ports of a PIIX4 board: two bytes of status, two of enables.
private final class EventPorts: RegisterBlock {
  static let firstPort: UInt64 = 0xafe0
  static let portCount: UInt64 = 4
  private static let statusBytes = 2

  // The device owns this block.
  private unowned let device: PowerManagement
  init(device: PowerManagement) { self.device = device }

  private func index(_ position: Int) -> Int {
    position < Self.statusBytes ? position : GeneralPurposeEvents.statusBytes + position - Self.statusBytes
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    (0..<width).reduce(0) { $0 | UInt64(device.eventByte(index(Int(offset) + $1))) << UInt64(8 * $1) }
  }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    for position in 0..<width {
      device.writeEventByte(index(Int(offset) + position), UInt8(truncatingIfNeeded: value >> UInt64(8 * position)))
    }
  }
}

/// Fires when the timer's highest bit changes, for guests that asked for an interrupt then.
private final class OverflowTimer: MachineTimer {
  // The device cancels the timer before it goes.
  private unowned let device: PowerManagement
  init(device: PowerManagement, clock: MachineClock) {
    self.device = device
    super.init(clock: clock)
  }
  override func fired() { device.updateInterrupt() }
}
