// SPDX-License-Identifier: Apache-2.0
import Assembly
import AsyncIO
import Block
import Glibc
import HostSystem

/// `spindle bench virtio`: the virtio-blk device path beside fio, and over the null backend.
public struct VirtioBench {
  /// The file to load; nil makes one of `spanBytes` and removes it afterwards.
  public var path: String?
  /// Writes are measured too; only where the file may be overwritten.
  public var measuresWrites = true
  /// Requests in flight.
  public var depths = [1, 16, 64]
  /// Bytes of each request.
  public var blockBytes = 4096
  /// Seconds of each measurement.
  public var seconds = 2
  /// Measurements of each row, in turn with the peer's; medians are printed.
  public var rounds = 3
  /// Bytes of the file that are touched.
  public var spanBytes: UInt64 = 512 << 20
  /// Takes each line of the table as it is measured.
  public var print: (String) -> Void = { _ in }

  /// Up to this depth the guest looks for completions all the time; above, it sleeps until a quarter of its requests are
  /// done, as a processor that only looks is missed by the kernel then.
  private static let pollingDepthMax = 16

  /// The default measurement.
  public init() {}

  /// Measures everything.
  public func run() throws -> [BenchResult] {
    print("virtio-blk, \(blockBytes) bytes, random, O_DIRECT; peer: fio io_uring")
    print("the device's thread polls; the guest polls up to depth \(Self.pollingDepthMax) and sleeps above")
    if !FioPeer.isInstalled { print("fio is not installed (apt-get install fio): no peer") }
    printRow(["id", "IOPS", "fio", "ratio", "user+sys us/req", "fio", "p50 us", "p99 us", "p99.9 us"])
    var results = try BenchFile.withPath(path, byteCount: spanBytes) { try measure($0) }
    results.append(try measureNull(depth: 16))
    results.append(BenchResult(id: "resident", value: residentMiB, unit: "MiB"))
    print("resident memory without guest RAM: \(BenchTable.fraction(residentMiB)) MiB")
    return results
  }

  private func measure(_ file: String) throws -> [BenchResult] {
    var results: [BenchResult] = []
    for isWrite in measuresWrites ? [false, true] : [false] {
      for depth in depths {
        let workload = Workload(
          operation: isWrite ? .randomWrite : .randomRead, blockBytes: blockBytes, spanBytes: spanBytes)
        results.append(try measure(file, workload, depth))
      }
    }
    return results
  }

  private var residentMiB: Double { Double(ResourceUsage.residentWithoutGuestKiB) / 1024 }

  private func measure(_ file: String, _ workload: Workload, _ depth: Int) throws -> BenchResult {
    var drive = DriveConfiguration(source: .file(path: file), id: "bench")
    drive.cache = .none
    drive.isReadOnly = !workload.isWrite
    let ours = DevicePath(
      drive: drive, workload: workload, depth: depth, seconds: Double(seconds),
      waiting: depth > Self.pollingDepthMax ? .sleeps(requestsPerInterrupt: depth / 4) : .looks)
    let peer = FioPeer(engine: .ioUring, path: file, workload: workload, depth: depth, seconds: Double(seconds))
    var own: [DevicePath.Figures] = []
    var peers: [FioPeer.Figures] = []
    for _ in 0..<rounds {
      own.append(try ours.run())
      if FioPeer.isInstalled { peers.append(try peer.run()) }
    }
    let result = BenchResult(
      id: "virtio/\(workload.name(depth: depth))", rounds: own.map(\.iops), unit: "iops", peer: peer.name,
      peerRounds: peers.map(\.iops))
    let peerCPU = peers.isEmpty ? nil : median(peers.map { $0.userMicroseconds + $0.systemMicroseconds })
    printRow(result, own, peerCPU: peerCPU)
    return result
  }

  private func measureNull(depth: Int) throws -> BenchResult {
    let drive = DriveConfiguration(source: .null(byteCount: 1 << 30), id: "bench")
    let workload = Workload(operation: .randomRead, blockBytes: blockBytes, spanBytes: 1 << 30)
    let path = DevicePath(drive: drive, workload: workload, depth: depth, seconds: Double(seconds))
    var own: [DevicePath.Figures] = []
    for _ in 0..<rounds { own.append(try path.run()) }
    let result = BenchResult(id: "null/\(workload.name(depth: depth))", value: median(own.map(\.iops)), unit: "iops")
    printRow(result, own, peerCPU: nil)
    return result
  }

  // MARK: The table

  private static let table = BenchTable(widths: [28, 9, 9, 7, 17, 8, 9, 9, 9])

  private func printRow(_ cells: [String]) { print(Self.table.row(cells)) }

  private func printRow(_ result: BenchResult, _ own: [DevicePath.Figures], peerCPU: Double?) {
    printRow([
      result.id, BenchTable.whole(result.value), BenchTable.whole(result.peerValue), BenchTable.fraction(result.ratio),
      BenchTable.fraction(median(own.map { $0.userMicroseconds + $0.systemMicroseconds })),
      BenchTable.fraction(peerCPU),
      BenchTable.fraction(median(own.map(\.medianMicroseconds))),
      BenchTable.fraction(median(own.map(\.p99Microseconds))), BenchTable.fraction(median(own.map(\.p999Microseconds))),
    ])
  }
}
