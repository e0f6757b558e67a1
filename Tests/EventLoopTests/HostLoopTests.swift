// SPDX-License-Identifier: Apache-2.0
// A program with a main loop of its own drives the loop; and a thread that the sleeping loop lends its state to (a vCPU).
import CLinux
import CURing
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

/// The host's main loop: it knows of our loop only the four steps.
private struct Host {
  let loop: EventLoop
  var mayWait = true

  func turn() {
    let timeout = loop.prepare()
    var descriptors = loop.descriptorsToPoll()
    var time = timespec(nanoseconds: timeout ?? 0)
    if timeout == nil {
      _ = clinux_ppoll(&descriptors, UInt(descriptors.count), nil, nil)
    } else {
      _ = clinux_ppoll(&descriptors, UInt(descriptors.count), &time, nil)
    }
    if loop.check(descriptors) { loop.dispatch() }
  }
}

private final class NopClient: RingClient {
  var tokens: [UInt64] = []
  override func completed(token: UInt64, result: Int32) { tokens.append(token) }
}

@Suite struct HostLoopTests {
  @Test(arguments: usableMonitors) func hostIsWokenByAnotherThread(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor, isHosted: true)
    let host = Host(loop: loop)
    let rounds = 200
    let work = CountingWork(loop: loop)
    let ran = DispatchGate()
    work.onRun = { ran.open() }
    loop.claim()
    let thread = try HostThread(name: "other") {
      for _ in 0..<rounds {
        work.schedule()
        ran.wait()
      }
    }
    // Without a timer: one lost wakeup and this never ends.
    while work.runs.load(ordering: .relaxed) < rounds { host.turn() }
    thread.join()
    loop.release()
  }

  @Test(arguments: usableMonitors) func hostServesDescriptorsAndTimers(monitor: LoopMonitor) throws {
    final class Timer: LoopTimer {
      var hasFired = false
      override func fired() { hasFired = true }
    }
    let loop = try EventLoop(name: "test", monitor: monitor, isHosted: true)
    let host = Host(loop: loop)
    let event = try EventDescriptor()
    var calls = 0
    loop.addReader(event.number) {
      event.consume()
      calls += 1
    }
    for round in 1...3 {
      event.signal()
      while calls < round { host.turn() }
    }
    let timer = Timer(loop: loop)
    timer.arm(atNanoseconds: HostClock.nanoseconds + 200_000)
    while !timer.hasFired { host.turn() }
    #expect(calls == 3)
    loop.removeReader(event.number)
    loop.release()
  }

  @Test(.enabled(if: usableMonitors.contains(.ioUring), "io_uring is not permitted here"), arguments: usableMonitors)
  func entriesOfTheRingAreSubmittedBeforeTheHostWaitsAndTheirCompletionsWakeIt(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor, isHosted: true)
    let host = Host(loop: loop)
    let ring = try loop.ring()
    let client = NopClient()
    let number = ring.register(client)
    let event = try EventDescriptor()
    for round in 0..<20 {
      let entry = ring.takeEntry()
      io_uring_prep_poll_add(entry, event.number, UInt32(POLLIN))
      ring.enqueue(entry, client: number, token: UInt64(round))
      // The other thread lets the entry complete, while the host sleeps or before.
      let thread = try HostThread(name: "other") { event.signal() }
      while client.tokens.count <= round { host.turn() }
      thread.join()
      event.consume()
    }
    #expect(client.tokens == (0..<20).map { UInt64($0) })
    loop.release()
  }

  @Test(arguments: usableMonitors) func nestedRoundsWorkInsideADispatch(monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor, isHosted: true)
    let host = Host(loop: loop)
    let events = try [EventDescriptor(), EventDescriptor()]
    var inner = 0
    var outer = 0
    loop.addReader(events[0].number) {
      events[0].consume()
      events[1].signal()
      while inner == 0 { loop.runOnce(mayBlock: true) }
      outer += 1
    }
    loop.addReader(events[1].number) {
      events[1].consume()
      inner += 1
    }
    events[0].signal()
    while outer == 0 { host.turn() }
    #expect(inner == 1)
    events.forEach { loop.removeReader($0.number) }
    loop.release()
  }
}

@Suite(.enabled(if: usableMonitors.contains(.ioUring), "io_uring is not permitted here")) struct LentLoopTests {
  /// The machine lock, in small.
  private final class Lock: @unchecked Sendable {
    private let gate = DispatchGate()
    init() { gate.open() }
    func lock() { gate.wait() }
    func unlock() { gate.open() }
  }

  /// What a vCPU thread and the loop share, guarded by the lock.
  private final class Shared: @unchecked Sendable {
    let loop: EventLoop
    let ring: LoopRing
    let client = NopClient()
    let number: UInt64
    init(_ loop: EventLoop) throws {
      self.loop = loop
      ring = try loop.ring()
      number = ring.register(client)
    }
    func queue(_ token: UInt64) {
      loop.beginBatch()
      let entry = ring.takeEntry()
      io_uring_prep_nop(entry)
      ring.enqueue(entry, client: number, token: token)
      loop.endBatch()
    }
  }

  @Test(arguments: usableMonitors)
  func entryThatAVCPUQueuesUnderTheLockWakesTheLoopWhichSubmitsIt(monitor: LoopMonitor) throws {
    // QEMU's lost wakeup: the loop has no timer, so an entry that nobody announces would stay for ever.
    let loop = try EventLoop(name: "test", monitor: monitor)
    let shared = try Shared(loop)
    let lock = Lock()
    let rounds = 500
    lock.lock()
    loop.claim()
    loop.setSleepHooks(before: { lock.unlock() }, after: { lock.lock() })
    let vcpu = try HostThread(name: "vcpu") {
      for round in 0..<rounds {
        lock.lock()
        // The loop has been woken and wants the lock to submit what is queued.
        while !shared.ring.hasRoom {
          lock.unlock()
          sched_yield()
          lock.lock()
        }
        let submitted = shared.ring.submitCount
        shared.queue(UInt64(round))
        // The vCPU itself does not enter the kernel for it.
        #expect(shared.ring.submitCount == submitted)
        lock.unlock()
      }
    }
    while shared.client.tokens.count < rounds { loop.runOnce(mayBlock: true) }
    #expect(shared.client.tokens == (0..<rounds).map { UInt64($0) })
    lock.unlock()
    vcpu.join()
    loop.removeSleepHooks()
    loop.release()
  }
}
