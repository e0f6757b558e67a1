// SPDX-License-Identifier: Apache-2.0
// The backend in front of drivers that need no file.
import EventLoop
import Testing

@testable import Block

@Suite struct NullDriverTests {
  @Test func batchIsCompletedInOrderAfterItsEnd() throws {
    let loop = try EventLoop(name: "test")
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    let requests = (0..<16).map { TestRequest(.read, offset: UInt64($0) * 512, pieces: [512], client: client) }
    loop.beginBatch()
    for request in requests {
      backend.submit(request.pointer)
      #expect(client.completed.isEmpty)
    }
    loop.endBatch()
    #expect(client.completed == requests.map(\.pointer))
    #expect(backend.inFlight == 0)
  }

  @Test func clientThatDrainsInACompletionGetsTheRestOfItsBatch() throws {
    let loop = try EventLoop(name: "test")
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: loop, configuration: BlockConfiguration())
    let client = DrainingClient()
    let requests = (0..<5).map { TestRequest(.read, offset: UInt64($0) * 512, pieces: [512], client: client) }
    var counts: [Int] = []
    client.onCompletion = {
      backend.drain()
      counts.append(client.completed.count)
    }
    loop.beginBatch()
    requests.forEach { backend.submit($0.pointer) }
    loop.endBatch()
    #expect(client.completed == requests.map(\.pointer))
    // Each drain came back only when all five were there.
    #expect(counts == [5, 5, 5, 5, 5])
  }

  @Test func clientThatAnswersEachCompletionWithARequestLeavesTheLoopToOthers() throws {
    let loop = try EventLoop(name: "test")
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: loop, configuration: BlockConfiguration())
    let client = DrainingClient()
    let requests = (0..<4).map { TestRequest(.read, offset: UInt64($0) * 512, pieces: [512], client: client) }
    var isOver = false
    client.onCompletion = { [unowned client] in if !isOver { backend.submit(client.completed.last!) } }
    loop.beginBatch()
    requests.forEach { backend.submit($0.pointer) }
    loop.endBatch()
    #expect(client.completed.count == 4)
    for round in 2...5 {
      loop.runOnce(mayBlock: true)
      #expect(client.completed.count == 4 * round)
    }
    isOver = true
    backend.drain()
    #expect(client.completed.count == 24)
  }

  @Test func statisticsCountWhatWasDone() throws {
    let loop = try EventLoop(name: "test")
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    let requests = [
      TestRequest(.read, pieces: [512], client: client), TestRequest(.write, pieces: [1024], client: client),
      TestRequest(.flush, client: client), TestRequest(.read, offset: 1 << 20, pieces: [512], client: client),
    ]
    for request in requests { backend.submit(request.pointer) }
    backend.drain()
    let statistics = backend.statistics
    #expect(statistics.reads == 1)
    #expect(statistics.writtenBytes == 1024)
    #expect(statistics.flushes == 1)
    #expect(statistics.errors == 1)
  }

  @Test func writeThroughForcesEveryWriteUntilTheGuestTurnsTheCacheOn() throws {
    let loop = try EventLoop(name: "test")
    var configuration = BlockConfiguration()
    configuration.cache = .writethrough
    let driver = HoldingDriver()
    let backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
    let client = TestClient()
    let requests = (0..<2).map { _ in TestRequest(.write, pieces: [512], client: client) }
    backend.submit(requests[0].pointer)
    #expect(driver.held[0].pointee.forceUnitAccess)
    backend.writeCacheEnabled = true
    backend.submit(requests[1].pointer)
    #expect(!driver.held[1].pointee.forceUnitAccess)
    for request in driver.held { backend.driverCompleted(request) }
    #expect(client.completed.count == 2)
  }

  private final class DrainingClient: TestClient {
    var onCompletion: () -> Void = {}
    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      super.completed(request)
      onCompletion()
    }
  }

  private final class HoldingDriver: BlockDriver {
    var held: [UnsafeMutablePointer<BlockRequest>] = []
    override var byteCount: UInt64 { 4096 }
    override func submit(_ request: UnsafeMutablePointer<BlockRequest>) { held.append(request) }
  }
}
