// SPDX-License-Identifier: Apache-2.0
// Which points belong to which request, on traces written by hand.
import Testing
import Tracing

private let vcpu = 0
private let loop = 1
private let otherLoop = 2
private let port: UInt32 = 70
private let queue: UInt32 = 71

/// A trace of a vCPU and two loops from lines of time, thread, point, request and value.
func handmade(_ lines: [(UInt64, Int, TracePoint, UInt64, UInt32)]) -> Trace {
  var threads = ["vcpu-0", "main", "iothread"].enumerated().map {
    TraceThread(identifier: Int32($0 + 1), name: $1, events: [])
  }
  for (time, thread, point, request, value) in lines {
    threads[thread].events.append(TraceEvent(time: time, point: point, request: request, value: value))
  }
  return Trace(threads: threads)
}

private func entry(_ kind: TraceQueueing) -> UInt32 { kind.rawValue }
private let write = TraceExit.memoryWrite.rawValue
private let end = TraceExit.end.rawValue

/// A vCPU issues two commands to a sleeping loop, which is woken, submits them, and tells the guest of both at once.
let lostAndFound = handmade([
  (100, loop, .sleeping, 0, 9),
  (200, vcpu, .exit, 0, write),
  (210, vcpu, .doorbell, 0, 0b11),
  (220, vcpu, .request, 0x1000, port),
  (230, vcpu, .queued, 0x1000, entry(.entry)),
  (235, vcpu, .notified, 0, 9),
  (240, vcpu, .request, 0x2000, port),
  (250, vcpu, .queued, 0x2000, entry(.entry)),
  (260, vcpu, .exit, 0, end),
  (300, loop, .woken, 0, 9),
  (310, loop, .submitted, 0, 2),
  (400, loop, .completed, 0x2000, 0),
  (410, loop, .completed, 0x1000, 0),
  (420, loop, .interrupt, 0, port),
  (430, loop, .sleeping, 0, 9),
])

@Suite struct RequestTests {
  @Test func requestIsFollowedAcrossThreads() throws {
    let requests = lostAndFound.requests
    try #require(requests.count == 2)
    #expect(requests.map(\.request) == [0x1000, 0x2000])
    for (request, times) in zip(requests, [[220, 230, 410], [240, 250, 400]] as [[UInt64]]) {
      #expect(request.source == port)
      #expect(request.doorbell == TracePlace(time: 210, thread: vcpu))
      #expect(request.begun == TracePlace(time: times[0], thread: vcpu))
      #expect(request.queued == TracePlace(time: times[1], thread: vcpu))
      #expect(request.submitted == TracePlace(time: 310, thread: loop))
      #expect(request.completed == TracePlace(time: times[2], thread: loop))
      #expect(request.interrupt == TracePlace(time: 420, thread: loop))
    }
    #expect(requests[0].places.map(\.point) == [.doorbell, .request, .queued, .submitted, .completed, .interrupt])
  }

  @Test func submissionTakesTheOldestEntriesTheLoopsOwnAmongThem() {
    let requests = handmade([
      (1, loop, .queued, 0, entry(.entry)),
      (2, loop, .queued, 0x1000, entry(.entry)),
      (3, loop, .queued, 0x2000, entry(.entry)),
      (4, loop, .submitted, 0, 2),
      (5, loop, .queued, 0x3000, entry(.entry)),
      (6, loop, .submitted, 0, 2),
      (7, loop, .submitted, 0, 5),
    ]).requests
    #expect(requests.map { $0.submitted?.time } == [4, 6, 6])
  }

  @Test func entryGoesWithTheLoopThatCompletesIt() {
    let requests = handmade([
      (1, vcpu, .queued, 0x1000, entry(.entry)),
      (2, vcpu, .queued, 0x2000, entry(.entry)),
      (3, loop, .submitted, 0, 1),
      (4, otherLoop, .submitted, 0, 1),
      (5, otherLoop, .completed, 0x1000, 0),
      (6, loop, .completed, 0x2000, 0),
      // Never completed: the loop of the one that the thread queued before.
      (7, vcpu, .queued, 0x3000, entry(.entry)),
      (8, otherLoop, .submitted, 0, 1),
      (9, loop, .submitted, 0, 1),
    ]).requests
    #expect(requests.map { $0.submitted?.thread } == [otherLoop, loop, loop])
    #expect(requests.map { $0.submitted?.time } == [4, 3, 9])
  }

  @Test func submissionThatNamesARequestIsOfThatOneAlone() {
    let requests = handmade([
      (1, loop, .queued, 0x1000, entry(.named)),
      (2, loop, .queued, 0x2000, entry(.named)),
      (3, loop, .submitted, 0, 9),
      (4, otherLoop, .submitted, 0x2000, 0),
      (5, otherLoop, .submitted, 0x1000, 0),
    ]).requests
    #expect(requests.map { $0.submitted?.time } == [5, 4])
  }

