// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Block
import EventLoop
import Glibc
import HostSystem

/// `spindle bench engine`: each engine on a file, and the block layer over no bytes, beside fio and `qemu-img bench`.
public struct EngineBench {
  /// The file to load; nil makes one of `spanBytes` and removes it afterwards.
  public var path: String?
  /// Writes are measured too; only where the file may be overwritten.
  public var measuresWrites = true
  /// What is measured; nil takes every engine that the host has.
  public var engines: [EngineKind]?
  /// What the loops wait with.
  public var monitor = LoopMonitor.auto
  /// The page cache is bypassed (O_DIRECT).
  public var isDirect = true
  /// Requests in flight.
  public var depths = [1, 16, 64]
  /// Seconds of each measurement.
  public var seconds = 0.5
  /// Measurements of each row, in turn with the peers'; medians are printed.
  public var rounds = 3
  /// Bytes of the file that are touched.
  public var spanBytes: UInt64 = 512 << 20
  /// Takes each line of the table as it is measured.
  public var print: (String) -> Void = { _ in }

  /// Most requests in flight: so many threads read a file of `spanMin` in parts of their own.
  public static let depthMax = 128
  /// Up to this depth, writes that must be durable are measured.
  private static let durableDepthMax = 16
  private static let randomBytes = 4096
  private static let sequentialBytes = 128 << 10
  /// Least bytes of a named file.
  private static let spanMin = UInt64(depthMax * sequentialBytes)
  private static let table = BenchTable(widths: [35, 9, 9, 6, 9, 6, 10, 7, 9, 9, 9])

  /// The default measurement.
  public init() {}

  /// Measures everything.
  /// - Throws: `BenchError` and errors of the host, each as one line.
  public func run() throws -> [BenchResult] {
    let usable = try usableEngines()
    var results = try BenchFile.withPath(path, byteCount: spanBytes) { try measure($0, usable) }
    for isWrite in [false, true] { results += try measureNull(isWrite: isWrite) }
    return results
  }

  private func measure(_ file: String, _ usable: [EngineKind]) throws -> [BenchResult] {
    let span = try usableSpan(file)
    printHead(usable)
    var results: [BenchResult] = []
    for engine in usable {
      let row = Row(bench: self, engine: engine, file: file, hasQemuImg: hasQemuImg(file, engine, span))
      for workload in workloads(span) {
        for depth in depths { results += try row.measure(workload, depth) }
      }
      if !measuresWrites { continue }
      for depth in depths where depth <= Self.durableDepthMax {
        results += try row.measureDurable(Self.randomBytes, span, depth)
      }
    }
    return results
  }

  private func workloads(_ span: UInt64) -> [Workload] {
    let all = [
      Workload(operation: .randomRead, blockBytes: Self.randomBytes, spanBytes: span),
      Workload(operation: .randomWrite, blockBytes: Self.randomBytes, spanBytes: span),
      Workload(operation: .sequentialRead, blockBytes: Self.sequentialBytes, spanBytes: span),
      Workload(operation: .sequentialWrite, blockBytes: Self.sequentialBytes, spanBytes: span),
    ]
    return all.filter { measuresWrites || !$0.isWrite }
  }

  /// An engine that was asked for must be there; of all, those that are not there are left out.
  private func usableEngines() throws -> [EngineKind] {
    var usable: [EngineKind] = []
    for engine in engines ?? EngineKind.allCases {
      do throws(SystemError) {
        try EnginePath.probe(engine, monitor)
        usable.append(engine)
      } catch {
        if engines != nil { throw BenchError("engine \(engine.rawValue) cannot be used here: \(error)") }
        print("engine \(engine.rawValue) cannot be used here: \(error)")
      }
    }
    return usable
  }

