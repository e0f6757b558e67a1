// SPDX-License-Identifier: Apache-2.0
import Glibc
import Histogram
import HostSystem
import Synchronization
import Tracing

/// How long this host takes from the write of an eventfd to the run of a thread that sleeps on it: what no wakeup of a loop
/// can be faster than.
final class HostWakeLatency: Sendable {
  private static let rounds = 300
  /// Between two wakeups, so that the sleeper's processor is as idle as under the workload.
  private static let pauseNs = 1_000_000

  private let event: EventDescriptor
  private let answer: EventDescriptor
  /// When the event was written. Stored before the write and loaded after the wakeup, which orders the two.
  private let sentNs = Atomic<UInt64>(0)
  private let times = Mutex<[UInt64]>([])

  private init() throws {
    event = try EventDescriptor()
    answer = try EventDescriptor()
  }

  /// Measures, with a thread of its own. Takes about a second.
  static func measure() throws -> LatencySummary? {
    let latency = try HostWakeLatency()
    let sleeper = try HostThread(name: "sleeper") { latency.sleepAndAnswer() }
    for _ in 0..<rounds {
      var pause = timespec(tv_sec: 0, tv_nsec: pauseNs)
      nanosleep(&pause, nil)
      latency.sentNs.store(HostClock.nanoseconds, ordering: .relaxed)
      latency.event.signal()
      wait(for: latency.answer)
    }
    sleeper.join()
    var histogram = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    for time in latency.times.withLock({ $0 }) { histogram.record(time) }
    return LatencySummary(histogram)
  }

  private func sleepAndAnswer() {
    for _ in 0..<Self.rounds {
      Self.wait(for: event)
      let now = HostClock.nanoseconds
      times.withLock { $0.append(now - sentNs.load(ordering: .relaxed)) }
      answer.signal()
    }
  }

  /// Sleeps until the event was written, and takes it.
  private static func wait(for event: EventDescriptor) {
    var watched = pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)
    while event.consume() == 0 { poll(&watched, 1, -1) }
  }
}
