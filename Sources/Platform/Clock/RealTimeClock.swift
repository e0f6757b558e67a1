// SPDX-License-Identifier: Apache-2.0
import GuestMemory
import Machine

/// The real-time clock of a PC with its battery-backed memory (Motorola MC146818A), ports 0x70 and 0x71, line 8.
///
/// It goes by the machine's clock, so it stands while the machine is stopped. What happens as time goes by (updates, the
/// alarm, periods) is worked out when somebody looks, or when an interrupt is due; a clock that nobody looks at costs
/// nothing. The day of the week follows from the date; writes to it change nothing. Machine lock held for everything.
public final class RealTimeClock: PortDevice {
  /// The index port; the data port follows it.
  public static let standardPort: UInt16 = 0x70
  /// The input of the interrupt controllers.
  public static let interruptLine = 8
  /// Bytes of the clock's memory.
  public static let memoryBytes = 128

  private static let nsPerSecond: UInt64 = 1_000_000_000
  /// Update in progress shows so long before an update: 8 ticks of 32768 Hz (data sheet, "Update cycle").
  private static let updateNoticeNs: UInt64 = 8 * nsPerSecond / 32768
  /// The first update comes so long after the divider has been let go (data sheet, "Divider control").
  private static let firstUpdateNs: UInt64 = nsPerSecond / 2
  private static let updateInProgress: UInt8 = 0x80
  /// Register A after power-on as PC firmware sets it: 32768 Hz, a period of 976 microseconds.
  private static let registerADefault: UInt8 = 0x26
  private static let powerIsGood: UInt8 = 0x80
  private static let interruptFlag: UInt8 = 0x80

  private var index: UInt8 = 0
  private var memory = [UInt8](repeating: 0, count: RealTimeClock.memoryBytes)
  // What the clock shows when its own seconds are at 0, in seconds since 1970.
  private var epoch: Int64
  // How far its seconds are ahead of those of the machine's clock; less than one.
  private var phaseNs: UInt64 = 0
  // The time registers while SET or the divider holds them.
  private var held = CalendarTime(secondsSinceEpoch: 0)
  // Flags of register C.
  private var flags: UInt8 = 0
  // How far updates and periods have been accounted for.
  private var seenSecond: UInt64 = 0
  // The tick of the last period's end.
  private var periodStart: UInt64 = 0
  private var nextAlarm: Int64?
  private var timer: Timer?
  private var lineIsAsserted = false

  /// Makes a clock that shows `base` as the machine begins, and tells the guest of its memory and processors.
  public init(base: ClockBase = .utc, memory ram: GuestMemory, processorCount: Int) {
    epoch = base.secondsNow
    super.init(name: "rtc", firstPort: RealTimeClock.standardPort, portCount: 2)
    memory[ClockRegister.a] = Self.registerADefault
    memory[ClockRegister.b] = ClockControl.hours24
    noteMemory(ram)
    memory[0x5f] = UInt8(clamping: processorCount - 1)
    updateAlarm()
  }

  // MARK: Memory sizes, where PC firmware looks for them

  private func noteMemory(_ ram: GuestMemory) {
    let low = ram.regions.filter { $0.end <= 1 << 32 }.map(\.end).max() ?? 0
    let high = ram.regions.filter { $0.start >= 1 << 32 }.reduce(0) { $0 + $1.byteCount }
    let extended = UInt16(clamping: (max(low, 1 << 20) - (1 << 20)) >> 10)
    // KiB below 640 KiB, KiB above 1 MiB (twice), units of 64 KiB above 16 MiB, and above 4 GiB.
    put(UInt16(640), at: 0x15)
    put(extended, at: 0x17)
    put(extended, at: 0x30)
    put(UInt16(clamping: (max(low, 16 << 20) - (16 << 20)) >> 16), at: 0x34)
    for position in 0..<3 { memory[0x5b + position] = UInt8(truncatingIfNeeded: high >> UInt64(16 + 8 * position)) }
  }

  private func put(_ value: UInt16, at address: Int) {
    memory[address] = UInt8(truncatingIfNeeded: value)
    memory[address + 1] = UInt8(value >> 8)
  }

  /// Puts bytes into the memory behind the time registers, for firmware to find; writes to those are ignored. Machine lock
  /// held.
  public func keep(_ bytes: [UInt8], at address: Int) {
    for (position, byte) in bytes.enumerated() {
      let register = address + position
      if register > ClockRegister.d, register != ClockRegister.century, register < Self.memoryBytes {
        memory[register] = byte
      }
    }
  }

  // MARK: Device

