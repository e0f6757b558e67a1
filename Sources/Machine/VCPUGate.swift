// SPDX-License-Identifier: Apache-2.0
import CLinux

/// Where vCPUs stand while the machine is paused.
///
/// Each vCPU's thread is counted from `enter` to `leave`, without the time that it stands in `pass`. The machine closes
/// the gate and waits until the count is 0; from then on no vCPU touches anything. A vCPU that comes through raises the
/// count first and looks at the gate afterwards, the machine closes it first and looks at the count afterwards, all four
/// sequentially consistent, so a vCPU that was missed in the count has seen the closed gate and touches nothing.
public final class VCPUGate: @unchecked Sendable {
  private enum State {
    static let open: UInt32 = 0
    static let closed: UInt32 = 1
    /// The machine ended while the gate was closed: nobody comes through any more, and nobody waits.
    static let shut: UInt32 = 2
  }

  /// Not 0 while nobody may come through; for code that looks very often. Lives as long as the gate.
  public let word: UnsafeMutablePointer<UInt32>
  // vCPU threads that may touch something. A futex: the machine waits on it.
  private let active: UnsafeMutablePointer<UInt32>

  init() {
    word = .allocate(capacity: 1)
    word.initialize(to: State.open)
    active = .allocate(capacity: 1)
    active.initialize(to: 0)
  }

  deinit {
    word.deallocate()
    active.deallocate()
  }

  // MARK: vCPU threads

  /// Whether `pass` has to be called before anything is touched.
  @inlinable @inline(__always)
  public var isClosed: Bool { clinux_load32_ordered(word) != 0 }

  /// A vCPU's thread begins; it looks at the gate before it touches anything.
  public func enter() { _ = clinux_add32_ordered(active, 1) }

  /// A vCPU's thread ends.
  public func leave() { stepBack() }

  /// Waits while the gate is closed. A thread between `enter` and `leave`, which does not hold the machine lock.
  /// - Returns: false where the machine has ended meanwhile: the thread does not do what it was about to do.
  public func pass() -> Bool {
    while true {
      switch clinux_load32_ordered(word) {
      case State.open: return true
      case State.closed: stand()
      default: return false
      }
    }
  }

  private func stand() {
    stepBack()
    // Pairs with the store in setState(): the kernel compares the word once more before it sleeps.
    while clinux_load32_ordered(word) == State.closed { _ = clinux_futex_wait(word, State.closed, nil) }
    _ = clinux_add32_ordered(active, 1)
  }

  private func stepBack() {
    // Adds -1.
    if clinux_add32_ordered(active, .max) == 0 { _ = clinux_futex_wake(active, 1) }
  }

  // MARK: The machine

  /// Nobody comes through from here on.
  func close() { setState(State.closed) }

  /// Lets the vCPUs through.
  func open() { setState(State.open) }

  /// The machine ends. Where the gate is closed, those who stand there give up what they were about to do.
  func end() {
    if isClosed { setState(State.shut) }
  }

  private func setState(_ state: UInt32) {
    clinux_store32_ordered(word, state)
    if state != State.closed { _ = clinux_futex_wake(word, Int32.max) }
  }

  /// Waits until no vCPU may touch anything. The caller does not hold the machine lock, as vCPUs may wait for it.
  func waitUntilAllStand() {
    while true {
      let count = clinux_load32_ordered(active)
      if count == 0 { return }
      _ = clinux_futex_wait(active, count, nil)
    }
  }
}
