// SPDX-License-Identifier: Apache-2.0
// The engine against a scripted kernel: what is submitted when, and every answer to a submission.
import CLinuxAIO
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite final class LinuxAIOEngineTests: LinuxAIOTestCase {
  /// Completes everything that is in the kernel or comes to it, oldest first; the offsets in that order.
  private func completeAll() -> [UInt64] {
    var offsets: [UInt64] = []
    while !kernel.inKernel.isEmpty {
      offsets.append(kernel.inKernel[0].offset)
      kernel.complete(512)
      settle()
    }
    return offsets
  }

  // MARK: Batches

  @Test func longBatchIsSubmittedInPartsSoThatTheDiskStartsEarly() {
    engine.submitBatchMax = 2
    let operations = (0..<5).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    #expect(kernel.taken == [2, 2])
    loop.endBatch()
    #expect(kernel.taken == [2, 2, 1])
  }

  @Test func batchIsOneSubmissionAtItsEnd() {
    loop.beginBatch()
    let operations = reads(100)
    operations.forEach { engine.submit($0.pointer) }
    #expect(kernel.offered.isEmpty)
    loop.endBatch()
    #expect(kernel.offered == [100])
  }

  @Test func fullContextIsSubmittedBeforeTheBatchEnds() {
    let first = reads(28)
    submitInOneBatch(first)
    let operations = reads(200)
    loop.beginBatch()
    operations.prefix(99).forEach { engine.submit($0.pointer) }
    #expect(kernel.offered == [28])
    operations.dropFirst(99).forEach { engine.submit($0.pointer) }
    // 28 in the kernel and 100 queued fill it; the other 100 wait.
    #expect(kernel.offered == [28, 100])
    loop.endBatch()
    #expect(kernel.offered == [28, 100])
    kernel.complete(512)
    kernel.complete(512)
    settle()
    #expect(kernel.offered == [28, 100, 2])
  }

  @Test func operationsBeyondTheContextsSizeAreStartedInOrderAndAllCompletedOnce() {
    let operations = reads(1000)
    submitInOneBatch(operations)
    #expect(kernel.inKernel.count == LinuxAIOEngine.eventsMax)
    #expect(completeAll() == (0..<1000).map { UInt64($0) * 512 })
    #expect(sink.completed.map(\.operation) == operations.map(\.pointer))
    #expect(engine.inFlightCount == 0)
  }

  @Test func completionNeverArrivesFromInsideSubmit() {
    kernel.completeAtOnce = { Int64($0.byteCount) }
    for operation in reads(20) {
      // Outside any batch, so each is submitted, and complete, at once.
      engine.submit(operation.pointer)
      #expect(sink.completed.isEmpty)
    }
    #expect(kernel.taken == Array(repeating: 1, count: 20))
  }

  @Test func ringIsLookedAtAfterASubmissionWithoutASignal() {
    kernel.completeAtOnce = { Int64($0.byteCount) }
    kernel.signals = false
    let operations = reads(3)
    submitInOneBatch(operations)
    #expect(sink.completed.isEmpty)
    loop.runOnce(mayBlock: true)
    #expect(sink.completed.map(\.result) == [0, 0, 0])
  }

  @Test func contextWithoutAReadableRingIsNotLookedAtBeforeItsSignal() {
    let port = ScriptedAIO()
    port.canBePolled = false
    port.completeAtOnce = { Int64($0.byteCount) }
    let other = LinuxAIOEngine(port: port, loop: loop)
    other.submitBatchMax = LinuxAIOEngine.eventsMax
    let operation = TestOperation(.read, sink: sink)
    other.submit(operation.pointer)
    #expect(port.lookCount == 0)
    settle()
    #expect(sink.completed.map(\.result) == [0])
    other.close()
  }

  @Test func signalIsTakenSoTheLoopIsIdleAfterwards() {
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(4096)
    settle()
    #expect(sink.completed.count == 1)
    #expect(!loop.runOnce(mayBlock: false))
  }

  // MARK: Answers to a submission

  @Test func partialSubmissionKeepsTheRestInOrder() {
    kernel.submitAnswers = [1, 3]
    let operations = reads(6)
    submitInOneBatch(operations)
    #expect(kernel.offered == [6, 5, 2])
    #expect(kernel.inKernel.map(\.offset) == (0..<6).map { UInt64($0) * 512 })
  }

  @Test func interruptedSubmissionIsRepeatedAtOnce() {
    kernel.submitAnswers = [-EINTR, -EINTR]
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    #expect(kernel.inKernel.count == 1)
  }

  @Test(arguments: [-EAGAIN, 0])
  func blockedSubmissionIsTriedAgainAfterTheNextCompletionAndNotBefore(answer: Int32) {
    kernel.submitAnswers = [2, answer]
    let operations = reads(5)
    submitInOneBatch(operations)
    #expect(kernel.offered == [5, 3])
    let later = TestOperation(.read, offset: 1 << 20, sink: sink)
    engine.submit(later.pointer)
    settle()
    #expect(kernel.offered == [5, 3])
    kernel.complete(512)
    settle()
    #expect(kernel.offered == [5, 3, 4])
    #expect(kernel.inKernel.map(\.offset) == [512, 1024, 1536, 2048, 1 << 20])
  }

  @Test func fillingTheContextWhileSubmissionIsBlockedDoesNotTryAgain() {
    kernel.submitAnswers = [2, -EAGAIN]
    let operations = reads(5)
    submitInOneBatch(operations)
    let more = reads(130)
    submitInOneBatch(more)
    #expect(kernel.offered == [5, 3])
    kernel.complete(512)
    settle()
    #expect(kernel.inKernel.count == LinuxAIOEngine.eventsMax)
  }

  @Test func blockedSubmissionWithNothingInTheKernelIsTriedAgainAfterAMoment() {
    kernel.submitAnswers = [-EAGAIN, -EAGAIN, -EAGAIN]
    let operations = reads(3)
    submitInOneBatch(operations)
    // Nothing but the timer wakes the loop here.
    while kernel.inKernel.isEmpty { loop.runOnce(mayBlock: true) }
    #expect(kernel.offered == [3, 3, 3, 3])
    #expect(completeAll() == [0, 512, 1024])
    #expect(sink.completed.count == 3)
  }

  @Test func sinkMayWaitForAnOperationThatTheKernelHadNotTaken() {
    kernel.submitAnswers = [1, -EAGAIN]
    let operations = reads(2)
    sink.onCompletion = { [unowned self] operation in
      guard operation == operations[0].pointer else { return }
      kernel.completeAtOnce = { Int64($0.byteCount) }
      while sink.completed.count < 2 { loop.runOnce(mayBlock: true) }
    }
    submitInOneBatch(operations)
    kernel.complete(512)
    settle()
    #expect(sink.completed.map(\.operation) == operations.map(\.pointer))
  }

  @Test(arguments: [-EBADF, -EINVAL, -EFAULT, -ENOMEM, -EPERM])
  func otherAnswerFailsTheFirstOperationAndGoesOnWithTheRest(answer: Int32) {
    kernel.submitAnswers = [1, answer, answer]
    let operations = reads(5)
    submitInOneBatch(operations)
    #expect(kernel.offered == [5, 4, 3, 2])
    #expect(sink.completed.isEmpty)
    settle()
    #expect(sink.completed.map(\.operation) == [operations[1].pointer, operations[2].pointer])
    #expect(sink.completed.map(\.result) == [answer, answer])
    #expect(kernel.inKernel.map(\.offset) == [0, 1536, 2048])
  }

  @Test func refusedOperationsMakeRoomForThoseThatWait() {
    // The timer's one attempt goes through all of them, since each refusal lets the next in.
    kernel.submitAnswers = [-EAGAIN] + Array(repeating: -EBADF, count: 2000)
    let operations = reads(2000)
    submitInOneBatch(operations)
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    #expect(sink.completed.map(\.operation) == operations.map(\.pointer))
    #expect(sink.completed.allSatisfy { $0.result == -EBADF })
    #expect(kernel.offered.count == 2001)
  }

  // MARK: Control blocks

  @Test func controlBlocksSayWhatTheOperationsDo() {
    let read = TestOperation(.read, offset: 8192, pieces: [512, 1024], sink: sink, descriptor: 7)
    let write = TestOperation(.write, offset: 4096, sink: sink, descriptor: 8)
    let forced = TestOperation(.write, sink: sink)
    forced.pointer.pointee.forceUnitAccess = true
    let flush = TestOperation(.flush, offset: 512, pieces: [], sink: sink, descriptor: 9)
    submitInOneBatch([read, write, forced, flush])
    let blocks = kernel.inKernel.map(\.content)
    #expect(
      blocks.map { Int($0.aio_lio_opcode) } == [IOCB_CMD_PREADV, IOCB_CMD_PWRITEV, IOCB_CMD_PWRITEV, IOCB_CMD_FDSYNC])
    #expect(blocks.map(\.aio_fildes) == [7, 8, UInt32.max, 9])
    #expect(blocks.map(\.aio_offset) == [8192, 4096, 0, 0])
    #expect(blocks.map(\.aio_nbytes) == [2, 1, 1, 0])
    #expect(blocks.map(\.aio_rw_flags) == [0, 0, 2, 0])
    #expect(blocks[0].aio_buf == UInt64(UInt(bitPattern: read.iovecs)))
    // The kernel refuses a data sync with a buffer.
    #expect(blocks[3].aio_buf == 0)
    #expect(blocks.allSatisfy { $0.aio_flags == 1 && $0.aio_resfd == UInt32(kernel.descriptor) })
  }

  @Test func discardAndWriteZeroesAreNotForThisEngine() {
    #expect(engine.supports(.read) && engine.supports(.write) && engine.supports(.flush))
    #expect(!engine.supports(.discard) && !engine.supports(.writeZeroes))
    let operations = [IOOpcode.discard, .writeZeroes].map { TestOperation($0, sink: sink) }
    submitInOneBatch(operations)
    settle()
    #expect(sink.completed.map(\.result) == [-EOPNOTSUPP, -EOPNOTSUPP])
    #expect(kernel.offered.isEmpty)
  }

  @Test(arguments: [true, false])
  func flushThatTheKernelDoesNotKnowIsNotSupportedAnyMore(atSubmission: Bool) {
    let flush = TestOperation(.flush, pieces: [], sink: sink)
    let read = TestOperation(.read, sink: sink)
    if atSubmission { kernel.submitAnswers = [-EINVAL] }
    submitInOneBatch([flush, read])
    if !atSubmission { kernel.complete(Int64(-EINVAL)) }
    settle()
    #expect(sink.completed.map(\.result) == [-EINVAL])
    #expect(!engine.supports(.flush))
    #expect(engine.supports(.read))
  }

  @Test func otherErrorsDoNotMakeFlushUnsupported() {
    let flush = TestOperation(.flush, pieces: [], sink: sink)
    let read = TestOperation(.read, sink: sink)
    submitInOneBatch([flush, read])
    kernel.complete(Int64(-EIO))
    kernel.complete(Int64(-EINVAL))
    settle()
    #expect(sink.completed.map(\.result) == [-EIO, -EINVAL])
    #expect(engine.supports(.flush))
  }

  @Test func dataSyncIsProbedByTheAnswerToASubmission() {
    let taking = ScriptedAIO()
    taking.submitAnswers = [-EINTR]
    #expect(LinuxAIOEngine.supportsDataSync(descriptor: 5, port: taking))
    #expect(taking.inKernel[0].opcode == IOCB_CMD_FDSYNC)
    #expect(taking.inKernel[0].content.aio_fildes == 5)
    #expect(taking.isClosed)
    let refusing = ScriptedAIO()
    refusing.submitAnswers = [-EINVAL]
    #expect(!LinuxAIOEngine.supportsDataSync(descriptor: 5, port: refusing))
    #expect(refusing.isClosed)
  }

  // MARK: Fairness, nesting, closing

  @Test func completionsThatKeepComingDoNotKeepTheLoopFromOtherWork() {
    kernel.completeAtOnce = { Int64($0.byteCount) }
    var isOver = false
    sink.onCompletion = { [unowned self] in if !isOver { engine.submit($0) } }
    let operations = reads(16)
    submitInOneBatch(operations)
    let work = OtherWork(loop: loop)
    loop.runOnce(mayBlock: false)
    work.schedule()
    loop.runOnce(mayBlock: false)
    #expect(work.hasRun)
    isOver = true
    settle()
    #expect(engine.inFlightCount == 0)
  }

  @Test func completionsAreDeliveredInPartsOfTheContextsSize() {
    // Without a batch around them the operations complete inside `submit`, so more wait in the ring than one look takes.
    kernel.completeAtOnce = { Int64($0.byteCount) }
    kernel.signals = false
    let operations = reads(300)
    submitInOneBatch(Array(operations.prefix(128)))
    var rounds: [Int] = []
    var next = 128
    sink.onCompletion = { [unowned self] _ in
      // Each completion leaves room for one, which fills the context and is submitted, and complete, at once.
      if next < 300 {
        engine.submit(operations[next].pointer)
        next += 1
      }
    }
    while engine.inFlightCount > 0 {
      let before = sink.completed.count
      loop.runOnce(mayBlock: true)
      rounds.append(sink.completed.count - before)
    }
    #expect(sink.completed.count == 300)
    #expect(rounds.allSatisfy { $0 <= 128 })
  }

  @Test func nestedRoundGoesOnWithTheCompletionsThatTheOuterOneHadNotComeTo() {
    let operations = reads(3)
    sink.onCompletion = { [unowned self] operation in
      guard operation == operations[0].pointer else { return }
      // The signal has been taken by the outer round: the nested ones would sleep for ever if they relied on it.
      while sink.completed.count < 3 { loop.runOnce(mayBlock: true) }
    }
    submitInOneBatch(operations)
    for _ in 0..<3 { kernel.complete(512) }
    settle()
    #expect(sink.completed.map(\.operation) == operations.map(\.pointer))
  }

  @Test func sinkMaySubmitAgainAndWaitForIt() {
    let operation = TestOperation(.read, sink: sink)
    let extra = TestOperation(.flush, pieces: [], sink: sink)
    sink.onCompletion = { [unowned self] completed in
      guard completed == operation.pointer else { return }
      kernel.completeAtOnce = { _ in 0 }
      engine.submit(extra.pointer)
      while sink.completed.count < 2 { loop.runOnce(mayBlock: true) }
    }
    engine.submit(operation.pointer)
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.operation) == [operation.pointer, extra.pointer])
  }

  @Test func closingCompletesEverythingAndEndsTheContext() {
    kernel.submitAnswers = [-EAGAIN]
    let operations = reads(300)
    submitInOneBatch(operations)
    kernel.completeAtOnce = { Int64($0.byteCount) }
    engine.close()
    #expect(Set(sink.completed.map(\.operation)) == Set(operations.map(\.pointer)))
    #expect(sink.completed.count == 300)
    #expect(kernel.isClosed)
    engine.close()
    // The eventfd is not watched any more.
    kernel.signal()
    #expect(!loop.runOnce(mayBlock: false))
  }

  @Test func engineMayGoWithinTheBatchInWhichItWasClosed() throws {
    let port = ScriptedAIO()
    let operation = TestOperation(.read, sink: sink)
    loop.beginBatch()
    do {
      let other = LinuxAIOEngine(port: port, loop: loop)
      other.submitBatchMax = LinuxAIOEngine.eventsMax
      other.submit(operation.pointer)
      other.cancel(operation.pointer)
      other.close()
    }
    loop.endBatch()
    settle()
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    #expect(port.offered.isEmpty)
  }
}
