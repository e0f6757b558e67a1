// SPDX-License-Identifier: Apache-2.0
import CGuest

/// The machine itself: every access is the instruction that makes it.
struct MetalBus: SleepingBus {
  func in8(_ port: UInt16) -> UInt8 { cguest_in8(port) }
  func in16(_ port: UInt16) -> UInt16 { cguest_in16(port) }
  func in32(_ port: UInt16) -> UInt32 { cguest_in32(port) }
  func out8(_ port: UInt16, _ value: UInt8) { cguest_out8(port, value) }
  func out16(_ port: UInt16, _ value: UInt16) { cguest_out16(port, value) }
  func out32(_ port: UInt16, _ value: UInt32) { cguest_out32(port, value) }

  func mmioRead8(_ address: UInt64) -> UInt8 { cguest_read8(address) }
  func mmioRead16(_ address: UInt64) -> UInt16 { cguest_read16(address) }
  func mmioRead32(_ address: UInt64) -> UInt32 { cguest_read32(address) }
  func mmioRead64(_ address: UInt64) -> UInt64 { cguest_read64(address) }
  func mmioWrite8(_ address: UInt64, _ value: UInt8) { cguest_write8(address, value) }
  func mmioWrite16(_ address: UInt64, _ value: UInt16) { cguest_write16(address, value) }
  func mmioWrite32(_ address: UInt64, _ value: UInt32) { cguest_write32(address, value) }
  func mmioWrite64(_ address: UInt64, _ value: UInt64) { cguest_write64(address, value) }

  func ramRead8(_ address: UInt64) -> UInt8 { cguest_read8(address) }
  func ramRead16(_ address: UInt64) -> UInt16 { cguest_read16(address) }
  func ramRead32(_ address: UInt64) -> UInt32 { cguest_read32(address) }
  func ramRead64(_ address: UInt64) -> UInt64 { cguest_read64(address) }
  func ramWrite8(_ address: UInt64, _ value: UInt8) { cguest_write8(address, value) }
  func ramWrite16(_ address: UInt64, _ value: UInt16) { cguest_write16(address, value) }
  func ramWrite32(_ address: UInt64, _ value: UInt32) { cguest_write32(address, value) }
  func ramWrite64(_ address: UInt64, _ value: UInt64) { cguest_write64(address, value) }

  func fullBarrier() { cguest_full_barrier() }
  func storeBarrier() { cguest_compiler_barrier() }
  func loadBarrier() { cguest_compiler_barrier() }

  func allocate(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    guard let address = Metal.memory.take(byteCount: byteCount, alignment: alignment) else {
      return nil
    }
    cguest_zero(address, (byteCount + 7) / 8)
    return address
  }

  func allocateInterrupt(processor: Int) -> MessageInterrupt? {
    guard processor >= 0, processor < processorCount, Metal.nextVector < Metal.vectorEnd else {
      return nil
    }
    let vector = Metal.nextVector
    Metal.nextVector += 1
    // Physical destination, fixed delivery, edge (Intel SDM volume 3, §11.11).
    return MessageInterrupt(number: vector, address: LocalAPIC.base | UInt64(processor) << 12, data: vector)
  }

  func interruptCount(_ interrupt: MessageInterrupt) -> UInt32 { cguest_interrupt_count(interrupt.number) }

  func waitForInterrupt(_ interrupt: MessageInterrupt, after seen: UInt32) -> Bool {
    if Metal.isTimerSleeping {
      cguest_start_watchdog()
      Metal.isTimerSleeping = false
    }
    cguest_halt_unless_counted(interrupt.number, seen)
    return true
  }

  /// Halts until the local APIC's timer has counted the time down, once; other interrupts do not end it. Boot processor,
  /// with no other one running, and `Metal.rates` set.
  func sleep(nanoseconds: UInt64) -> Bool {
    let start = ticks
    let needed = Metal.rates.ticks(in: nanoseconds)
    // The next wait for a device puts the watchdog back: a load sleeps more often than it waits.
    if !Metal.isTimerSleeping {
      cguest_stop_watchdog()
      Metal.isTimerSleeping = true
    }
    var elapsed: UInt64 = 0
    // Once around, but for a time that the timer cannot count, or an interrupt that was left from the sleep before.
    while elapsed < needed {
      let seen = cguest_interrupt_count(UInt32(CGUEST_SLEEP_VECTOR))
      cguest_start_timer(Metal.rates.timerCount(in: needed - elapsed))
      repeat {
        cguest_halt_unless_counted(UInt32(CGUEST_SLEEP_VECTOR), seen)
      } while cguest_interrupt_count(UInt32(CGUEST_SLEEP_VECTOR)) == seen
      elapsed = ticks &- start
    }
    return true
  }

