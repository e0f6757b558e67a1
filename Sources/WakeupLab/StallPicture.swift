// SPDX-License-Identifier: Apache-2.0
import Pictures
import Tracing

/// Draws a stall that a trace shows: what vCPU, main loop and kernel did around it.
struct StallPicture {
  private enum Lane {
    static let vcpu = 0
    static let loop = 1
    static let kernel = 2
  }

  private static let guest = StallTimeline.Kind(name: "guest code", color: .skyBlue)
  private static let device = StallTimeline.Kind(name: "device emulation", color: .blue)
  private static let loop = StallTimeline.Kind(name: "main loop works", color: .green)
  private static let disk = StallTimeline.Kind(name: "disk", color: .orange)
  private static let idle = StallTimeline.Kind(name: "waits", color: .gray(120), isIdle: true)

  private let trace: Trace
  private let stall: Stall

  /// Prepares the longest stall of `trace`; nil where it shows none.
  init?(_ trace: Trace) {
    guard let stall = Stall(trace) else { return nil }
    self.trace = trace
    self.stall = stall
  }

  /// The picture.
  /// - Parameters:
  ///   - scenario: what was run.
  ///   - requestBytes: the length of each request.
  func timeline(of scenario: WakeupScenario, requestBytes: UInt32) -> StallTimeline {
    let length = TimeText.text(stall.woken - stall.queued)
    let count = stall.requests.count
    let isLost = scenario.policy == .never
    return StallTimeline(
      title: isLost
        ? "A lost wakeup: a batch waits \(length) for the main loop"
        : "The longest wait for the main loop: \(length)",
      subtitle: "\(scenario.title): \(count) reads of \(requestBytes >> 10) KiB",
      lanes: [vcpuLane(), loopLane(), kernelLane("reads \(count) × \(requestBytes >> 10) KiB")],
      arrows: arrows(),
      gap: StallTimeline.Gap(
        queued: stall.queued, woken: stall.woken,
        label: isLost ? "queued, and nobody wakes the main loop" : "from queued to woken"))
  }

  private func events(of thread: Int) -> [TraceEvent] {
    trace.threads[thread].events.filter { stall.window.contains($0.time) }
  }

  private func span(_ start: UInt64, _ end: UInt64, _ label: String, _ kind: StallTimeline.Kind) -> StallTimeline.Span {
    StallTimeline.Span(
      start: max(start, stall.window.lowerBound), end: min(end, stall.window.upperBound), label: label, kind: kind)
  }

  // MARK: Lanes

  /// Exits, and between them the guest: it thinks, waits for the interrupt, and handles it.
  private func vcpuLane() -> StallTimeline.Lane {
    var spans: [StallTimeline.Span] = []
    var guestSince = stall.window.lowerBound
    var exit: (start: UInt64, hasDoorbell: Bool)?
    for event in events(of: stall.vcpu) {
      if event.point == .doorbell { exit?.hasDoorbell = true }
      guard event.point == .exit else { continue }
      if event.value != TraceExit.end.rawValue {
        spans += guestSpans(from: guestSince, to: event.time)
        exit = (event.time, false)
      } else if let current = exit {
        spans.append(span(current.start, event.time, current.hasDoorbell ? "doorbell" : "", Self.device))
        exit = nil
        guestSince = event.time
      }
    }
    if let current = exit {
      spans.append(span(current.start, stall.window.upperBound, "", Self.device))
    } else {
      spans += guestSpans(from: guestSince, to: stall.window.upperBound)
    }
    return StallTimeline.Lane(
      name: "vCPU", spans: spans, instants: [StallTimeline.Instant(time: stall.queued, label: "queued")])
  }

  /// What a vCPU does between two exits: before the first entry was queued it thinks, then it waits until the interrupt.
  private func guestSpans(from start: UInt64, to end: UInt64) -> [StallTimeline.Span] {
    guard start < end else { return [] }
    if end <= stall.queued { return [span(start, end, "", Self.guest)] }
    let interrupt = stall.requests.compactMap { $0.interrupt?.time }.min() ?? end
    if end <= interrupt { return [span(start, end, "waits for the interrupt", Self.idle)] }
    if start >= interrupt { return [span(start, end, "", Self.guest)] }
    return [
      span(start, interrupt, "waits for the interrupt", Self.idle), span(interrupt, end, "", Self.guest),
    ]
  }

  private func loopLane() -> StallTimeline.Lane {
    var spans: [StallTimeline.Span] = []
    var instants: [StallTimeline.Instant] = []
    var since = stall.window.lowerBound
    var isAsleep = events(of: stall.loop).first { $0.point == .sleeping || $0.point == .woken }?.point != .sleeping
    var round = Round()
    for event in events(of: stall.loop) {
      switch event.point {
      case .sleeping where !isAsleep:
        spans.append(span(since, event.time, round.label, Self.loop))
        (since, isAsleep) = (event.time, true)
      case .woken where isAsleep:
        spans.append(span(since, event.time, "asleep", Self.idle))
        if event.time == stall.woken { instants.append(StallTimeline.Instant(time: event.time, label: "woken")) }
        (since, isAsleep, round) = (event.time, false, Round())
      case .submitted: round.submits = true
      case .completed: round.completes = true
      case .interrupt: round.interrupts = true
      default: break
      }
    }
    spans.append(
      span(since, stall.window.upperBound, isAsleep ? "asleep" : round.label, isAsleep ? Self.idle : Self.loop))
    return StallTimeline.Lane(name: "main loop", spans: spans, instants: instants)
  }

  /// What a round of the loop did.
  private struct Round {
    var submits = false, completes = false, interrupts = false
    var label: String {
      if interrupts { return "completes, interrupts" }
      if completes { return "completes" }
      return submits ? "submits" : ""
    }
  }

  private func kernelLane(_ label: String) -> StallTimeline.Lane {
    let start = stall.requests.compactMap { $0.submitted?.time }.min()
    let end = stall.requests.compactMap { $0.completed?.time }.max()
    guard let start, let end else { return StallTimeline.Lane(name: "kernel", spans: []) }
    return StallTimeline.Lane(name: "kernel", spans: [span(start, end, label, Self.disk)])
  }

  // MARK: Arrows

  /// The first request's way; the others go beside it.
  private func arrows() -> [StallTimeline.Arrow] {
    guard let first = stall.requests.min(by: { ($0.completed?.time ?? .max) < ($1.completed?.time ?? .max) }),
      let submitted = first.submitted?.time, let completed = first.completed?.time
    else { return [] }
    var arrows = [
      arrow(Lane.vcpu, stall.queued, Lane.loop, stall.woken), arrow(Lane.loop, submitted, Lane.kernel, submitted),
      arrow(Lane.kernel, completed, Lane.loop, completed),
    ]
    if let interrupt = stall.requests.compactMap({ $0.interrupt?.time }).min() {
      arrows.append(arrow(Lane.loop, interrupt, Lane.vcpu, interrupt))
    }
    return arrows
  }

  private func arrow(_ from: Int, _ start: UInt64, _ to: Int, _ end: UInt64) -> StallTimeline.Arrow {
    StallTimeline.Arrow(
      from: StallTimeline.Moment(lane: from, time: start), to: StallTimeline.Moment(lane: to, time: end))
  }
}
