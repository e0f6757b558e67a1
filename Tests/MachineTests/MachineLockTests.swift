// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Machine

@Suite struct MachineLockTests {
  /// A counter that only the lock guards.
  private final class Counter: @unchecked Sendable {
    var value = 0
  }

  @Test(.timeLimit(.minutes(2)))
  func onlyOneThreadAtATimeHoldsIt() throws {
    let lock = MachineLock()
    let counter = Counter()
    try onThreads(4) { index in
      for round in 0..<20_000 {
        lock.lock()
        counter.value += 1
        if index == 0, round % 8 == 0 { lock.yield() }
        lock.unlock()
      }
    }
    #expect(counter.value == 80_000)
    #expect(!lock.isContended)
  }

  @Test func holderKnowsThatItHolds() throws {
    let lock = MachineLock()
    #expect(!lock.isHeld)
    let heldElsewhere = Atomic<Bool>(true)
    try lock.withLock {
      #expect(lock.isHeld)
      lock.preconditionHeld()
      try onThreads(1) { _ in heldElsewhere.store(lock.isHeld, ordering: .relaxed) }
    }
    let wasHeldElsewhere = heldElsewhere.load(ordering: .relaxed)
    #expect(!wasHeldElsewhere)
    #expect(!lock.isHeld)
  }

  @Test(.timeLimit(.minutes(1)))
  func yieldLetsTheWaitingThreadHaveATurn() throws {
    let lock = MachineLock()
    let turns = Atomic<Int>(0)
    lock.lock()
    let thread = try HostThread(name: "waiter") {
      for _ in 0..<50 { lock.withLock { _ = turns.add(1, ordering: .relaxed) } }
    }
    // The waiter may have several turns in one yield, so what is left of its fifty is looked at each time.
    while turns.load(ordering: .relaxed) < 50 {
      while !lock.isContended { sched_yield() }
      let before = turns.load(ordering: .relaxed)
      lock.yield()
      // One yield is enough for one turn at least.
      #expect(turns.load(ordering: .relaxed) > before)
    }
    lock.unlock()
    thread.join()
    #expect(turns.load(ordering: .relaxed) == 50)
  }

  @Test func yieldWithoutWaitersKeepsTheLock() {
    let lock = MachineLock()
    lock.withLock {
      lock.yield()
      #expect(lock.isHeld)
    }
  }

  @Test func lockIsGivenBackWhenTheBodyThrows() {
    struct Failure: Error {}
    let lock = MachineLock()
    #expect(throws: Failure.self) { try lock.withLock { throw Failure() } }
    #expect(!lock.isHeld)
  }
}
