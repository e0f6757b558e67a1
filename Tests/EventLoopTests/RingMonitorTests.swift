// SPDX-License-Identifier: Apache-2.0
// The io_uring monitor against a script that plays the kernel: what it asks for in each system call, and every answer.
import CURing
import Glibc
import HostSystem
import Testing

@testable import EventLoop

/// A ring whose kernel is the test.
private final class PlayedRing: RingPort {
  struct Entry: Equatable {
    var opcode: io_uring_op
    var descriptor: Int32
    var userData: UInt64
    /// POLL_REMOVE: the user data of the entry to be removed.
    var target: UInt64
    static func == (a: Entry, b: Entry) -> Bool { a.userData == b.userData && a.opcode.rawValue == b.opcode.rawValue }
  }
  struct Call: Equatable {
    var toSubmit: UInt32
    var waitFor: UInt32
    var timeoutNs: UInt64?
  }

  let capacity: Int
  private let entries: UnsafeMutablePointer<io_uring_sqe>
  private var filled = 0
  private var visible = 0
  private var taken = 0
  var calls: [Call] = []
  /// Answers of the next calls; after the last one everything is taken.
  var answers: [Int32] = []
  /// What the kernel has and has not completed.
  var inKernel: [Entry] = []
  var completions: [RingCompletion] = []
  var knowsTimeout = true
  /// Runs inside each call that waits: the kernel's turn.
  var onWait: () -> Void = {}

  init(capacity: Int = 128) {
    self.capacity = capacity
    entries = .allocate(capacity: capacity)
    super.init()
  }

  deinit { entries.deallocate() }

  override var takesTimeout: Bool { knowsTimeout }
  override func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? {
    if filled - taken == capacity { return nil }
    let entry = entries + filled % capacity
    entry.initialize(to: io_uring_sqe())
    filled += 1
    return entry
  }
  override func flush() -> UInt32 {
    visible = filled
    return UInt32(visible - taken)
  }
  override func enter(toSubmit: UInt32, waitFor: UInt32, timeoutNs: UInt64?) -> Int32 {
    calls.append(Call(toSubmit: toSubmit, waitFor: waitFor, timeoutNs: timeoutNs))
    let answer = answers.isEmpty ? Int32(toSubmit) : answers.removeFirst()
    if answer > 0 { take(Int(answer)) }
    if waitFor > 0 { onWait() }
    return answer
  }
  private func take(_ count: Int) {
    for _ in 0..<count {
      let entry = entries[taken % capacity]
      taken += 1
      let opcode = io_uring_op(UInt32(entry.opcode))
      inKernel.append(Entry(opcode: opcode, descriptor: entry.fd, userData: entry.user_data, target: entry.addr))
    }
  }
  override var hasCompletions: Bool { !completions.isEmpty }
  override func takeCompletion() -> RingCompletion? { completions.isEmpty ? nil : completions.removeFirst() }

  var polls: [Entry] { inKernel.filter { $0.opcode == IORING_OP_POLL_ADD } }
  var removals: [Entry] { inKernel.filter { $0.opcode == IORING_OP_POLL_REMOVE } }

  func complete(_ entry: Entry, _ result: Int32) {
    inKernel.removeAll { $0 == entry }
    completions.append(RingCompletion(userData: entry.userData, result: result))
  }
  func completePoll(of descriptor: Int32, _ result: Int32) {
    if let entry = polls.first(where: { $0.descriptor == descriptor }) { complete(entry, result) }
  }
}

private final class NotingHandler: DescriptorHandler, @unchecked Sendable {
  var calls = 0
  var onReady: () -> Void = {}
  override func ready() {
    calls += 1
    onReady()
  }
}

private final class NoopClient: RingClient {
  var completed = 0
  override func completed(token: UInt64, result: Int32) { completed += 1 }
}

@Suite struct RingMonitorTests {
  private let loop: EventLoop
  private let kernel = PlayedRing()
  private let ring: LoopRing
  private let input = Int32(POLLIN)