  /// Bytes of the file to touch, in whole blocks.
  /// - Throws: where it cannot be opened as it has to be, is in use, or is too small.
  private func usableSpan(_ path: String) throws -> UInt64 {
    // Closed again at once, for the lock would keep qemu-img out.
    let file = try ImageFile.open(path: path, cache: isDirect ? .none : .writeback, readOnly: !measuresWrites)
    let span = min(spanBytes, file.byteCount - file.byteCount % UInt64(Self.sequentialBytes))
    if span < Self.spanMin { throw BenchError("\(path): too small to measure; it takes \(Self.spanMin >> 20) MiB") }
    return span
  }

  private func hasQemuImg(_ file: String, _ engine: EngineKind, _ span: UInt64) -> Bool {
    guard QemuImgPeer.isInstalled else { return false }
    let peer = QemuImgPeer(
      target: .file(path: file, engine: engine, isDirect: isDirect), workload: workloads(span)[0], depth: 1)
    if peer.works { return true }
    print("\(peer.name) cannot be used here: no second peer")
    return false
  }

  private func printHead(_ engines: [EngineKind]) {
    print("engines, \(isDirect ? "O_DIRECT" : "buffered"), loop \(monitor.rawValue); peers: fio and qemu-img bench")
    print(
      "qemu-img strides over the file where fio and ours are random; flush-write: each write and a flush of its own")
    print("cpu: all threads of the process; fio leaves out what the kernel's io_uring workers do for it")
    if measuresWrites && engines.contains(.linuxAIO) {
      // fio 3.33 makes 500 fdatasync calls for 500 such writes at depth 16, and submits no sync operations.
      print(
        "fio libaio waits for each flush before it goes on: above depth 1 its flush-write is that of a slower program")
    }
    if !FioPeer.isInstalled { print("fio is not installed (apt-get install fio): no first peer") }
    if !QemuImgPeer.isInstalled { print("qemu-img is not installed (apt-get install qemu-utils): no second peer") }
    printRow(["id", "IOPS", "fio", "ratio", "qemu-img", "ratio", "cpu us/req", "fio", "p50 us", "p99 us", "p99.9 us"])
  }

  private func measureNull(isWrite: Bool) throws -> [BenchResult] {
    let workload = Workload(
      operation: isWrite ? .sequentialWrite : .sequentialRead, blockBytes: Self.randomBytes,
      spanBytes: NullPath.diskBytes)
    let ours = try NullPath(monitor: monitor)
    let peer = QemuImgPeer(target: .null, workload: workload, depth: NullPath.batch)
    let hasPeer = peer.works
    var own: [Double] = []
    var peers: [Double] = []
    for _ in 0..<rounds {
      own.append(ours.run(isWrite: isWrite, seconds: seconds))
      if hasPeer { peers.append(try peer.run(seconds: seconds / 2, likeIOPS: own[own.count - 1])) }
    }
    let result = BenchResult(
      id: "null/\(workload.name(depth: NullPath.batch))", rounds: own, unit: "iops", peer: peer.name, peerRounds: peers)
    printRow([
      result.id, BenchTable.whole(result.value), "-", "-", BenchTable.whole(result.peerValue),
      BenchTable.fraction(result.ratio),
    ])
    return [result]
  }

  fileprivate func printRow(_ cells: [String]) { print(Self.table.row(cells)) }
}

/// The rows of one engine.
private struct Row {
  var bench: EngineBench
  var engine: EngineKind
  var file: String
  var hasQemuImg: Bool

  /// What one side measured in the rounds of a row.
  private struct Rounds {
    var own: [EnginePath.Figures] = []
    var fio: [FioPeer.Figures] = []
    var qemuImg: [Double] = []
  }

  private func ours(_ workload: Workload, _ depth: Int) -> EnginePath {
    EnginePath(
      engine: engine, monitor: bench.monitor, path: file, isDirect: bench.isDirect, workload: workload, depth: depth,
      seconds: bench.seconds)
  }

  private func fio(_ workload: Workload, _ depth: Int) -> FioPeer {
    FioPeer(
      engine: engine, path: file, isDirect: bench.isDirect, workload: workload, depth: depth, seconds: bench.seconds)
  }

