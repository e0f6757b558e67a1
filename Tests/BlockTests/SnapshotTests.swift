// SPDX-License-Identifier: Apache-2.0
// Temporary overlays: the guest finds what it wrote, and the image what it was.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO
@testable import Block

@Suite struct SectorMapTests {
  @Test func runsEndWhereMembershipChanges() throws {
    var map = try SectorMap(sectorCount: 1000)
    #expect(map.run(in: 0..<1000) == (false, 1000))
    map.insert(10..<20)
    map.insert(63..<130)
    map.insert(999..<1000)
    #expect(map.run(in: 0..<1000) == (false, 10))
    #expect(map.run(in: 10..<1000) == (true, 10))
    #expect(map.run(in: 12..<15) == (true, 3))
    #expect(map.run(in: 20..<1000) == (false, 43))
    #expect(map.run(in: 63..<1000) == (true, 67))
    #expect(map.run(in: 64..<128) == (true, 64))
    #expect(map.run(in: 130..<1000) == (false, 869))
    #expect(map.run(in: 999..<1000) == (true, 1))
  }

  @Test func aMapGrowsAndKeepsItsMembers() throws {
    var map = try SectorMap(sectorCount: 64)
    map.insert(60..<64)
    try map.resize(sectorCount: 1 << 34)
    #expect(map.run(in: 60..<1 << 34) == (true, 4))
    map.insert((1 << 34) - 1..<1 << 34)
    #expect(map.run(in: 64..<1 << 34) == (false, (1 << 34) - 65))
  }

  @Test func manyInsertionsAgreeWithAnArrayOfFlags() throws {
    var map = try SectorMap(sectorCount: 512)
    var flags = [Bool](repeating: false, count: 512)
    var random = SystemRandomNumberGenerator()
    for _ in 0..<200 {
      let start = Int.random(in: 0..<512, using: &random)
      let end = Int.random(in: start + 1...min(512, start + 80), using: &random)
      if Bool.random(using: &random) {
        map.insert(UInt64(start)..<UInt64(end))
        for index in start..<end { flags[index] = true }
      }
      let run = map.run(in: UInt64(start)..<UInt64(end))
      let expected = flags[start..<end].prefix { $0 == flags[start] }.count
      #expect(run == (flags[start], UInt64(expected)))
    }
  }
}

@Suite struct SnapshotTests {
  private final class Kit {
    static let sectors = 256
    let file: TemporaryFile
    let original: [UInt8]
    let loop: EventLoop
    let backend: BlockBackend
    let client = TestClient()
    /// What the guest must find.
    var expected: [UInt8]

    init(writeCache: Bool = true, overlayFaults: String? = nil) throws {
      original = TemporaryFile.pattern(Self.sectors * 512)
      expected = original
      file = try TemporaryFile(original)
      loop = try EventLoop(name: "test")
      let loop = self.loop
      func engine() -> IOEngine { ThreadPoolEngine(loop: loop, limits: ThreadPoolLimits(workersMax: 4)) }
      let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: true)
      let lower = FileDriver(image: image, engine: engine())
      let temporary = try ImageFile.temporary(byteCount: lower.byteCount)
      var overlay: BlockDriver = FileDriver(image: temporary, engine: engine())
      if let overlayFaults {
        overlay = FaultDriver(over: overlay, rules: try FaultRule.parse(overlayFaults), loop: loop)
      }
      var configuration = BlockConfiguration()
      configuration.cache = writeCache ? .writeback : .writethrough
      let driver = try SnapshotDriver(over: lower, overlay: overlay, loop: loop)
      backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
    }

    deinit { backend.close() }

    @discardableResult
    func run(
      _ operation: BlockOperation, sector: Int = 0, pieces: [Int] = [], fill: [UInt8]? = nil
    ) throws -> TestRequest {
      let request = TestRequest(
        operation, offset: UInt64(sector * 512), pieces: pieces, fill: fill, client: client)
      backend.submit(request.pointer)
      backend.drain()
      return request
    }

    func write(sector: Int, _ bytes: [UInt8]) throws {
      #expect(try run(.write, sector: sector, pieces: [bytes.count], fill: bytes).pointer.pointee.result == 0)
      expected.replaceSubrange(sector * 512..<sector * 512 + bytes.count, with: bytes)
    }

