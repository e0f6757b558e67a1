// SPDX-License-Identifier: Apache-2.0
// What shakes the wake protocol: random delays around and inside its steps, without a change to the code under test.
import CLinux
import CURing
import Glibc
import HostSystem
import Synchronization

@testable import EventLoop

/// Random pauses of one thread, from a seed (xorshift64).
struct Delays {
  private var state: UInt64

  init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }

  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }

  /// Mostly nothing, often some hundred nanoseconds, sometimes a turn of another thread.
  mutating func pause() {
    let choice = next()
    switch choice & 15 {
    case 0: sched_yield()
    case 1...5: for _ in 0..<(choice >> 8 & 15) { clinux_pause() }
    default: break
    }
  }

  /// As long as a loop takes to wake and to look, or shorter.
  mutating func pauseLonger() {
    let choice = next()
    for _ in 0..<(choice >> 8 & (choice & 1 == 0 ? 15 : 255)) { clinux_pause() }
  }
}

/// The machine lock in small; it knows that somebody waits.
final class LentLock: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let waiting = Atomic<Int>(0)

  init() { pthread_mutex_init(mutex, nil) }
  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  func lock() {
    waiting.add(1, ordering: .relaxed)
    pthread_mutex_lock(mutex)
    waiting.subtract(1, ordering: .relaxed)
  }
  func unlock() { pthread_mutex_unlock(mutex) }
  func tryLock() -> Bool { pthread_mutex_trylock(mutex) == 0 }
  var isContended: Bool { waiting.load(ordering: .relaxed) > 0 }
}

/// A real ring that takes its time: between the loop's look for completions, the flush and the system call.
final class SlowRing: RingPort {
  private let ring: KernelRing
  private var delays: Delays

  init(_ ring: KernelRing, seed: UInt64) {
    self.ring = ring
    delays = Delays(seed: seed)
  }

  override var descriptor: Int32? { ring.descriptor }
  override var takesTimeout: Bool { ring.takesTimeout }
  // By vCPUs too, so without a delay of the loop thread's.
  override func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? { ring.nextEntry() }
  override func flush() -> UInt32 {
    delays.pause()
    return ring.flush()
  }
  override func enter(toSubmit: UInt32, waitFor: UInt32, timeoutNs: UInt64?) -> Int32 {
    delays.pause()
    return ring.enter(toSubmit: toSubmit, waitFor: waitFor, timeoutNs: timeoutNs)
  }
  override var hasCompletions: Bool {
    let answer = ring.hasCompletions
    delays.pause()
    return answer
  }
  override func takeCompletion() -> RingCompletion? {
    delays.pause()
    return ring.takeCompletion()
  }
}

/// A monitor that takes its time between the steps of a wait.
final class SlowMonitor: DescriptorMonitor {
  private let monitor: DescriptorMonitor
  private var delays: Delays

  init(_ monitor: DescriptorMonitor, seed: UInt64) {
    self.monitor = monitor
    delays = Delays(seed: seed)
    super.init(list: monitor.list)
  }

  override var kind: LoopMonitor { monitor.kind }
  override var hasFailed: Bool { monitor.hasFailed }
  override var handsOver: Bool { monitor.handsOver }
  override func update(_ handler: DescriptorHandler) -> UInt32? { monitor.update(handler) }
  override func dropEarly(_ handler: DescriptorHandler) { monitor.dropEarly(handler) }
  override func prepare(timeoutNs: UInt64?) {
    delays.pause()
    monitor.prepare(timeoutNs: timeoutNs)
  }
  override func wait(timeoutNs: UInt64?) {
    delays.pause()
    monitor.wait(timeoutNs: timeoutNs)
  }
  override func collect() {
    delays.pause()
    monitor.collect()
  }
  override func willCall(_ handler: DescriptorHandler) {
    delays.pause()
    monitor.willCall(handler)
  }
  override func retire() { monitor.retire() }
}

// What the signal handler counts with; it may use nothing that takes a lock.
private let interruptCount = Atomic<UInt64>(0)

/// Stops threads for a moment wherever they are, by a signal whose handler only takes time: so also between two steps of
/// the protocol, such as a notifier's exchange of `notified` and its write of the eventfd.
///
/// A signal ends a system call that sleeps, and would so wake a loop that nobody else wakes: the loop holds signals off
/// while it sleeps (`hold`, `letIn`).
final class Interrupter: @unchecked Sendable {
  // Not used by this process for anything else.
  private static let signal = __libc_current_sigrtmax() - 3
  private static let isInstalled: Bool = {
    // Made before the first signal comes.
    interruptCount.store(1, ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in
      let count = interruptCount.wrappingAdd(0x9e37_79b9_7f4a_7c15, ordering: .relaxed).newValue
      if count >> 60 < 4 { sched_yield() }
      for _ in 0..<(count >> 32 & 31) { clinux_pause() }
    }
    action.sa_flags = SA_RESTART
    return sigaction(signal, &action, nil) == 0
  }()

  private let threads = Mutex<[pthread_t]>([])
  private let isOver = Atomic<Bool>(false)
  private var thread: HostThread?
  /// Signals sent.
  private(set) var sent = 0

  init() { precondition(Self.isInstalled) }

  /// Makes the calling thread one that is interrupted. It must not be joined before `stop`.
  func include() { threads.withLock { $0.append(pthread_self()) } }

  func start(seed: UInt64) throws {
    thread = try HostThread(name: "interrupter") { [self] in
      var delays = Delays(seed: seed)
      while !isOver.load(ordering: .acquiring) {
        threads.withLock { known in
          if known.isEmpty { return }
          pthread_kill(known[Int(delays.next() % UInt64(known.count))], Self.signal)
          sent += 1
        }
        // Leaves the processor to those that it stops.
        for _ in 0..<(delays.next() & 3) { sched_yield() }
        for _ in 0..<(delays.next() & 255) { clinux_pause() }
      }
    }
  }

  func stop() {
    isOver.store(true, ordering: .releasing)
    thread?.join()
  }

  /// The calling thread is not interrupted from here on.
  func hold() { mask(SIG_BLOCK) }
  /// And may be again.
  func letIn() { mask(SIG_UNBLOCK) }

  private func mask(_ how: Int32) {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, Self.signal)
    pthread_sigmask(how, &set, nil)
  }
}
