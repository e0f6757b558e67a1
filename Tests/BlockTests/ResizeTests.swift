// SPDX-License-Identifier: Apache-2.0
// Disks of another length, of any length, and of none; and what is made of zeroes and discards.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO
@testable import Block

@Suite struct ResizeTests {
  private final class Kit {
    let loop: EventLoop
    let backend: BlockBackend
    let client = TestClient()
    var told = 0

    init(_ driver: BlockDriver? = nil, readOnly: Bool = false) throws {
      loop = try EventLoop(name: "test")
      var configuration = BlockConfiguration()
      configuration.isReadOnly = readOnly
      backend = BlockBackend(
        driver: try driver ?? MemoryDriver(byteCount: 1 << 20, initial: TemporaryFile.pattern(1 << 20)), loop: loop,
        configuration: configuration)
      backend.onResize = { [unowned self] in told += 1 }
    }

    func run(_ operation: BlockOperation, _ offset: UInt64, bytes: Int = 512, fill: [UInt8]? = nil) -> TestRequest {
      let request = TestRequest(operation, offset: offset, pieces: [bytes], fill: fill, client: client)
      backend.submit(request.pointer)
      backend.drain()
      return request
    }
  }

  @Test func aLongerDiskHasZeroesAtItsEnd() throws {
    let kit = try Kit()
    #expect(kit.run(.read, 1 << 20).pointer.pointee.result == -EINVAL)
    try kit.backend.resize(to: 4 << 20)
    #expect(kit.backend.byteCount == 4 << 20 && kit.told == 1)
    let end = kit.run(.read, (4 << 20) - 512)
    #expect(end.pointer.pointee.result == 0 && end.bytes == [UInt8](repeating: 0, count: 512))
    #expect(kit.run(.read, 0).bytes == TemporaryFile.pattern(512))
    #expect(kit.run(.read, 4 << 20).pointer.pointee.result == -EINVAL)
  }

  @Test func whatIsCutOffIsGone() throws {
    let kit = try Kit()
    try kit.backend.resize(to: 1536)
    #expect(kit.run(.write, 1536).pointer.pointee.result == -EINVAL)
    #expect(kit.run(.read, 1024).bytes == Array(TemporaryFile.pattern(1536)[1024...]))
    try kit.backend.resize(to: 8192)
    #expect(kit.run(.read, 1536, bytes: 8192 - 1536).bytes.allSatisfy { $0 == 0 })
    #expect(kit.told == 2)
  }

  @Test func lengthsThatCannotBeAreRefused() throws {
    let kit = try Kit()
    for (length, code) in [(UInt64(0), EINVAL), (1000, EINVAL), (1 << 63, ENOMEM)] {
      let error = try #require(throws: SystemError.self) { try kit.backend.resize(to: length) }
      #expect(error.code == code)
    }
    #expect(kit.backend.byteCount == 1 << 20 && kit.told == 0)
    #expect(kit.run(.read, 0).pointer.pointee.result == 0)
    let readOnly = try Kit(readOnly: true)
    #expect(try #require(throws: SystemError.self) { try readOnly.backend.resize(to: 512) }.code == EACCES)
    let fixed = try Kit(HeldDriver())
    #expect(try #require(throws: SystemError.self) { try fixed.backend.resize(to: 512) }.code == EOPNOTSUPP)
  }

