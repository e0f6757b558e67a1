// SPDX-License-Identifier: Apache-2.0
// Requests that continue each other go to the kernel as one operation, and come back as themselves.
import Glibc
import Testing

@testable import AsyncIO
@testable import Block

@Suite struct MergeTests {
  private func kit(
    merge: Bool = true, cache: CacheMode = .writeback, alignment: IOAlignment? = nil, bytes: Int = 1 << 16
  )
    throws
    -> (kit: ScriptKit, file: TemporaryFile)
  {
    let file = try TemporaryFile(TemporaryFile.pattern(bytes))
    return (try ScriptKit(file, cache: cache, alignment: alignment, merge: merge), file)
  }

  private func submit(_ requests: [TestRequest], _ kit: ScriptKit) {
    kit.loop.beginBatch()
    requests.forEach { kit.backend.submit($0.pointer) }
    kit.loop.endBatch()
  }

  @Test func adjacentWritesOfABatchGoAsOneAndCompleteInOrder() throws {
    let (kit, file) = try kit()
    kit.engine.actOnFile()
    let data = (0..<3).map { TemporaryFile.pattern(1024, seed: 50 + $0) }
    let requests = (0..<3).map {
      kit.request(.write, offset: UInt64(4096 + $0 * 1024), pieces: [512, 512], fill: data[$0])
    }
    submit(requests, kit)
    kit.backend.drain()
    #expect(kit.engine.log == [.init(opcode: .write, offset: 4096, byteCount: 3072, iovecCount: 6)])
    #expect(kit.client.completed == requests.map(\.pointer))
    #expect(kit.client.results == [0, 0, 0])
    #expect(Array(file.bytes[4096..<7168]) == data.flatMap { $0 })
    #expect(kit.backend.statistics.merged == 2)
    #expect(kit.backend.statistics.writes == 3)
    #expect(kit.backend.statistics.writtenBytes == 3072)
    #expect(kit.driver.directInFlight == 0)
  }

  @Test func adjacentReadsGoAsOneAndEachGetsItsOwnBytes() throws {
    let (kit, file) = try kit()
    kit.engine.actOnFile()
    let requests = (0..<8).map { kit.request(.read, offset: UInt64($0) * 1536, pieces: [1536]) }
    submit(requests, kit)
    kit.backend.drain()
    #expect(kit.engine.log.count == 1)
    let original = file.bytes
    for (index, request) in requests.enumerated() {
      #expect(request.bytes == Array(original[index * 1536..<(index + 1) * 1536]))
    }
  }

  @Test func otherOperationsGapsAndOverlapsStayApartAndInOrder() throws {
    let (kit, _) = try kit()
    submit(
      [
        kit.request(.write, offset: 0, pieces: [512]), kit.request(.read, offset: 512, pieces: [512]),
        kit.request(.read, offset: 1536, pieces: [512]), kit.request(.read, offset: 1536, pieces: [512]),
        kit.request(.read, offset: 1024, pieces: [512]),
      ], kit)
    #expect(kit.engine.opcodes == [.write, .read, .read, .read, .read])
    #expect(kit.engine.log.map(\.offset) == [0, 512, 1536, 1536, 1024])
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
    #expect(kit.backend.statistics.merged == 0)
  }

  @Test func runEndsBeforeFlushDiscardAndZeroesAndGoesBeforeThem() throws {
    for operation in [BlockOperation.flush, .discard, .writeZeroes] {
      let (kit, _) = try kit()
      let between = kit.range(operation, 1024..<2048)
      submit(
        [
          kit.request(.write, offset: 0, pieces: [512]), kit.request(.write, offset: 512, pieces: [512]), between,
          kit.request(.write, offset: 1024, pieces: [512]), kit.request(.write, offset: 1536, pieces: [512]),
        ], kit)
      #expect(kit.engine.log.map(\.byteCount) == [1024, 1024, 1024])
      #expect(kit.engine.opcodes.first == .write && kit.engine.opcodes.last == .write)
      #expect(kit.engine.log[1].opcode != .write)
      while !kit.engine.held.isEmpty { kit.engine.completeOne() }
      kit.backend.drain()
      #expect(kit.client.results == [0, 0, 0, 0, 0])
    }
  }

  @Test func durableWritesStayAlone() throws {
    let (kit, _) = try kit()
    let requests = (0..<3).map { kit.request(.write, offset: UInt64($0) * 512, pieces: [512]) }
    requests[1].pointer.pointee.forceUnitAccess = true
    submit(requests, kit)
    #expect(kit.engine.log.map(\.forceUnitAccess) == [false, true, false])
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
  }

