// SPDX-License-Identifier: Apache-2.0
import Tracing

/// The longest time in a trace that queued work waited for a sleeping loop, and what happened around it.
struct Stall {
  /// Indices of the threads in the trace.
  var vcpu: Int
  var loop: Int
  /// When the first entry was queued for the sleeping loop, and when the loop was woken, nanoseconds.
  var queued: UInt64
  var woken: UInt64
  /// The requests that were queued from the one to the other.
  var requests: [RequestTimes]
  /// What is shown: from some time before `queued` to some time after the last of them was told to the guest.
  var window: ClosedRange<UInt64>

  /// What is shown before and after.
  private static let marginNs: UInt64 = 100_000

  private struct Sleep {
    var loop: Int
    var queued: (thread: Int, time: UInt64)?
  }

  /// Finds the longest one; nil where no thread queued anything for a loop that slept.
  init?(_ trace: Trace) {
    var sleep: Sleep?
    var longest: (sleep: Sleep, woken: UInt64)?
    for moment in trace.timeline {
      switch moment.event.point {
      case .sleeping: sleep = Sleep(loop: moment.thread)
      case .queued:
        if let current = sleep, current.queued == nil, current.loop != moment.thread {
          sleep?.queued = (moment.thread, moment.event.time)
        }
      case .submitted:
        // By a vCPU that does it itself: nothing waits for the loop then.
        if let current = sleep, current.queued?.thread == moment.thread { sleep?.queued = nil }
      case .woken:
        defer { sleep = nil }
        guard let current = sleep, let start = current.queued?.time else { continue }
        let length = moment.event.time - start
        if length > longest.map({ $0.woken - ($0.sleep.queued?.time ?? 0) }) ?? 0 {
          longest = (current, moment.event.time)
        }
      case .doorbell, .exit, .request, .notified, .completed, .interrupt, .acknowledged: break
      }
    }
    guard let longest, let first = longest.sleep.queued else { return nil }
    vcpu = first.thread
    loop = longest.sleep.loop
    queued = first.time
    woken = longest.woken
    let range = queued...woken
    requests = trace.requests.filter { $0.queued.map { range.contains($0.time) } ?? false }
    let last = requests.compactMap { $0.interrupt?.time ?? $0.completed?.time }.max() ?? longest.woken
    window = queued - min(queued, Self.marginNs)...max(last, longest.woken) + Self.marginNs
  }
}
