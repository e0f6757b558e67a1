// SPDX-License-Identifier: Apache-2.0

/// A picture of latencies: a curve of percentiles for each of several policies, on one logarithmic scale.
///
/// The percentiles go from the median on the left to the maximum on the right, and their scale gives the rare, slow
/// requests the room: as much from 90 to 99 as from 99 to 99.9. Curves differ by colour, marker and kind of line, and their
/// names stand at their ends.
public struct LatencyPlot: Sendable {
  /// A point of a curve: this percentage of all requests took no longer than that.
  public struct Percentile: Sendable {
    /// The percentage, 0 to 100; 100 is the maximum. Points that are no number, or outside, are left out.
    public var percent: Double
    /// The latency in nanoseconds; 0 counts as 1, because a logarithmic scale has no zero.
    public var nanoseconds: UInt64

    /// `percent` of all requests took at most `nanoseconds`.
    public init(percent: Double, nanoseconds: UInt64) {
      self.percent = percent
      self.nanoseconds = nanoseconds
    }
  }

  /// One curve.
  public struct Series: Sendable {
    /// What stands at its end.
    public var name: String
    /// Its points in any order: a few percentiles, or as many as there are.
    public var percentiles: [Percentile]

    /// A curve through these points.
    public init(name: String, percentiles: [Percentile]) {
      self.name = name
      self.percentiles = percentiles
    }
  }

  /// A latency that somebody else measured: a line across the plot with its name on it.
  public struct Reference: Sendable {
    /// What it is and whose.
    public var name: String
    /// The latency in nanoseconds.
    public var nanoseconds: UInt64

    /// A line at `nanoseconds`.
    public init(name: String, nanoseconds: UInt64) {
      self.name = name
      self.nanoseconds = nanoseconds
    }
  }

  /// The narrowest picture, in pixels at scale 1.
  public static let minimumWidth = 480
  /// Further curves are left out: there are no more colours that everybody can tell apart.
  public static let maximumSeries = 7
  /// Further references are left out.
  public static let maximumReferences = 8
  /// Of a curve with more points, evenly chosen ones are drawn, the last of them included.
  public static let maximumPoints = 2000

  /// The headline.
  public var title: String
  /// A line below it; may be empty.
  public var subtitle: String
  /// What the latency is of: the title of the vertical axis.
  public var measure: String
  /// The curves; the first one is drawn in vermilion, as what goes wrong.
  public var series: [Series]
  /// Published figures to compare with.
  public var references: [Reference]

  /// A picture of these curves.
  public init(
    title: String, subtitle: String = "", measure: String, series: [Series], references: [Reference] = []
  ) {
    self.title = title
    self.subtitle = subtitle
    self.measure = measure
    self.series = series
    self.references = references
  }

  /// Draws the picture, `width` pixels wide (at least `minimumWidth`) and 5/9 as high, or higher where the names of the
  /// curves need it, with `scale` pixels of the file for each. Throws `.size` where that is too large.
  public func draw(width: Int = 900, scale: Int = 2, fonts: Fonts) throws(PictureError) -> Canvas {
    // A width no canvas has is refused before anything is laid out on it.
    _ = try Canvas.pixelCount(width: max(width, LatencyPlot.minimumWidth), height: 1, scale: scale)
    return try drawing(width: width, fonts: fonts).canvas(scale: scale, fonts: fonts)
  }

  func drawing(width: Int, fonts: Fonts) -> Drawing {
    var layout = LatencyPlotLayout(self, width: Double(max(width, LatencyPlot.minimumWidth)), fonts: fonts)
    layout.arrange()
    return layout.drawing
  }
}

extension LatencyPlot.Series {
  /// The points that can be drawn, from the lowest percentage; one for each percentage.
  var drawable: [LatencyPlot.Percentile] {
    var points = percentiles.filter { $0.percent >= 0 && $0.percent <= 100 }
    points.sort { ($0.percent, $0.nanoseconds) < ($1.percent, $1.nanoseconds) }
    var result: [LatencyPlot.Percentile] = []
    for point in points {
      // Of equal percentages the slower one says more.
      if result.last?.percent == point.percent { result.removeLast() }
      result.append(
        LatencyPlot.Percentile(percent: point.percent, nanoseconds: max(point.nanoseconds, 1)))
    }
    let excess = result.count - LatencyPlot.maximumPoints
    guard excess > 0 else { return result }
    let last = result.count - 1
    return (0..<LatencyPlot.maximumPoints).map { result[$0 * last / (LatencyPlot.maximumPoints - 1)] }
  }
}
