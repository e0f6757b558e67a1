// SPDX-License-Identifier: Apache-2.0
import Assembly
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
    print(row("id", "IOPS", "fio", "ratio", "user+sys us/req", "fio", "p50 us", "p99 us", "p99.9 us"))
    let file = try path ?? makeFile()
    defer { if path == nil { unlink(file) } }
    var results: [BenchResult] = []
    for isWrite in measuresWrites ? [false, true] : [false] {
      for depth in depths {
        let workload = Workload(isWrite: isWrite, blockBytes: blockBytes, spanBytes: spanBytes)
        results.append(try measure(file, workload, depth))
      }
    }
    results.append(try measureNull(depth: 16))
    results.append(BenchResult(id: "resident", value: residentMiB, unit: "MiB"))
    print("resident memory without guest RAM: \(fraction(residentMiB)) MiB")
    return results
  }

  private var residentMiB: Double { Double(ResourceUsage.residentWithoutGuestKiB) / 1024 }

  private func makeFile() throws -> String {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
    let path = "\(folder)/spindle-bench-\(getpid())"
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL)
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    for index in chunk.indices { chunk[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 7) }
    for _ in 0..<spanBytes >> 20 {
      // Real blocks, so that reads reach the disk and writes do not allocate.
      guard write(descriptor.number, chunk, chunk.count) == chunk.count else {
        unlink(path)
        throw BenchError("\(path): no room for \(spanBytes >> 20) MiB; set TMPDIR or name a file with --file")
      }
    }
    fsync(descriptor.number)
    return path
  }

  private func measure(_ file: String, _ workload: Workload, _ depth: Int) throws -> BenchResult {
    var drive = DriveConfiguration(source: .file(path: file), id: "bench")
    drive.cache = .none
    drive.isReadOnly = !workload.isWrite
    let ours = DevicePath(
      drive: drive, workload: workload, depth: depth, seconds: Double(seconds),
      sleeps: depth > Self.pollingDepthMax)
    var own: [DevicePath.Figures] = []
    var peers: [FioPeer.Figures] = []
    for _ in 0..<rounds {
      own.append(try ours.run())
      if FioPeer.isInstalled {
        peers.append(try FioPeer.run(path: file, workload: workload, depth: depth, seconds: seconds))
      }
    }
    let operation = workload.isWrite ? "randwrite" : "randread"
    let id = "virtio/\(operation)/\(blockBytes % 1024 == 0 ? "\(blockBytes >> 10)k" : "\(blockBytes)")/qd\(depth)"
    var result = BenchResult(id: id, value: median(own.map(\.iops)), unit: "iops")
    if !peers.isEmpty {
      result.peer = "fio io_uring"
      result.peerValue = median(peers.map(\.iops))
      result.ratio = median(zip(own, peers).map { $0.iops / $1.iops })
    }
    let cpu = median(own.map { $0.userMicroseconds + $0.systemMicroseconds })
    let peerCPU = peers.isEmpty ? nil : median(peers.map { $0.userMicroseconds + $0.systemMicroseconds })
    print(
      row(
        id, whole(result.value), result.peerValue.map(whole) ?? "-", result.ratio.map(fraction) ?? "-", fraction(cpu),
        peerCPU.map(fraction) ?? "-", fraction(median(own.map(\.medianMicroseconds))),
        fraction(median(own.map(\.p99Microseconds))), fraction(median(own.map(\.p999Microseconds)))))
    return result
  }

  private func measureNull(depth: Int) throws -> BenchResult {
    let drive = DriveConfiguration(source: .null(byteCount: 1 << 30), id: "bench")
    let workload = Workload(isWrite: false, blockBytes: blockBytes, spanBytes: 1 << 30)
    let path = DevicePath(drive: drive, workload: workload, depth: depth, seconds: Double(seconds))
    var own: [DevicePath.Figures] = []
    for _ in 0..<rounds { own.append(try path.run()) }
    let result = BenchResult(id: "null/randread/4k/qd\(depth)", value: median(own.map(\.iops)), unit: "iops")
    let cpu = median(own.map { $0.userMicroseconds + $0.systemMicroseconds })
    print(
      row(
        result.id, whole(result.value), "-", "-", fraction(cpu), "-", fraction(median(own.map(\.medianMicroseconds))),
        fraction(median(own.map(\.p99Microseconds))), fraction(median(own.map(\.p999Microseconds)))))
    return result
  }

  // MARK: The table

  private func whole(_ number: Double) -> String { "\(Int(number.rounded()))" }

  private func fraction(_ number: Double) -> String {
    let hundredths = Int((number * 100).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }

  private func row(_ cells: String...) -> String {
    let widths = [28, 9, 9, 7, 17, 8, 9, 9, 9]
    return zip(cells, widths).enumerated().map { index, cell in
      let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
      return index == 0 ? cell.0 + padding : padding + cell.0
    }.joined(separator: " ")
  }
}
