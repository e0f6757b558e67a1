// SPDX-License-Identifier: Apache-2.0
import Assembly
import AsyncIO
import Block
import EventLoop
import Glibc
import HostSystem

/// `spindle bench ahci`: queued commands of a SATA disk beside fio, and beside virtio-blk under the same conditions.
///
/// Both devices are served by the main loop, which never polls, and both guests sleep until an interrupt for one request.
public struct AHCIBench {
  /// Most queued commands of a disk (SATA 3.3, section 13.6.3: tags are 0 to 31).
  public static let depthMax = 32

  /// The file to load; nil makes one of `spanBytes` and removes it afterwards.
  public var path: String?
  /// Writes are measured too; only where the file may be overwritten.
  public var measuresWrites = true
  /// Requests in flight, each at most `depthMax`.
  public var depths = [1, 16, 32]
  /// Bytes of each request.
  public var blockBytes = 4096
  /// Seconds of each measurement.
  public var seconds = 2
  /// Measurements of each row, in turn with the others'; medians are printed.
  public var rounds = 3
  /// Bytes of the file that are touched.
  public var spanBytes: UInt64 = 512 << 20
  /// Who enters the kernel for what the guest queues on AHCI.
  public var submission = SubmissionThread.loop
  /// Takes each line of the table as it is measured.
  public var print: (String) -> Void = { _ in }

  private static let table = BenchTable(widths: [26, 9, 9, 6, 9, 6, 11, 8, 9, 9])

  /// The default measurement.
  public init() {}

  /// Measures everything.
  /// - Returns: for each row ours beside fio's (`ahci/…`) and virtio-blk's beside fio's (`virtio-mainloop/…`).
  /// - Throws: `BenchError` and errors of the host, each as one line.
  public func run() throws -> [BenchResult] {
    print("AHCI queued commands, \(blockBytes) bytes, random, O_DIRECT; peers: fio io_uring, and virtio-blk")
    print(
      "AHCI and virtio-blk: on the main loop, which never polls; the guest sleeps until an interrupt for one request")
    print("cpu: all threads of the process, the guest's driver included")
    if !FioPeer.isInstalled { print("fio is not installed (apt-get install fio): no first peer") }
    printRow(["id", "IOPS", "fio", "ratio", "virtio", "ratio", "cpu us/req", "virtio", "p50 us", "p99 us"])
    return try BenchFile.withPath(path, byteCount: spanBytes) { try measure($0) }
  }

  private func measure(_ file: String) throws -> [BenchResult] {
    var results: [BenchResult] = []
    for operation in measuresWrites ? [Workload.Operation.randomRead, .randomWrite] : [.randomRead] {
      let workload = Workload(operation: operation, blockBytes: blockBytes, spanBytes: spanBytes)
      for depth in depths { results += try measure(file, workload, depth) }
    }
    return results
  }

  /// The two device paths of a row: the same but for the interface.
  static func devicePath(
    _ interface: DriveConfiguration.Interface, source: DriveConfiguration.Source, _ workload: Workload, depth: Int,
    seconds: Double
  ) -> DevicePath {
    var drive = DriveConfiguration(source: source, id: "bench")
    drive.interface = interface
    drive.cache = .none
    drive.isReadOnly = !workload.isWrite
    return DevicePath(
      drive: drive, workload: workload, depth: depth, seconds: seconds, waiting: .sleeps(requestsPerInterrupt: 1),
      usesIOThread: false)
  }

  private func measure(_ file: String, _ workload: Workload, _ depth: Int) throws -> [BenchResult] {
    let time = Double(seconds)
    var ahci = Self.devicePath(.ahci, source: .file(path: file), workload, depth: depth, seconds: time)
    ahci.submission = submission
    let virtio = Self.devicePath(.virtio, source: .file(path: file), workload, depth: depth, seconds: time)
    let fio = FioPeer(engine: .ioUring, path: file, workload: workload, depth: depth, seconds: time)
    var own: [DevicePath.Figures] = []
    var virtios: [DevicePath.Figures] = []
    var fios: [FioPeer.Figures] = []
    for _ in 0..<rounds {
      own.append(try ahci.run())
      virtios.append(try virtio.run())
      if FioPeer.isInstalled { fios.append(try fio.run()) }
    }
    let name = workload.name(depth: depth)
    let result = BenchResult(
      id: "ahci/\(name)", rounds: own.map(\.iops), unit: "iops", peer: fio.name, peerRounds: fios.map(\.iops))
    let beside = BenchResult(
      id: "ahci/\(name)/virtio", rounds: own.map(\.iops), unit: "iops", peer: "virtio-mainloop",
      peerRounds: virtios.map(\.iops))
    let other = BenchResult(
      id: "virtio-mainloop/\(name)", rounds: virtios.map(\.iops), unit: "iops", peer: fio.name,
      peerRounds: fios.map(\.iops))
    printRow([
      result.id, BenchTable.whole(result.value), BenchTable.whole(result.peerValue), BenchTable.fraction(result.ratio),
      BenchTable.whole(beside.peerValue), BenchTable.fraction(beside.ratio), BenchTable.fraction(cpu(own)),
      BenchTable.fraction(cpu(virtios)), BenchTable.fraction(median(own.map(\.medianMicroseconds))),
      BenchTable.fraction(median(own.map(\.p99Microseconds))),
    ])
    return [result, beside, other]
  }

  private func cpu(_ figures: [DevicePath.Figures]) -> Double {
    median(figures.map { $0.userMicroseconds + $0.systemMicroseconds })
  }

  private func printRow(_ cells: [String]) { print(Self.table.row(cells)) }
}
