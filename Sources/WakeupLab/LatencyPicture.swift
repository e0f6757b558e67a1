// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Pictures
import Tracing

/// Draws how long requests took under each policy, on one logarithmic scale.
enum LatencyPicture {
  static let step = "doorbell to interrupt"

  /// The plot of an outcome; nil where no row has the step.
  static func plot(_ outcome: Reproduction.Outcome, parameters: ThinkingParameters) -> LatencyPlot? {
    let series = outcome.rows.compactMap { row in
      row.figures.steps.first { $0.name == step }.map { step in
        LatencyPlot.Series(name: row.scenario.title, percentiles: percentiles(step.latency))
      }
    }
    if series.isEmpty { return nil }
    return LatencyPlot(
      title: "From doorbell to interrupt: what the wake policy costs",
      subtitle: "\(parameters.totalBytes >> 20) MiB in reads of \(parameters.requestBytes >> 10) KiB, batches of "
        + "\(parameters.batchCount), O_DIRECT",
      measure: "latency, \(step)", series: series, references: references(outcome, parameters))
  }

  private static func percentiles(_ latency: LatencySummary) -> [LatencyPlot.Percentile] {
    [(50, latency.p50), (99, latency.p99), (99.9, latency.p999), (100, latency.max)].map {
      LatencyPlot.Percentile(percent: $0, nanoseconds: $1)
    }
  }

  private static func references(
    _ outcome: Reproduction.Outcome, _ parameters: ThinkingParameters
  ) -> [LatencyPlot.Reference] {
    var references: [LatencyPlot.Reference] = []
    if let host = outcome.hostWake {
      references.append(
        LatencyPlot.Reference(name: "this host wakes a thread by an eventfd, p50", nanoseconds: host.p50))
    }
    if let published = meanOfBatchPublished(outcome, parameters) {
      references.append(
        LatencyPlot.Reference(name: "QEMU before its fix, mean of a batch, from its run time", nanoseconds: published))
    }
    return references
  }

  /// What was published is how long the whole run took: without the thoughts, a batch's share of it is this long.
  private static func meanOfBatchPublished(
    _ outcome: Reproduction.Outcome, _ parameters: ThinkingParameters
  ) -> UInt64? {
    // The figure belongs to the published workload only.
    let published = outcome.rows.first { $0.scenario.policy == .never && $0.scenario.activityHz == 0 }?
      .scenario.publishedSeconds
    guard let published, parameters == ThinkingParameters() else { return nil }
    let batches = parameters.requestCount / UInt64(parameters.batchCount)
    return (UInt64(published * 1e9) - parameters.thinkNs) / batches
  }
}