  public override func added(to machine: Machine) {
    super.added(to: machine)
    timer = Timer(device: self, clock: machine.clock)
    settle()
  }

  /// The time and the memory are kept by the battery; interrupts are off (data sheet, "RESET").
  public override func reset() {
    index = 0
    memory[ClockRegister.b] &= ~(ClockControl.flags | ClockControl.squareWave)
    flags = 0
    settle()
  }

  public override func shutdown() {
    super.shutdown()
    timer?.cancel()
    if lineIsAsserted { machine?.interrupts.setLine(Self.interruptLine, asserted: false) }
    lineIsAsserted = false
  }

  // MARK: Time

  private var now: UInt64 { machine?.clock.nanoseconds ?? 0 }
  private var isHeld: Bool { memory[ClockRegister.b] & ClockControl.set != 0 || isDividerHeld }
  private var isDividerHeld: Bool { memory[ClockRegister.a] & ClockControl.dividerHeld == ClockControl.dividerHeld }
  private var format: ClockFormat { ClockFormat(registerB: memory[ClockRegister.b]) }
  /// Time by the clock's own seconds.
  private var elapsed: UInt64 { now &+ phaseNs }
  private var shown: Int64 { epoch + Int64(elapsed / Self.nsPerSecond) }

  /// The rate of periods, as a power of two of 32768 Hz ticks (data sheet, table 5); nil for none.
  private var periodShift: UInt64? {
    let select = UInt64(memory[ClockRegister.a] & 0x0f)
    if select == 0 { return nil }
    return select <= 2 ? select + 6 : select - 1
  }

  /// 1953125 / 64 nanoseconds are a tick of 32768 Hz.
  private static func ticks(atNanoseconds time: UInt64) -> UInt64 {
    let product = time.multipliedFullWidth(by: 64)
    return UInt64(1_953_125).dividingFullWidth((product.high, product.low)).quotient
  }

  private static func nanoseconds(atTicks ticks: UInt64) -> UInt64 {
    let (product, overflows) = ticks.multipliedReportingOverflow(by: 1_953_125)
    return overflows ? .max : product / 64 + (product % 64 == 0 ? 0 : 1)
  }

  private func updateAlarm() { nextAlarm = ClockAlarm(memory: memory, format: format).next(after: shown) }

  /// Sets the flags of what has happened since the last look.
  private func catchUp() {
    let second = elapsed / Self.nsPerSecond
    if second > seenSecond && !isHeld {
      flags |= ClockControl.update
      if let alarm = nextAlarm, shown >= alarm {
        flags |= ClockControl.alarm
        updateAlarm()
      }
    }
    seenSecond = second
    guard let shift = periodShift else { return }
    let periods = (max(Self.ticks(atNanoseconds: now), periodStart) - periodStart) >> shift
    if periods > 0 { flags |= ClockControl.periodic }
    periodStart += periods << shift
  }

  /// Brings flags and line to now, and arms the timer for the first interrupt that is still to come.
  fileprivate func settle() {
    catchUp()
    let asserts = flags & memory[ClockRegister.b] & ClockControl.flags != 0
    if asserts != lineIsAsserted {
      lineIsAsserted = asserts
      machine?.interrupts.setLine(Self.interruptLine, asserted: asserts)
    }
    if let deadline = nextInterrupt { timer?.arm(atNanoseconds: deadline) } else { timer?.cancel() }
  }

  /// When a flag is set next whose interrupt is enabled; a flag that is set already is waited for no more.
  private var nextInterrupt: UInt64? {
    let wanted = memory[ClockRegister.b] & ~flags
    var times: [UInt64] = []
    if wanted & ClockControl.periodic != 0, let shift = periodShift {
      times.append(Self.nanoseconds(atTicks: periodStart + (1 << shift)))
    }
    if wanted & ClockControl.update != 0, !isHeld { times.append(start(ofSecond: seenSecond + 1)) }
    if wanted & ClockControl.alarm != 0, !isHeld, let nextAlarm {
      times.append(start(ofSecond: UInt64(max(0, nextAlarm - epoch))))
    }
    return times.min()
  }

  /// By the machine's clock.
  private func start(ofSecond second: UInt64) -> UInt64 {
    let (time, overflows) = second.multipliedReportingOverflow(by: Self.nsPerSecond)
    return overflows ? .max : time - min(time, phaseNs)
  }

  // MARK: Ports

  public override func portRead(offset: Int, width: Int) -> UInt32 {
    // The index port cannot be read on a PC.
    guard offset == 1, width == 1 else { return UInt32.max }
    return UInt32(read(Int(index)))
  }

