// SPDX-License-Identifier: Apache-2.0
import CLinux
import GuestDrivers
import HostSystem
import Machine
import Synchronization

/// Virtual processors without a processor: a guest program compiled into this process runs on a thread of its own, and
/// each of its accesses takes the path of an exit. It runs where there is no KVM, and is what benchmarks use, because it
/// costs almost nothing itself.
public final class HostedAccelerator: VCPUGroup, @unchecked Sendable {
  /// The first vector that programs may have; below are the processor's exceptions and the old interrupt lines.
  private static let firstVector: UInt32 = 0x30
  private static let lastVector: UInt32 = 0xfe
  /// Programs allocate from here up, clear of what a PC keeps in its first megabyte.
  private static let allocationStart: UInt64 = 1 << 20

  /// At most so many processors: an MSI address has eight bits for one, and 0xff is not a single one.
  public static let processorsMax = 255

  /// How many processors the machine has.
  public let processorCount: Int
  unowned(unsafe) let machine: Machine
  let controller: HostedInterruptController
  private let program: @Sendable (HostedBus) -> Void
  /// 1 from `requestStop` on; read by every processor. In memory of its own, so that a bus looks without a call.
  let stopWord: UnsafeMutablePointer<UInt32>

  private struct State {
    var threads: [HostThread] = []
    var started: Set<Int> = []
    var nextFree = HostedAccelerator.allocationStart
    var nextVector: [UInt32]
  }
  private let state: Mutex<State>

  /// Makes processors for `machine` that run `program`, and becomes the machine's interrupt controller.
  ///
  /// The machine outlives the accelerator's threads. `program` runs on processor 0; it starts the others itself.
  public init(machine: Machine, processorCount: Int, program: @escaping @Sendable (HostedBus) -> Void) {
    precondition((1...Self.processorsMax).contains(processorCount), "no such number of processors")
    self.machine = machine
    self.processorCount = processorCount
    self.program = program
    controller = HostedInterruptController(processorCount: processorCount)
    state = Mutex(State(nextVector: Array(repeating: Self.firstVector, count: processorCount)))
    stopWord = .allocate(capacity: 1)
    stopWord.initialize(to: 0)
    machine.interrupts = controller
  }

  deinit { stopWord.deallocate() }

  /// Whether every processor is to unwind.
  var isStopping: Bool { clinux_load32_ordered(stopWord) != 0 }

  /// How often a device has asserted an interrupt line (numbered as `InterruptController.setLine` does). Any thread.
  ///
  /// Hosted programs take message interrupts only; lines are counted, not delivered.
  public func assertions(ofLine line: Int) -> UInt32 { controller.assertions(ofLine: line) }

  // MARK: VCPUGroup

  /// Starts processor 0.
  public func start() throws(SystemError) { try launch(0, program) }

  /// Ends every sleep for a look at the machine's gate. Any thread; any number of times.
  ///
  /// A program comes to the gate with its next access to a device, doorbell, wait or pause; it is waited for until then,
  /// so its accesses to RAM need no look of their own.
  public func kick() { controller.processors.forEach { $0.wake() } }

  /// Makes every wait of the programs return false from now on. Any thread; any number of times.
  public func requestStop() {
    // Pairs with HostedProcessorInterrupts.wait: a processor that has not seen the word there is woken.
    clinux_store32_ordered(stopWord, 1)
    controller.processors.forEach { $0.wake() }
  }

  /// Waits until every processor's thread has ended.
  public func join() {
    // A thread that starts another one enters it here before it ends itself, so an empty list means that none is left.
    while let thread = state.withLock({ $0.threads.popLast() }) { thread.join() }
  }

  // MARK: For buses

  private func launch(_ index: Int, _ program: @escaping @Sendable (HostedBus) -> Void) throws(SystemError) {
    let thread = try HostThread(name: "vcpu-\(index)") { [self] in
      machine.gate.enter()
      if machine.gate.pass() { program(HostedBus(accelerator: self, processor: index)) }
      machine.gate.leave()
    }
    state.withLock { $0.threads.append(thread) }
  }

  func startProcessor(_ index: Int, _ program: @escaping @Sendable (HostedBus) -> Void) -> Bool {
    guard index > 0, index < processorCount, !isStopping else { return false }
    guard state.withLock({ $0.started.insert(index).inserted }) else { return false }
    do {
      try launch(index, program)
      return true
    } catch {
      // The host has no thread for it; the program may ask again.
      state.withLock { _ = $0.started.remove(index) }
      return false
    }
  }

  func allocate(byteCount: UInt64, alignment: UInt64, limit: UInt64) -> UInt64? {
    precondition(alignment > 0 && alignment & (alignment - 1) == 0)
    return state.withLock { state in
      let start = (state.nextFree + alignment - 1) & ~(alignment - 1)
      guard start <= limit, byteCount <= limit - start else { return nil }
      state.nextFree = start + byteCount
      return start
    }
  }

  func allocateVector(processor: Int) -> MessageInterrupt? {
    guard processor >= 0, processor < processorCount else { return nil }
    let vector = state.withLock { state -> UInt32? in
      let next = state.nextVector[processor]
      guard next <= Self.lastVector else { return nil }
      state.nextVector[processor] = next + 1
      return next
    }
    guard let vector else { return nil }
    let message = HostedInterruptController.message(processor: processor, vector: vector)
    return MessageInterrupt(number: vector, address: message.address, data: message.data)
  }
}
