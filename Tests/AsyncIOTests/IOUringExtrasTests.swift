// SPDX-License-Identifier: Apache-2.0
// Cancelling, and what the kernel may know beforehand, against a scripted kernel.
import CURing
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite struct IOUringExtrasTests {
  private let loop: EventLoop
  private let kernel = ScriptedKernel()
  private let engine: IOUringEngine
  private let ring: LoopRing
  private let sink = RecordingSink()
  private let cancelOpcode = UInt8(IORING_OP_ASYNC_CANCEL.rawValue)

  init() throws {
    loop = try EventLoop(name: "test")
    ring = loop.install(kernel)
    engine = IOUringEngine(ring: ring, loop: loop)
  }

  private func settle() { while loop.runOnce(mayBlock: false) {} }

  // MARK: Cancel

  @Test(arguments: [-ECANCELED, -EINTR, -EAGAIN, -EIO, 4096, 100])
  func cancelledOperationCompletesOnceWhoeverWins(answer: Int32) {
    let operation = TestOperation(.read, sink: sink)
    engine.submit(operation.pointer)
    let userData = kernel.inKernel[0].userData
    engine.cancel(operation.pointer)
    #expect(kernel.inKernel[1].opcode == cancelOpcode)
    #expect(kernel.inKernel[1].target == userData)
    #expect(sink.completed.isEmpty)
    kernel.complete(answer)
    kernel.complete(answer == -ECANCELED ? 0 : -ENOENT)
    settle()
    // What would be asked of the kernel again (an interrupted one, a short one) ends as cancelled.
    let expected: Int32 = answer == 4096 ? 0 : answer == -EIO ? -EIO : -ECANCELED
    #expect(sink.completed.map(\.result) == [expected])
    #expect(kernel.inKernel.isEmpty)
    #expect(engine.inFlightCount == 0)
  }

  @Test func operationThatWaitsForRoomIsCancelledWithoutTheKernel() {
    let operations = (0..<130).map { TestOperation(.read, offset: UInt64($0) * 4096, sink: sink) }
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
    engine.cancel(operations[129].pointer)
    // Never from inside the call.
    #expect(sink.completed.isEmpty)
    settle()
    #expect(sink.completed.map(\.operation) == [operations[129].pointer])
    #expect(sink.completed.map(\.result) == [-ECANCELED])
    // A full ring has no room for the question; the operation completes as if nothing had been asked.
    engine.cancel(operations[0].pointer)
    while !kernel.inKernel.isEmpty {
      kernel.complete(4096)
      settle()
    }
    #expect(sink.completed.count == 130)
    #expect(Set(sink.completed.map(\.operation)).count == 130)
  }

  @Test func slotOfACancelledOperationMayBeUsedAgain() {
    let operation = TestOperation(.write, sink: sink)
    engine.submit(operation.pointer)
    engine.cancel(operation.pointer)
    kernel.complete(-ECANCELED)
    settle()
    engine.submit(operation.pointer)
    kernel.complete(0)
    // The second life is not cancelled: it is tried again.
    kernel.complete(-EINTR)
    settle()
    kernel.complete(4096)
    settle()
    #expect(sink.completed.map(\.result) == [-ECANCELED, 0])
  }

  // MARK: Files and buffers

  @Test func attachedFileIsNamedByItsPlaceUntilItIsDetached() {
    engine.attach(descriptor: 50)
    engine.attach(descriptor: 51)
    let operations = [50, 51, 52].map { TestOperation(.flush, pieces: [], sink: sink, descriptor: Int32($0)) }
    operations.forEach { engine.submit($0.pointer) }
    #expect(kernel.inKernel.map(\.isFixed) == [true, true, false])
    #expect(kernel.inKernel.map(\.descriptor) == [0, 1, 52])
    #expect(engine.features.contains("registered files"))
    for _ in 0..<3 { kernel.complete(0) }
    settle()
    engine.detach(descriptor: 50)
    engine.submit(operations[0].pointer)
    #expect(kernel.inKernel.map(\.descriptor) == [50])
    #expect(kernel.files?.contains(50) == false)
  }

  @Test func kernelWithoutATableOfFilesIsServedWithout() {
    kernel.hasFiles = false
    engine.attach(descriptor: 50)
    let operation = TestOperation(.read, sink: sink, descriptor: 50)
    engine.submit(operation.pointer)
    #expect(kernel.inKernel.map(\.descriptor) == [50])
    #expect(!engine.features.contains("registered files"))
  }

  @Test func onlyTransfersThatLieInPinnedMemoryAsAWholeUseIt() {
    let inside = TestOperation(.read, sink: sink)
    let outside = TestOperation(.read, sink: sink)
    let split = TestOperation(.write, pieces: [2048, 2048], sink: sink)
    let memory = UnsafeRawBufferPointer(start: inside.memory, count: inside.byteCount)
    let splitMemory = UnsafeRawBufferPointer(start: split.memory, count: split.byteCount)
    #expect(engine.pin([memory, splitMemory]) == 0)
    let whole = TestOperation(.write, sink: sink)
    whole.iovecs[0].iov_base = split.memory
    whole.pointer.pointee.forceUnitAccess = true
    for operation in [inside, outside, split, whole] { engine.submit(operation.pointer) }
    let expected = [IORING_OP_READ_FIXED, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_WRITE_FIXED]
    #expect(kernel.inKernel.map(\.opcode) == expected.map { UInt8($0.rawValue) })
    #expect(kernel.inKernel[3].buffer == 1)
    #expect(kernel.inKernel[3].flags == 2)
    #expect(engine.features.contains("registered buffers"))
  }

  @Test func memoryThatMayNotBePinnedIsUsedAsItIs() {
    kernel.buffersAnswer = -ENOMEM
    let operation = TestOperation(.read, sink: sink)
    #expect(engine.pin([UnsafeRawBufferPointer(start: operation.memory, count: 4096)]) == -ENOMEM)
    engine.submit(operation.pointer)
    #expect(kernel.inKernel.map(\.opcode) == [UInt8(IORING_OP_READV.rawValue)])
  }
}