  @Test func requestsInFlightComeFirstAndNewOnesMeetTheNewEnd() throws {
    final class Late: TestClient {
      var onFirst: (() -> Void)?
      override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
        super.completed(request)
        onFirst?()
        onFirst = nil
      }
    }
    let kit = try Kit()
    let client = Late()
    let first = TestRequest(.read, offset: (1 << 20) - 512, pieces: [512], client: client)
    let second = TestRequest(.read, offset: (1 << 20) - 512, pieces: [512], client: client)
    client.onFirst = { kit.backend.submit(second.pointer) }
    kit.backend.submit(first.pointer)
    try kit.backend.resize(to: 512)
    kit.backend.drain()
    #expect(client.results == [0, -EINVAL])
  }

  @Test(arguments: [0, 1000]) func aFileGrowsAndShrinks(latency: Int) throws {
    let file = try TemporaryFile(TemporaryFile.pattern(65536))
    let loop = try EventLoop(name: "test")
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    let driver: BlockDriver = FileDriver(
      image: image, engine: ThreadPoolEngine(loop: loop, limits: ThreadPoolLimits(workersMax: 2)))
    let rules = latency > 0 ? [FaultRule(.any, .delay(ns: UInt64(latency)))] : []
    let backend = BlockBackend(
      driver: FaultDriver(over: driver, rules: rules, loop: loop), loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    try backend.resize(to: 131072)
    let written = TestRequest(.write, offset: 130560, pieces: [512], fill: TemporaryFile.pattern(512), client: client)
    backend.submit(written.pointer)
    backend.drain()
    #expect(client.results == [0])
    #expect(file.bytes.count == 131072 && Array(file.bytes[130560...]) == TemporaryFile.pattern(512))
    try backend.resize(to: 512)
    #expect(file.bytes == TemporaryFile.pattern(512))
    backend.close()
  }

  @Test func aNullDiskHasAnyLength() throws {
    let kit = try Kit(NullDriver(byteCount: 512, readsZeroes: true))
    try kit.backend.resize(to: 1 << 60)
    let read = kit.run(.read, (1 << 60) - 512)
    #expect(read.pointer.pointee.result == 0 && read.bytes == [UInt8](repeating: 0, count: 512))
  }

  @Test func aNullDiskLeavesTheMemoryAloneUnlessToldOtherwise() throws {
    let kit = try Kit(NullDriver(byteCount: 1 << 20))
    #expect(kit.run(.read, 0).bytes == [UInt8](repeating: 0xee, count: 512))
  }

  /// Lengths that a machine's disks may have: beyond 28-bit addresses, beyond 32-bit sector numbers, and terabytes.
  @Test(arguments: [UInt64(200) << 30, 8 << 40]) func aSparseImageOfAnyLengthIsServedToItsLastSector(length: UInt64)
    throws
  {
    let file = try TemporaryFile([0])
    guard truncate(file.path, Int(length)) == 0 else {
      // EFBIG is a file system's own limit.
      #expect(errno == EFBIG)
      return
    }
    let loop = try EventLoop(name: "test")
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    let engine = ThreadPoolEngine(loop: loop, limits: ThreadPoolLimits(workersMax: 2))
    let backend = BlockBackend(
      driver: FileDriver(image: image, engine: engine), loop: loop, configuration: BlockConfiguration())
    #expect(backend.byteCount == length)
    let client = TestClient()
    let bytes = TemporaryFile.pattern(512, seed: 77)
    for offset in [length - 512, length / 2] {
      backend.submit(TestRequest(.write, offset: offset, pieces: [512], fill: bytes, client: client).pointer)
      backend.drain()
      let read = TestRequest(.read, offset: offset, pieces: [512], client: client)
      backend.submit(read.pointer)
      backend.drain()
      #expect(read.bytes == bytes)
    }
    backend.submit(TestRequest(.read, offset: length, pieces: [512], client: client).pointer)
    backend.drain()
    #expect(client.results == [0, 0, 0, 0, -EINVAL])
    backend.close()
  }
}

@Suite struct ZeroDetectionTests {
  private func kit(_ mayUnmap: Bool, ignoresDiscard: Bool = false) throws -> (BlockBackend, HeldDriver, TestClient) {
    let loop = try EventLoop(name: "test")
    let lower = RangeDriver()
    var configuration = BlockConfiguration()
    configuration.ignoresDiscard = ignoresDiscard
    let driver = ZeroDetector(over: lower, mayUnmap: mayUnmap, loop: loop)
    return (BlockBackend(driver: driver, loop: loop, configuration: configuration), lower, TestClient())
  }

  private final class RangeDriver: HeldDriver {
    override var supportsWriteZeroes: Bool { true }
  }

  @Test(arguments: [false, true]) func onlyWritesOfNothingButZeroesAreZeroed(mayUnmap: Bool) throws {
    let (backend, lower, client) = try kit(mayUnmap)
    var almost = [UInt8](repeating: 0, count: 1024)
    let zeroes = TestRequest(.write, pieces: [1, 511, 512], fill: almost, client: client)
    almost[1023] = 1
    let others = [
      TestRequest(.write, pieces: [512, 512], fill: almost, client: client),
      TestRequest(.read, pieces: [512], client: client), TestRequest(.flush, client: client),
    ]
    for request in [zeroes] + others { backend.submit(request.pointer) }
    #expect(lower.held.map(\.pointee.operation) == [.writeZeroes, .write, .read, .flush])
    #expect(lower.held[0].pointee.mayUnmap == mayUnmap)
    lower.completeAll()
    #expect(zeroes.pointer.pointee.operation == .write && !zeroes.pointer.pointee.mayUnmap)
    #expect(backend.statistics.writes == 2 && backend.statistics.zeroes == 0)
  }

  @Test func aWriteThatFailedIsTriedAgainAsItWas() throws {
    let (backend, lower, client) = try kit(true)
    backend.onStop = { _, _ in }
    let request = TestRequest(.write, pieces: [512], fill: [UInt8](repeating: 0, count: 512), client: client)
    backend.submit(request.pointer)
    lower.completeOne(-ENOSPC)
    #expect(request.pointer.pointee.operation == .write)
    backend.resume()
    #expect(lower.held.map(\.pointee.operation) == [.writeZeroes])
    lower.completeAll()
    #expect(client.results == [0])
  }

  @Test func ignoredDiscardsDoNotReachTheDisk() throws {
    let (backend, lower, client) = try kit(false, ignoresDiscard: true)
    backend.submit(TestRequest(.discard, pieces: [512], client: client).pointer)
    let zeroes = TestRequest(.writeZeroes, pieces: [512], client: client)
    zeroes.pointer.pointee.mayUnmap = true
    backend.submit(zeroes.pointer)
    #expect(lower.held == [zeroes.pointer] && !zeroes.pointer.pointee.mayUnmap)
    lower.completeAll()
    backend.drain()
    #expect(client.results.sorted() == [0, 0])
    #expect(backend.statistics.errors == 0)
  }
}