  private func qemuImg(_ workload: Workload, _ depth: Int) -> QemuImgPeer {
    QemuImgPeer(
      target: .file(path: file, engine: engine, isDirect: bench.isDirect), workload: workload, depth: depth)
  }

  /// A read or write row: ours, fio and qemu-img in turn.
  func measure(_ workload: Workload, _ depth: Int) throws -> [BenchResult] {
    var rounds = Rounds()
    for _ in 0..<bench.rounds {
      let own = try ours(workload, depth).run()
      rounds.own.append(own)
      if FioPeer.isInstalled { rounds.fio.append(try fio(workload, depth).run()) }
      if hasQemuImg {
        rounds.qemuImg.append(try qemuImg(workload, depth).run(seconds: bench.seconds, likeIOPS: own.iops))
      }
    }
    return report(workload, depth, rounds)
  }

  /// Three rows: writes with a flush each, FUA writes, and how the one compares with the other, for us and for fio.
  func measureDurable(_ blockBytes: Int, _ span: UInt64, _ depth: Int) throws -> [BenchResult] {
    let flushed = Workload(operation: .flushedWrite, blockBytes: blockBytes, spanBytes: span)
    let fua = Workload(operation: .fuaWrite, blockBytes: blockBytes, spanBytes: span)
    var (flushedRounds, fuaRounds) = (Rounds(), Rounds())
    for _ in 0..<bench.rounds {
      flushedRounds.own.append(try ours(flushed, depth).run())
      if FioPeer.isInstalled { flushedRounds.fio.append(try fio(flushed, depth).run()) }
      fuaRounds.own.append(try ours(fua, depth).run())
      if FioPeer.isInstalled { fuaRounds.fio.append(try fio(fua, depth).run()) }
    }
    let ratio = BenchResult.ofRatios(
      id: "engine-\(engine.rawValue)/fua-to-flush/\(blockBytes >> 10)k/qd\(depth)",
      own: (fuaRounds.own.map(\.iops), flushedRounds.own.map(\.iops)), peer: fio(fua, depth).name,
      peers: (fuaRounds.fio.map(\.iops), flushedRounds.fio.map(\.iops)))
    let results = report(flushed, depth, flushedRounds) + report(fua, depth, fuaRounds) + [ratio]
    bench.printRow([
      ratio.id, BenchTable.fraction(ratio.value), BenchTable.fraction(ratio.peerValue),
      BenchTable.fraction(ratio.ratio),
    ])
    return results
  }

  /// Prints a row.
  /// - Returns: one result for each peer, or one without a peer.
  private func report(_ workload: Workload, _ depth: Int, _ rounds: Rounds) -> [BenchResult] {
    let own = rounds.own
    let id = "engine-\(engine.rawValue)/\(workload.name(depth: depth))"
    let first = BenchResult(
      id: id, rounds: own.map(\.iops), unit: "iops", peer: fio(workload, depth).name, peerRounds: rounds.fio.map(\.iops)
    )
    let second = BenchResult(
      id: "\(id)/qemu-img", rounds: own.map(\.iops), unit: "iops", peer: qemuImg(workload, depth).name,
      peerRounds: rounds.qemuImg)
    let fioCPU = rounds.fio.isEmpty ? nil : median(rounds.fio.map { $0.userMicroseconds + $0.systemMicroseconds })
    bench.printRow([
      id, BenchTable.whole(first.value), BenchTable.whole(first.peerValue), BenchTable.fraction(first.ratio),
      BenchTable.whole(second.peerValue), BenchTable.fraction(second.ratio),
      BenchTable.fraction(median(own.map { $0.userMicroseconds + $0.systemMicroseconds })), BenchTable.fraction(fioCPU),
      BenchTable.fraction(median(own.map(\.medianMicroseconds))),
      BenchTable.fraction(median(own.map(\.p99Microseconds))), BenchTable.fraction(median(own.map(\.p999Microseconds))),
    ])
    return second.peer == nil ? [first] : [first, second]
  }
}