  @Test func vcpuThatSubmitsItselfTakesFromTheLoopsRing() {
    let requests = handmade([
      (1, loop, .sleeping, 0, 9),
      (2, vcpu, .queued, 0x1000, entry(.entry)),
      (3, vcpu, .queued, 0x2000, entry(.entry)),
      (4, vcpu, .submitted, 0, 2),
      (5, loop, .woken, 0, 9),
      (6, loop, .completed, 0x1000, 0),
      (7, loop, .completed, 0x2000, 0),
    ]).requests
    #expect(requests.map(\.submitted) == [TracePlace(time: 4, thread: vcpu), TracePlace(time: 4, thread: vcpu)])
  }

  @Test func riderGoesWithTheOperationThatIsQueuedNext() {
    let requests = handmade([
      (1, loop, .queued, 0x2000, entry(.rider)),
      (2, loop, .queued, 0x3000, entry(.rider)),
      (3, loop, .queued, 0x1000, entry(.entry)),
      (4, loop, .queued, 0x4000, entry(.entry)),
      (5, loop, .submitted, 0, 1),
      (6, loop, .submitted, 0, 1),
    ]).requests
    #expect(requests.map(\.request) == [0x2000, 0x3000, 0x1000, 0x4000])
    #expect(requests.map { $0.submitted?.time } == [5, 5, 5, 6])
  }

  @Test func slotThatIsUsedAgainIsAnotherRequest() {
    let requests = handmade([
      (1, loop, .request, 0x1000, port),
      (2, loop, .completed, 0x1000, 0),
      (3, loop, .interrupt, 0, port),
      (4, loop, .request, 0x1000, port),
      (5, loop, .completed, 0x1000, 0),
      (6, loop, .interrupt, 0, port),
    ]).requests
    #expect(requests.map { $0.begun?.time } == [1, 4])
    #expect(requests.map { $0.completed?.time } == [2, 5])
    #expect(requests.map { $0.interrupt?.time } == [3, 6])
  }

  @Test func requestOfSeveralOperationsIsQueuedWithTheFirstAndDoneWithTheLast() {
    let requests = handmade([
      (1, loop, .request, 0x1000, port),
      (2, loop, .queued, 0x1000, entry(.entry)),
      (3, loop, .submitted, 0, 1),
      (4, loop, .completed, 0x1000, 0),
      (5, loop, .queued, 0x1000, entry(.entry)),
      (6, loop, .submitted, 0, 1),
      (7, loop, .completed, 0x1000, 0),
      (8, loop, .interrupt, 0, port),
    ]).requests
    #expect(requests.count == 1)
    #expect(requests.first?.places.map(\.place.time) == [1, 2, 3, 7, 8])
  }

  @Test func interruptIsOfItsOwnQueueAndItsOwnBatch() {
    let requests = handmade([
      (1, loop, .request, 0x1000, port),
      (2, loop, .request, 0x2000, queue),
      (3, loop, .request, 0x3000, queue),
      (4, loop, .completed, 0x1000, 0),
      (5, loop, .completed, 0x2000, 0),
      (6, loop, .interrupt, 0, queue),
      (7, loop, .sleeping, 0, 9),
      (8, loop, .woken, 0, 9),
      (9, loop, .completed, 0x3000, 0),
      (10, loop, .interrupt, 0, port),
      (11, loop, .interrupt, 0, queue),
    ]).requests
    // The guest found the first one by itself, since the batch ended without an interrupt of its port.
    #expect(requests.map { $0.interrupt?.time } == [nil, 6, 11])
  }

  @Test func doorbellIsOfItsOwnExitOrRound() {
    let requests = handmade([
      (1, vcpu, .exit, 0, write),
      (2, vcpu, .doorbell, 0, 1),
      (3, vcpu, .request, 0x1000, port),
      (4, vcpu, .exit, 0, end),
      (5, vcpu, .exit, 0, write),
      (6, vcpu, .request, 0x2000, port),
      (7, vcpu, .exit, 0, end),
      (8, loop, .doorbell, 0, 0),
      (9, loop, .request, 0x3000, queue),
      (10, loop, .sleeping, 0, 9),
      (11, loop, .woken, 0, 9),
      (12, loop, .request, 0x4000, port),
    ]).requests
    #expect(requests.map { $0.doorbell?.time } == [2, nil, 8, nil])
  }

