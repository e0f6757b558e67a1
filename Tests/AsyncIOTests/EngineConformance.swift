// SPDX-License-Identifier: Apache-2.0
// What every engine does alike, on real files: buffered, and with O_DIRECT where the file system has it.
import CLinux
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

/// The engines that the list below is run against.
enum EngineUnderTest: CaseIterable, CustomTestStringConvertible {
  case ioUring
  case linuxAIO
  case threads

  func make(loop: EventLoop) throws -> IOEngine {
    switch self {
    case .ioUring: try IOUringEngine(loop: loop)
    case .linuxAIO: try LinuxAIOEngine(loop: loop)
    case .threads: ThreadPoolEngine(loop: loop)
    }
  }

  var testDescription: String {
    switch self {
    case .ioUring: "io_uring"
    case .linuxAIO: "linux-aio"
    case .threads: "threads"
    }
  }

  /// Whether a read of an empty pipe stays in flight; Linux AIO waits for it inside io_submit, and threads name an offset,
  /// which a pipe refuses.
  var readsPipesAsynchronously: Bool { self == .ioUring }
  /// Whether it writes to devices that know no more than write(2), as /dev/full; Linux AIO refuses them with EINVAL.
  var writesToPlainDevices: Bool { self != .linuxAIO }

  /// Whether it discards and zeroes ranges itself; Linux AIO has no fallocate.
  var hasFallocate: Bool { self != .linuxAIO }

  /// Whether the host has it.
  var isAvailable: Bool { Self.available.contains(self) }

  /// Those that the host has.
  static let available = allCases.filter { engine in
    guard let loop = try? EventLoop(name: "probe"), let made = try? engine.make(loop: loop) else { return false }
    made.close()
    return true
  }
}

@Suite struct EngineConformance {
  /// A block of every disk: alignment and granularity that O_DIRECT asks for.
  private static let block = 4096

  private let loop: EventLoop
  private let sink = RecordingSink()

  init() throws { loop = try makeWatchedLoop() }

  /// Submits in one batch and waits.
  private func run(_ engine: IOEngine, _ operations: [TestOperation]) {
    submit(engine, operations)
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
  }

  private func submit(_ engine: IOEngine, _ operations: [TestOperation]) {
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
  }

  private func blocks(_ opcode: IOOpcode, _ count: Int, _ file: TestFile) -> [TestOperation] {
    (0..<count).map {
      TestOperation(
        opcode, offset: UInt64($0 * Self.block), pieces: [Self.block], sink: sink, descriptor: file.number)
    }
  }

  private func range(_ opcode: IOOpcode, _ range: Range<Int>, mayUnmap: Bool, _ file: TestFile) -> TestOperation {
    let operation = TestOperation(
      opcode, offset: UInt64(range.lowerBound), pieces: [], sink: sink, descriptor: file.number)
    operation.pointer.pointee.byteCount = range.count
    operation.pointer.pointee.mayUnmap = mayUnmap
    return operation
  }

