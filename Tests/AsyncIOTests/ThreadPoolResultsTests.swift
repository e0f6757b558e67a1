// SPDX-License-Identifier: Apache-2.0
// What becomes of requests: every answer of the system calls at each step, cancelling, delivery on the loop.
import CLinux
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite struct ThreadPoolResultsTests {
  typealias Call = ScriptedFilePort.Call
  private let dsync = 2

  // MARK: Answers

  @Test(arguments: [IOOpcode.read, .write, .flush, .discard, .writeZeroes])
  func interruptedAndRefusedCallsAreMadeAgain(opcode: IOOpcode) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    let size = opcode == .read || opcode == .write ? 512 : 0
    bench.port.answer([-Int(EINTR), -Int(EAGAIN), -Int(EINTR), -Int(EINTR), size])
    bench.submit(opcode)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
    #expect(bench.port.made.count == 5)
    #expect(Set(bench.port.made.map(\.kind)).count == 1)
  }

  @Test func kernelThatRefusesForEverIsAskedOnlySoOften() throws {
    let bench = try ThreadPoolBench(workersMax: 1, port: ScriptedFilePort(otherwise: { _ in -Int(EAGAIN) }))
    bench.submit(.write)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-EAGAIN])
    #expect(bench.port.made.count == UnsafeMutablePointer<IOOperation>.refusalsInARowMax + 1)
  }

  @Test func progressEndsTheCountOfRefusals() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    let refusals = Array(repeating: -Int(EAGAIN), count: UnsafeMutablePointer<IOOperation>.refusalsInARowMax)
    bench.port.answer(refusals + [512] + refusals + [512])
    bench.submit(.write, pieces: [1024])
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
  }

  @Test(arguments: [IOOpcode.read, .write])
  func shortTransferGoesOnWhereItStopped(opcode: IOOpcode) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([100, -Int(EINTR), 1000, 948])
    bench.submit(opcode, offset: 8192, pieces: [512, 1024, 512])
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
    #expect(bench.port.made.map(\.offset) == [8192, 8292, 8292, 9292])
    #expect(bench.port.made.map(\.byteCount) == [2048, 1948, 1948, 948])
  }

  @Test func readThatEndsWithTheFileIsFilledWithZeroes() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([600, 0])
    let operation = bench.submit(.read, pieces: [512, 512])
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
    #expect(operation.bytes == [UInt8](repeating: 0xaa, count: 600) + [UInt8](repeating: 0, count: 424))
  }

  @Test func writeOfNothingIsNoSpace() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([512, 0])
    bench.submit(.write, pieces: [1024])
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-ENOSPC])
  }

  @Test(arguments: [IOOpcode.read, .write, .flush, .discard, .writeZeroes], [-EIO, -ENOSPC, -EBADF])
  func errorIsReportedAsItIs(opcode: IOOpcode, error: Int32) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([Int(error)])
    bench.submit(opcode)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [error])
    #expect(bench.port.made.count == 1)
  }

  @Test(arguments: [IOOpcode.read, .write], [-EIO, -ENOSPC])
  func errorAfterAShortTransferIsReported(opcode: IOOpcode, error: Int32) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([512, Int(error)])
    bench.submit(opcode, pieces: [2048])
    bench.run(untilCompleted: 1)
    #expect(bench.results == [error])
  }

  @Test(arguments: [UInt64.max, UInt64(Int64.max) + 1])
  func offsetThatNoFileHasReachesTheKernelAsTheLargest(offset: UInt64) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([-Int(EINVAL)])
    bench.submit(.read, offset: offset)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-EINVAL])
    #expect(bench.port.made.map(\.offset) == [Int.max])
  }

  // MARK: Durable writes

  @Test func forcedWriteCarriesTheFlagAndAPlainOneDoesNot() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([512, 100, 412])
    bench.submit(.write)
    bench.run(untilCompleted: 1)
    submitForced(bench)
    bench.run(untilCompleted: 2)
    #expect(bench.results == [0, 0])
    #expect(bench.port.made.map(\.flags) == [0, dsync, dsync])
    #expect(bench.port.made.map(\.kind) == [.write, .write, .write])
  }

  @Test(arguments: [EOPNOTSUPP, ENOSYS])
  func whereTheFlagIsUnknownTheWholeWriteIsFollowedByAFlush(refusal: Int32) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([-Int(EINTR), -Int(refusal), -Int(EINTR), 100, 412, -Int(EINTR), 0])
    submitForced(bench)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
    #expect(bench.port.made.map(\.kind) == [.write, .write, .write, .write, .write, .sync, .sync])
    #expect(bench.port.made.map(\.flags) == [dsync, dsync, 0, 0, 0, 0, 0])
    #expect(bench.port.made.map(\.offset) == [0, 0, 0, 0, 100, 0, 0])
  }

  @Test func failureOfTheFlushIsTheResultOfTheForcedWrite() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([-Int(EOPNOTSUPP), 512, -Int(EIO)])
    submitForced(bench)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-EIO])
  }

  @Test func writeThatFailedIsNotFlushed() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([-Int(EOPNOTSUPP), -Int(ENOSPC)])
    submitForced(bench)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-ENOSPC])
    #expect(bench.port.made.map(\.kind) == [.write, .write])
  }

  private func submitForced(_ bench: ThreadPoolBench) {
    let operation = TestOperation(.write, pieces: [512], sink: bench.sink)
    operation.pointer.pointee.forceUnitAccess = true
    bench.submit(operation)
  }

  // MARK: Ranges

  @Test(arguments: [(IOOpcode.discard, false, 3), (.writeZeroes, true, 3), (.writeZeroes, false, 17)])
  func rangesAreChangedByAllocation(opcode: IOOpcode, mayUnmap: Bool, mode: Int) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    submitRange(bench, opcode, mayUnmap: mayUnmap)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [0])
    #expect(bench.port.made == [Call(kind: .allocate, offset: 4096, byteCount: 65536, flags: mode)])
  }

  @Test(arguments: [EOPNOTSUPP, ENOSYS, ENODEV], [0, EIO])
  func blockDeviceThatRefusesIsAskedByTheOlderCall(refusal: Int32, error: Int32) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    for (opcode, request) in [(IOOpcode.discard, clinux_BLKDISCARD), (.writeZeroes, clinux_BLKZEROOUT)] {
      bench.port.answer([-Int(refusal), -Int(error)])
      submitRange(bench, opcode, mayUnmap: true)
      bench.run(untilCompleted: bench.operations.count)
      #expect(bench.results.last == -error)
      #expect(
        bench.port.made.last == Call(kind: .device, offset: 4096, byteCount: 65536, flags: Int(request)))
    }
  }

  @Test func fileThatRefusesSaysSo() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.answer([-Int(EOPNOTSUPP), -Int(ENOTTY)])
    submitRange(bench, .discard, mayUnmap: false)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-EOPNOTSUPP])
  }

  private func submitRange(_ bench: ThreadPoolBench, _ opcode: IOOpcode, mayUnmap: Bool) {
    let operation = TestOperation(opcode, offset: 4096, pieces: [], sink: bench.sink)
    operation.pointer.pointee.byteCount = 65536
    operation.pointer.pointee.mayUnmap = mayUnmap
    bench.submit(operation)
  }

  // MARK: Cancelling

  @Test func requestOfAnOpenBatchIsCancelledAndNeverStarted() throws {
    let bench = try ThreadPoolBench()
    bench.batch {
      for index in 0..<3 { bench.submit(offset: UInt64(index) * 512) }
      bench.engine.cancel(bench.operations[1].pointer)
      #expect(bench.sink.completed.isEmpty)
    }
    bench.run(untilCompleted: 3)
    #expect(result(of: bench.operations[1], bench) == -ECANCELED)
    #expect(bench.port.taken == [0, 1024])
  }

  @Test(arguments: [1, 2, 3])
  func requestThatNoWorkerHasTakenIsCancelled(index: Int) throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.port.hold()
    bench.batch { for index in 0..<4 { bench.submit(offset: UInt64(index) * 512) } }
    bench.port.waitUntilInside(1)
    bench.engine.cancel(bench.operations[index].pointer)
    #expect(bench.sink.completed.isEmpty)
    bench.run(untilCompleted: 1)
    #expect(bench.results == [-ECANCELED])
    bench.engine.cancel(bench.operations[(index % 3) + 1].pointer)
    bench.submit(offset: 4 * 512)
    bench.port.release()
    bench.run(untilCompleted: 5)
    #expect(bench.results.filter { $0 == -ECANCELED }.count == 2)
    #expect(bench.engine.inFlightCount == 0)
  }

  @Test func requestThatAWorkerHasTakenCompletesNormally() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    let operation = bench.submit()
    bench.port.waitUntilInside(1)
    bench.engine.cancel(operation.pointer)
    bench.port.release()
    bench.wait("idle worker") { $0.idle == 1 }
    // Done, and not delivered.
    bench.engine.cancel(operation.pointer)
    bench.run(untilCompleted: 1)
    bench.loop.runOnce(mayBlock: false)
    #expect(bench.results == [0])
  }

  private func result(of operation: TestOperation, _ bench: ThreadPoolBench) -> Int32? {
    bench.sink.completed.first { $0.operation == operation.pointer }?.result
  }

  // MARK: Delivery

  @Test(arguments: [true, false])
  func completionNeverArrivesFromInsideSubmit(isBatch: Bool) throws {
    let bench = try ThreadPoolBench()
    if isBatch { bench.loop.beginBatch() }
    for index in 0..<100 {
      bench.submit(offset: UInt64(index) * 512)
      #expect(bench.sink.completed.isEmpty)
    }
    if isBatch { bench.loop.endBatch() }
    #expect(bench.sink.completed.isEmpty)
    bench.run(untilCompleted: 100)
  }

  @Test func nestedRoundDeliversWhatTheOuterOneHasNotComeTo() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    bench.batch { for index in 0..<4 { bench.submit(offset: UInt64(index) * 512) } }
    bench.port.waitUntilInside(4)
    bench.port.release()
    bench.wait("all done") { $0.idle == 4 }
    // All four are delivered by one run; the first, and in it the second, wait for all others.
    var depth = 0
    var deepest = 0
    bench.sink.onCompletion = { _ in
      let count = bench.sink.completed.count
      guard count <= 2 else { return }
      depth += 1
      deepest = max(deepest, depth)
      bench.run(untilCompleted: count == 1 ? 4 : 3)
      depth -= 1
    }
    bench.loop.runOnce(mayBlock: false)
    #expect(bench.sink.completed.count == 4)
    #expect(deepest == 2)
  }

  @Test func sinkMaySubmitAndWaitForItsRequest() throws {
    let bench = try ThreadPoolBench(workersMax: 2)
    var isFirst = true
    bench.sink.onCompletion = { _ in
      guard isFirst else { return }
      isFirst = false
      let extra = bench.submit(.flush, pieces: [])
      bench.run("the extra request") { result(of: extra, bench) != nil }
    }
    bench.batch { for index in 0..<5 { bench.submit(offset: UInt64(index) * 512) } }
    bench.run(untilCompleted: 6)
    #expect(bench.results == Array(repeating: 0, count: 6))
  }

  @Test func completionsThatKeepComingDoNotKeepTheLoopFromOtherWork() throws {
    let bench = try ThreadPoolBench()
    let work = OtherWork(loop: bench.loop)
    bench.sink.onCompletion = { operation in if !work.hasRun { bench.engine.submit(operation) } }
    for index in 0..<16 { bench.submit(offset: UInt64(index) * 512) }
    bench.run(untilCompleted: 100)
    work.schedule()
    bench.loop.runOnce(mayBlock: false)
    #expect(work.hasRun)
    bench.run("the end") { bench.engine.inFlightCount == 0 }
  }

  // MARK: Everything at once

  @Test(arguments: [UInt64(1), 2, 3])
  func tenThousandRandomRequestsCompleteOnceEach(seed: UInt64) throws {
    let total = 10_000
    let port = ScriptedFilePort { call in
      // Any answer, decided by where the call is.
      switch (call.offset / 512 * 7 + call.byteCount) % 13 {
      case 0: -Int(EIO)
      case 1 where call.byteCount > 512: 512
      case 2 where call.byteCount > 1024: 1024
      default: call.kind == .read || call.kind == .write ? call.byteCount : 0
      }
    }
    let idleNs = [0, 1000, ThreadPoolLimits.idleNsDefault][Int(seed) % 3]
    let bench = try ThreadPoolBench(workersMax: 8, idleNs: idleNs, port: port)
    var random = SplitMix(state: seed)
    var counts: [UnsafeMutablePointer<IOOperation>: Int] = [:]
    bench.sink.onCompletion = { counts[$0, default: 0] += 1 }
    let opcodes: [IOOpcode] = [.read, .write, .flush, .discard, .writeZeroes]
    while bench.operations.count < total {
      bench.batch {
        for _ in 0..<random.below(40) where bench.operations.count < total {
          let opcode = opcodes[random.below(5)]
          let pieces = opcode == .flush ? [] : Array(repeating: 512, count: 1 + random.below(4))
          let offset = UInt64(random.below(1000)) * 512
          let operation = TestOperation(opcode, offset: offset, pieces: pieces, sink: bench.sink)
          operation.pointer.pointee.forceUnitAccess = opcode == .write && random.below(3) == 0
          bench.submit(operation)
          if random.below(8) == 0 {
            let other = bench.operations[max(0, bench.operations.count - 1 - random.below(30))]
            if counts[other.pointer] == nil { bench.engine.cancel(other.pointer) }
          }
        }
      }
      if random.below(2) == 0 { bench.loop.runOnce(mayBlock: false) }
    }
    bench.run(untilCompleted: total)
    bench.engine.close()
    #expect(counts.count == total)
    #expect(counts.values.allSatisfy { $0 == 1 })
    #expect(bench.engine.inFlightCount == 0)
    #expect(bench.results.contains(0) && bench.results.contains(-EIO))
  }
}

/// Numbers that look random and are the same in each run.
struct SplitMix {
  var state: UInt64

  mutating func below(_ bound: Int) -> Int {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return Int((value ^ (value >> 31)) % UInt64(bound))
  }
}
