// SPDX-License-Identifier: Apache-2.0
import Machine

/// The 8254 interval timer of a PC, ports 0x40 to 0x43, and the port 0x61 that shows and gates its third counter (ICH9
/// data sheet, sections 13.3 and 13.7.1). It goes by the machine's clock. Machine lock held for everything.
///
/// Counter 0 pulses line 0 when its output rises; the other two have no interrupt. Guests measure other clocks by them.
public final class IntervalTimer: PortDevice {
  /// The first counter's port.
  public static let standardPort: UInt16 = 0x40
  /// Counts in a second.
  public static let frequencyHz: UInt64 = 1_193_182
  /// The interrupt line of counter 0.
  public static let interruptLine = 0

  private static let nsPerSecond: UInt64 = 1_000_000_000
  private static let counterCount = 3
  private static let controlOffset = 3
  /// Interrupts are at least so far apart: a guest must not keep the main loop busy with a count of two.
  private static let interruptIntervalNsMin: UInt64 = 20_000
  private static let readBack = 3

  private var counters = [PITCounter](repeating: PITCounter(), count: IntervalTimer.counterCount)
  private var speaker = SpeakerPort()
  private var alarm: Alarm?
  private lazy var speakerRegisters = SpeakerRegisters(device: self)

  /// Makes the timer; nothing counts before a guest says so.
  public init() {
    super.init(name: "pit", firstPort: IntervalTimer.standardPort, portCount: 4)
  }

  /// Bits of port 0x61 (section 13.7.1).
  private struct SpeakerPort {
    static let gate: UInt8 = 1 << 0
    static let writable: UInt8 = 0x0f
    static let refresh: UInt8 = 1 << 4
    static let output: UInt8 = 1 << 5
    /// The refresh bit changes so often.
    static let refreshNs: UInt64 = 15_085
    static let port: UInt64 = 0x61
    var value: UInt8 = 0
  }

  // MARK: Device

  public override func added(to machine: Machine) {
    super.added(to: machine)
    machine.portSpace.map(speakerRegisters, at: SpeakerPort.port, byteCount: 1)
    alarm = Alarm(device: self, clock: machine.clock)
    reset()
  }

  public override func shutdown() {
    super.shutdown()
    machine?.portSpace.unmap(speakerRegisters)
    alarm?.cancel()
  }

  public override func reset() {
    counters = [PITCounter](repeating: PITCounter(), count: Self.counterCount)
    speaker = SpeakerPort()
    // Port 0x61 holds the third counter's gate down.
    counters[2].setGate(false, at: now)
    armAlarm()
  }

  // MARK: Time

  private var now: UInt64 { Self.ticks(atNanoseconds: machine?.clock.nanoseconds ?? 0) }

  private static func ticks(atNanoseconds time: UInt64) -> UInt64 {
    let product = time.multipliedFullWidth(by: frequencyHz)
    return nsPerSecond.dividingFullWidth((product.high, product.low)).quotient
  }

  private static func nanoseconds(atTicks ticks: UInt64) -> UInt64 {
    let product = ticks.multipliedFullWidth(by: nsPerSecond)
    guard product.high < frequencyHz else { return .max }
    let (quotient, remainder) = frequencyHz.dividingFullWidth((product.high, product.low))
    return remainder == 0 || quotient == .max ? quotient : quotient + 1
  }

  private func armAlarm() {
    guard let machine, let rise = counters[0].nextRise(after: now) else {
      alarm?.cancel()
      return
    }
    let (soonest, overflows) = machine.clock.nanoseconds.addingReportingOverflow(Self.interruptIntervalNsMin)
    alarm?.arm(atNanoseconds: max(Self.nanoseconds(atTicks: rise), overflows ? .max : soonest))
  }

  fileprivate func alarmRang() {
    machine?.interrupts.setLine(Self.interruptLine, asserted: true)
    machine?.interrupts.setLine(Self.interruptLine, asserted: false)
    armAlarm()
  }

  // MARK: Ports

  /// The control port cannot be read.
  public override func portRead(offset: Int, width: Int) -> UInt32 {
    guard width == 1, offset < Self.counterCount else { return UInt32.max }
    return UInt32(counters[offset].read(at: now))
  }

  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    guard width == 1 else { return }
    let byte = UInt8(value)
    if offset == Self.controlOffset { return writeControl(byte) }
    if counters[offset].write(byte, at: now) && offset == 0 { armAlarm() }
  }

  private func writeControl(_ word: UInt8) {
    let select = Int(word >> 6)
    if select == Self.readBack {
      for index in 0..<Self.counterCount where word & 2 << UInt8(index) != 0 {
        // Both bits are low where they ask for something.
        if word & 0x20 == 0 { counters[index].latch(at: now) }
        if word & 0x10 == 0 { counters[index].latchStatus(at: now) }
      }
    } else if word & 0x30 == 0 {
      counters[select].latch(at: now)
    } else {
      counters[select].setControl(word)
      if select == 0 { armAlarm() }
    }
  }

  fileprivate var speakerValue: UInt8 {
    let time = machine?.clock.nanoseconds ?? 0
    return speaker.value | (time / SpeakerPort.refreshNs % 2 == 1 ? SpeakerPort.refresh : 0)
      | (counters[2].output(at: now) ? SpeakerPort.output : 0)
  }

  fileprivate func writeSpeaker(_ value: UInt8) {
    speaker.value = value & SpeakerPort.writable
    counters[2].setGate(value & SpeakerPort.gate != 0, at: now)
  }

  private final class SpeakerRegisters: RegisterBlock {
    // The device owns this block.
    private unowned let device: IntervalTimer
    init(device: IntervalTimer) { self.device = device }
    override func read(offset: UInt64, width: Int) -> UInt64 { UInt64(device.speakerValue) }
    override func write(offset: UInt64, width: Int, value: UInt64) {
      device.writeSpeaker(UInt8(truncatingIfNeeded: value))
    }
  }

  private final class Alarm: MachineTimer {
    // The device cancels the timer before it goes.
    private unowned let device: IntervalTimer
    init(device: IntervalTimer, clock: MachineClock) {
      self.device = device
      super.init(clock: clock)
    }
    override func fired() { device.alarmRang() }
  }
}
