// SPDX-License-Identifier: Apache-2.0
import Assembly
import CLinux
import Glibc
import HostSystem
import Tracing

/// Spindle's own: engines, wakeups, traces.
extension MonitorCommands {
  /// Why each drive is served as it is.
  func queryEngines(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    ["notes": .array(target.engineNotes.map { .string($0) })]
  }

  /// How often the loops were woken, and what that took.
  func queryWakeups(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    .array(
      target.loops.map { loop in
        [
          "loop": .string(loop.name), "policy": .string(loop.policy.rawValue),
          "monitor": .string(loop.monitor.rawValue), "notifications": JSONValue(loop.wakes.notifications),
          "eventfd-writes": JSONValue(loop.wakes.eventWrites), "wakeups": JSONValue(loop.wakes.wakeups),
        ]
      })
  }

  /// Times between the points of the trace that is being recorded, or was recorded last, in nanoseconds.
  func queryLatencies(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let trace = Tracing.collect()
    let steps = TraceLatencies(trace).all.compactMap { name, histogram -> JSONValue? in
      guard let summary = LatencySummary(histogram) else { return nil }
      return [
        "step": .string(name), "count": JSONValue(summary.count), "p50": JSONValue(summary.p50),
        "p99": JSONValue(summary.p99), "p999": JSONValue(summary.p999), "max": JSONValue(summary.max),
      ]
    }
    return [
      "tracing": .bool(Tracing.isOn), "events": JSONValue(trace.eventCount),
      "dropped": JSONValue(trace.droppedCount), "latencies": .array(steps),
    ]
  }

  /// Room of a thread's ring that a client may ask for: 1.5 GiB, used as events come.
  private static let traceEventsMax: UInt64 = 1 << 26

  /// Starts or ends the recording of a trace, and writes it to a file.
  func trace(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    if arguments.text("action") == "start" {
      if arguments.text("filename") != nil { throw ControlError("Parameter 'filename' goes with action 'stop'") }
      let count = try arguments.count("events-per-thread") ?? UInt64(Tracing.eventsPerThreadDefault)
      guard (1...Self.traceEventsMax).contains(count) else {
        throw ControlError("Parameter 'events-per-thread' expects a number from 1 to \(Self.traceEventsMax)")
      }
      Tracing.start(eventsPerThread: Int(count))
      return [:]
    }
    Tracing.stop()
    let trace = Tracing.collect()
    if let path = arguments.text("filename") { try Self.write(trace, to: path) }
    return [
      "events": JSONValue(trace.eventCount), "threads": JSONValue(trace.threads.count),
      "dropped": JSONValue(trace.droppedCount),
    ]
  }

  private static func write(_ trace: Trace, to path: String) throws(ControlError) {
    do {
      let file = try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC)
      try trace.writeChromeTrace(to: file.number)
    } catch {
      throw ControlError("Could not write '\(path)': \(error)")
    }
  }
}
