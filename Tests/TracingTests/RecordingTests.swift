// SPDX-License-Identifier: Apache-2.0
// What threads record, and what is collected of it.
import CTracing
import Glibc
import HostSystem
import Synchronization
import Testing
import Tracing
import TracingTestKit

/// Runs a body on a thread of its own and waits for its end.
func onThread(_ name: String, _ body: @escaping @Sendable () -> Void) throws {
  try HostThread(name: name, body).join()
}

private func record(_ values: Range<UInt32>) {
  for value in values { Tracing.record(.queued, value: value) }
}

@Suite struct RecordingTests {
  @Test func eachThreadHasItsNameNumberAndEventsInOrder() throws {
    let numbers = Mutex<[String: Int32]>([:])
    let trace = try withTracing {
      Tracing.start()
      let threads = try (0..<3).map { index in
        try HostThread(name: "recorder-\(index)") {
          numbers.withLock { $0["recorder-\(index)"] = HostThread.currentIdentifier }
          for value in 0..<UInt32(1000) {
            Tracing.record(.submitted, request: UnsafeRawPointer(bitPattern: 16 + index), value: value)
          }
        }
      }
      threads.forEach { $0.join() }
      return Tracing.collect()
    }
    for index in 0..<3 {
      let thread = try #require(trace.threads(named: "recorder-\(index)").first)
      #expect(thread.identifier == numbers.withLock { $0[thread.name] })
      #expect(thread.events.map(\.value) == Array(0..<1000))
      #expect(thread.events.allSatisfy { $0.point == .submitted && $0.request == UInt64(16 + index) })
      #expect(zip(thread.events, thread.events.dropFirst()).allSatisfy { $0.time <= $1.time })
      #expect(thread.droppedCount == 0)
    }
  }

  @Test func timesAreThoseOfTheMonotonicClock() throws {
    let before = HostClock.nanoseconds
    let trace = try withTracing {
      Tracing.start()
      try onThread("clock") { record(0..<1) }
      return Tracing.collect()
    }
    let event = try #require(trace.threads(named: "clock").first?.events.first)
    #expect((before...HostClock.nanoseconds).contains(event.time))
  }

  @Test func fullRingKeepsTheOldestEventsAndCountsTheOthers() throws {
    let trace = try withTracing {
      Tracing.start(eventsPerThread: 4)
      try onThread("full") { record(0..<10) }
      try onThread("exactly full") { record(0..<4) }
      return Tracing.collect()
    }
    let full = try #require(trace.threads(named: "full").first)
    #expect(full.events.map(\.value) == [0, 1, 2, 3])
    #expect(full.droppedCount == 6)
    let exact = try #require(trace.threads(named: "exactly full").first)
    #expect(exact.events.count == 4 && exact.droppedCount == 0)
    #expect(trace.droppedCount >= 6 && trace.eventCount >= 8)
  }

  @Test func collectingWhileAThreadRecordsTakesWhatIsWhole() throws {
    try withTracing {
      Tracing.start()
      let shared = Shared()
      let thread = try HostThread(name: "busy") {
        var value: UInt32 = 0
        while !shared.stopping.load(ordering: .relaxed) {
          Tracing.record(.queued, request: UnsafeRawPointer(bitPattern: UInt(value) + 1), value: value)
          value += 1
        }
      }
      var counts: [Int] = []
      while counts.last ?? 0 < 10_000 {
        guard let thread = Tracing.collect().threads(named: "busy").first else { continue }
        #expect(thread.events.map(\.value) == Array(0..<UInt32(thread.events.count)))
        #expect(thread.events.allSatisfy { $0.request == UInt64($0.value) + 1 })
        counts.append(thread.events.count)
      }
      #expect(counts == counts.sorted())
      shared.stopping.store(true, ordering: .relaxed)
      thread.join()
    }
  }

  private final class Shared: Sendable { let stopping = Atomic<Bool>(false) }

  @Test(arguments: [8, 16])
  func nextTraceBeginsEmptyWithTheSizeItWants(secondSize: Int) throws {
    try withTracing {
      Tracing.start(eventsPerThread: 8)
      let steps = Steps()
      let thread = try HostThread(name: "twice") {
        record(0..<20)
        steps.advance(to: 1)
        steps.wait(for: 2)
        record(100..<120)
      }
      steps.wait(for: 1)
      let first = Tracing.collect()
      Tracing.start(eventsPerThread: secondSize)
      #expect(Tracing.collect().threads(named: "twice").isEmpty)
      steps.advance(to: 2)
      thread.join()
      let later = Tracing.collect()
      #expect(first.threads(named: "twice").map { $0.events.map(\.value) } == [Array(0..<8)])
      #expect(later.threads(named: "twice").map { $0.events.map(\.value) } == [Array(100..<(100 + UInt32(secondSize)))])
      #expect(later.threads(named: "twice").map(\.droppedCount) == [UInt64(20 - secondSize)])
    }
  }

  @Test func nothingIsRecordedBeforeStartAndAfterStop() throws {
    let trace = try withTracing {
      Tracing.start()
      let steps = Steps()
      let thread = try HostThread(name: "stopped") {
        record(0..<2)
        steps.advance(to: 1)
        steps.wait(for: 2)
        record(2..<4)
      }
      steps.wait(for: 1)
      Tracing.stop()
      #expect(!Tracing.isOn)
      steps.advance(to: 2)
      thread.join()
      return Tracing.collect()
    }
    #expect(trace.threads(named: "stopped").map { $0.events.map(\.value) } == [[0, 1]])
  }

  @Test func threadThatComesByWhileTracingIsOffGetsNoRing() throws {
    try withTracing {
      let found = Found()
      try onThread("off") {
        record(0..<1000)
        let number = HostThread.currentIdentifier
        var next = ctracing_first_ring()
        while let ring = next {
          if ctracing_thread(ring) == number { found.count.add(1, ordering: .relaxed) }
          next = ctracing_next_ring(ring)
        }
      }
      #expect(found.count.load(ordering: .relaxed) == 0)
    }
  }

  private final class Found: Sendable { let count = Atomic<Int>(0) }

  @Test func valueIsNotWorkedOutWhileTracingIsOff() {
    withTracing {
      var calls: UInt32 = 0
      func count() -> UInt32 {
        calls += 1
        return calls
      }
      Tracing.record(.request, value: count())
      #expect(calls == 0)
    }
  }
}

/// Two threads in step.
private final class Steps: Sendable {
  private let step = Atomic<Int>(0)
  func advance(to next: Int) { step.store(next, ordering: .sequentiallyConsistent) }
  func wait(for wanted: Int) { while step.load(ordering: .sequentiallyConsistent) < wanted { sched_yield() } }
}
