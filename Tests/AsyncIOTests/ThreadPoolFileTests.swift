// SPDX-License-Identifier: Apache-2.0
// The engine with the real system calls, on a real file.
import CLinux
import EventLoop
import Glibc
import Testing

@testable import AsyncIO

@Suite struct ThreadPoolFileTests {
  /// A file without a name, on a disk.
  final class ScratchFile {
    let descriptor: Int32

    init() throws {
      // mkstemp fills the six letters in.
      var path = Array(("/var/tmp/spindle-test-" + String(repeating: "X", count: 6)).utf8CString)
      descriptor = mkstemp(&path)
      try #require(descriptor >= 0)
      unlink(path)
    }

    deinit { close(descriptor) }

    var status: stat {
      var status = stat()
      fstat(descriptor, &status)
      return status
    }
  }

  /// Whether the disk under /var/tmp gives blocks back and zeroes ranges.
  static let canPunchHoles: Bool = {
    guard let file = try? ScratchFile(), clinux_ftruncate(file.descriptor, 65536) == 0 else { return false }
    return [clinux_FALLOC_FL_PUNCH_HOLE, clinux_FALLOC_FL_ZERO_RANGE].allSatisfy {
      clinux_fallocate(file.descriptor, $0 | clinux_FALLOC_FL_KEEP_SIZE, 0, 65536) == 0
    }
  }()

  private let loop: EventLoop
  private let engine: ThreadPoolEngine
  private let file: ScratchFile
  private let sink = RecordingSink()

  init() throws {
    loop = try EventLoop(name: "test")
    engine = ThreadPoolEngine(loop: loop, limits: ThreadPoolLimits(workersMax: 8))
    file = try ScratchFile()
  }

  private func perform(_ operations: [TestOperation]) {
    sink.completed = []
    loop.beginBatch()
    for operation in operations {
      operation.pointer.pointee.descriptor = file.descriptor
      engine.submit(operation.pointer)
    }
    loop.endBatch()
    while sink.completed.count < operations.count { loop.runOnce(mayBlock: true) }
  }

  private func range(_ opcode: IOOpcode, offset: UInt64, byteCount: Int, mayUnmap: Bool = false) -> TestOperation {
    let operation = TestOperation(opcode, offset: offset, pieces: [], sink: sink)
    operation.pointer.pointee.byteCount = byteCount
    operation.pointer.pointee.mayUnmap = mayUnmap
    return operation
  }

  private func fill(byteCount: Int, with value: Int32) {
    let write = TestOperation(.write, pieces: [byteCount], sink: sink)
    memset(write.memory, value, byteCount)
    perform([write])
    #expect(sink.completed.map(\.result) == [0])
  }

  private func read(byteCount: Int) -> [UInt8] {
    let read = TestOperation(.read, pieces: [byteCount], sink: sink)
    perform([read])
    #expect(sink.completed.map(\.result) == [0])
    return read.bytes
  }

  @Test func whatIsWrittenInManyPlacesAtOnceIsReadBack() {
    let writes = (0..<200).map { index in
      let write = TestOperation(.write, offset: UInt64(index) * 4096, pieces: [512, 3072, 512], sink: sink)
      memset(write.memory, Int32(index), 4096)
      write.pointer.pointee.forceUnitAccess = index % 5 == 0
      return write
    }
    perform(writes)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    perform([TestOperation(.flush, pieces: [], sink: sink)])
    #expect(sink.completed.map(\.result) == [0])
    let reads = (0..<200).map { TestOperation(.read, offset: UInt64($0) * 4096, pieces: [1024, 3072], sink: sink) }
    perform(reads)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    for (index, read) in reads.enumerated() { #expect(read.bytes == Array(repeating: UInt8(index), count: 4096)) }
    engine.close()
  }

  @Test func readPastTheEndIsFilledWithZeroes() {
    fill(byteCount: 1000, with: 7)
    #expect(read(byteCount: 3000) == Array(repeating: 7, count: 1000) + Array(repeating: 0, count: 2000))
    engine.close()
  }

  @Test(.enabled(if: canPunchHoles))
  func discardGivesBlocksBackAndLeavesTheRest() {
    let size = 1 << 20
    fill(byteCount: size, with: 7)
    perform([TestOperation(.flush, pieces: [], sink: sink)])
    let before = file.status.st_blocks
    perform([range(.discard, offset: 65536, byteCount: 524288)])
    #expect(sink.completed.map(\.result) == [0])
    #expect(file.status.st_blocks < before)
    #expect(file.status.st_size == size)
    let bytes = read(byteCount: size)
    #expect(bytes[..<65536].allSatisfy { $0 == 7 } && bytes[589824...].allSatisfy { $0 == 7 })
    #expect(bytes[65536..<589824].allSatisfy { $0 == 0 })
    engine.close()
  }

  @Test(.enabled(if: canPunchHoles), arguments: [true, false])
  func rangeOfZeroesReadsAsZeroesAndLeavesTheRest(mayUnmap: Bool) {
    let size = 1 << 20
    fill(byteCount: size, with: 7)
    perform([range(.writeZeroes, offset: 65536, byteCount: 524288, mayUnmap: mayUnmap)])
    #expect(sink.completed.map(\.result) == [0])
    let bytes = read(byteCount: size)
    #expect(bytes[..<65536].allSatisfy { $0 == 7 } && bytes[589824...].allSatisfy { $0 == 7 })
    #expect(bytes[65536..<589824].allSatisfy { $0 == 0 })
    engine.close()
  }

  @Test func errorsOfTheKernelAreReported() {
    let operations = [IOOpcode.read, .write, .flush, .discard, .writeZeroes].map {
      TestOperation($0, pieces: [512], sink: sink)
    }
    for operation in operations { engine.submit(operation.pointer) }
    while sink.completed.count < operations.count { loop.runOnce(mayBlock: true) }
    #expect(sink.completed.map(\.result) == Array(repeating: -EBADF, count: 5))
    engine.close()
  }

  @Test func durableWritesArriveWhereTheFlagIsRefused() {
    final class OldKernel: FilePort, @unchecked Sendable {
      private let kernel = KernelFilePort()
      override func write(
        _ descriptor: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t, flags: Int32
      ) -> Int {
        flags != 0 ? -Int(EOPNOTSUPP) : kernel.write(descriptor, iovecs, count, at: offset, flags: 0)
      }
      override func syncData(_ descriptor: Int32) -> Int { kernel.syncData(descriptor) }
    }
    let old = ThreadPoolEngine(loop: loop, port: OldKernel())
    let write = TestOperation(.write, pieces: [4096], sink: sink, descriptor: file.descriptor)
    write.pointer.pointee.forceUnitAccess = true
    old.submit(write.pointer)
    old.close()
    #expect(sink.completed.map(\.result) == [0])
    #expect(read(byteCount: 4096) == write.bytes)
    engine.close()
  }
}