  init() throws {
    loop = try EventLoop(name: "test")
    ring = loop.installAsMonitor(kernel)
    // Arms the notifier, which every loop watches.
    loop.runOnce(mayBlock: false)
    kernel.calls = []
  }

  private func settle() { while loop.runOnce(mayBlock: false) {} }

  @Test func notifierIsArmedBeforeTheLoopSleepsAlsoWhereTheKernelRefusedAFullQueue() throws {
    let client = NoopClient()
    let number = ring.register(client)
    ring.submitBatchMax = 1000
    let event = loop.notifier.event.number
    // While the loop sleeps, a vCPU fills the queue and wakes it; the kernel refuses the next call, and that one only.
    kernel.onWait = { [kernel, ring, loop, input] in
      for token in 0..<LoopRing.entryCount {
        let entry = ring.takeEntry()
        io_uring_prep_nop(entry)
        ring.enqueue(entry, client: number, token: UInt64(token))
      }
      loop.notifier.event.signal()
      kernel.completePoll(of: event, input)
      kernel.answers = [-EAGAIN]
      kernel.onWait = {}
    }
    loop.runOnce(mayBlock: true)
    var sleepsUnarmed = 0
    kernel.onWait = { [kernel] in
      if kernel.calls.last!.timeoutNs == nil && !kernel.polls.contains(where: { $0.descriptor == event }) {
        sleepsUnarmed += 1
      }
    }
    for _ in 0..<3 { loop.runOnce(mayBlock: true) }
    #expect(sleepsUnarmed == 0)
  }

  @Test func oneCallArmsSubmitsAndWaits() throws {
    let client = NoopClient()
    let number = ring.register(client)
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    let entry = ring.takeEntry()
    io_uring_prep_nop(entry)
    loop.beginBatch()
    ring.enqueue(entry, client: number, token: 1)
    loop.endBatch()
    #expect(kernel.calls.isEmpty)
    loop.runOnce(mayBlock: true)
    #expect(kernel.calls == [.init(toSubmit: 2, waitFor: 1, timeoutNs: nil)])
    loop.remove(handler)
  }

  @Test func lookWithNothingToHandOverMakesNoCall() {
    loop.runOnce(mayBlock: false)
    #expect(kernel.calls.isEmpty)
    // Not even where completions wait, which are in memory.
    kernel.completePoll(of: loop.notifier.event.number, input)
    loop.runOnce(mayBlock: false)
    #expect(kernel.calls.isEmpty)
  }

  @Test func pollIsArmedAgainAfterItsEventAndOnlyThen() {
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    settle()
    #expect(kernel.polls.filter { $0.descriptor == 1_000_077 }.count == 1)
    for round in 1...3 {
      kernel.completePoll(of: 1_000_077, input)
      var armedInCallback = 0
      handler.onReady = { armedInCallback = kernel.polls.filter { $0.descriptor == 1_000_077 }.count }
      settle()
      #expect(handler.calls == round)
      #expect(armedInCallback == 0)
      #expect(kernel.polls.filter { $0.descriptor == 1_000_077 }.count == 1)
    }
    loop.remove(handler)
  }

  @Test(arguments: [Int32(POLLIN), -ECANCELED, -EBADF]) func pollThatCompletesAfterItsRemovalReachesNobody(
    result: Int32
  ) {
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    settle()
    let poll = kernel.polls.first { $0.descriptor == 1_000_077 }!
    loop.remove(handler)
    settle()
    #expect(kernel.removals.map(\.target) == [poll.userData])
    // Another handler takes the place, on the same descriptor number, before the kernel answers.
    let next = NotingHandler(descriptor: 1_000_077)
    loop.add(next)
    settle()
    kernel.complete(poll, result)
    kernel.complete(kernel.removals[0], result == Int32(POLLIN) ? -ENOENT : 0)
    settle()
    #expect(handler.calls == 0)
    #expect(next.calls == 0)
    kernel.completePoll(of: 1_000_077, input)
    settle()
    #expect(next.calls == 1)
    loop.remove(next)
    #expect(ring.monitorEntries == ring.inFlightCount + ring.queuedCount)
  }

