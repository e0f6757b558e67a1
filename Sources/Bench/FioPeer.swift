// SPDX-License-Identifier: Apache-2.0
import AsyncIO

/// fio on the same file with the same engine, block size and depth: what the disk gives a program without a device model.
struct FioPeer {
  /// One measurement.
  struct Figures {
    var iops: Double
    /// CPU time of fio's jobs per request in microseconds, in user mode and in the kernel. Each job counts its own thread
    /// (RUSAGE_THREAD), so what the kernel's io_uring workers do for it is not in there.
    var userMicroseconds: Double
    var systemMicroseconds: Double
    /// Latency in microseconds: median and 99th percentile.
    var medianMicroseconds: Double
    var p99Microseconds: Double
  }

  /// Whether fio is installed.
  static let isInstalled = PeerTool.isInstalled("fio")

  /// Which of fio's engines does what ours does.
  var engine: EngineKind
  /// The file.
  var path: String
  /// The page cache is bypassed.
  var isDirect = true
  /// What to do.
  var workload: Workload
  /// Requests in flight.
  var depth: Int
  /// How long.
  var seconds: Double

  /// fio's name of an engine.
  static func engineName(_ kind: EngineKind) -> String {
    switch kind {
    case .ioUring: "io_uring"
    case .linuxAIO: "libaio"
    case .threads: "psync"
    }
  }

  /// Who a result is compared with.
  var name: String { "fio \(Self.engineName(engine))" }

  /// fio's threads that make the load: a blocking engine needs one for each request in flight.
  var jobCount: Int { engine == .threads ? depth : 1 }

  /// Fields of fio's terse output version 3, counted from 0.
  private enum Field {
    static let version = "3"
    static let readIOPS = 7
    static let writeOffset = 41
    static let readPercentiles = 17
    static let percentileCount = 20
    static let userPercent = 87
    static let systemPercent = 88
    static let count = 90
  }

  /// Runs fio.
  func run() throws(BenchError) -> Figures { try parse(PeerTool.output(of: command)) }

  /// The shell's command line.
  var command: String {
    // A colon separates files in fio's list.
    let file = path.split(separator: ":", omittingEmptySubsequences: false).joined(separator: "\\:")
    var words = [
      "fio", "--name=peer", "--filename=\(PeerTool.quoted(file))", "--ioengine=\(Self.engineName(engine))",
      "--direct=\(isDirect ? 1 : 0)", "--rw=\(pattern)", "--bs=\(workload.blockBytes)",
      "--runtime=\(Int((seconds * 1000).rounded()))ms", "--time_based", "--randrepeat=0", "--percentile_list=50:99",
      "--output-format=terse", "--terse-version=3",
    ]
    switch workload.operation {
    case .flushedWrite: words.append("--fdatasync=1")
    case .fuaWrite: words.append("--sync=dsync")
    default: break
    }
    var jobBytes = workload.spanBytes
    if engine == .threads {
      words += ["--thread=1", "--numjobs=\(jobCount)", "--group_reporting"]
      if workload.isSequential {
        // Each thread goes through a part of its own, or all would read the same blocks.
        jobBytes = workload.spanBytes / UInt64(jobCount)
        jobBytes -= jobBytes % UInt64(workload.blockBytes)
        words.append("--offset_increment=\(jobBytes)")
      }
    } else {
      words.append("--iodepth=\(depth)")
    }
    words.append("--size=\(jobBytes)")
    return words.joined(separator: " ")
  }

  private var pattern: String {
    switch workload.operation {
    case .randomRead: "randread"
    case .randomWrite, .flushedWrite, .fuaWrite: "randwrite"
    case .sequentialRead: "read"
    case .sequentialWrite: "write"
    }
  }

  /// Takes the figures out of what fio printed.
  func parse(_ text: String) throws(BenchError) -> Figures {
    let line = text.split(separator: "\n").last { $0.hasPrefix("\(Field.version);") } ?? ""
    let fields = line.split(separator: ";", omittingEmptySubsequences: false).map(String.init)
    guard fields.count >= Field.count else { throw BenchError("fio printed nothing that can be read: \(command)") }
    let shift = workload.isWrite ? Field.writeOffset : 0
    guard let iops = Double(fields[Field.readIOPS + shift]), iops > 0 else {
      throw BenchError("fio completed nothing: \(command)")
    }
    let percentiles = fields[Field.readPercentiles + shift..<Field.readPercentiles + shift + Field.percentileCount]
    func percentile(_ wanted: String) -> Double {
      percentiles.first { $0.hasPrefix(wanted) }.flatMap { $0.split(separator: "=").last.flatMap { Double($0) } } ?? 0
    }
    // Percent of the time of one job; all of them worked for that long.
    func perRequest(_ field: Int) -> Double {
      (Double(fields[field].dropLast()) ?? 0) / 100 * 1e6 * Double(jobCount) / iops
    }
    return Figures(
      iops: iops, userMicroseconds: perRequest(Field.userPercent), systemMicroseconds: perRequest(Field.systemPercent),
      medianMicroseconds: percentile("50.000000%"), p99Microseconds: percentile("99.000000%"))
  }
}
