// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import Machine

/// The interrupt counters of one hosted processor, in memory of their own so that any thread may reach them.
///
/// A processor that waits announces it in `waiting`, looks at the counter again and sleeps on `wakeups` (a futex). A
/// device increments the counter, then looks at `waiting`. With a full fence on both sides one of them sees the other.
final class HostedProcessorInterrupts: @unchecked Sendable {
  static let vectorCount = 256
  /// Counts of arrived interrupts, a word for each vector.
  let counters: UnsafeMutablePointer<UInt32>
  /// 1 while the processor is about to sleep or sleeps. Written by it alone.
  private let waiting: UnsafeMutablePointer<UInt32>
  /// The futex: changes with every wakeup.
  private let wakeups: UnsafeMutablePointer<UInt32>

  init() {
    counters = .allocate(capacity: Self.vectorCount)
    counters.initialize(repeating: 0, count: Self.vectorCount)
    waiting = .allocate(capacity: 1)
    waiting.initialize(to: 0)
    wakeups = .allocate(capacity: 1)
    wakeups.initialize(to: 0)
  }

  deinit {
    counters.deallocate()
    waiting.deallocate()
    wakeups.deallocate()
  }

  /// An interrupt arrives. Any thread.
  @inline(__always)
  func raise(_ vector: Int) {
    _ = clinux_add32(counters + vector, 1)
    // Pairs with the fence in `wait`: either we see `waiting`, or the processor sees the counter.
    clinux_fence_full()
    if clinux_load32(waiting) != 0 { wake() }
  }

  /// Ends a sleep, or the next attempt to sleep. Any thread.
  func wake() {
    _ = clinux_add32(wakeups, 1)
    _ = clinux_futex_wake(wakeups, 1)
  }

  /// Sleeps until the vector's count is not `seen`, something wakes the processor, or a second has passed.
  /// The processor's own thread.
  func wait(_ vector: Int, after seen: UInt32, unless isStopping: () -> Bool) {
    let generation = clinux_load32(wakeups)
    clinux_store32(waiting, 1)
    // Pairs with the fence in `raise`, and with the one in HostedAccelerator.requestStop.
    clinux_fence_full()
    if clinux_load32(counters + vector) == seen && !isStopping() {
      // The program gives up on a silent device by itself, so it is let out once a second.
      var second = timespec(tv_sec: 1, tv_nsec: 0)
      _ = clinux_futex_wait(wakeups, generation, &second)
    }
    clinux_store32(waiting, 0)
  }
}

/// Where the interrupts of hosted processors go: messages are decoded as a local APIC does it (address bits 19:12 name
/// the processor, data bits 7:0 the vector; Intel SDM 3A §11.11).
final class HostedInterruptController: InterruptController, @unchecked Sendable {
  private static let apicBase: UInt64 = 0xfee0_0000
  private static let apicMask: UInt64 = 0xfff0_0000
  let processors: [HostedProcessorInterrupts]

  init(processorCount: Int) {
    processors = (0..<processorCount).map { _ in HostedProcessorInterrupts() }
    super.init()
  }

  /// The message that reaches `vector` of `processor`.
  static func message(processor: Int, vector: UInt32) -> MSIMessage {
    MSIMessage(address: apicBase | UInt64(processor) << 12, data: vector)
  }

  /// The target of a message, or nil where no processor listens.
  func target(of message: MSIMessage) -> (processor: HostedProcessorInterrupts, vector: Int)? {
    let processor = Int(message.address >> 12 & 0xff)
    guard message.address & Self.apicMask == Self.apicBase, processor < processors.count else { return nil }
    return (processors[processor], Int(message.data & 0xff))
  }

  override func send(_ message: MSIMessage) {
    if let (processor, vector) = target(of: message) { processor.raise(vector) }
  }

  override func makeRoute() -> InterruptRoute { HostedInterruptRoute(controller: self) }
}

/// A route whose message is decoded when it changes, not when it fires.
final class HostedInterruptRoute: InterruptRoute, @unchecked Sendable {
  // The controller keeps every processor for the machine's life.
  private var processor: Unmanaged<HostedProcessorInterrupts>?
  private var vector = 0

  override func update(_ message: MSIMessage) {
    super.update(message)
    guard let controller = controller as? HostedInterruptController else { return }
    let target = controller.target(of: message)
    processor = target.map { Unmanaged.passUnretained($0.processor) }
    vector = target?.vector ?? 0
  }

  override func fire() { processor?._withUnsafeGuaranteedRef { $0.raise(vector) } }
}