  private static func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 / 512 * 31 + $0 + seed) }
  }

  /// Each of `operations` was completed once, and nothing else.
  private func expectEachCompletedOnce(_ operations: [TestOperation]) {
    #expect(sink.completed.count == operations.count)
    #expect(Set(sink.completed.map(\.operation)) == Set(operations.map(\.pointer)))
  }

  // MARK: Reading and writing

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func whatWasWrittenIsReadBack(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 64 * Self.block, mode: mode)
    let writes = blocks(.write, 64, file)
    for (index, write) in writes.enumerated() { write.fill(Self.pattern(Self.block, seed: index)) }
    run(engine, writes)
    let reads = blocks(.read, 64, file)
    run(engine, reads)
    expectEachCompletedOnce(writes + reads)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    for index in 0..<64 {
      let expected = Self.pattern(Self.block, seed: index)
      #expect(reads[index].bytes == expected)
      #expect(try file.bytes(at: index * Self.block, count: Self.block) == expected)
    }
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func scatterListsAreFilledAndWrittenInOrder(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let pieces = [1, 3, 2, 1].map { $0 * Self.block }
    let file = try TestFile(byteCount: 16 * Self.block, mode: mode)
    let write = TestOperation(
      .write, offset: UInt64(2 * Self.block), pieces: pieces, sink: sink, descriptor: file.number)
    let content = Self.pattern(write.byteCount)
    write.fill(content)
    // The pieces lie in memory in another order than in the file.
    let unit = Self.block
    write.iovecs[1].iov_base = write.memory + 3 * unit
    write.iovecs[2].iov_base = write.memory + unit
    run(engine, [write])
    var expected = Array(content[..<unit])
    expected += content[(3 * unit)..<(6 * unit)]
    expected += content[unit..<(3 * unit)]
    expected += content[(6 * unit)...]
    #expect(sink.completed.map(\.result) == [0])
    #expect(try file.bytes(at: 2 * unit, count: 7 * unit) == expected)
    let read = TestOperation(
      .read, offset: UInt64(2 * Self.block), pieces: pieces.reversed(), sink: sink, descriptor: file.number)
    run(engine, [read])
    #expect(sink.completed.map(\.result) == [0, 0])
    #expect(read.bytes == expected)
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func forcedWritesAndFlushesSucceed(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 4 * Self.block, mode: mode)
    let writes = blocks(.write, 4, file)
    writes.forEach { $0.pointer.pointee.forceUnitAccess = true }
    run(engine, writes)
    let flush = TestOperation(.flush, pieces: [], sink: sink, descriptor: file.number)
    if engine.supports(.flush) { run(engine, [flush]) }
    expectEachCompletedOnce(engine.supports(.flush) ? writes + [flush] : writes)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    #expect(try file.bytes(at: 0, count: 4 * Self.block) == [UInt8](repeating: 0xaa, count: 4 * Self.block))
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func readsOverAndPastTheEndAreFilledWithZeroes(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    // The end is at no multiple of anything, so that a direct read stops at an odd place.
    let end = 2 * Self.block + 700
    let file = try TestFile(byteCount: end, mode: mode)
    try file.write(Self.pattern(end))
    let pieces = [2, 1, 1].map { $0 * Self.block }
    let over = TestOperation(.read, pieces: pieces, sink: sink, descriptor: file.number)
    let past = TestOperation(.read, offset: UInt64(8 * Self.block), pieces: pieces, sink: sink, descriptor: file.number)
    run(engine, [over, past])
    expectEachCompletedOnce([over, past])
    #expect(sink.completed.map(\.result) == [0, 0])
    #expect(over.bytes == Self.pattern(end) + [UInt8](repeating: 0, count: 4 * Self.block - end))
    #expect(past.bytes == [UInt8](repeating: 0, count: 4 * Self.block))
    engine.close()
  }

  // MARK: Errors

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func writeToAReadOnlyDescriptorIsABadDescriptor(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: Self.block, mode: mode)
    let reader = try file.reopened(flags: O_RDONLY | mode.flags)
    let write = TestOperation(.write, sink: sink, descriptor: reader.number)
    let read = TestOperation(.read, sink: sink, descriptor: reader.number)
    run(engine, [write, read])
    let results = Dictionary(sink.completed.map { ($0.operation, $0.result) }, uniquingKeysWith: { _, _ in 1 })
    #expect(results == [write.pointer: -EBADF, read.pointer: 0])
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available.filter(\.writesToPlainDevices))
  func writeToAFullDeviceIsNoSpace(kind: EngineUnderTest) throws {
    let engine = try kind.make(loop: loop)
    let full = try OwnedDescriptor.open("/dev/full", flags: O_WRONLY)
    let write = TestOperation(.write, sink: sink, descriptor: full.number)
    run(engine, [write])
    #expect(sink.completed.map(\.result) == [-ENOSPC])
    engine.close()
  }

  // MARK: Completion

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func thousandOperationsAtOnceCompleteExactlyOnce(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 1000 * Self.block, mode: mode)
    let writes = blocks(.write, 1000, file)
    for (index, write) in writes.enumerated() { memset(write.memory, Int32(index % 251), Self.block) }
    run(engine, writes)
    expectEachCompletedOnce(writes)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    let content = try file.bytes(at: 0, count: 1000 * Self.block)
    #expect((0..<1000).allSatisfy { Int(content[$0 * Self.block + 17]) == $0 % 251 })
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func completionNeverArrivesFromInsideSubmit(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 300 * Self.block, mode: mode)
    let reads = blocks(.read, 300, file)
    let refused = TestOperation(.read, sink: sink, descriptor: -1)
    for operation in reads + [refused] {
      // No batch is open, so each goes to the kernel at once where there is room.
      engine.submit(operation.pointer)
      #expect(sink.completed.isEmpty)
    }
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    expectEachCompletedOnce(reads + [refused])
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func sinkMaySubmitAgainAndRunNestedRounds(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 8 * Self.block, mode: mode)
    let reads = blocks(.read, 8, file)
    let extras = blocks(.write, 4, file)
    var nextExtra = 0
    sink.onCompletion = { _ in
      guard nextExtra < extras.count else { return }
      let extra = extras[nextExtra]
      nextExtra += 1
      engine.submit(extra.pointer)
      // Waits, several rounds deep, for what was submitted from inside a completion.
      while !sink.completed.contains(where: { $0.operation == extra.pointer }) { loop.runOnce(mayBlock: true) }
    }
    run(engine, reads)
    expectEachCompletedOnce(reads + extras)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, EngineUnderTest.available)
  func twoEnginesShareALoop(first: EngineUnderTest, second: EngineUnderTest) throws {
    let engines = [try first.make(loop: loop), try second.make(loop: loop)]
    let file = try TestFile(byteCount: 400 * Self.block)
    let writes = blocks(.write, 400, file)
    loop.beginBatch()
    for (index, write) in writes.enumerated() { engines[index % 2].submit(write.pointer) }
    loop.endBatch()
    // The other goes on when one is closed.
    engines[0].close()
    #expect(engines[0].inFlightCount == 0)
    while engines[1].inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    expectEachCompletedOnce(writes)
    sink.completed = []
    run(engines[1], blocks(.read, 10, file))
    #expect(sink.completed.map(\.result) == Array(repeating: 0, count: 10))
    engines[1].close()
  }

  // MARK: Cancelling and closing

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func cancelledOperationsCompleteExactlyOnce(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 300 * Self.block, mode: mode)
    let reads = blocks(.read, 300, file)
    for read in reads {
      engine.submit(read.pointer)
      engine.cancel(read.pointer)
    }
    #expect(sink.completed.isEmpty)
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    expectEachCompletedOnce(reads)
    #expect(sink.completed.allSatisfy { $0.result == 0 || $0.result == -ECANCELED })
    // Those that were not cancelled were carried out.
    for read in reads where read.pointer.pointee.result == 0 {
      #expect(read.bytes == [UInt8](repeating: 0, count: Self.block))
    }
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available.filter(\.readsPipesAsynchronously))
  func cancelledReadOfAPipeCompletesExactlyOnce(kind: EngineUnderTest) throws {
    let engine = try kind.make(loop: loop)
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    let reader = OwnedDescriptor(taking: ends[0])
    let read = TestOperation(.read, sink: sink, descriptor: reader.number)
    engine.submit(read.pointer)
    loop.runOnce(mayBlock: false)
    #expect(sink.completed.isEmpty)
    engine.cancel(read.pointer)
    engine.cancel(read.pointer)
    // Whether the engine can cancel it or not, now it ends.
    _ = OwnedDescriptor(taking: ends[1])
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    while loop.runOnce(mayBlock: false) {}
    expectEachCompletedOnce([read])
    #expect(sink.completed.allSatisfy { $0.result == 0 || $0.result == -ECANCELED })
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available, FileMode.available)
  func closingCompletesWhatIsInFlight(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    let file = try TestFile(byteCount: 400 * Self.block, mode: mode)
    let writes = blocks(.write, 400, file)
    submit(engine, writes)
    #expect(engine.inFlightCount == 400)
    engine.close()
    expectEachCompletedOnce(writes)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    #expect(try file.bytes(at: 399 * Self.block, count: 4) == [0xaa, 0xaa, 0xaa, 0xaa])
  }

  // MARK: Discard and write-zeroes

  /// What the file system says to the same request through fallocate(2); not all know every mode.
  private func answerOfTheFileSystem(_ operation: TestOperation) throws -> Int32 {
    let file = try TestFile(byteCount: 64 * Self.block)
    return clinux_fallocate(file.number, operation.pointer.pointee.fallocateMode, 0, Self.block)
  }

  @Test(arguments: EngineUnderTest.available)
  func engineSaysWhatItDoesItself(kind: EngineUnderTest) throws {
    let engine = try kind.make(loop: loop)
    #expect(engine.name == kind.testDescription)
    #expect(engine.supports(.read) && engine.supports(.write))
    #expect(engine.supports(.discard) == kind.hasFallocate)
    #expect(engine.supports(.writeZeroes) == kind.hasFallocate)
    engine.close()
  }

  @Test(arguments: EngineUnderTest.available.filter(\.hasFallocate), FileMode.available)
  func discardGivesBlocksBackAndTheRangeReadsAsZeroes(kind: EngineUnderTest, mode: FileMode) throws {
    let engine = try kind.make(loop: loop)
    defer { engine.close() }
    let file = try TestFile(byteCount: 64 * Self.block, mode: mode)
    let content = Self.pattern(64 * Self.block)
    try file.write(content)
    let before = file.allocatedByteCount
    let discard = range(.discard, 16 * Self.block..<48 * Self.block, mayUnmap: true, file)
    let expected = try answerOfTheFileSystem(discard)
    run(engine, [discard])
    #expect(sink.completed.map(\.result) == [expected])
    guard expected == 0 else { return }
    #expect(file.allocatedByteCount <= before - 32 * Self.block)
    try expectZeroes(in: 16 * Self.block..<48 * Self.block, of: file, content)
  }

  @Test(arguments: EngineUnderTest.available.filter(\.hasFallocate), [true, false])
  func zeroedRangeReadsAsZeroesAndKeepsItsBlocksUnlessItMayLoseThem(kind: EngineUnderTest, mayUnmap: Bool) throws {
    let engine = try kind.make(loop: loop)
    defer { engine.close() }
    let file = try TestFile(byteCount: 64 * Self.block)
    let content = Self.pattern(64 * Self.block)
    try file.write(content)
    let before = file.allocatedByteCount
    let zeroed = 3 * Self.block + 100..<50 * Self.block + 7
    let operation = range(.writeZeroes, zeroed, mayUnmap: mayUnmap, file)
    let expected = try answerOfTheFileSystem(operation)
    run(engine, [operation])
    #expect(sink.completed.map(\.result) == [expected])
    guard expected == 0 else { return }
    #expect(mayUnmap ? file.allocatedByteCount < before : file.allocatedByteCount >= before)
    try expectZeroes(in: zeroed, of: file, content)
  }

  /// The range is zero, and the content around it as it was.
  private func expectZeroes(in range: Range<Int>, of file: TestFile, _ content: [UInt8]) throws {
    var expected = content
    expected.replaceSubrange(range, with: repeatElement(0, count: range.count))
    #expect(try file.bytes(at: 0, count: content.count) == expected)
  }
}
