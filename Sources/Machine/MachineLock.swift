// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import Synchronization

/// The machine lock: held by the main loop except while it sleeps, and by a vCPU while it handles an exit.
///
/// It guards every device register, the PCI configuration and the address spaces. A vCPU never waits for I/O while it
/// holds it. Not recursive; `preconditionHeld` states the rule where a function needs it.
public final class MachineLock: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  // The holder's thread, for preconditions only; written by the holder.
  private let holder = Atomic<UInt>(0)
  // Threads between asking for the lock and getting it.
  private let waiting = Atomic<Int>(0)
  // How often the lock was taken; written by the holder. `yield` watches it to see that another thread had its turn.
  private let acquisitions = Atomic<UInt>(0)

  /// An unlocked lock.
  public init() { pthread_mutex_init(mutex, nil) }

  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  /// Takes the lock, waiting for it if need be.
  public func lock() {
    if pthread_mutex_trylock(mutex) != 0 {
      waiting.add(1, ordering: .relaxed)
      waitALittle()
      pthread_mutex_lock(mutex)
      // The turn is counted before the wait ends, so that `yield` never sees a moment with neither.
      // Pairs with the acquiring loads in yield().
      acquisitions.add(1, ordering: .releasing)
      waiting.subtract(1, ordering: .releasing)
    }
    holder.store(MachineLock.me, ordering: .relaxed)
  }

  /// Most looks at a lock that another thread has before this one sleeps: some microseconds. Exits and rounds of the loop
  /// are shorter than the way into the kernel and back, and a loop that a doorbell wakes always finds the lock taken.
  private static let looksMax = 100

  private func waitALittle() {
    var looks = 0
    while looks < Self.looksMax && holder.load(ordering: .relaxed) != 0 {
      clinux_pause()
      looks += 1
    }
  }

  /// Gives the lock back. Only the holder may.
  public func unlock() {
    holder.store(0, ordering: .relaxed)
    pthread_mutex_unlock(mutex)
  }

  /// Whether some thread waits for the lock now; the main loop yields then, as the mutex itself is not fair.
  public var isContended: Bool { waiting.load(ordering: .relaxed) > 0 }

  /// Gives the lock to a thread that waits for it, and takes it again afterwards. Only the holder may.
  ///
  /// A mutex may be taken again by the thread that just gave it back, so giving it back is not enough: this waits
  /// until another thread has had it (or none waits any more).
  public func yield() {
    guard isContended else { return }
    let seen = acquisitions.load(ordering: .relaxed)
    unlock()
    // Pairs with the releasing updates in lock().
    while acquisitions.load(ordering: .acquiring) == seen, waiting.load(ordering: .acquiring) > 0 { sched_yield() }
    lock()
  }

  /// Whether the calling thread holds the lock.
  public var isHeld: Bool { holder.load(ordering: .relaxed) == MachineLock.me }

  /// States that the caller must hold the lock.
  public func preconditionHeld() { precondition(isHeld, "the machine lock is not held by this thread") }

  /// Runs `body` with the lock held.
  public func withLock<T>(_ body: () throws -> T) rethrows -> T {
    lock()
    defer { unlock() }
    return try body()
  }

  private static var me: UInt { UInt(pthread_self()) }
}