  @Test func batchesAreNotMergedWithEachOther() throws {
    let (kit, _) = try kit()
    submit([kit.request(.write, offset: 0, pieces: [512])], kit)
    submit([kit.request(.write, offset: 512, pieces: [512])], kit)
    kit.backend.submit(kit.request(.write, offset: 1024, pieces: [512]).pointer)
    #expect(kit.engine.log.map(\.byteCount) == [512, 512, 512])
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
  }

  @Test func runsStayWithinTheKernelsListAndTheByteLimit() throws {
    let (kit, _) = try kit(bytes: 2 << 20)
    kit.engine.actOnFile()
    // 3 × 400 entries: two fit into 1024.
    submit((0..<3).map { kit.request(.read, offset: UInt64($0) * 400, pieces: .init(repeating: 1, count: 400)) }, kit)
    kit.backend.drain()
    #expect(kit.engine.log.map(\.iovecCount) == [800, 400])
    kit.engine.log = []
    submit((0..<5).map { kit.request(.read, offset: UInt64($0) * 400 << 10, pieces: [400 << 10]) }, kit)
    kit.backend.drain()
    #expect(kit.engine.log.map(\.byteCount) == [800 << 10, 800 << 10, 400 << 10])
    #expect(kit.client.results.allSatisfy { $0 == 0 })
  }

  @Test func membersOfAFailedOperationAreTriedAloneAndGetTheirOwnResults() throws {
    let (kit, file) = try kit()
    kit.engine.actOnFile { $0.pointee.byteCount > 512 ? -EIO : $0.pointee.offset == 512 ? -ENOSPC : nil }
    let data = TemporaryFile.pattern(512, seed: 8)
    let requests = (0..<3).map { kit.request(.write, offset: UInt64($0) * 512, pieces: [512], fill: data) }
    submit(requests, kit)
    kit.backend.drain()
    #expect(kit.engine.log.map(\.byteCount) == [1536, 512, 512, 512])
    #expect(kit.client.completed.count == 3)
    #expect(requests.map { $0.pointer.pointee.result } == [0, -ENOSPC, 0])
    #expect(Array(file.bytes[1024..<1536]) == data)
    #expect(kit.driver.directInFlight == 0)
  }

  @Test func withoutAFreeSlotRequestsGoAsTheyComeAndSlotsComeBack() throws {
    let (kit, _) = try kit(bytes: 1 << 19)
    func pairs(_ count: Int) {
      let requests = (0..<count).flatMap { index in
        [0, 512].map { kit.request(.read, offset: UInt64(index * 4096 + $0), pieces: [512]) }
      }
      submit(requests, kit)
    }
    pairs(RequestMerger.slotCount + 2)
    #expect(kit.engine.log.count == RequestMerger.slotCount + 4)
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
    kit.backend.drain()
    kit.engine.log = []
    pairs(2)
    #expect(kit.engine.log.map(\.byteCount) == [1024, 1024])
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
    kit.backend.drain()
    #expect(kit.client.completed.count == 2 * (RequestMerger.slotCount + 4))
  }

  @Test func switchedOffEveryRequestGoesAlone() throws {
    let (kit, _) = try kit(merge: false)
    submit((0..<3).map { kit.request(.write, offset: UInt64($0) * 512, pieces: [512]) }, kit)
    #expect(kit.engine.log.map(\.byteCount) == [512, 512, 512])
    while !kit.engine.held.isEmpty { kit.engine.completeOne() }
  }

  @Test func requestsThatMissTheAlignmentAreNotMerged() throws {
    let (kit, file) = try kit(alignment: .page)
    kit.engine.actOnFile()
    let requests = (0..<4).map { kit.request(.read, offset: UInt64($0) * 4096, pieces: [4096], shift: $0 == 1 ? 1 : 0) }
    submit(requests, kit)
    kit.backend.drain()
    #expect(kit.engine.log.map(\.byteCount) == [4096, 4096, 8192])
    let original = file.bytes
    for (index, request) in requests.enumerated() {
      #expect(request.bytes == Array(original[index * 4096..<(index + 1) * 4096]))
    }
  }

  @Test func clientThatDrainsInACompletionGetsTheWholeRun() throws {
    let (kit, _) = try kit()
    kit.engine.actOnFile()
    let client = DrainingClient(kit.backend)
    let requests = (0..<4).map {
      TestRequest(.read, offset: UInt64($0) * 512, pieces: [512], client: client)
    }
    submit(requests, kit)
    kit.backend.drain()
    #expect(client.completed == requests.map(\.pointer))
    #expect(client.counts == [4, 4, 4, 4])
  }

  private final class DrainingClient: TestClient {
    private unowned let backend: BlockBackend
    var counts: [Int] = []
    init(_ backend: BlockBackend) { self.backend = backend }
    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      super.completed(request)
      backend.drain()
      counts.append(completed.count)
    }
  }
}
