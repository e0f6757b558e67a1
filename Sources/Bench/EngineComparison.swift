// SPDX-License-Identifier: Apache-2.0
import AsyncIO

/// `spindle aio FILE --measure`: a short look at each engine on a file, by reading only.
public enum EngineComparison {
  /// Seconds of each measurement, and how often the engines take turns.
  private static let seconds = 0.25
  private static let rounds = 3
  private static let depths = [1, 16]
  private static let blockBytes = 4096
  /// Bytes of the file that are read.
  private static let spanMax: UInt64 = 4 << 30

  /// Reads random blocks of the file, of `byteCount` bytes, with each engine in turn.
  /// - Parameter print: takes each line of a table.
  public static func run(
    path: String, byteCount: UInt64, isDirect: Bool, engines: [EngineKind], print: (String) -> Void
  ) throws -> [BenchResult] {
    let span = min(byteCount, spanMax) / UInt64(blockBytes) * UInt64(blockBytes)
    guard span > 0 else { throw BenchError("\(path): too small to measure; it takes \(blockBytes) bytes") }
    let workload = Workload(operation: .randomRead, blockBytes: blockBytes, spanBytes: span)
    let table = BenchTable(widths: [30, 9, 9, 9, 11])
    print("random reads of 4 KiB, \(isDirect ? "O_DIRECT" : "through the page cache")")
    print(table.row(["id", "IOPS", "p50 us", "p99 us", "cpu us/req"]))
    var results: [BenchResult] = []
    for depth in depths {
      var figures = engines.map { _ in [EnginePath.Figures]() }
      for _ in 0..<rounds {
        for (index, engine) in engines.enumerated() {
          let path = EnginePath(
            engine: engine, monitor: .auto, path: path, isDirect: isDirect, workload: workload, depth: depth,
            seconds: seconds)
          figures[index].append(try path.run())
        }
      }
      for (engine, all) in zip(engines, figures) {
        let id = "engine-\(engine.rawValue)/\(workload.name(depth: depth))"
        results.append(BenchResult(id: id, value: median(all.map(\.iops)), unit: "iops"))
        let cpu = median(all.map { $0.userMicroseconds + $0.systemMicroseconds })
        print(
          table.row([
            id, BenchTable.whole(median(all.map(\.iops))), BenchTable.fraction(median(all.map(\.medianMicroseconds))),
            BenchTable.fraction(median(all.map(\.p99Microseconds))), BenchTable.fraction(cpu),
          ]))
      }
    }
    return results
  }
}
