// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Pictures

/// The two pictures of a run: the bug's stall, and the latencies of all rows.
public struct WakeupPictures {
  /// Where the timeline of the longest stall goes.
  public let stallPath: String
  /// Where the plot of latencies goes: beside it, with `-latency` before the extension.
  public let latencyPath: String
  private let fonts: Fonts

  private static let suffix = "-latency"

  /// Names the files and opens the fonts, so that nothing is missing after the run.
  /// - Parameter path: of the timeline, usually with the extension `.png`.
  /// - Throws: what is missing, with the way out.
  public init(path: String) throws(PictureError) {
    stallPath = path
    latencyPath =
      path.hasSuffix(".png") ? path.dropLast(4) + Self.suffix + ".png" : path + Self.suffix
    fonts = try Fonts()
  }

  /// Draws and writes both.
  /// - Returns: the files that were written; a trace without a stall has no timeline.
  public func write(_ outcome: Reproduction.Outcome, parameters: ThinkingParameters) throws(PictureError) -> [String] {
    var written: [String] = []
    if let first = outcome.rows.first, let picture = StallPicture(outcome.trace) {
      let timeline = picture.timeline(of: first.scenario, requestBytes: parameters.requestBytes)
      try timeline.draw(fonts: fonts).writePNG(to: stallPath)
      written.append(stallPath)
    }
    if let plot = LatencyPicture.plot(outcome, parameters: parameters) {
      try plot.draw(fonts: fonts).writePNG(to: latencyPath)
      written.append(latencyPath)
    }
    return written
  }
}
