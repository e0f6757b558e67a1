// SPDX-License-Identifier: Apache-2.0
// Bench: measures the way of a request and prints it beside peers measured in the same run. Ratios mean something;
// absolute figures depend on the host.
import Glibc
import HostSystem

/// fio on the same file with the same engine, block size and depth: what the disk gives a program without a device model.
struct FioPeer {
  /// One measurement.
  struct Figures {
    var iops: Double
    /// CPU time per request in microseconds, in user mode and in the kernel.
    var userMicroseconds: Double
    var systemMicroseconds: Double
    /// Latency in microseconds: median and 99th percentile.
    var medianMicroseconds: Double
    var p99Microseconds: Double
  }

  /// Whether fio is installed.
  static let isInstalled: Bool = {
    guard let path = getenv("PATH") else { return false }
    return String(cString: path).split(separator: ":").contains { access("\($0)/fio", X_OK) == 0 }
  }()

  /// Fields of fio's terse output version 3, counted from 0.
  private enum Field {
    static let readIOPS = 7
    static let writeOffset = 41
    static let readPercentiles = 17
    static let percentileCount = 20
    static let userPercent = 87
    static let systemPercent = 88
    static let count = 90
  }

  /// Runs fio for `seconds` on `path`.
  static func run(path: String, workload: Workload, depth: Int, seconds: Int) throws(BenchError) -> Figures {
    let name = workload.isWrite ? "randwrite" : "randread"
    let command =
      "fio --name=peer --filename='\(path)' --ioengine=io_uring --direct=1 --rw=\(name) --bs=\(workload.blockBytes)"
      + " --iodepth=\(depth) --size=\(workload.spanBytes) --runtime=\(seconds) --time_based --randrepeat=0"
      + " --percentile_list=50:99 --output-format=terse --terse-version=3 2>/dev/null"
    let fields = try output(of: command).split(separator: ";", omittingEmptySubsequences: false).map(String.init)
    guard fields.count >= Field.count else { throw BenchError("fio printed nothing that can be read") }
    let shift = workload.isWrite ? Field.writeOffset : 0
    let iops = Double(fields[Field.readIOPS + shift]) ?? 0
    let percentiles = fields[Field.readPercentiles + shift..<Field.readPercentiles + shift + Field.percentileCount]
    func percentile(_ wanted: String) -> Double {
      percentiles.first { $0.hasPrefix(wanted) }.flatMap { $0.split(separator: "=").last.flatMap { Double($0) } } ?? 0
    }
    func perRequest(_ field: Int) -> Double {
      let percent = Double(fields[field].dropLast()) ?? 0
      return iops > 0 ? percent / 100 * 1e6 / iops : 0
    }
    return Figures(
      iops: iops, userMicroseconds: perRequest(Field.userPercent), systemMicroseconds: perRequest(Field.systemPercent),
      medianMicroseconds: percentile("50.000000%"), p99Microseconds: percentile("99.000000%"))
  }

  private static func output(of command: String) throws(BenchError) -> String {
    guard let pipe = popen(command, "r") else { throw BenchError("fio could not be started") }
    var text = ""
    var line = [CChar](repeating: 0, count: 1 << 16)
    while fgets(&line, Int32(line.count), pipe) != nil {
      text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    guard pclose(pipe) == 0 else { throw BenchError("fio failed; run it by hand to see why: \(command)") }
    return text
  }
}

/// What requests a measurement makes.
public struct Workload: Sendable {
  /// Writes instead of reads.
  public var isWrite: Bool
  /// Bytes of each request.
  public var blockBytes: Int
  /// Bytes of the file that offsets are drawn from.
  public var spanBytes: UInt64

  /// Random requests of `blockBytes` over the first `spanBytes`.
  public init(isWrite: Bool, blockBytes: Int, spanBytes: UInt64) {
    self.isWrite = isWrite
    self.blockBytes = blockBytes
    self.spanBytes = spanBytes
  }
}

/// A measurement that could not be made, as one line.
public struct BenchError: Error, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  init(_ description: String) { self.description = description }
}
