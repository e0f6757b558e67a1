// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import Machine

/// The interrupt counters of one hosted processor, and the way to wake it, in memory that any thread may reach.
///
/// A processor that waits announces it in `waiting`, looks at the counter again and sleeps on `wakeups` (a futex). A
/// device increments the counter, then looks at `waiting`. All four accesses are sequentially consistent, so one of the
/// two sees the other: the device wakes, or the processor does not sleep.
final class HostedProcessorInterrupts: @unchecked Sendable {
  static let vectorCount = 256
  /// A program gives up on a silent device by itself, so a wait lets it out after so many seconds.
  /// Changed before processors run only.
  var waitSecondsMax = 1

  /// Counts of arrived interrupts, a word for each vector. The controller owns the memory.
  private let counters: UnsafeMutablePointer<UInt32>
  /// 1 while the processor is about to sleep or sleeps. Written by it alone.
  private let waiting: UnsafeMutablePointer<UInt32>
  /// The futex: changes with every wakeup.
  fileprivate let wakeups: UnsafeMutablePointer<UInt32>

  init(counters: UnsafeMutablePointer<UInt32>) {
    self.counters = counters
    waiting = .allocate(capacity: 1)
    waiting.initialize(to: 0)
    wakeups = .allocate(capacity: 1)
    wakeups.initialize(to: 0)
  }

  deinit {
    waiting.deallocate()
    wakeups.deallocate()
  }

  /// An interrupt arrives. Any thread.
  @inline(__always)
  func raise(_ vector: Int) {
    // Releases what the device wrote before; pairs with the acquiring loads of counters in HostedBus.
    _ = clinux_add32_ordered(counters + vector, 1)
    // Pairs with the store in `wait`: either we see it, or the processor sees the counter.
    if clinux_load32_ordered(waiting) != 0 { wake() }
  }

  /// Ends a sleep, or the next attempt to sleep. Any thread.
  func wake() {
    // Pairs with the load of the generation in `wait`; the kernel compares the word once more before it sleeps.
    _ = clinux_add32_ordered(wakeups, 1)
    _ = clinux_futex_wake(wakeups, 1)
  }

  /// Sleeps until the vector's count is not `seen`, something wakes the processor, or `waitSecondsMax` has passed.
  /// The processor's own thread.
  func wait(_ vector: Int, after seen: UInt32, unless isStopping: () -> Bool) {
    // Loaded first: whoever sets the stop word or closes the gate before it wakes us is either seen below, or has changed
    // this word.
    let generation = clinux_load32_ordered(wakeups)
    // Pairs with the load of `waiting` in `raise`.
    clinux_store32_ordered(waiting, 1)
    if clinux_load32_ordered(counters + vector) == seen && !isStopping() {
      var timeout = timespec(tv_sec: waitSecondsMax, tv_nsec: 0)
      // Whatever ends it (a wakeup, a changed word, a signal, time), the caller looks again.
      _ = clinux_futex_wait(wakeups, generation, &timeout)
    }
    clinux_store32_ordered(waiting, 0)
  }
}

extension HostedProcessorInterrupts {
  /// Sleeps until `deadline` (nanoseconds of the host's clock), unless something wakes the processor. Its own thread.
  func sleep(until deadline: UInt64, unless isStopping: () -> Bool) {
    let nsPerSecond: UInt64 = 1_000_000_000
    let generation = clinux_load32_ordered(wakeups)
    let now = clinux_monotonic_ns()
    guard now < deadline, !isStopping() else { return }
    let left = deadline - now
    var timeout = timespec(tv_sec: Int(left / nsPerSecond), tv_nsec: Int(left % nsPerSecond))
    _ = clinux_futex_wait(wakeups, generation, &timeout)
  }
}

