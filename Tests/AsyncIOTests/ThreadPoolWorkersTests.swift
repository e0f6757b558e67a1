// SPDX-License-Identifier: Apache-2.0
// The pool's threads: how many there are, what they take in what order, who wakes and starts them, how they end.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

@Suite struct ThreadPoolWorkersTests {
  private func offsets(_ count: Int) -> [UInt64] { (0..<count).map { UInt64($0) * 512 } }

  // MARK: Order

  @Test func requestsOnOneDescriptorRunAtTheSameTime() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    bench.batch { for offset in offsets(8) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(8)
    bench.port.release()
    bench.run(untilCompleted: 8)
    #expect(bench.results == Array(repeating: 0, count: 8))
  }

  @Test func singleWorkerMakesCallsInTheOrderOfSubmission() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    for part in 0..<10 {
      bench.batch { for index in 0..<(part * 3) { bench.submit(offset: UInt64(part * 100 + index) * 512) } }
    }
    let expected = bench.operations.map { Int($0.pointer.pointee.offset) }
    bench.run(untilCompleted: expected.count)
    #expect(bench.port.made.map(\.offset) == expected)
    #expect(bench.sink.completed.map(\.operation) == bench.operations.map(\.pointer))
    #expect(bench.port.mostInside == 1)
  }

  @Test func severalWorkersTakeRequestsInTheOrderOfSubmission() throws {
    let bench = try ThreadPoolBench(workersMax: 6)
    var count = 0
    for part in 0..<60 {
      bench.batch {
        for _ in 0...(part * 7 % 23) {
          bench.submit(offset: UInt64(count) * 512)
          count += 1
        }
      }
      if part % 3 == 0 { bench.loop.runOnce(mayBlock: false) }
    }
    bench.run(untilCompleted: count)
    #expect(bench.port.taken == offsets(count))
  }

  @Test func requestIsTakenOnlyWhenAWorkerIsFreeForIt() throws {
    let bench = try ThreadPoolBench(workersMax: 2)
    bench.port.hold()
    bench.batch { for offset in offsets(5) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(2)
    #expect(bench.port.taken == offsets(2))
    bench.port.release(offset: 512)
    bench.run(untilCompleted: 1)
    bench.port.waitUntilInside(2)
    #expect(bench.port.taken == offsets(3))
  }

  @Test func flushIsNoBarrier() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    bench.batch {
      bench.submit(.write, offset: 512)
      bench.submit(.flush, pieces: [])
      bench.submit(.write, offset: 1024)
    }
    bench.port.waitUntilInside(3)
    bench.port.release(offset: 1024)
    bench.run(untilCompleted: 1)
    #expect(bench.sink.completed[0].operation == bench.operations[2].pointer)
  }

  @Test func completionsAreDeliveredInTheOrderInWhichTheyHappened() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    bench.batch { for offset in offsets(4) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(4)
    for (count, index) in [2, 0, 3, 1].enumerated() {
      bench.port.release(offset: index * 512)
      bench.wait("idle worker") { $0.idle == count + 1 }
    }
    bench.run(untilCompleted: 4)
    #expect(bench.sink.completed.map(\.operation) == [2, 0, 3, 1].map { bench.operations[$0].pointer })
  }

  // MARK: Growing and shrinking

  @Test func unusedPoolHasNoThread() throws {
    let bench = try ThreadPoolBench()
    bench.loop.runOnce(mayBlock: false)
    #expect(bench.starter.asked.isEmpty)
    #expect(bench.engine.statistics == ThreadPoolStatistics())
  }

  @Test func poolGrowsToItsBoundAndNotBeyond() throws {
    let bench = try ThreadPoolBench(workersMax: 4)
    bench.port.hold()
    bench.batch { for offset in offsets(40) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(4)
    bench.batch { for offset in offsets(40) { bench.submit(offset: offset) } }
    #expect(bench.engine.statistics.workers == 4)
    bench.port.release()
    bench.run(untilCompleted: 80)
    #expect(bench.engine.statistics.workersMost == 4)
    #expect(bench.port.mostInside == 4)
    #expect(bench.starter.asked.count == 4)
  }

  @Test func idleWorkerIsUsedBeforeAnotherIsStarted() throws {
    let bench = try ThreadPoolBench()
    for count in 1...20 {
      bench.submit()
      bench.run(untilCompleted: count)
      bench.wait("idle worker") { $0.idle == 1 }
    }
    #expect(bench.starter.asked.count == 1)
  }

  @Test func whoeverHandsOverStartsOneThreadAtMostAndTheOthersStartEachOther() throws {
    let bench = try ThreadPoolBench()
    bench.port.hold()
    bench.batch { for offset in offsets(8) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(8)
    #expect(bench.starter.asked.count == 8)
    let handovers = 8 / ThreadPoolEngine.handoverMax
    #expect((1...handovers).contains(bench.starter.asked.filter { $0 == pthread_self() }.count))
  }

  @Test func workersEndAfterTheirIdleTime() throws {
    let bench = try ThreadPoolBench(idleNs: 1_000_000)
    for part in 1...5 {
      bench.port.hold()
      bench.batch { for offset in offsets(4) { bench.submit(offset: offset) } }
      bench.port.waitUntilInside(4)
      bench.port.release()
      bench.run(untilCompleted: part * 4)
      bench.wait("all workers end") { $0.workers == 0 && $0.idle == 0 }
    }
    #expect(bench.starter.asked.count == 20)
  }

  @Test func withoutIdleTimeWorkersEndAtOnceAndNothingIsLost() throws {
    let bench = try ThreadPoolBench(workersMax: 3, idleNs: 0)
    for part in 1...200 {
      bench.batch { for offset in offsets(5) { bench.submit(offset: offset) } }
      if part % 2 == 0 { bench.run(untilCompleted: part * 5) }
    }
    bench.run(untilCompleted: 1000)
    bench.wait("all workers end") { $0.workers == 0 }
    #expect(bench.engine.statistics.workersMost <= 3)
  }

  @Test func leastNumberOfWorkersIsStartedWithThePoolAndStays() throws {
    let bench = try ThreadPoolBench(workersMin: 2, idleNs: 0)
    bench.wait("least number of workers") { $0.idle == 2 }
    bench.port.hold()
    bench.batch { for offset in offsets(6) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(6)
    bench.port.release()
    bench.run(untilCompleted: 6)
    bench.wait("the others end") { $0.workers == 2 && $0.idle == 2 }
  }

  // MARK: Starts that fail

  @Test func withoutAnyWorkerRequestsFailLaterWithTryAgain() throws {
    let bench = try ThreadPoolBench(starter: ScriptedStarter(startsMax: 0))
    bench.batch { for offset in offsets(3) { bench.submit(offset: offset) } }
    #expect(bench.sink.completed.isEmpty)
    bench.run(untilCompleted: 3)
    #expect(bench.results == [-EAGAIN, -EAGAIN, -EAGAIN])
    #expect(bench.engine.inFlightCount == 0)
    #expect(bench.port.made.isEmpty)
    bench.starter.allow(.max)
    bench.submit()
    bench.run(untilCompleted: 4)
    #expect(bench.results.last == 0)
  }

  @Test func withWorkersPresentRequestsWaitForThem() throws {
    let bench = try ThreadPoolBench(starter: ScriptedStarter(startsMax: 1))
    bench.port.hold()
    bench.batch { for offset in offsets(4) { bench.submit(offset: offset) } }
    bench.port.waitUntilInside(1)
    bench.submit(offset: 4 * 512)
    #expect(bench.starter.asked.count == 3)
    bench.port.release()
    bench.run(untilCompleted: 5)
    #expect(bench.results == [0, 0, 0, 0, 0])
    #expect(bench.engine.statistics.workersMost == 2)
    #expect(bench.port.mostInside == 1)
  }

  // MARK: Wakes and batches

  @Test func noMoreWorkersAreWokenThanThereAreRequests() throws {
    let bench = try ThreadPoolBench(workersMin: 4, workersMax: 4)
    bench.wait("idle workers") { $0.idle == 4 }
    var completed = 0
    for (count, wakes) in [(1, 1), (2, 2), (3, 3), (9, 4)] {
      let before = bench.engine.statistics.wakes
      bench.port.hold()
      bench.batch { for offset in offsets(count) { bench.submit(offset: offset) } }
      bench.port.waitUntilInside(wakes)
      bench.port.release()
      completed += count
      bench.run(untilCompleted: completed)
      #expect(bench.engine.statistics.wakes == before + UInt64(wakes))
      bench.wait("idle workers") { $0.idle == 4 }
    }
  }

  @Test func batchIsHandedOverAtItsEndAndALongOneInParts() throws {
    let bench = try ThreadPoolBench()
    let limit = ThreadPoolEngine.handoverMax
    bench.batch {
      for index in 1..<limit { bench.submit(offset: UInt64(index) * 512) }
      #expect(bench.engine.statistics.handovers == 0)
      bench.submit()
      #expect(bench.engine.statistics.handovers == 1)
      bench.submit()
    }
    #expect(bench.engine.statistics.handovers == 2)
    bench.submit()
    #expect(bench.engine.statistics.handovers == 3)
    bench.run(untilCompleted: limit + 2)
  }

  // MARK: Ending

  @Test func closeLetsRequestsInFlightCompleteAndJoinsTheWorkers() throws {
    let bench = try ThreadPoolBench()
    let port = bench.port
    port.hold()
    bench.batch { for offset in offsets(5) { bench.submit(offset: offset) } }
    let other = try HostThread(name: "releaser") {
      port.waitUntilInside(5)
      port.release()
    }
    bench.engine.close()
    other.join()
    #expect(bench.results == [0, 0, 0, 0, 0])
    #expect(bench.engine.statistics.workers == 0)
    #expect(bench.engine.inFlightCount == 0)
  }

  @Test func closeDoesWhatIsStillQueued() throws {
    let bench = try ThreadPoolBench(workersMax: 1)
    bench.loop.beginBatch()
    for offset in offsets(10) { bench.submit(offset: offset) }
    bench.engine.close()
    bench.loop.endBatch()
    #expect(bench.results == Array(repeating: 0, count: 10))
    #expect(bench.engine.statistics.workers == 0)
  }

  @Test func engineThatNobodyClosedEndsItsWorkers() throws {
    let loop = try EventLoop(name: "test")
    weak let port: ScriptedFilePort?
    do {
      let itsPort = ScriptedFilePort()
      port = itsPort
      let engine = ThreadPoolEngine(loop: loop, limits: ThreadPoolLimits(workersMin: 3), port: itsPort)
      while engine.statistics.idle < 3 { sched_yield() }
    }
    // Threads that went on would keep it alive.
    #expect(port == nil)
  }
}
