// SPDX-License-Identifier: Apache-2.0
// Export to the trace event format of Chrome, which Perfetto (ui.perfetto.dev) and chrome://tracing open. Origin: "Trace
// Event Format", Google 2016: complete events (X), instants (i), nestable asynchronous spans (b, e), flows (s, t, f) and
// metadata (M); times are microseconds.
import Glibc

extension Trace {
  /// Writes the trace as one JSON object.
  ///
  /// One track for each thread, with its name. Spans: exits, sleeps of loops and the time between, and, on tracks of
  /// their own, each request with its phases. Instants: every other point. Arrows follow each request from its doorbell to
  /// its interrupt, from thread to thread. Times count from the first event.
  /// - Parameter descriptor: borrowed; its position advances.
  /// - Throws: what write(2) said; a part may be written.
  public func writeChromeTrace(to descriptor: Int32) throws(TraceWriteError) {
    var writer = ChromeTraceWriter(self, descriptor: descriptor)
    try writer.write()
  }
}

/// Streams one trace; what it keeps does not grow with the text.
struct ChromeTraceWriter {
  private let trace: Trace
  private let process = getpid()
  // Times count from here.
  private let start: UInt64
  private var json: JSONStream

  init(_ trace: Trace, descriptor: Int32) {
    self.trace = trace
    start = trace.threads.compactMap { $0.events.first?.time }.min() ?? 0
    json = JSONStream(descriptor: descriptor)
  }

  mutating func write() throws(TraceWriteError) {
    json.text("{\"displayTimeUnit\":\"ns\",\"otherData\":{\"droppedEvents\":")
    json.number(trace.droppedCount)
    json.text("},\"traceEvents\":[")
    try writeNames()
    for thread in trace.threads {
      try writeSpans(thread)
      for event in thread.events { try writeInstant(event, thread) }
    }
    for (ordinal, request) in trace.requests.enumerated() {
      try writePhases(request, ordinal)
      try writeFlow(request, ordinal)
    }
    json.text("\n]}\n")
    try json.flush()
  }

  // MARK: Names

  private mutating func writeNames() throws(TraceWriteError) {
    try json.element()
    json.text("{\"ph\":\"M\",\"name\":\"process_name\"")
    writePlace(0)
    json.text(",\"args\":{\"name\":\"spindle\"}}")
    for thread in trace.threads {
      try json.element()
      json.text("{\"ph\":\"M\",\"name\":\"thread_name\"")
      writePlace(thread.identifier)
      json.text(",\"args\":{\"name\":")
      json.string(thread.name)
      json.text("}}")
    }
  }

  private mutating func writePlace(_ thread: Int32) {
    json.text(",\"pid\":")
    json.number(process)
    json.text(",\"tid\":")
    json.number(thread)
  }

  private mutating func writeTime(_ time: UInt64) {
    json.text(",\"ts\":")
    json.microseconds(time - start)
  }

  // MARK: Threads

  /// A thread's exits, or its loop's sleeps and what is between them. A thread that has neither is one span, so that
  /// arrows have something to end at.
  private mutating func writeSpans(_ thread: TraceThread) throws(TraceWriteError) {
    guard let first = thread.events.first, let last = thread.events.last else { return }
    let sleeps = thread.events.contains { $0.point == .sleeping || $0.point == .woken }
    if !sleeps && !thread.events.contains(where: { $0.point == .exit }) {
      return try writeSpan("working", first.time, last.time, thread)
    }
    var exit: TraceEvent?
    // A loop that is first heard of as it wakes slept when the trace began.
    var isAsleep = thread.events.first { $0.point == .sleeping || $0.point == .woken }?.point == .woken
    var since = first.time
    for event in thread.events {
      switch event.point {
      case .exit:
        // One whose end was dropped ends with the next.
        if let begun = exit { try writeSpan(Self.exitName(begun.value), begun.time, event.time, thread) }
        exit = event.value == TraceExit.end.rawValue ? nil : event
      case .sleeping where !isAsleep, .woken where isAsleep:
        try writeSpan(isAsleep ? "sleeping" : "awake", since, event.time, thread)
        isAsleep.toggle()
        since = event.time
      default: break
      }
    }
    if let begun = exit { try writeSpan(Self.exitName(begun.value), begun.time, last.time, thread) }
    if sleeps { try writeSpan(isAsleep ? "sleeping" : "awake", since, last.time, thread) }
  }