  @Test func eventThatCrossesItsRemovalIsNotDelivered() {
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    settle()
    kernel.completePoll(of: 1_000_077, input)
    loop.remove(handler)
    settle()
    #expect(handler.calls == 0)
  }

  @Test func pollThatTheKernelCancelledByItselfIsArmedAgain() {
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    settle()
    kernel.completePoll(of: 1_000_077, -ECANCELED)
    settle()
    #expect(handler.calls == 0)
    #expect(kernel.polls.contains { $0.descriptor == 1_000_077 })
    loop.remove(handler)
  }

  @Test func interruptedWaitIsTakenUpAgain() {
    // The signal comes, then nothing, then the event.
    kernel.answers = [-EINTR, 0, 0]
    var waits = 0
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    settle()
    kernel.answers = [-EINTR, 0, 0]
    kernel.onWait = {
      waits += 1
      if waits == 3 { kernel.completePoll(of: 1_000_077, input) }
    }
    while handler.calls == 0 { loop.runOnce(mayBlock: true) }
    #expect(waits == 3)
    loop.remove(handler)
  }

  @Test(arguments: [-EAGAIN, -EBUSY, -EINTR, 0]) func refusedEntriesAreHandedOverLater(answer: Int32) {
    let handler = NotingHandler(descriptor: 1_000_077)
    loop.add(handler)
    kernel.answers = [answer, answer, answer]
    loop.runOnce(mayBlock: false)
    kernel.onWait = { kernel.completePoll(of: 1_000_077, input) }
    while handler.calls == 0 { loop.runOnce(mayBlock: true) }
    // The loop did not sleep for ever over what was refused.
    #expect(
      kernel.calls.allSatisfy { $0.waitFor == 0 || $0.timeoutNs != nil || $0.toSubmit == 0 || $0 == kernel.calls.last })
    loop.remove(handler)
  }

  @Test func partialSubmissionKeepsTheRest() {
    let handlers = (0..<3).map { NotingHandler(descriptor: 1_000_070 + $0) }
    handlers.forEach(loop.add)
    kernel.answers = [1]
    loop.runOnce(mayBlock: false)
    #expect(kernel.polls.filter { $0.descriptor >= 1_000_000 }.map(\.descriptor) == [1_000_070])
    loop.runOnce(mayBlock: false)
    #expect(kernel.polls.filter { $0.descriptor >= 1_000_000 }.map(\.descriptor) == [1_000_070, 1_000_071, 1_000_072])
    handlers.forEach(loop.remove)
  }

  /// The lost wakeup (known failure 53): what a vCPU queues while the loop sleeps is announced, and handed over in pieces, so
  /// that the disk has its first request early; the last piece goes with the wait.
  @Test func whatAVCPUQueuesIsAnnouncedAndHandedOverInPieces() throws {
    let client = NoopClient()
    let number = ring.register(client)
    let notifications = loop.wakeStatistics.notifications
    loop.claim()
    var hasQueued = false
    // Lent to the vCPU's thread while this one waits for it.
    nonisolated(unsafe) let ring = ring
    loop.setSleepHooks(
      before: {
        if hasQueued { return }
        hasQueued = true
        let vcpu = try? HostThread(name: "vcpu") { [loop] in
          loop.beginBatch()
          for token in UInt64(0)..<5 {
            let entry = ring.takeEntry()
            io_uring_prep_nop(entry)
            ring.enqueue(entry, client: number, token: token)
          }
          loop.endBatch()
        }
        vcpu?.join()
      }, after: {})
    loop.runOnce(mayBlock: true)
    #expect(loop.wakeStatistics.notifications == notifications + 5)
    kernel.calls = []
    loop.runOnce(mayBlock: true)
    #expect(kernel.calls.map(\.toSubmit) == [2, 2, 1])
    #expect(kernel.calls.map(\.waitFor) == [0, 0, 1])
    #expect(ring.queuedCount == 0)
    loop.removeSleepHooks()
    loop.release()
    ring.unregister(number)
  }

  @Test func moreHandlersThanTheSubmissionQueueHasEntriesAreAllArmed() {
    let handlers = (0..<300).map { NotingHandler(descriptor: 1_001_000 + $0) }
    handlers.forEach(loop.add)
    loop.runOnce(mayBlock: false)
    #expect(Set(kernel.polls.map(\.descriptor)).isSuperset(of: 1_001_000..<1_001_300))
    handlers.forEach(loop.remove)
    settle()
    #expect(kernel.removals.count == 300)
    // Their entries are not room that I/O would need.
    #expect(ring.hasRoom)
  }

  @Test func fullSubmissionQueueThatTheKernelDoesNotTakeLosesNoHandler() {
    let handlers = (0..<200).map { NotingHandler(descriptor: 1_001_000 + $0) }
    handlers.forEach(loop.add)
    kernel.answers = [-EBUSY, -EBUSY, -EBUSY]
    loop.runOnce(mayBlock: false)
    for _ in 0..<4 { loop.runOnce(mayBlock: false) }
    #expect(Set(kernel.polls.map(\.descriptor)).isSuperset(of: 1_001_000..<1_001_200))
    handlers.forEach(loop.remove)
  }

  @Test func kernelWhoseWaitTakesNoTimeGetsATimeoutEntry() {
    kernel.knowsTimeout = false
    let timer = IdleTimer(loop: loop)
    timer.arm(atNanoseconds: HostClock.nanoseconds + 50_000_000_000)
    kernel.onWait = {
      #expect(kernel.inKernel.contains { $0.opcode == IORING_OP_TIMEOUT })
      for entry in kernel.inKernel where entry.opcode == IORING_OP_TIMEOUT { kernel.complete(entry, -ETIME) }
    }
    loop.runOnce(mayBlock: true)
    #expect(kernel.calls.last?.waitFor == 1)
    settle()
    // Its completion is nobody's.
    #expect(ring.monitorEntries == ring.inFlightCount)
    timer.cancel()
  }

  private final class IdleTimer: LoopTimer {}

  @Test func waitCarriesTheTimeToTheNextTimer() throws {
    let timer = IdleTimer(loop: loop)
    timer.arm(atNanoseconds: HostClock.nanoseconds + 50_000_000_000)
    loop.runOnce(mayBlock: true)
    let timeout = try #require(kernel.calls.last?.timeoutNs)
    #expect(timeout > 0 && timeout <= 50_000_000_000)
    timer.cancel()
  }

  @Test func kernelThatRefusesToPollMakesTheLoopGoOnWithPpoll() throws {
    let event = try EventDescriptor()
    let handler = NotingHandler(descriptor: event.number)
    handler.onReady = { event.consume() }
    loop.add(handler)
    settle()
    kernel.completePoll(of: event.number, -EINVAL)
    settle()
    #expect(loop.monitorInUse == .poll)
    #expect(loop.fallbackReason != nil)
    event.signal()
    while handler.calls == 0 { loop.runOnce(mayBlock: true) }
    // What the old monitor had in the kernel ends without harm.
    kernel.polls.forEach { kernel.complete($0, -ECANCELED) }
    settle()
    #expect(handler.calls == 1)
    loop.remove(handler)
  }

  @Test func nestedRoundGoesOnWithWhatTheOuterOneHasFound() {
    let outer = NotingHandler(descriptor: 1_000_070)
    let inner = NotingHandler(descriptor: 1_000_071)
    loop.add(outer)
    loop.add(inner)
    settle()
    outer.onReady = { while inner.calls == 0 { loop.runOnce(mayBlock: true) } }
    kernel.completePoll(of: 1_000_070, input)
    kernel.completePoll(of: 1_000_071, input)
    settle()
    #expect(outer.calls == 1)
    #expect(inner.calls == 1)
    loop.remove(outer)
    loop.remove(inner)
  }
}
