// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import GuestDrivers
import GuestMemory
import Machine

/// The bus of one hosted processor: a guest program's way to the machine from a thread of this process.
///
/// Port and device-memory accesses take exactly the path of a KVM exit (machine lock, dispatch, device); a write first
/// asks for a doorbell, as KVM's ioeventfd does without an exit. RAM is reached directly, with one comparison: reads
/// outside give all ones, writes outside are lost. Belongs to its processor's thread.
public final class HostedBus: SleepingBus, @unchecked Sendable {
  /// Which processor this is; 0 boots.
  public let processor: Int
  /// Nanoseconds that `waitForInterrupt` spins before it sleeps; 0 for never.
  public var spinNs: UInt64 = 0
  // The accelerator and everything below lives until this processor's thread has ended, so nothing is counted.
  unowned(unsafe) let accelerator: HostedAccelerator
  @usableFromInline let ram: UnsafeMutableRawPointer
  @usableFromInline let ramBytes: UInt64
  private unowned(unsafe) let machine: Machine
  @usableFromInline let counters: UnsafeMutablePointer<UInt32>
  @usableFromInline let stopWord: UnsafeMutablePointer<UInt32>
  @usableFromInline unowned(unsafe) let gate: VCPUGate
  /// The gate's word: a look costs one load.
  @usableFromInline let gateWord: UnsafeMutablePointer<UInt32>
  private unowned(unsafe) let interrupts: HostedProcessorInterrupts

  init(accelerator: HostedAccelerator, processor: Int) {
    self.accelerator = accelerator
    self.processor = processor
    machine = accelerator.machine
    interrupts = accelerator.controller.processors[processor]
    counters = accelerator.controller.counters
    stopWord = accelerator.stopWord
    gate = accelerator.machine.gate
    gateWord = accelerator.machine.gate.word
    let low = accelerator.machine.memory.regions.first { $0.start == 0 }
    guard let low else { preconditionFailure("a machine has RAM at 0") }
    ram = low.host
    ramBytes = low.byteCount
  }

  /// Stands at the machine's gate while that is closed: before all that is no exit, which looks by itself.
  @inlinable @inline(__always)
  func passGate() -> Bool { clinux_load32(gateWord) == 0 || gate.pass() }

  // MARK: Ports

