// SPDX-License-Identifier: Apache-2.0

/// A picture of who did what when, and of the time in which nobody did what had to be done.
///
/// Each lane is a thread or a place in the kernel, with the spans in which it does something. The gap, from the moment
/// something is queued to the moment somebody is woken for it, is what the eye sees first: its length stands in it. Where
/// the gap is so long that the steps around it would vanish, the picture has two floors: the whole time above, and below,
/// at one and the same scale, the time around the beginning and the end of the gap.
///
/// Times are nanoseconds of any clock, the same for all of them.
public struct StallTimeline: Sendable {
  /// What a lane does during a span; the legend lists the kinds in the order in which they come first.
  public struct Kind: Hashable, Sendable {
    /// The name in the legend.
    public var name: String
    /// Its colour. Vermilion is for the gap.
    public var color: Color
    /// Whether nothing happens: such spans are pale.
    public var isIdle: Bool

    /// A kind of that name and colour.
    public init(name: String, color: Color, isIdle: Bool = false) {
      self.name = name
      self.color = color
      self.isIdle = isIdle
    }
  }

  /// Something that takes time.
  public struct Span: Sendable {
    /// When it begins, in nanoseconds.
    public var start: UInt64
    /// When it ends, in nanoseconds; an end before the start counts as the start.
    public var end: UInt64
    /// What it is; may be empty. It is shortened, moved or left out where there is no room.
    public var label: String
    /// What kind of thing it is.
    public var kind: Kind

    /// A span from `start` to `end`.
    public init(start: UInt64, end: UInt64, label: String, kind: Kind) {
      self.start = start
      self.end = max(start, end)
      self.label = label
      self.kind = kind
    }
  }

  /// Something that takes no time.
  public struct Instant: Sendable {
    /// When it happens, in nanoseconds.
    public var time: UInt64
    /// What it is.
    public var label: String

    /// Something at `time`.
    public init(time: UInt64, label: String) {
      self.time = time
      self.label = label
    }
  }

  /// A row of the picture.
  public struct Lane: Sendable {
    /// The name at its left.
    public var name: String
    /// What it does, in any order; spans that overlap cover each other, the later ones of the array on top.
    public var spans: [Span]
    /// What happens in it.
    public var instants: [Instant]

    /// A row with these spans and instants.
    public init(name: String, spans: [Span], instants: [Instant] = []) {
      self.name = name
      self.spans = spans
      self.instants = instants
    }
  }

  /// A place in the picture: a moment in a lane.
  public struct Moment: Sendable {
    /// The index of the lane.
    public var lane: Int
    /// The time in nanoseconds.
    public var time: UInt64

    /// The moment `time` in the lane of index `lane`.
    public init(lane: Int, time: UInt64) {
      self.lane = lane
      self.time = time
    }
  }

  /// A request or a signal that goes from one lane to another one. One that names a lane which is not there, or the same
  /// lane twice, is not drawn.
  public struct Arrow: Sendable {
    /// Where it comes from.
    public var from: Moment
    /// Where it goes.
    public var to: Moment

    /// An arrow from `from` to `to`.
    public init(from: Moment, to: Moment) {
      self.from = from
      self.to = to
    }
  }

  /// The time that is lost.
  public struct Gap: Sendable {
    /// When it begins, in nanoseconds: something was queued.
    public var queued: UInt64
    /// When it ends, in nanoseconds: somebody was woken. A time before `queued` counts as `queued`.
    public var woken: UInt64
    /// What is written beside its length.
    public var label: String

    /// A gap from `queued` to `woken`.
    public init(queued: UInt64, woken: UInt64, label: String) {
      self.queued = queued
      self.woken = max(queued, woken)
      self.label = label
    }

    var length: UInt64 { woken - queued }
  }

  /// The narrowest picture, in pixels at scale 1.
  public static let minimumWidth = 480
  /// Further lanes, spans and instants of a lane, and arrows are left out: nobody could tell them apart.
  public static let maximumLanes = 16
  /// See `maximumLanes`.
  public static let maximumMarksPerLane = 400
  /// See `maximumLanes`.
  public static let maximumArrows = 200

  /// The headline.
  public var title: String
  /// A line below it; may be empty.
  public var subtitle: String
  /// The rows from top to bottom.
  public var lanes: [Lane]
  /// What goes from one lane to another.
  public var arrows: [Arrow]
  /// The time that is lost, where some is.
  public var gap: Gap?

  /// A picture of these lanes.
  public init(title: String, subtitle: String = "", lanes: [Lane], arrows: [Arrow] = [], gap: Gap? = nil) {
    self.title = title
    self.subtitle = subtitle
    self.lanes = lanes
    self.arrows = arrows
    self.gap = gap
  }

  /// Draws the picture, `width` pixels wide (at least `minimumWidth`) and as high as it must be, with `scale` pixels of the
  /// file for each. Throws `.size` where that is too large.
  public func draw(width: Int = 900, scale: Int = 2, fonts: Fonts) throws(PictureError) -> Canvas {
    // A width no canvas has is refused before anything is laid out on it.
    _ = try Canvas.pixelCount(width: max(width, StallTimeline.minimumWidth), height: 1, scale: scale)
    return try drawing(width: width, fonts: fonts).canvas(scale: scale, fonts: fonts)
  }

  func drawing(width: Int, fonts: Fonts) -> Drawing {
    var layout = StallTimelineLayout(limited, width: Double(max(width, StallTimeline.minimumWidth)), fonts: fonts)
    layout.arrange()
    return layout.drawing
  }

  /// The picture without what is beyond the limits.
  private var limited: StallTimeline {
    var result = self
    result.lanes = lanes.prefix(StallTimeline.maximumLanes).map { lane in
      var lane = lane
      lane.spans = Array(lane.spans.prefix(StallTimeline.maximumMarksPerLane))
      lane.instants = Array(lane.instants.prefix(StallTimeline.maximumMarksPerLane))
      return lane
    }
    let known = result.lanes.indices
    result.arrows = arrows.prefix(StallTimeline.maximumArrows).filter {
      known.contains($0.from.lane) && known.contains($0.to.lane) && $0.from.lane != $0.to.lane
    }
    return result
  }

  /// Every time that something begins, ends or happens at.
  var times: [UInt64] {
    lanes.flatMap { lane in lane.spans.flatMap { [$0.start, $0.end] } + lane.instants.map(\.time) }
      + arrows.flatMap { [$0.from.time, $0.to.time] } + (gap.map { [$0.queued, $0.woken] } ?? [])
  }
}
