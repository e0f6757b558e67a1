// SPDX-License-Identifier: Apache-2.0
import Pictures

/// Pictures of the kind a measurement gives.
enum Examples {
  static let microsecond: UInt64 = 1000
  static let millisecond: UInt64 = 1_000_000

  static let guest = StallTimeline.Kind(name: "guest code", color: .skyBlue)
  static let device = StallTimeline.Kind(name: "device emulation", color: .blue)
  static let loop = StallTimeline.Kind(name: "main loop works", color: .green)
  static let disk = StallTimeline.Kind(name: "disk", color: .orange)
  static let idle = StallTimeline.Kind(name: "waits", color: .gray(120), isIdle: true)

  /// A request whose doorbell comes at 30 µs, and which the main loop sees `gap` after it was queued.
  static func stall(gap: UInt64, title: String, policy: String, why: String) -> StallTimeline {
    let base: UInt64 = 5_000_000_000_000
    func at(_ microseconds: UInt64) -> UInt64 { base + microseconds * microsecond }
    let queued = at(41)
    let woken = queued + gap
    func later(_ microseconds: UInt64) -> UInt64 { woken + microseconds * microsecond }
    func span(_ start: UInt64, _ end: UInt64, _ label: String, _ kind: StallTimeline.Kind) -> StallTimeline.Span {
      StallTimeline.Span(start: start, end: end, label: label, kind: kind)
    }
    let vcpu = StallTimeline.Lane(
      name: "vCPU 0",
      spans: [
        span(at(0), at(30), "builds 16 commands", guest), span(at(30), at(44), "AHCI doorbell", device),
        span(at(44), later(112), "waits for the interrupt", idle),
        span(later(112), later(140), "interrupt handler", guest),
      ], instants: [StallTimeline.Instant(time: queued, label: "queued")])
    let loopLane = StallTimeline.Lane(
      name: "main loop",
      spans: [
        span(at(0), woken, "asleep in ppoll", idle), span(woken, later(9), "runs timers", loop),
        span(later(9), later(17), "io_uring_enter", loop), span(later(17), later(98), "asleep in ppoll", idle),
        span(later(98), later(110), "completes, raises the interrupt", device),
        span(later(110), later(140), "asleep in ppoll", idle),
      ], instants: [StallTimeline.Instant(time: woken, label: "woken")])
    let kernel = StallTimeline.Lane(
      name: "kernel", spans: [span(later(15), later(92), "reads 16 x 128 KiB", disk)])
    return StallTimeline(
      title: title, subtitle: "AHCI, 16 reads of 128 KiB in a batch, wake policy \u{201c}\(policy)\u{201d}",
      lanes: [vcpu, loopLane, kernel],
      arrows: [
        arrow(0, queued, 1, later(9)), arrow(1, later(15), 2, later(17)), arrow(2, later(92), 1, later(98)),
        arrow(1, later(110), 0, later(112)),
      ],
      gap: StallTimeline.Gap(queued: queued, woken: woken, label: why))
  }

  private static func arrow(_ from: Int, _ start: UInt64, _ to: Int, _ end: UInt64) -> StallTimeline.Arrow {
    StallTimeline.Arrow(
      from: StallTimeline.Moment(lane: from, time: start), to: StallTimeline.Moment(lane: to, time: end))
  }

  static let lost = stall(
    gap: 430 * millisecond, title: "A lost wakeup: the request waits 430 ms for the main loop", policy: "never",
    why: "queued, and nobody wakes the main loop")
  static let elided = stall(
    gap: 12 * microsecond, title: "With a notification, the request waits 12 \u{b5}s", policy: "elided",
    why: "from the notification to the loop")
}

extension Examples {
  private static func curve(_ name: String, _ values: [UInt64]) -> LatencyPlot.Series {
    let percents = [50, 90, 99, 99.9, 100]
    return LatencyPlot.Series(
      name: name,
      percentiles: zip(percents, values).map { LatencyPlot.Percentile(percent: $0, nanoseconds: $1 * microsecond) })
  }

  static let latencies = LatencyPlot(
    title: "From doorbell to interrupt: what the wake policy costs",
    subtitle: "AHCI, 128 MiB in reads of 128 KiB, batches of 16, O_DIRECT", measure: "latency, doorbell to interrupt",
    series: [
      curve("never", [401_000, 489_000, 497_000, 499_000, 499_400]),
      curve("always", [112, 131, 188, 402, 911]),
      curve("elided", [110, 129, 181, 390, 870]),
      curve("virtio-blk", [98, 115, 160, 310, 640]),
    ],
    references: [
      LatencyPlot.Reference(name: "QEMU before the fix, mean of a batch", nanoseconds: 385_500 * microsecond),
      LatencyPlot.Reference(name: "QEMU with the fix, mean of a batch", nanoseconds: 3312 * microsecond),
    ])
}

/// Pictures that are hard to draw.
extension Examples {
  /// Hundreds of short spans with long labels.
  static let crowded = StallTimeline(
    title: "A headline that is far too long for the picture and therefore ends before its last words are written down",
    subtitle: "Every tenth step is named", lanes: (0..<5).map(crowdedLane))

  private static func crowdedLane(_ lane: Int) -> StallTimeline.Lane {
    var spans: [StallTimeline.Span] = []
    for step in 0..<200 {
      let start = UInt64(step * 1000 + lane * 100)
      let label = step % 10 == lane ? "step number \(step) of a long row" : ""
      spans.append(
        StallTimeline.Span(start: start, end: start + 700, label: label, kind: step % 2 == 0 ? loop : device))
    }
    let instants = (0..<6).map { StallTimeline.Instant(time: UInt64($0) * 1500, label: "instant \($0)") }
    return StallTimeline.Lane(name: "lane \(lane) with a name that is too long", spans: spans, instants: instants)
  }

  /// A nanosecond before a gap of an hour.
  static let extreme = StallTimeline(
    title: "One nanosecond and one hour",
    lanes: [
      StallTimeline.Lane(
        name: "short", spans: [StallTimeline.Span(start: 99, end: 100, label: "a nanosecond", kind: device)]),
      StallTimeline.Lane(
        name: "long",
        spans: [
          StallTimeline.Span(start: 100, end: 100 + 3600 * 1_000_000_000, label: "an hour", kind: idle),
          StallTimeline.Span(
            start: 100 + 3600 * 1_000_000_000, end: 101 + 3600 * 1_000_000_000, label: "another one", kind: loop),
        ]),
    ], gap: StallTimeline.Gap(queued: 100, woken: 100 + 3600 * 1_000_000_000, label: "an hour is lost"))

  /// As many curves as a plot may have, close to each other, each with many points.
  static let manyCurves = LatencyPlot(
    title: "Seven curves", measure: "latency", series: (0..<7).map(closeCurve),
    references: [LatencyPlot.Reference(name: "somebody's figure", nanoseconds: 30_000)])

  private static func closeCurve(_ index: Int) -> LatencyPlot.Series {
    var points: [LatencyPlot.Percentile] = []
    for step in 0...1000 {
      let percent: Double = step == 1000 ? 100 : 99.99 * Double(step) / 999
      let slow = step > 990 ? (step - 990) * 40_000 : 0
      points.append(
        LatencyPlot.Percentile(percent: percent, nanoseconds: UInt64(20_000 + index * 300 + step * 10 + slow)))
    }
    let name = "policy number \(index)" + (index == 3 ? " with a name that is much too long" : "")
    return LatencyPlot.Series(name: name, percentiles: points)
  }
}
