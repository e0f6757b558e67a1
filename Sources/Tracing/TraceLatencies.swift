// SPDX-License-Identifier: Apache-2.0
import Histogram

/// A distribution of times, in nanoseconds, as a table shows it.
public struct LatencySummary: Equatable, Sendable {
  /// How many were measured.
  public var count: UInt64
  /// Half took at most so long.
  public var p50: UInt64
  /// Of a hundred, 99 took at most so long.
  public var p99: UInt64
  /// Of a thousand, 999 took at most so long.
  public var p999: UInt64
  /// The longest.
  public var max: UInt64

  /// Describes a distribution.
  public init(count: UInt64, p50: UInt64, p99: UInt64, p999: UInt64, max: UInt64) {
    self.count = count
    self.p50 = p50
    self.p99 = p99
    self.p999 = p999
    self.max = max
  }

  /// Reads a histogram; nil for an empty one.
  public init?(_ histogram: Histogram<UInt64>) {
    if histogram.totalCount == 0 { return nil }
    count = histogram.totalCount
    p50 = histogram.valueAtPercentile(50)
    p99 = histogram.valueAtPercentile(99)
    p999 = histogram.valueAtPercentile(99.9)
    max = histogram.maxRecorded
  }
}

/// Times between the points of a trace, in nanoseconds, with three significant digits.
public struct TraceLatencies {
  /// From queued to handed to the kernel, for each request.
  public private(set) var queuedToSubmitted = Self.empty
  /// For each end of a loop's sleep: from the first entry that another thread queued in that sleep to the first hand-over to
  /// the kernel after it. Later entries of the same burst wait for the kernel to take the first ones, too.
  public private(set) var idleToSubmitted = Self.empty
  /// From handed to the kernel to reaped, for each request.
  public private(set) var submittedToCompleted = Self.empty
  /// From reaped to the interrupt, for each request whose guest was interrupted.
  public private(set) var completedToInterrupt = Self.empty
  /// From the doorbell that brought it to the interrupt, for each request that has both.
  public private(set) var doorbellToInterrupt = Self.empty
  /// For each end of a loop's sleep: since the first write to the loop's eventfd in that sleep, if there was one.
  public private(set) var notifiedToWoken = Self.empty
  /// For each end of a loop's sleep: since another thread queued the first entry for the loop in that sleep, if one did.
  public private(set) var queuedToWoken = Self.empty

  private static var empty: Histogram<UInt64> { Histogram(numberOfSignificantValueDigits: .three) }

  /// Measures a trace; see `Trace.requests` for what belongs to which request.
  public init(_ trace: Trace) {
    let timeline = trace.timeline
    var points = RequestPoints(threadCount: trace.threads.count)
    for moment in timeline { points.take(moment) }
    let order = SubmissionOrder(points)
    for request in order.requests(timeline) { take(request) }
    takeSleeps(timeline, order)
  }

  /// The seven distributions by name, in the order of a request's way.
  public var all: [(name: String, histogram: Histogram<UInt64>)] {
    [
      ("queued to submitted", queuedToSubmitted), ("queued idle to submitted", idleToSubmitted),
      ("queued to woken", queuedToWoken),
      ("notified to woken", notifiedToWoken), ("submitted to completed", submittedToCompleted),
      ("completed to interrupt", completedToInterrupt), ("doorbell to interrupt", doorbellToInterrupt),
    ]
  }

  private mutating func take(_ request: RequestTimes) {
    Self.record(request.queued, request.submitted, in: &queuedToSubmitted)
    Self.record(request.submitted, request.completed, in: &submittedToCompleted)
    Self.record(request.completed, request.interrupt, in: &completedToInterrupt)
    Self.record(request.doorbell, request.interrupt, in: &doorbellToInterrupt)
  }

  private static func record(_ from: TracePlace?, _ to: TracePlace?, in histogram: inout Histogram<UInt64>) {
    // A request that is done again after it was reaped has its points out of order; it says nothing.
    guard let from, let to, to.time >= from.time else { return }
    _ = histogram.record(to.time - from.time)
  }

  /// A loop's sleep that is not over.
  private struct Sleep {
    var notified: UInt64?
    var queued: UInt64?
  }

  /// The loops that slept when the trace began, by their tags, and the tags of the loops that threads run: a loop that is
  /// first heard of as it wakes.
  private static func asleepAtFirst(_ timeline: [Trace.Moment]) -> ([UInt32: Sleep], [Int: UInt32]) {
    var sleeps: [UInt32: Sleep] = [:]
    var tags: [Int: UInt32] = [:]
    var known: Set<UInt32> = []
    for moment in timeline where moment.event.point == .sleeping || moment.event.point == .woken {
      let tag = moment.event.value
      guard known.insert(tag).inserted, moment.event.point == .woken else { continue }
      sleeps[tag] = Sleep()
      tags[moment.thread] = tag
    }
    return (sleeps, tags)
  }

  private mutating func takeSleeps(_ timeline: [Trace.Moment], _ order: SubmissionOrder) {
    var (sleeps, tags) = Self.asleepAtFirst(timeline)
    var next = 0
    // By thread: when the first entry of a sleep that is over was queued, until something is handed over.
    var unsubmitted: [Int: UInt64] = [:]
    // By thread: the sleeping loop for which it queued last.
    var tagOfLast: [Int: UInt32] = [:]
    for moment in timeline {
      let event = moment.event
      switch event.point {
      case .sleeping:
        sleeps[event.value] = Sleep()
        tags[moment.thread] = event.value
      case .notified:
        if let sleep = sleeps[event.value], sleep.notified == nil { sleeps[event.value]?.notified = event.time }
      case .queued:
        let loop = order.loops[next]
        next += 1
        if loop != moment.thread, let tag = tags[loop], let sleep = sleeps[tag] {
          tagOfLast[moment.thread] = tag
          if sleep.queued == nil { sleeps[tag]?.queued = event.time }
        }
      case .woken:
        guard let sleep = sleeps.removeValue(forKey: event.value) else { continue }
        if let notified = sleep.notified { _ = notifiedToWoken.record(event.time - notified) }
        if let queued = sleep.queued {
          _ = queuedToWoken.record(event.time - queued)
          unsubmitted[moment.thread] = queued
        }
      case .submitted:
        if let queued = unsubmitted.removeValue(forKey: moment.thread) {
          _ = idleToSubmitted.record(event.time - queued)
        } else if let tag = tagOfLast[moment.thread], let queued = sleeps[tag]?.queued {
          // By the thread that queued it: nothing waits for the loop any more.
          _ = idleToSubmitted.record(event.time - queued)
          sleeps[tag]?.queued = nil
        }
      case .doorbell, .exit, .request, .completed, .interrupt, .acknowledged: break
      }
    }
  }
}