  var nanoseconds: UInt64 { Metal.rates.nanoseconds(of: ticks) }

  func relax() -> Bool {
    cguest_pause()
    return true
  }

  var processorCount: Int { Metal.processorCount }

  func startProcessor(_ index: Int, _ program: @escaping @Sendable (MetalBus) -> Void) -> Bool {
    guard index > 0, index < processorCount,
      let stack = Metal.memory.take(byteCount: Metal.processorStackBytes, alignment: 4096)
    else {
      return false
    }
    Metal.processorProgram = program
    cguest_expect_processor(stack + Metal.processorStackBytes)
    cguest_copy_trampoline(Metal.trampoline)
    cguest_full_barrier()
    return LocalAPIC.start(processor: index, page: Metal.trampoline >> 12)
  }

  var ticks: UInt64 { cguest_time_stamp() }
}

/// State of the machine that there is one of; the boot processor alone changes it.
enum Metal {
  /// Vectors for devices: above the exceptions, the watchdog and its neighbours, below the spurious vector.
  static let firstVector: UInt32 = 0x30
  static let vectorEnd: UInt32 = 0xF0
  static let processorStackBytes: UInt64 = 32 << 10
  /// A free page of low memory; entry.S has the same number.
  static let trampoline: UInt64 = 0x8000

  nonisolated(unsafe) static var memory = PhysicalMemory(begin: 0, end: 0)
  nonisolated(unsafe) static var processorCount = 1
  nonisolated(unsafe) static var nextVector = firstVector
  /// How fast the clocks run; set before a program that sleeps begins.
  nonisolated(unsafe) static var rates = ClockRates(ticksPerMs: 0, timerPerMs: 0)
  /// The boot processor's timer is left to `sleep`, and the watchdog is off.
  nonisolated(unsafe) static var isTimerSleeping = false
  /// What the processor that is being started runs; it reads this before it says that it is up.
  nonisolated(unsafe) static var processorProgram: (@Sendable (MetalBus) -> Void)?
}

/// A range of RAM that is handed out from its beginning on.
struct PhysicalMemory {
  var begin: UInt64
  let end: UInt64

  /// Takes memory as it is, not cleared; nil where there is no more.
  mutating func take(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    let address = (begin + alignment - 1) & ~(alignment - 1)
    guard address >= begin, byteCount <= end, address <= end - byteCount else {
      return nil
    }
    begin = address + byteCount
    return address
  }
}

/// The calling processor's local APIC (Intel SDM volume 3, chapter 11).
enum LocalAPIC {
  static let base: UInt64 = 0xFEE0_0000
  static let commandLow: UInt64 = base + 0x300
  static let commandHigh: UInt64 = base + 0x310
  /// INIT, level assert; and STARTUP, whose low byte is the page that the processor starts at.
  static let initialise: UInt32 = 0x4500
  static let startup: UInt32 = 0x4600
  static let deliveryPending: UInt32 = 1 << 12
  /// Between INIT and STARTUP, in ticks: a few milliseconds on real processors.
  static let settleTicks: UInt64 = 10_000_000
  static let settleReadsMax = 10_000
  /// How often STARTUP is sent before the processor counts as dead, and how long each is waited for.
  static let attemptsMax = 3
  static let startTicksMax: UInt64 = 6_000_000_000

  /// Starts a processor in real mode at page number `page` (Intel SDM volume 3, §9.4.4).
  /// - Returns: whether it came up.
  static func start(processor: Int, page: UInt64) -> Bool {
    send(processor, initialise)
    let sent = cguest_time_stamp()
    var reads = 0
    while cguest_time_stamp() &- sent < settleTicks, reads < settleReadsMax {
      cguest_pause()
      reads += 1
    }
    for _ in 0..<attemptsMax {
      send(processor, startup | UInt32(page))
      let start = cguest_time_stamp()
      while cguest_time_stamp() &- start < startTicksMax {
        if cguest_has_answered() != 0 {
          return true
        }
        cguest_pause()
      }
    }
    return false
  }

  private static func send(_ processor: Int, _ command: UInt32) {
    cguest_write32(commandHigh, UInt32(processor) << 24)
    cguest_write32(commandLow, command)
    var reads = 0
    while cguest_read32(commandLow) & deliveryPending != 0, reads < settleReadsMax {
      cguest_pause()
      reads += 1
    }
  }
}
