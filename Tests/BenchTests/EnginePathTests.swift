// SPDX-License-Identifier: Apache-2.0
// Our own side of `spindle bench engine`, shortly, on a small file through the page cache.
import AsyncIO
import EventLoop
import Glibc
import Testing

@testable import Bench

@Suite struct EnginePathTests {
  private static let fileBytes: UInt64 = 1 << 20

  private static func isUsable(_ kind: EngineKind) -> Bool { (try? EnginePath.probe(kind, .poll)) != nil }

  /// Loads a file of zeroes.
  /// - Returns: what was measured, and how much of the file was zero afterwards.
  private func load(_ kind: EngineKind, _ operation: Workload.Operation, depth: Int) throws
    -> (figures: EnginePath.Figures, zeroBytes: Int)
  {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(folder)/spindle-bench-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    try #require(descriptor >= 0)
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer {
      close(descriptor)
      unlink(path)
    }
    try #require(ftruncate(descriptor, Int(Self.fileBytes)) == 0)
    let workload = Workload(operation: operation, blockBytes: 4096, spanBytes: Self.fileBytes)
    let measurement = EnginePath(
      engine: kind, monitor: .poll, path: path, isDirect: false, workload: workload, depth: depth, seconds: 0.01)
    let figures = try measurement.run()
    var status = stat()
    #expect(fstat(descriptor, &status) == 0)
    // Nothing was written behind the end.
    #expect(status.st_size == Int(Self.fileBytes))
    var content = [UInt8](repeating: 1, count: Int(Self.fileBytes))
    #expect(pread(descriptor, &content, content.count, 0) == content.count)
    return (figures, content.count { $0 == 0 })
  }

  private func expectReads(_ kind: EngineKind) throws {
    for operation in [Workload.Operation.randomRead, .sequentialRead] {
      let (figures, zeroBytes) = try load(kind, operation, depth: 4)
      #expect(figures.requestCount >= 4)
      #expect(figures.iops > 0)
      #expect(figures.medianMicroseconds <= figures.p99Microseconds)
      #expect(zeroBytes == Int(Self.fileBytes))
    }
  }

  private func expectWrites(_ kind: EngineKind) throws {
    for operation in [Workload.Operation.randomWrite, .sequentialWrite, .flushedWrite, .fuaWrite] {
      let (figures, zeroBytes) = try load(kind, operation, depth: 4)
      #expect(figures.requestCount >= 4)
      let writtenBytes = Int(Self.fileBytes) - zeroBytes
      // Whole blocks, and no more of them than requests.
      #expect(writtenBytes > 0 && writtenBytes % 4096 == 0)
      #expect(writtenBytes / 4096 <= figures.requestCount)
    }
  }

  @Test(.enabled(if: isUsable(.ioUring), "io_uring is not permitted here"))
  func ioUringReadsAndLeavesTheFileAlone() throws { try expectReads(.ioUring) }

  @Test(.enabled(if: isUsable(.linuxAIO), "there is no Linux AIO here"))
  func linuxAIOReadsAndLeavesTheFileAlone() throws { try expectReads(.linuxAIO) }

  @Test func threadsReadAndLeaveTheFileAlone() throws { try expectReads(.threads) }

  @Test(.enabled(if: isUsable(.ioUring), "io_uring is not permitted here"))
  func ioUringWritesInsideTheFile() throws { try expectWrites(.ioUring) }

  @Test(.enabled(if: isUsable(.linuxAIO), "there is no Linux AIO here"))
  func linuxAIOWritesInsideTheFile() throws { try expectWrites(.linuxAIO) }

  @Test func threadsWriteInsideTheFile() throws { try expectWrites(.threads) }

  @Test func failedRequestIsAnError() throws {
    // Reading of a folder's descriptor fails with EISDIR.
    let workload = Workload(operation: .randomRead, blockBytes: 4096, spanBytes: Self.fileBytes)
    let measurement = EnginePath(
      engine: .threads, monitor: .poll, path: "/", isDirect: false, workload: workload, depth: 4, seconds: 0.01)
    #expect(throws: BenchError.self) { try measurement.run() }
  }

  @Test func nullPassCompletesItsBatchInside() throws {
    let path = try NullPath()
    #expect(path.run(passes: 1) == NullPath.batch)
    #expect(path.run(passes: 2) == 3 * NullPath.batch)
  }

  @Test func nullPathOverTheLoopCompletesRequests() throws {
    let path = try NullPath()
    #expect(path.run(isWrite: false, seconds: 0.001) > 0)
    #expect(path.run(isWrite: true, seconds: 0.001) > 0)
  }
}