    func checkAll() throws {
      // In pieces that are no whole sectors.
      let request = try run(.read, pieces: [100, 412, 512 * 3, 700, 512 * (Self.sectors - 5) - 188 - 512 + 512])
      #expect(request.pointer.pointee.result == 0)
      #expect(request.bytes == Array(expected[..<request.bytes.count]))
      #expect(file.bytes == original)
    }
  }

  @Test(arguments: [true, false]) func theGuestFindsWhatItWroteAndTheImageStays(writeCache: Bool) throws {
    let kit = try Kit(writeCache: writeCache)
    try kit.checkAll()
    try kit.write(sector: 3, TemporaryFile.pattern(512, seed: 5))
    try kit.write(sector: 10, TemporaryFile.pattern(5 * 512, seed: 9))
    try kit.write(sector: 12, TemporaryFile.pattern(512, seed: 11))
    try kit.write(sector: 0, TemporaryFile.pattern(1024, seed: 1))
    try kit.checkAll()
    #expect(try kit.run(.flush).pointer.pointee.result == 0)
    #expect(kit.backend.statistics.errors == 0)
  }

  @Test(arguments: [BlockOperation.writeZeroes, .discard]) func rangesAreZeroesAfterwards(operation: BlockOperation)
    throws
  {
    let kit = try Kit()
    try kit.write(sector: 6, TemporaryFile.pattern(512 * 4, seed: 3))
    #expect(try kit.run(operation, sector: 4, pieces: [512 * 3]).pointer.pointee.result == 0)
    kit.expected.replaceSubrange(4 * 512..<7 * 512, with: [UInt8](repeating: 0, count: 3 * 512))
    try kit.checkAll()
  }

  @Test func requestsOfABatchAllFindTheirPlace() throws {
    let kit = try Kit()
    kit.loop.beginBatch()
    for sector in stride(from: 0, to: 100, by: 3) {
      let bytes = TemporaryFile.pattern(512, seed: sector + 100)
      let request = TestRequest(.write, offset: UInt64(sector * 512), pieces: [512], fill: bytes, client: kit.client)
      kit.backend.submit(request.pointer)
      kit.expected.replaceSubrange(sector * 512..<sector * 512 + 512, with: bytes)
    }
    kit.loop.endBatch()
    kit.backend.drain()
    kit.loop.beginBatch()
    let reads = (0..<20).map { index in
      TestRequest(.read, offset: UInt64(index * 512), pieces: [512 * 40, 512 * 40], client: kit.client)
    }
    reads.forEach { kit.backend.submit($0.pointer) }
    kit.loop.endBatch()
    kit.backend.drain()
    for (index, read) in reads.enumerated() {
      #expect(read.bytes == Array(kit.expected[index * 512..<(index + 80) * 512]))
    }
    try kit.checkAll()
  }

  @Test func aFailedWriteLeavesWhatWasThere() throws {
    let kit = try Kit(overlayFaults: "write:error=ENOSPC:nth=1")
    kit.backend.onStop = { _, _ in }
    let request = TestRequest(.write, offset: 0, pieces: [512], client: kit.client)
    kit.backend.submit(request.pointer)
    kit.backend.drain()
    #expect(kit.backend.keptCount == 1)
    #expect(try kit.run(.read, pieces: [512]).bytes == Array(kit.original[..<512]))
    kit.backend.resume()
    kit.backend.drain()
    #expect(request.pointer.pointee.result == 0)
    #expect(try kit.run(.read, pieces: [512]).bytes == request.bytes)
  }

  @Test func aReadThatFailsInOneOfItsPlacesFails() throws {
    let kit = try Kit(overlayFaults: "read:error=EIO")
    try kit.write(sector: 5, TemporaryFile.pattern(512))
    #expect(try kit.run(.read, sector: 0, pieces: [5 * 512]).pointer.pointee.result == 0)
    #expect(try kit.run(.read, sector: 0, pieces: [10 * 512]).pointer.pointee.result == -EIO)
    #expect(kit.backend.inFlight == 0)
  }

  @Test func whatIsCutOffDoesNotComeBackFromTheImage() throws {
    let kit = try Kit()
    try kit.backend.resize(to: 64 * 512)
    try kit.backend.resize(to: UInt64(2 * Kit.sectors * 512))
    let read = try kit.run(.read, sector: 60, pieces: [512 * 300])
    #expect(read.bytes == Array(kit.original[60 * 512..<64 * 512]) + [UInt8](repeating: 0, count: 512 * 296))
    try kit.write(sector: 100, TemporaryFile.pattern(512))
    #expect(try kit.run(.read, sector: 100, pieces: [512]).bytes == TemporaryFile.pattern(512))
    #expect(kit.file.bytes == kit.original)
  }

  @Test func theImageMayBeReadByOthersAndNotWritten() throws {
    let kit = try Kit()
    _ = try ImageFile.open(path: kit.file.path, cache: .writeback, readOnly: true)
    #expect(throws: ImageError.locked(path: kit.file.path, forWriting: true)) {
      _ = try ImageFile.open(path: kit.file.path, cache: .writeback, readOnly: false)
    }
  }
}
