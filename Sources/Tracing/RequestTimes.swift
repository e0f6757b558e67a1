// SPDX-License-Identifier: Apache-2.0

/// Where and when a point of a request's life was recorded.
public struct TracePlace: Equatable, Sendable {
  /// Nanoseconds of the host's monotonic clock.
  public var time: UInt64
  /// Index in the trace's `threads`.
  public var thread: Int

  /// Describes a place.
  public init(time: UInt64, thread: Int) {
    self.time = time
    self.thread = thread
  }
}

/// One request's way, as far as the trace shows it; each point is nil where it does not.
public struct RequestTimes: Equatable, Sendable {
  /// The address of its slot.
  public var request: UInt64
  /// The tag of its device's queue or port; 0 where the trace does not have its `request` point.
  public var source: UInt32 = 0
  /// The doorbell that it came with.
  public var doorbell: TracePlace?
  /// The device has parsed it.
  public var begun: TracePlace?
  /// Its first operation was queued.
  public var queued: TracePlace?
  /// Its first operation went to the kernel.
  public var submitted: TracePlace?
  /// Its last operation was done.
  public var completed: TracePlace?
  /// The guest was told.
  public var interrupt: TracePlace?

  /// A request of which nothing is known yet.
  public init(request: UInt64) { self.request = request }

  /// The points that are known, in the order in which a request comes to them.
  public var places: [(point: TracePoint, place: TracePlace)] {
    let all: [(TracePoint, TracePlace?)] = [
      (.doorbell, doorbell), (.request, begun), (.queued, queued), (.submitted, submitted), (.completed, completed),
      (.interrupt, interrupt),
    ]
    return all.compactMap { point, place in place.map { (point, $0) } }
  }
}

extension Trace {
  /// The requests of the trace, in the order in which they began.
  ///
  /// Points that name a request belong to the latest request of that name; `request` begins one, and so does `queued`
  /// where the one before is completed (an engine without a block layer above it). Points that name none belong to
  /// requests by their order in time:
  /// - `doorbell`: to each `request` that its thread records after it, up to the thread's next `doorbell`, its next sleep,
  ///   or the end of the exit that it is in.
  /// - `submitted` with the value N: to the N oldest entries of the loop's ring that are not submitted; entries without a
  ///   request (the loop's own) count. A request's loop is the thread that records its `completed`; where there is none,
  ///   the loop of the request that the same thread queued before, or else that thread. A rider is
  ///   submitted with the operation that its thread queues next.
  /// - `interrupt`: to each request of its queue or port that its thread has recorded as completed, since its last
  ///   interrupt and its last sleep. What completes in a batch that ends without an interrupt has none: the guest
  ///   finds it by itself.
  public var requests: [RequestTimes] {
    let timeline = timeline
    var points = RequestPoints(threadCount: threads.count)
    for moment in timeline { points.take(moment) }
    return SubmissionOrder(points).requests(timeline)
  }
}

/// First pass: everything but what `submitted` says of a ring's oldest entries.
struct RequestPoints {
  /// An operation that was queued.
  struct Queued {
    var thread: Int
    var time: UInt64
    /// Index in `requests`; nil for a loop's own entry.
    var request: Int?
    var kind: TraceQueueing
  }

  private struct Completions: Hashable {
    var thread: Int
    var source: UInt32
  }

  private(set) var requests: [RequestTimes] = []
  /// In the order of their times.
  private(set) var queued: [Queued] = []
  private var latest: [UInt64: Int] = [:]
  private var doorbells: [TracePlace?]
  // Completed in this batch and not told to the guest.
  private var untold: [Completions: [Int]] = [:]

  init(threadCount: Int) { doorbells = Array(repeating: nil, count: threadCount) }

  mutating func take(_ moment: Trace.Moment) {
    let event = moment.event
    let place = TracePlace(time: event.time, thread: moment.thread)
    switch event.point {
    case .doorbell: doorbells[place.thread] = place
    case .exit: doorbells[place.thread] = nil
    case .sleeping:
      doorbells[place.thread] = nil
      // Few sources, so a look at all is cheap.
      for key in untold.keys where key.thread == place.thread { untold[key] = nil }
    case .request: begin(event, place)
    case .queued: queue(event, place)
    case .submitted:
      if let index = known(event), requests[index].submitted == nil { requests[index].submitted = place }
    case .completed: complete(event, place)
    case .interrupt:
      for index in untold.removeValue(forKey: Completions(thread: place.thread, source: event.value)) ?? [] {
        requests[index].interrupt = place
      }
    case .notified, .woken, .acknowledged: break
    }
  }

