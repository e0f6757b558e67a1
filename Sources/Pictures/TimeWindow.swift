// SPDX-License-Identifier: Apache-2.0

/// A stretch of time that is never empty.
struct TimeWindow: Equatable {
  let start: UInt64
  let end: UInt64

  /// From `start` to `end`, at least a nanosecond.
  init(start: UInt64, end: UInt64) {
    self.start = start == .max ? .max - 1 : start
    self.end = max(end, self.start + 1)
  }

  var length: UInt64 { end - start }

  func contains(_ time: UInt64) -> Bool { start <= time && time <= end }

  /// The window with `margin` more at each end, as far as there is time.
  func grown(_ margin: UInt64) -> TimeWindow {
    TimeWindow(start: start.minus(margin), end: end.plus(margin))
  }

  /// Where a time is between the start (0) and the end (1); may lie outside.
  func fraction(_ time: UInt64) -> Double {
    // Differences are taken as integers: those of large numbers keep every nanosecond.
    let distance = time >= start ? Double(time - start) : -Double(start - time)
    return distance / Double(length)
  }
}

extension UInt64 {
  /// The sum, or the largest number there is.
  func plus(_ other: UInt64) -> UInt64 { addingReportingOverflow(other).overflow ? .max : self + other }

  /// The difference, or zero.
  func minus(_ other: UInt64) -> UInt64 { self > other ? self - other : 0 }

  /// This time and `offset` nanoseconds more, as far as there is time.
  func moved(by offset: Int64) -> UInt64 { offset < 0 ? minus(offset.magnitude) : plus(offset.magnitude) }

  /// How far this time is after `origin`, negative before it; drawn back to what 64 bits with a sign hold.
  func offset(from origin: UInt64) -> Int64 {
    self >= origin ? Int64(clamping: self - origin) : -Int64(clamping: origin - self)
  }
}

/// Which stretches of time a stall is shown in.
enum TimelinePlan: Equatable {
  /// All of it is legible at one scale.
  case whole(TimeWindow)
  /// All of it, and the two ends of the gap at one larger scale. `share` is the part of the width the first end takes.
  case enlarged(whole: TimeWindow, queued: TimeWindow, woken: TimeWindow, share: Double)

  /// Spans of fewer pixels cannot be told apart.
  private static let legiblePixels: UInt64 = 3
  /// What is farther from the gap's ends than this part of its length is seen in the whole.
  private static let nearPart: UInt64 = 20
  /// The shortest stretch that is enlarged: in shorter ones, the ends could not be where they belong.
  private static let leastNanoseconds = 20.0
  /// How much of an enlarged stretch lies before its end of the gap.
  private static let beforeQueued = 0.62
  private static let beforeWoken = 0.25

  /// Decides for a plot of `pixels` from left to right.
  init(_ picture: StallTimeline, pixels: Double) {
    let times = picture.times
    let all = TimeWindow(start: times.min() ?? 0, end: times.max() ?? 0)
    let margin = all.length / 40
    let whole = all.grown(margin)
    let pixels = UInt64(max(pixels, 1))
    let shortest = picture.lanes.flatMap(\.spans).map { $0.end - $0.start }.filter { $0 > 0 }.min()
    guard let gap = picture.gap, let shortest, gap.length >= all.length / 2,
      shortest < whole.length / pixels * TimelinePlan.legiblePixels
    else {
      self = .whole(whole)
      return
    }
    let near = gap.length / TimelinePlan.nearPart
    func reach(_ distances: [UInt64]) -> Double { Double(distances.filter { $0 <= near }.max() ?? 0) }
    let before = reach(times.filter { $0 <= gap.queued }.map { gap.queued - $0 })
    let beforeGapEnds = reach(times.filter { $0 >= gap.queued }.map { $0 - gap.queued })
    let lead = reach(times.filter { $0 <= gap.woken }.map { gap.woken - $0 })
    let after = reach(times.filter { $0 >= gap.woken }.map { $0 - gap.woken })
    // A little more than what has to be seen, so that the last mark is not at the edge.
    let slack = 1.1
    let least = max(Double(shortest), TimelinePlan.leastNanoseconds)
    let first = max(before / TimelinePlan.beforeQueued, beforeGapEnds / (1 - TimelinePlan.beforeQueued), least) * slack
    let second = max(after / (1 - TimelinePlan.beforeWoken), lead / TimelinePlan.beforeWoken, least) * slack
    let share = min(max(first / (first + second), 0.38), 0.62)
    let total = max(first / share, second / (1 - share))
    func window(around time: UInt64, _ length: Double, before: Double) -> TimeWindow {
      TimeWindow(
        start: time.minus(UInt64((length * before).rounded())),
        end: time.plus(UInt64((length * (1 - before)).rounded())))
    }
    self = .enlarged(
      whole: whole, queued: window(around: gap.queued, total * share, before: TimelinePlan.beforeQueued),
      woken: window(around: gap.woken, total * (1 - share), before: TimelinePlan.beforeWoken), share: share)
  }
}