  /// The index port's highest bit masks the NMI, of which there is none.
  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    guard width == 1 else { return }
    if offset == 0 { index = UInt8(value) & 0x7f } else { write(Int(index), UInt8(value)) }
  }

  private func read(_ register: Int) -> UInt8 {
    switch register {
    case ClockRegister.a:
      let ahead = Self.nsPerSecond - elapsed % Self.nsPerSecond
      return memory[register] | (!isHeld && ahead <= Self.updateNoticeNs ? Self.updateInProgress : 0)
    case ClockRegister.c: return takeFlags()
    case ClockRegister.d: return Self.powerIsGood
    default: return timeRegister(register) ?? memory[register]
    }
  }

  private func takeFlags() -> UInt8 {
    catchUp()
    let value = flags | (flags & memory[ClockRegister.b] & ClockControl.flags != 0 ? Self.interruptFlag : 0)
    flags = 0
    settle()
    return value
  }

  private var timeShown: CalendarTime { isHeld ? held : CalendarTime(secondsSinceEpoch: shown) }

  private func timeRegister(_ register: Int) -> UInt8? {
    let time = timeShown
    switch register {
    case ClockRegister.seconds: return format.encode(time.second)
    case ClockRegister.minutes: return format.encode(time.minute)
    case ClockRegister.hours: return format.encodeHour(time.hour)
    case ClockRegister.weekday: return format.encode(time.weekday)
    case ClockRegister.day: return format.encode(time.day)
    case ClockRegister.month: return format.encode(time.month)
    case ClockRegister.year: return format.encode(time.year % 100)
    case ClockRegister.century: return format.encode(time.year / 100)
    default: return nil
    }
  }

  private func write(_ register: Int, _ value: UInt8) {
    catchUp()
    switch register {
    case ClockRegister.a: writeDivider(value)
    case ClockRegister.b: writeControl(value)
    case ClockRegister.c, ClockRegister.d: return
    case ClockRegister.secondsAlarm, ClockRegister.minutesAlarm, ClockRegister.hoursAlarm:
      memory[register] = value
      updateAlarm()
    case ClockRegister.seconds...ClockRegister.year, ClockRegister.century: writeTime(register, value)
    default: memory[register] = value
    }
    settle()
  }

  /// A divider that is held keeps the time registers; a period of another length begins where the last one ended.
  private func writeDivider(_ value: UInt8) {
    let (hadPeriods, wasHeld, wasDividerHeld) = (periodShift != nil, isHeld, isDividerHeld)
    let time = timeShown
    memory[ClockRegister.a] = value & ~Self.updateInProgress
    if !hadPeriods { periodStart = Self.ticks(atNanoseconds: now) }
    if isHeld && !wasHeld { held = time }
    guard wasDividerHeld, !isDividerHeld else { return }
    phaseNs = (Self.nsPerSecond - (now &+ Self.firstUpdateNs) % Self.nsPerSecond) % Self.nsPerSecond
    seenSecond = elapsed / Self.nsPerSecond
    if !isHeld { show(held) }
  }

  /// SET keeps the time registers from being updated, and turns the interrupt of updates off.
  private func writeControl(_ value: UInt8) {
    let sets = value & ClockControl.set != 0
    if sets { held = timeShown }
    let wasHeld = isHeld
    memory[ClockRegister.b] = sets ? value & ~ClockControl.update : value
    if wasHeld && !isHeld { show(held) }
    updateAlarm()
  }

  private func writeTime(_ register: Int, _ value: UInt8) {
    var time = timeShown
    switch register {
    case ClockRegister.seconds: time.second = format.decode(value)
    case ClockRegister.minutes: time.minute = format.decode(value)
    case ClockRegister.hours: time.hour = format.decodeHour(value)
    case ClockRegister.day: time.day = format.decode(value)
    case ClockRegister.month: time.month = format.decode(value)
    case ClockRegister.year: time.year = time.year / 100 * 100 + format.decode(value)
    case ClockRegister.century: time.year = format.decode(value) * 100 + time.year % 100
    default: return
    }
    held = time
    if !isHeld { show(time) }
  }

  private func show(_ time: CalendarTime) {
    epoch = time.secondsSinceEpoch - Int64(elapsed / Self.nsPerSecond)
    updateAlarm()
  }

  private final class Timer: MachineTimer {
    // The device cancels the timer before it goes.
    private unowned let device: RealTimeClock
    init(device: RealTimeClock, clock: MachineClock) {
      self.device = device
      super.init(clock: clock)
    }
    override func fired() { device.settle() }
  }
}
