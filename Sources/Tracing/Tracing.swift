// SPDX-License-Identifier: Apache-2.0
// Tracing: trace points, a ring of events for each thread, what can be read from them, and their export. It knows nothing
// of the rest of the process.
import CTracing
import Synchronization

/// The events of one thread.
public struct TraceThread: Sendable {
  /// The thread's number, as the kernel counts.
  public var identifier: Int32
  /// The thread's name when it recorded its first event.
  public var name: String
  /// In the order of their times.
  public var events: [TraceEvent]
  /// Events that came when the thread's ring was full.
  public var droppedCount: UInt64

  /// Describes a thread's events, oldest first.
  public init(identifier: Int32, name: String, events: [TraceEvent], droppedCount: UInt64 = 0) {
    self.identifier = identifier
    self.name = name
    self.events = events
    self.droppedCount = droppedCount
  }
}

/// What was recorded, thread by thread.
public struct Trace: Sendable {
  /// Threads that recorded something, in the order in which they began to.
  public var threads: [TraceThread]

  /// Puts threads together.
  public init(threads: [TraceThread]) { self.threads = threads }

  /// Events of all threads.
  public var eventCount: Int { threads.reduce(0) { $0 + $1.events.count } }
  /// Events of all threads that found their ring full.
  public var droppedCount: UInt64 { threads.reduce(0) { $0 + $1.droppedCount } }

  /// An event and the index of its thread.
  public struct Moment: Sendable {
    /// Index in `threads`.
    public var thread: Int
    /// What happened.
    public var event: TraceEvent
  }

  /// The events of all threads, oldest first; those of the same time in the order of their threads, those of one thread in
  /// their own order.
  public var timeline: [Moment] {
    var all: [Moment] = []
    all.reserveCapacity(eventCount)
    for (index, thread) in threads.enumerated() {
      for event in thread.events { all.append(Moment(thread: index, event: event)) }
    }
    // The standard library's sort keeps the order of equals.
    all.sort { $0.event.time < $1.event.time }
    return all
  }
}

extension Tracing {
  /// Room of a thread's ring, where `start` is not told otherwise: 24 MiB, of which only what is used becomes resident.
  public static let eventsPerThreadDefault = 1 << 20
  /// Most events of a thread that `start` takes: 24 GiB.
  public static let eventsPerThreadMax = 1 << 30

  // One thread at a time starts, stops and collects; threads that record never wait for it.
  private static let control = Mutex<Void>(())

  /// Begins a trace; events of an earlier one are gone. Any thread, while others record.
  ///
  /// A ring that is full takes no more: later events are counted and dropped, so that what a trace has is complete from
  /// its beginning, and each request in it has its earlier points. A thread's ring stays for its next trace; those of
  /// threads that have ended are freed by the next `start`.
  /// - Parameter eventsPerThread: from 1 to `eventsPerThreadMax`.
  public static func start(eventsPerThread: Int = eventsPerThreadDefault) {
    precondition((1...eventsPerThreadMax).contains(eventsPerThread), "no such size of a ring")
    control.withLock { _ in ctracing_start(UInt64(eventsPerThread)) }
  }

  /// Ends the trace; its events can be collected until the next `start`. A thread that is recording at this moment may
  /// still do so. Any thread.
  public static func stop() { control.withLock { _ in ctracing_stop() } }

  /// Copies what has been recorded since `start`, while threads record on or after they have ended. Any thread.
  public static func collect() -> Trace {
    control.withLock { _ in
      var threads: [TraceThread] = []
      var next = ctracing_first_ring()
      while let ring = next {
        if ctracing_is_current(ring) != 0 { threads.append(copy(ring)) }
        next = ctracing_next_ring(ring)
      }
      // Newest first in the registry.
      return Trace(threads: threads.reversed())
    }
  }

  private static func copy(_ ring: OpaquePointer) -> TraceThread {
    let events = UnsafeBufferPointer(start: ctracing_events(ring), count: Int(ctracing_count(ring)))
    return TraceThread(
      identifier: ctracing_thread(ring), name: String(cString: ctracing_name(ring)),
      events: events.compactMap { event in
        TracePoint(rawValue: event.point).map {
          TraceEvent(time: event.time_ns, point: $0, request: event.request, value: event.value)
        }
      }, droppedCount: ctracing_dropped(ring))
  }
}