/// Where the interrupts of hosted processors go: messages are decoded as a local APIC does it (Intel SDM 3A §11.11).
///
/// Address bits 31:20 are 0xfee, bits 19:12 name the processor; data bits 10:8 are the delivery mode, of which fixed and
/// lowest priority deliver the vector in bits 7:0. Other messages, and vectors below 16, are lost.
final class HostedInterruptController: InterruptController, @unchecked Sendable {
  private static let vectorMin: UInt32 = 16
  /// Inputs of a PC's I/O APIC.
  static let linesMax = 24

  let processors: [HostedProcessorInterrupts]
  /// A word for each vector of each processor, processor by processor; increments only. Lives as long as this object.
  let counters: UnsafeMutablePointer<UInt32>
  // How often each line was asserted. Written under the machine lock, read by any thread.
  private let lineAssertions: UnsafeMutablePointer<UInt32>
  // Guarded by the machine lock.
  private var lineLevels = [Bool](repeating: false, count: linesMax)

  init(processorCount: Int) {
    let counterCount = processorCount * HostedProcessorInterrupts.vectorCount
    let counters = UnsafeMutablePointer<UInt32>.allocate(capacity: counterCount)
    counters.initialize(repeating: 0, count: counterCount)
    self.counters = counters
    lineAssertions = .allocate(capacity: Self.linesMax)
    lineAssertions.initialize(repeating: 0, count: Self.linesMax)
    processors = (0..<processorCount).map { index in
      HostedProcessorInterrupts(counters: counters + index * HostedProcessorInterrupts.vectorCount)
    }
    super.init()
  }

  deinit {
    counters.deallocate()
    lineAssertions.deallocate()
  }

  /// The message that reaches `vector` of `processor`.
  static func message(processor: Int, vector: UInt32) -> MSIMessage {
    MSIMessage(address: MSIMessage.apicPrefix << 20 | UInt64(processor) << 12, data: vector)
  }

  /// Which processor and vector a message reaches, or nil where it is lost.
  @inline(__always)
  static func decode(_ message: MSIMessage, processorCount: Int) -> (processor: Int, vector: Int)? {
    let processor = Int(truncatingIfNeeded: message.address >> 12 & 0xff)
    let deliveryMode = message.data >> 8 & 7
    let vector = message.data & 0xff
    guard message.isInterrupt, processor < processorCount, deliveryMode <= 1, vector >= vectorMin else { return nil }
    return (processor, Int(vector))
  }

  override func send(_ message: MSIMessage) {
    guard let target = Self.decode(message, processorCount: processors.count) else { return }
    processors[target.processor].raise(target.vector)
  }

  override func makeRoute() -> InterruptRoute { HostedInterruptRoute(controller: self) }

  /// Counts the line's rising edges; hosted processors have no I/O APIC that could deliver them.
  override func setLine(_ line: Int, asserted: Bool) {
    guard lineLevels.indices.contains(line), lineLevels[line] != asserted else { return }
    lineLevels[line] = asserted
    if asserted { _ = clinux_add32_ordered(lineAssertions + line, 1) }
  }

  /// How often a line has been asserted. Any thread.
  func assertions(ofLine line: Int) -> UInt32 {
    (0..<Self.linesMax).contains(line) ? clinux_load32_acquire(lineAssertions + line) : 0
  }
}

/// A route whose message is decoded when it changes, not when it fires.
final class HostedInterruptRoute: InterruptRoute, @unchecked Sendable {
  // The controller keeps every processor for the machine's life, so none of them is counted here.
  private unowned(unsafe) let hosted: HostedInterruptController
  private var processor: Unmanaged<HostedProcessorInterrupts>?
  private var vector = 0

  init(controller: HostedInterruptController) {
    hosted = controller
    super.init(controller: controller)
  }

  override func update(_ message: MSIMessage) {
    super.update(message)
    let target = HostedInterruptController.decode(message, processorCount: hosted.processors.count)
    processor = target.map { Unmanaged.passUnretained(hosted.processors[$0.processor]) }
    vector = target?.vector ?? 0
  }

  override func fire() { processor?._withUnsafeGuaranteedRef { $0.raise(vector) } }
}
