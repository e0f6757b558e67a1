// SPDX-License-Identifier: Apache-2.0
// The engine against a scripted kernel: every answer that a kernel can give, at each step.
import CURing
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite struct IOUringEngineTests {
  private let loop: EventLoop
  private let kernel: ScriptedKernel
  private let engine: IOUringEngine
  private let ring: LoopRing
  private let sink = RecordingSink()

  init() throws {
    loop = try EventLoop(name: "test")
    kernel = ScriptedKernel()
    ring = loop.install(kernel)
    engine = IOUringEngine(ring: ring, loop: loop)
  }

  private func settle() { while loop.runOnce(mayBlock: false) {} }

  // MARK: Batches

  @Test func burstBelowTheLimitIsOneSubmission() {
    ring.submitBatchMax = 4
    let operations = (0..<3).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    #expect(kernel.submissions.isEmpty)
    loop.endBatch()
    #expect(kernel.submissions == [3])
  }

  @Test func longBurstIsSubmittedInPartsOfTheLimitAndTheRestAtItsEnd() {
    let limit = 3
    ring.submitBatchMax = 3
    let operations = (0..<limit * 2 + 1).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
    #expect(kernel.submissions == [limit, limit, 1])
  }

  @Test func completionNeverArrivesFromInsideSubmit() {
    kernel.completeAtOnce = { Int32($0.byteCount) }
    let operations = (0..<20).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    for operation in operations {
      engine.submit(operation.pointer)
      #expect(sink.completed.isEmpty)
    }
    loop.endBatch()
    #expect(sink.completed.isEmpty)
    settle()
    #expect(sink.completed.count == 20)
  }

  // MARK: A full ring

  @Test func thousandOperationsOnAFullRingAreAllCompletedOnceAndStartedInOrder() {
    let operations = (0..<1000).map { TestOperation(.read, offset: UInt64($0) * 512, pieces: [512], sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
    #expect(kernel.inKernel.count == Int(LoopRing.entryCount))
    var started: [UInt64] = []
    while !kernel.inKernel.isEmpty {
      started.append(kernel.inKernel[0].offset)
      kernel.complete(512)
      settle()
    }
    #expect(started == (0..<1000).map { UInt64($0) * 512 })
    #expect(sink.completed.map(\.operation) == operations.map(\.pointer))
    #expect(engine.inFlightCount == 0)
  }

  @Test func partialSubmissionLosesNothing() {
    ring.submitBatchMax = 8
    kernel.submitAnswers = [1, 2]
    let operations = (0..<3).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
    #expect(kernel.submissions == [1, 2])
    #expect(kernel.inKernel.map(\.offset) == [0, 4096, 8192])
  }

  @Test(arguments: [-EAGAIN, -EBUSY, -ENOMEM, 0])
  func refusedSubmissionIsTriedAgainInTheNextRound(answer: Int32) {
    kernel.submitAnswers = [answer, answer]
    let operation = TestOperation(.read, sink: sink)
    loop.beginBatch()
    engine.submit(operation.pointer)
    loop.endBatch()
    #expect(kernel.inKernel.isEmpty)
    // The loop does not sleep for ever over it, though nothing can complete.
    while kernel.inKernel.isEmpty { loop.runOnce(mayBlock: true) }
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func interruptedSubmissionIsRepeatedAtOnce() {
    kernel.submitAnswers = [-EINTR, -EINTR]
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    #expect(kernel.inKernel.count == 1)
  }

  // MARK: Results

  @Test(arguments: [-EINTR, -EAGAIN])
  func interruptedOperationIsSubmittedAgain(result: Int32) {
    let operation = TestOperation(.write, offset: 4096, sink: sink)
    engine.submit(operation.pointer)
    for _ in 0..<3 {
      kernel.complete(result)
      settle()
      #expect(kernel.inKernel.map(\.offset) == [4096])
    }
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func shortReadGoesOnWhereItStoppedAcrossIovecs() {
    let operation = TestOperation(.read, offset: 8192, pieces: [512, 1024, 512], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(100)
    settle()
    #expect(kernel.inKernel[0].offset == 8292)
    #expect(kernel.inKernel[0].byteCount == 1948)
    #expect(kernel.inKernel[0].first == operation.memory + 100)
    kernel.complete(1000)
    settle()
    #expect(kernel.inKernel[0].offset == 9292)
    #expect(kernel.inKernel[0].first == operation.memory + 1100)
    kernel.complete(948)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func readOfNothingIsTheEndOfTheFileAndTheRestIsZero() {
    let operation = TestOperation(.read, pieces: [512, 512], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(600)
    settle()
    kernel.complete(0)
    settle()
    #expect(sink.completed.map(\.result) == [0])
    #expect(operation.bytes == [UInt8](repeating: 0xaa, count: 600) + [UInt8](repeating: 0, count: 424))
  }

  @Test func shortWriteGoesOnAndWriteOfNothingIsNoSpace() {
    let operation = TestOperation(.write, pieces: [4096], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(512)
    settle()
    #expect(kernel.inKernel[0].byteCount == 3584)
    kernel.complete(0)
    settle()
    #expect(sink.completed.map(\.result) == [-ENOSPC])
  }

  @Test(arguments: [IOOpcode.read, .write, .flush], [-EIO, -ENOSPC, -EINVAL, -ECANCELED])
  func errorIsReportedAsItIs(opcode: IOOpcode, result: Int32) {
    let operation = TestOperation(opcode, pieces: opcode == .flush ? [] : [4096], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(result)
    settle()
    #expect(sink.completed.map(\.result) == [result])
    #expect(engine.inFlightCount == 0)
  }

  @Test func forcedWriteCarriesDataSyncAndFlushIsADataSync() {
    let write = TestOperation(.write, sink: sink)
    write.pointer.pointee.forceUnitAccess = true
    let plain = TestOperation(.write, sink: sink)
    let flush = TestOperation(.flush, pieces: [], sink: sink)
    for operation in [write, plain, flush] { engine.submit(operation.pointer) }
    #expect(kernel.inKernel[0].flags == 2)
    #expect(kernel.inKernel[1].flags == 0)
    #expect(kernel.inKernel[2].opcode == UInt8(IORING_OP_FSYNC.rawValue))
    #expect(kernel.inKernel[2].flags == 1)
  }

  @Test func completionsInAnyOrderReachTheirOperations() {
    let operations = (0..<8).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    operations.forEach { engine.submit($0.pointer) }
    for index in [7, 0, 3, 0, 2, 1, 1, 0] { kernel.complete(4096, at: index) }
    settle()
    #expect(Set(sink.completed.map(\.operation)) == Set(operations.map(\.pointer)))
    #expect(sink.completed.count == 8)
  }

  @Test func completionsThatKeepComingDoNotKeepTheLoopFromOtherWork() {
    // Page cache hits are like this: complete as soon as they are submitted, and submitted again at once.
    kernel.completeAtOnce = { Int32($0.byteCount) }
    var isOver = false
    sink.onCompletion = { if !isOver { engine.submit($0) } }
    let operations = (0..<16).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    operations.forEach { engine.submit($0.pointer) }
    let work = OtherWork(loop: loop)
    loop.runOnce(mayBlock: false)
    work.schedule()
    loop.runOnce(mayBlock: false)
    #expect(work.hasRun)
    isOver = true
    settle()
    #expect(engine.inFlightCount == 0)
  }

  @Test func callbackMaySubmitAgainAndRunTheLoop() {
    // Nested loops (O1): the inner round delivers the completions that the outer one had not come to.
    let operations = (0..<3).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    let extra = TestOperation(.flush, pieces: [], sink: sink)
    var depth = 0
    sink.onCompletion = { operation in
      guard operation == operations[0].pointer else { return }
      depth += 1
      engine.submit(extra.pointer)
      while sink.completed.count < 3 { loop.runOnce(mayBlock: false) }
      depth -= 1
    }
    operations.forEach { engine.submit($0.pointer) }
    for _ in 0..<3 { kernel.complete(4096) }
    settle()
    #expect(sink.completed.count == 3)
    #expect(depth == 0)
    kernel.complete(0)
    settle()
    #expect(sink.completed.count == 4)
  }
}