  private func known(_ event: TraceEvent) -> Int? { event.request == 0 ? nil : latest[event.request] }

  private mutating func add(_ request: UInt64) -> Int {
    requests.append(RequestTimes(request: request))
    latest[request] = requests.count - 1
    return requests.count - 1
  }

  private mutating func begin(_ event: TraceEvent, _ place: TracePlace) {
    if event.request == 0 { return }
    let index = add(event.request)
    requests[index].source = event.value
    requests[index].begun = place
    requests[index].doorbell = doorbells[place.thread]
  }

  private mutating func queue(_ event: TraceEvent, _ place: TracePlace) {
    var index = known(event)
    if let known = index, requests[known].completed != nil && requests[known].begun == nil { index = nil }
    if index == nil && event.request != 0 { index = add(event.request) }
    if let index, requests[index].queued == nil { requests[index].queued = place }
    let kind = TraceQueueing(rawValue: event.value) ?? .named
    queued.append(Queued(thread: place.thread, time: place.time, request: index, kind: kind))
  }

  private mutating func complete(_ event: TraceEvent, _ place: TracePlace) {
    guard let index = known(event) else { return }
    let isFirst = requests[index].completed == nil
    requests[index].completed = place
    if isFirst && requests[index].begun != nil {
      untold[Completions(thread: place.thread, source: requests[index].source), default: []].append(index)
    }
  }
}

/// Second pass: the rings' oldest entries, now that each request's loop is known.
struct SubmissionOrder {
  private(set) var points: RequestPoints
  /// The loop's thread for each of `points.queued`.
  private(set) var loops: [Int] = []

  init(_ points: RequestPoints) {
    self.points = points
    var lastLoop: [Int: Int] = [:]
    for entry in points.queued {
      let completed = entry.request.flatMap { points.requests[$0].completed?.thread }
      let loop = completed ?? (entry.request == nil ? entry.thread : lastLoop[entry.thread] ?? entry.thread)
      if entry.request != nil { lastLoop[entry.thread] = loop }
      loops.append(loop)
    }
  }

  func requests(_ timeline: [Trace.Moment]) -> [RequestTimes] {
    var requests = points.requests
    var rings: [Int: Ring] = [:]
    var next = 0
    // Riders of each thread that wait for their operation.
    var riders: [Int: [Int]] = [:]
    var companions: [Int: [Int]] = [:]
    // The loop on whose ring each thread queued last: a thread without a ring of its own submits there.
    var lastLoop: [Int: Int] = [:]
    for moment in timeline {
      let event = moment.event
      if event.point == .queued {
        let entry = points.queued[next]
        if entry.kind == .rider {
          if let request = entry.request { riders[entry.thread, default: []].append(request) }
        } else {
          if let request = entry.request, let own = riders.removeValue(forKey: entry.thread) {
            companions[request] = own
          }
          if entry.kind == .entry {
            rings[loops[next], default: Ring()].entries.append(entry.request)
            lastLoop[entry.thread] = loops[next]
          }
        }
        next += 1
      } else if event.point == .submitted && event.request == 0 {
        let place = TracePlace(time: event.time, thread: moment.thread)
        let ring = rings[moment.thread] == nil ? lastLoop[moment.thread] ?? moment.thread : moment.thread
        for request in rings[ring]?.take(Int(event.value)) ?? [] where requests[request].submitted == nil {
          requests[request].submitted = place
        }
      }
    }
    for (carrier, members) in companions {
      for member in members where requests[member].submitted == nil {
        requests[member].submitted = requests[carrier].submitted
      }
    }
    return requests
  }

  /// A loop's entries, oldest first, with those that are submitted at its front.
  private struct Ring {
    var entries: [Int?] = []
    var taken = 0

    mutating func take(_ count: Int) -> [Int] {
      let end = min(taken + count, entries.count)
      defer { taken = end }
      return entries[taken..<end].compactMap { $0 }
    }
  }
}
