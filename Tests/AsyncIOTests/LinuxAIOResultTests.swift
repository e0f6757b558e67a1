// SPDX-License-Identifier: Apache-2.0
// The engine against a scripted kernel: what becomes of events, and of operations that are cancelled.
import CLinuxAIO
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite final class LinuxAIOResultTests: LinuxAIOTestCase {
  // MARK: Results

  @Test(arguments: [-EINTR, -EAGAIN])
  func interruptedOperationIsSubmittedAgain(result: Int32) {
    let operation = TestOperation(.write, offset: 4096, sink: sink)
    engine.submit(operation.pointer)
    for _ in 0..<3 {
      kernel.complete(Int64(result))
      settle()
      #expect(kernel.inKernel.map(\.offset) == [4096])
    }
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func unfinishedOperationGoesBeforeThoseThatWait() {
    let operations = reads(130)
    submitInOneBatch(operations)
    kernel.complete(100)
    settle()
    // Its block is still its own: nothing that waited has come in its place.
    #expect(kernel.inKernel.count == 128)
    #expect(kernel.inKernel.last.map { $0.offset == 100 } == true)
    kernel.complete(512)
    settle()
    #expect(kernel.inKernel.last.map { $0.offset == 128 * 512 } == true)
  }

  @Test func shortReadGoesOnWhereItStoppedAcrossIovecs() {
    let operation = TestOperation(.read, offset: 8192, pieces: [512, 1024, 512], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(600)
    settle()
    #expect(kernel.inKernel[0].offset == 8792)
    #expect(kernel.inKernel[0].byteCount == 1448)
    #expect(kernel.inKernel[0].content.aio_nbytes == 2)
    #expect(kernel.inKernel[0].iovecs?[0].iov_base == operation.memory + 600)
    kernel.complete(0)
    settle()
    #expect(sink.completed.map(\.result) == [0])
    #expect(operation.bytes == [UInt8](repeating: 0xaa, count: 600) + [UInt8](repeating: 0, count: 1448))
  }

  @Test func shortWriteGoesOnAndWriteOfNothingIsNoSpace() {
    let operation = TestOperation(.write, sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(512)
    settle()
    #expect(kernel.inKernel[0].byteCount == 3584)
    kernel.complete(0)
    settle()
    #expect(sink.completed.map(\.result) == [-ENOSPC])
  }

  @Test(arguments: [IOOpcode.read, .write, .flush], [-EIO, -ENOSPC, -ECANCELED])
  func errorIsReportedAsItIs(opcode: IOOpcode, result: Int32) {
    let operation = TestOperation(opcode, pieces: opcode == .flush ? [] : [4096], sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(Int64(result))
    settle()
    #expect(sink.completed.map(\.result) == [result])
    #expect(engine.inFlightCount == 0)
  }

  @Test(arguments: [(4096, 0, 0), (4096, 1, 0), (4096, -5, -EIO), (-28, -5, -ENOSPC), (-28, 0, -ENOSPC)])
  func secondResultCountsOnlyAsAnErrorOfWhatSucceeded(first: Int64, second: Int64, expected: Int32) {
    let operation = TestOperation(.write, sink: sink)
    engine.submit(operation.pointer)
    kernel.complete(first, second)
    settle()
    #expect(sink.completed.map(\.result) == [expected])
  }

  @Test func resultHas64Bits() {
    let operation = TestOperation(.read, sink: sink)
    operation.pointer.pointee.byteCount = 1 << 32
    engine.submit(operation.pointer)
    kernel.complete(1 << 32)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func completionsInAnyOrderReachTheirOperations() {
    let operations = reads(8)
    submitInOneBatch(operations)
    let order = [7, 0, 3, 0, 2, 1, 1, 0]
    var left = operations.map(\.pointer)
    let expected = order.map { left.remove(at: $0) }
    for index in order { kernel.complete(512, at: index) }
    settle()
    #expect(sink.completed.map(\.operation) == expected)
  }

  // MARK: Cancelling

  @Test func operationThatWaitsIsCancelledButNotFromInsideCancel() {
    let operations = reads(131)
    submitInOneBatch(operations)
    engine.cancel(operations[129].pointer)
    engine.cancel(operations[129].pointer)
    #expect(sink.completed.isEmpty)
    settle()
    #expect(sink.completed.map(\.operation) == [operations[129].pointer])
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    #expect(kernel.cancelCount == 0)
    kernel.complete(512)
    kernel.complete(512)
    settle()
    let last: [UInt64] = [128 * 512, 130 * 512]
    #expect(kernel.inKernel.suffix(2).map(\.offset) == last)
  }

  @Test(arguments: [0, 1, 2])
  func operationThatIsQueuedIsCancelledAndNeverSubmitted(index: Int) {
    let operations = reads(3)
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    engine.cancel(operations[index].pointer)
    loop.endBatch()
    #expect(kernel.inKernel.map(\.offset) == [0, 512, 1024].filter { $0 != UInt64(index) * 512 })
    settle()
    #expect(sink.completed.map(\.operation) == [operations[index].pointer])
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    #expect(kernel.cancelCount == 0)
  }

  @Test func cancellingWhatIsQueuedMakesRoomForWhatWaits() {
    kernel.submitAnswers = [100, -EAGAIN]
    let operations = reads(129)
    submitInOneBatch(operations)
    // The end of the batch changes nothing: it was submitted, and blocked, when the context was full.
    #expect(kernel.offered == [128, 28])
    engine.cancel(operations[127].pointer)
    kernel.complete(512)
    settle()
    #expect(kernel.inKernel.last.map { $0.offset == 128 * 512 } == true)
    #expect(engine.inFlightCount == 127)
  }

  @Test func cancellingEverythingThatIsBlockedLetsTheNextOperationGo() {
    kernel.submitAnswers = [1, -EAGAIN]
    let operations = reads(3)
    submitInOneBatch(operations)
    engine.cancel(operations[1].pointer)
    engine.cancel(operations[2].pointer)
    let next = TestOperation(.read, offset: 1 << 20, sink: sink)
    engine.submit(next.pointer)
    settle()
    #expect(kernel.inKernel.map(\.offset) == [0, 1 << 20])
    #expect(sink.completed.map(\.result) == [-ECANCELED, -ECANCELED])
  }

  @Test(arguments: [0, -EINPROGRESS])
  func operationThatTheKernelCancelsEndsWithItsEvent(answer: Int32) {
    kernel.cancelAnswer = answer
    let operations = reads(2)
    submitInOneBatch(operations)
    engine.cancel(operations[1].pointer)
    #expect(sink.completed.isEmpty)
    settle()
    #expect(sink.completed.map(\.operation) == [operations[1].pointer])
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    #expect(kernel.cancelCount == 1)
    #expect(engine.inFlightCount == 1)
  }

  @Test(arguments: [-EAGAIN, -EINVAL, -ENOSYS])
  func operationThatTheKernelWillNotCancelCompletesAsIfNothingHadBeenAsked(answer: Int32) {
    kernel.cancelAnswer = answer
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    engine.cancel(operation.pointer)
    settle()
    #expect(sink.completed.isEmpty)
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.result) == [0])
  }

  @Test func cancelledOperationIsNotSubmittedAgain() {
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    engine.cancel(operation.pointer)
    kernel.complete(Int64(-EINTR))
    settle()
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    #expect(kernel.inKernel.isEmpty)
    // The next user of its block is not taken for cancelled.
    let next = TestOperation(.read, sink: sink)
    engine.submit(next.pointer)
    kernel.complete(Int64(-EINTR))
    settle()
    #expect(kernel.inKernel.count == 1)
  }

  @Test func cancelOfWhatHasFailedAlreadyChangesNothing() {
    kernel.submitAnswers = [-EBADF]
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    engine.cancel(operation.pointer)
    settle()
    #expect(sink.completed.map(\.result) == [-EBADF])
    #expect(kernel.cancelCount == 0)
  }
}