  @Test func timelineKeepsEachThreadsOrderWhereTimesAreEqual() {
    let trace = handmade([
      (5, loop, .woken, 0, 1), (5, loop, .submitted, 0, 2), (5, vcpu, .doorbell, 0, 3), (4, otherLoop, .woken, 0, 4),
      (5, loop, .sleeping, 0, 5),
    ])
    #expect(trace.timeline.map(\.event.value) == [4, 3, 1, 2, 5])
    #expect(trace.eventCount == 5)
  }
}

@Suite struct LatencyTests {
  @Test func latenciesAreThoseBetweenThePoints() {
    let latencies = TraceLatencies(lostAndFound)
    #expect(
      LatencySummary(latencies.queuedToSubmitted) == LatencySummary(count: 2, p50: 60, p99: 80, p999: 80, max: 80))
    #expect(
      LatencySummary(latencies.submittedToCompleted)
        == LatencySummary(count: 2, p50: 90, p99: 100, p999: 100, max: 100))
    #expect(LatencySummary(latencies.completedToInterrupt)?.max == 20)
    #expect(
      LatencySummary(latencies.doorbellToInterrupt)
        == LatencySummary(count: 2, p50: 210, p99: 210, p999: 210, max: 210))
    #expect(LatencySummary(latencies.notifiedToWoken) == LatencySummary(count: 1, p50: 65, p99: 65, p999: 65, max: 65))
    #expect(LatencySummary(latencies.queuedToWoken) == LatencySummary(count: 1, p50: 70, p99: 70, p999: 70, max: 70))
  }

  @Test func burstForASleepingLoopIsMeasuredToItsFirstSubmission() {
    let latencies = TraceLatencies(
      handmade([
        (0, loop, .sleeping, 0, 9), (10, vcpu, .queued, 0x1000, entry(.entry)),
        (20, vcpu, .queued, 0x2000, entry(.entry)), (30, loop, .woken, 0, 9), (35, loop, .submitted, 0, 1),
        (90, loop, .submitted, 0, 1), (95, loop, .completed, 0x1000, 0), (96, loop, .completed, 0x2000, 0),
      ]))
    #expect(LatencySummary(latencies.idleToSubmitted) == LatencySummary(count: 1, p50: 25, p99: 25, p999: 25, max: 25))
  }

  @Test func whatAVCPUSubmitsItselfDoesNotWaitForTheLoop() {
    let latencies = TraceLatencies(
      handmade([
        (0, loop, .sleeping, 0, 9), (10, vcpu, .queued, 0x1000, entry(.entry)), (20, vcpu, .submitted, 0, 1),
        (60, loop, .woken, 0, 9), (65, loop, .completed, 0x1000, 0),
      ]))
    #expect(LatencySummary(latencies.idleToSubmitted)?.max == 10)
    #expect(LatencySummary(latencies.queuedToSubmitted)?.max == 10)
    #expect(LatencySummary(latencies.queuedToWoken) == nil)
  }

  @Test func sleepThatNobodyEndedByQueueingIsNotMeasured() {
    let latencies = TraceLatencies(
      handmade([
        (1, loop, .notified, 0, 9),
        (2, loop, .sleeping, 0, 9),
        (3, loop, .queued, 0x1000, entry(.entry)),
        (4, vcpu, .notified, 0, 8),
        (5, loop, .woken, 0, 9),
        (6, loop, .completed, 0x1000, 0),
        (7, vcpu, .notified, 0, 9),
      ]))
    #expect(LatencySummary(latencies.notifiedToWoken) == nil)
    #expect(LatencySummary(latencies.queuedToWoken) == nil)
    #expect(LatencySummary(latencies.queuedToSubmitted) == nil)
  }

  @Test func loopThatSleptWhenTheTraceBeganIsMeasured() {
    let latencies = TraceLatencies(
      handmade([
        (10, vcpu, .queued, 0x1000, entry(.entry)), (20, vcpu, .notified, 0, 9), (50, loop, .woken, 0, 9),
        (60, loop, .completed, 0x1000, 0),
      ]))
    #expect(LatencySummary(latencies.notifiedToWoken)?.max == 30)
    #expect(LatencySummary(latencies.queuedToWoken)?.max == 40)
  }

  @Test func eachSleepIsMeasuredFromItsFirstAnnouncement() {
    let latencies = TraceLatencies(
      handmade([
        (0, loop, .sleeping, 0, 9), (10, vcpu, .notified, 0, 9), (20, vcpu, .notified, 0, 9), (30, loop, .woken, 0, 9),
        (40, loop, .sleeping, 0, 9), (50, vcpu, .notified, 0, 9), (55, loop, .woken, 0, 9),
      ]))
    #expect(
      LatencySummary(latencies.notifiedToWoken) == LatencySummary(count: 2, p50: 5, p99: 20, p999: 20, max: 20))
  }
}