  private static func exitName(_ value: UInt32) -> StaticString {
    switch TraceExit(rawValue: value) {
    case .portRead: "port read"
    case .portWrite: "port write"
    case .memoryRead: "device memory read"
    case .memoryWrite: "device memory write"
    case .end, nil: "exit"
    }
  }

  private mutating func writeSpan(
    _ name: StaticString, _ from: UInt64, _ to: UInt64, _ thread: TraceThread
  ) throws(TraceWriteError) {
    try json.element()
    json.text("{\"ph\":\"X\",\"cat\":\"thread\",\"name\":\"")
    json.text(name)
    json.text("\"")
    writePlace(thread.identifier)
    writeTime(from)
    json.text(",\"dur\":")
    json.microseconds(to - from)
    json.text("}")
  }

  /// Exits and sleeps are spans already.
  private mutating func writeInstant(_ event: TraceEvent, _ thread: TraceThread) throws(TraceWriteError) {
    if event.point == .exit || event.point == .sleeping { return }
    try json.element()
    json.text("{\"ph\":\"i\",\"s\":\"t\",\"cat\":\"point\",\"name\":\"")
    json.text(event.point.name)
    json.text("\"")
    writePlace(thread.identifier)
    writeTime(event.time)
    json.text(",\"args\":{\"value\":")
    json.number(event.value)
    if event.request != 0 {
      json.text(",\"request\":")
      json.word(event.request)
    }
    json.text("}}")
  }

  // MARK: Requests

  /// The request from its first point to its last, and in it a span from each point to the next.
  private mutating func writePhases(_ request: RequestTimes, _ ordinal: Int) throws(TraceWriteError) {
    let places = request.places
    guard let first = places.first, let last = places.last, places.count > 1 else { return }
    try writePhase("b", "request", first.place, ordinal)
    json.text(",\"args\":{\"request\":")
    json.word(request.request)
    json.text("}}")
    for (from, to) in zip(places, places.dropFirst()) where to.place.time >= from.place.time {
      try writePhase("b", from.point.phase, from.place, ordinal)
      json.text("}")
      try writePhase("e", from.point.phase, TracePlace(time: to.place.time, thread: from.place.thread), ordinal)
      json.text("}")
    }
    try writePhase("e", "request", TracePlace(time: last.place.time, thread: first.place.thread), ordinal)
    json.text("}")
  }

  private mutating func writePhase(
    _ phase: StaticString, _ name: StaticString, _ place: TracePlace, _ ordinal: Int
  ) throws(TraceWriteError) {
    try json.element()
    json.text("{\"ph\":\"")
    json.text(phase)
    json.text("\",\"cat\":\"request\",\"id\":")
    json.number(ordinal + 1)
    json.text(",\"name\":\"")
    json.text(name)
    json.text("\"")
    writePlace(trace.threads[place.thread].identifier)
    writeTime(place.time)
  }

  /// Arrows from point to point, bound to the spans that enclose them.
  private mutating func writeFlow(_ request: RequestTimes, _ ordinal: Int) throws(TraceWriteError) {
    let places = request.places
    if places.count < 2 { return }
    for (index, step) in places.enumerated() {
      let phase: StaticString = index == 0 ? "s" : index == places.count - 1 ? "f" : "t"
      try json.element()
      json.text("{\"ph\":\"")
      json.text(phase)
      json.text("\",\"bp\":\"e\",\"cat\":\"flow\",\"name\":\"request\",\"id\":")
      json.number(ordinal + 1)
      writePlace(trace.threads[step.place.thread].identifier)
      writeTime(step.place.time)
      json.text("}")
    }
  }
}

extension TracePoint {
  /// As the source writes it.
  var name: StaticString {
    switch self {
    case .doorbell: "doorbell"
    case .exit: "exit"
    case .request: "request"
    case .queued: "queued"
    case .notified: "notified"
    case .woken: "woken"
    case .submitted: "submitted"
    case .completed: "completed"
    case .interrupt: "interrupt"
    case .acknowledged: "acknowledged"
    case .sleeping: "sleeping"
    }
  }

  /// What a request waits for after this point.
  fileprivate var phase: StaticString {
    switch self {
    case .doorbell: "parsing"
    case .request: "block layer"
    case .queued: "queued"
    case .submitted: "in the kernel"
    case .completed: "telling the guest"
    default: "done"
    }
  }
}