  /// Reads one byte from an I/O port.
  public func in8(_ port: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: machine.exitPortRead(port, width: 1)) }
  /// Reads two bytes from an I/O port.
  public func in16(_ port: UInt16) -> UInt16 { UInt16(truncatingIfNeeded: machine.exitPortRead(port, width: 2)) }
  /// Reads four bytes from an I/O port.
  public func in32(_ port: UInt16) -> UInt32 { machine.exitPortRead(port, width: 4) }
  /// Writes one byte to an I/O port.
  public func out8(_ port: UInt16, _ value: UInt8) { machine.exitPortWrite(port, width: 1, value: UInt32(value)) }
  /// Writes two bytes to an I/O port.
  public func out16(_ port: UInt16, _ value: UInt16) { machine.exitPortWrite(port, width: 2, value: UInt32(value)) }
  /// Writes four bytes to an I/O port.
  public func out32(_ port: UInt16, _ value: UInt32) { machine.exitPortWrite(port, width: 4, value: value) }

  // MARK: Device memory

  private func deviceRead(_ address: UInt64, _ width: Int) -> UInt64 {
    guard let host = machine.memory.pointer(at: address, byteCount: UInt64(width)) else {
      return machine.exitMemoryRead(address, width: width)
    }
    // The address is RAM, which hides devices; the program may not know.
    var value: UInt64 = 0
    memcpy(&value, host, width)
    return value
  }

  private func deviceWrite(_ address: UInt64, _ width: Int, _ value: UInt64) {
    guard passGate() else { return }
    if machine.doorbells.ring(address: address, width: width) { return }
    if let host = machine.memory.pointer(at: address, byteCount: UInt64(width)) {
      var value = value
      memcpy(host, &value, width)
      return
    }
    machine.exitMemoryWrite(address, width: width, value: value)
  }

  /// Reads one byte of device memory.
  public func mmioRead8(_ address: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: deviceRead(address, 1)) }
  /// Reads two bytes of device memory.
  public func mmioRead16(_ address: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: deviceRead(address, 2)) }
  /// Reads four bytes of device memory.
  public func mmioRead32(_ address: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: deviceRead(address, 4)) }
  /// Reads eight bytes of device memory.
  public func mmioRead64(_ address: UInt64) -> UInt64 { deviceRead(address, 8) }
  /// Writes one byte of device memory.
  public func mmioWrite8(_ address: UInt64, _ value: UInt8) { deviceWrite(address, 1, UInt64(value)) }
  /// Writes two bytes of device memory.
  public func mmioWrite16(_ address: UInt64, _ value: UInt16) { deviceWrite(address, 2, UInt64(value)) }
  /// Writes four bytes of device memory.
  public func mmioWrite32(_ address: UInt64, _ value: UInt32) { deviceWrite(address, 4, UInt64(value)) }
  /// Writes eight bytes of device memory.
  public func mmioWrite64(_ address: UInt64, _ value: UInt64) { deviceWrite(address, 8, value) }

  // MARK: RAM

  @inlinable @inline(__always)
  func host(_ address: UInt64, _ width: UInt64) -> UnsafeMutableRawPointer? {
    address <= ramBytes - width ? ram + Int(address) : nil
  }

  /// Reads one byte of RAM.
  @inlinable public func ramRead8(_ address: UInt64) -> UInt8 { host(address, 1).map { clinux_load8($0) } ?? .max }
  /// Reads two bytes of RAM.
  @inlinable public func ramRead16(_ address: UInt64) -> UInt16 { host(address, 2).map { clinux_load16($0) } ?? .max }
  /// Reads four bytes of RAM.
  @inlinable public func ramRead32(_ address: UInt64) -> UInt32 { host(address, 4).map { clinux_load32($0) } ?? .max }
  /// Reads eight bytes of RAM.
  @inlinable public func ramRead64(_ address: UInt64) -> UInt64 { host(address, 8).map { clinux_load64($0) } ?? .max }
  /// Writes one byte of RAM.
  @inlinable public func ramWrite8(_ address: UInt64, _ value: UInt8) {
    if let host = host(address, 1) { clinux_store8(host, value) }
  }
  /// Writes two bytes of RAM.
  @inlinable public func ramWrite16(_ address: UInt64, _ value: UInt16) {
    if let host = host(address, 2) { clinux_store16(host, value) }
  }
  /// Writes four bytes of RAM.
  @inlinable public func ramWrite32(_ address: UInt64, _ value: UInt32) {
    if let host = host(address, 4) { clinux_store32(host, value) }
  }
  /// Writes eight bytes of RAM.
  @inlinable public func ramWrite64(_ address: UInt64, _ value: UInt64) {
    if let host = host(address, 8) { clinux_store64(host, value) }
  }

  /// Full barrier. Pairs with the device's, as the `Bus` protocol says.
  @inlinable public func fullBarrier() { clinux_fence_full() }
  /// Store barrier.
  @inlinable public func storeBarrier() { clinux_fence_release() }
  /// Load barrier.
  @inlinable public func loadBarrier() { clinux_fence_acquire() }

  /// Takes zeroed RAM for DMA.
  public func allocate(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    accelerator.allocate(byteCount: byteCount, alignment: alignment, limit: ramBytes)
  }

  // MARK: Interrupts

  /// Takes a vector of `processor`.
  public func allocateInterrupt(processor: Int) -> MessageInterrupt? {
    accelerator.allocateVector(processor: processor)
  }

  /// How often the interrupt has arrived.
  public func interruptCount(_ interrupt: MessageInterrupt) -> UInt32 {
    let message = MSIMessage(address: interrupt.address, data: interrupt.data)
    guard let target = HostedInterruptController.decode(message, processorCount: accelerator.processorCount) else {
      return 0
    }
    // Pairs with the increment in HostedProcessorInterrupts.raise: what the device wrote before it is visible.
    return clinux_load32_acquire(counters + target.processor * HostedProcessorInterrupts.vectorCount + target.vector)
  }

  /// Lets the processor's thread sleep, which the machine does not notice.
  public func sleep(nanoseconds: UInt64) -> Bool {
    let (sum, overflows) = clinux_monotonic_ns().addingReportingOverflow(nanoseconds)
    let deadline = overflows ? .max : sum
    while mayGoOn, clinux_monotonic_ns() < deadline {
      interrupts.sleep(until: deadline) { isStopping || gate.isClosed }
    }
    return mayGoOn
  }

  /// The host's monotonic clock.
  public var nanoseconds: UInt64 { clinux_monotonic_ns() }

  /// Waits for the interrupt, spinning for `spinNs` first.
  public func waitForInterrupt(_ interrupt: MessageInterrupt, after seen: UInt32) -> Bool {
    let vector = Int(interrupt.number & 0xff)
    // Pairs with the increment in HostedProcessorInterrupts.raise, here and in the loop.
    let counter = counters + processor * HostedProcessorInterrupts.vectorCount + vector
    if spinNs > 0 {
      let start = clinux_monotonic_ns()
      while clinux_load32_acquire(counter) == seen, mayGoOn, clinux_monotonic_ns() - start < spinNs {
        clinux_pause()
      }
    }
    if clinux_load32_acquire(counter) == seen {
      interrupts.wait(vector, after: seen) { accelerator.isStopping || gate.isClosed }
    }
    return mayGoOn
  }

  @inlinable @inline(__always)
  var isStopping: Bool { clinux_load32(stopWord) != 0 }

  /// Stands at the gate while that is closed; false from `requestStop` on.
  @inlinable @inline(__always)
  var mayGoOn: Bool { passGate() && !isStopping }

  /// A pause between two looks at memory.
  @inlinable
  public func relax() -> Bool {
    clinux_pause()
    return mayGoOn
  }

  // MARK: Processors

  /// How many processors the machine has.
  public var processorCount: Int { accelerator.processorCount }

  /// Starts another processor's thread.
  public func startProcessor(_ index: Int, _ program: @escaping @Sendable (HostedBus) -> Void) -> Bool {
    accelerator.startProcessor(index, program)
  }

  /// The time-stamp counter.
  @inlinable public var ticks: UInt64 { clinux_tsc() }
}
