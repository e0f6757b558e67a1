// SPDX-License-Identifier: Apache-2.0
// Pausing and draining a backend, and turning its write cache off while it works.
import EventLoop
import Glibc
import Testing

@testable import Block

/// A backend on a driver that completes when the test says so.
private final class Kit {
  let loop: EventLoop
  let driver = HeldDriver()
  let backend: BlockBackend
  let client = TestClient()

  init(_ set: (inout BlockConfiguration) -> Void = { _ in }) throws {
    loop = try EventLoop(name: "test")
    var configuration = BlockConfiguration()
    set(&configuration)
    backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
  }

  var operations: [BlockOperation] { driver.held.map { $0.pointee.operation } }

  @discardableResult
  func submit(_ operation: BlockOperation, _ offset: UInt64 = 0) -> TestRequest {
    let request = TestRequest(operation, offset: offset, pieces: operation == .flush ? [] : [512], client: client)
    backend.submit(request.pointer)
    return request
  }

  /// Runs what waits in the loop.
  func settle() { while loop.runOnce(mayBlock: false) {} }
}

@Suite struct PauseTests {
  @Test func pausedBackendHoldsRequestsInOrderAndCountsThem() throws {
    let kit = try Kit()
    let before = kit.submit(.read)
    kit.backend.pause()
    kit.backend.pause()
    let after = [kit.submit(.write, 512), kit.submit(.flush), kit.submit(.read, 1 << 40)]
    #expect(kit.driver.held == [before.pointer])
    #expect(kit.backend.inFlight == 4)
    #expect(kit.backend.keptCount == 3)
    kit.driver.completeAll()
    // What is held is not waited for.
    kit.backend.drain()
    #expect(kit.client.completed == [before.pointer])
    kit.backend.unpause()
    #expect(kit.driver.held.isEmpty)
    kit.backend.unpause()
    #expect(kit.driver.held == after[..<2].map(\.pointer))
    kit.driver.completeAll()
    kit.backend.drain()
    // Held requests are checked like all others.
    #expect(after.map { $0.pointer.pointee.result } == [0, 0, -EINVAL])
    #expect(kit.backend.inFlight == 0)
  }

  @Test func clientThatAnswersCompletionsWithRequestsCannotKeepADrainFromEnding() throws {
    let loop = try EventLoop(name: "test")
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: loop, configuration: BlockConfiguration())
    let client = EndlessClient(backend)
    for index in 0..<4 {
      backend.submit(TestRequest(.read, offset: UInt64(index) * 512, pieces: [512], client: client).pointer)
    }
    backend.pause()
    backend.drain()
    #expect(client.completed.count == 4)
    #expect(backend.keptCount == 4)
    client.isOver = true
    backend.unpause()
    backend.drain()
    #expect(client.completed.count == 8)
  }

  private final class EndlessClient: TestClient {
    private unowned let backend: BlockBackend
    var isOver = false
    init(_ backend: BlockBackend) { self.backend = backend }
    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      super.completed(request)
      if !isOver { backend.submit(request) }
    }
  }

  @Test func stoppedRequestsGoBeforeHeldOnesWhenBothGoOn() throws {
    let kit = try Kit { $0.readErrorPolicy = .stop }
    kit.backend.onStop = { _, _ in }
    let failed = kit.submit(.read)
    kit.driver.completeOne(-EIO)
    kit.backend.pause()
    let held = kit.submit(.read, 512)
    kit.backend.resume()
    #expect(kit.driver.held.isEmpty)
    kit.backend.unpause()
    #expect(kit.driver.held == [failed, held].map(\.pointer))
    kit.driver.completeAll()
    #expect(kit.client.results == [0, 0])
  }
}

@Suite struct WriteCacheTests {
  @Test func writesUnderWayAreFlushedBeforeTheyCompleteOnceTheCacheIsOff() throws {
    let kit = try Kit()
    let writes = [kit.submit(.write), kit.submit(.write, 512), kit.submit(.discard, 1024)]
    let read = kit.submit(.read)
    kit.backend.writeCacheEnabled = false
    kit.settle()
    // Nothing has been written before, so nothing is flushed yet.
    #expect(kit.operations == [.write, .write, .discard, .read])
    kit.driver.completeOne()
    #expect(kit.client.completed.isEmpty)
    #expect(kit.operations == [.write, .discard, .read, .flush])
    // These come too late for the flush under way.
    kit.driver.completeOne()
    kit.driver.completeOne()
    kit.driver.completeOne()
    #expect(kit.client.completed == [read.pointer])
    #expect(kit.operations == [.flush])
    kit.driver.completeOne()
    kit.settle()
    #expect(kit.client.completed == [read, writes[0]].map(\.pointer))
    #expect(kit.operations == [.flush])
    kit.driver.completeOne()
    kit.settle()
    #expect(kit.client.completed == [read, writes[0], writes[1], writes[2]].map(\.pointer))
    #expect(kit.client.results == [0, 0, 0, 0])
    #expect(kit.backend.inFlight == 0)
    #expect(kit.operations.isEmpty)
    // New writes are durable by themselves.
    kit.submit(.write)
    kit.driver.completeOne()
    #expect(kit.client.completed.count == 5)
  }

  @Test func whatWasWrittenBeforeIsFlushedUnasked() throws {
    let kit = try Kit()
    kit.submit(.write)
    kit.driver.completeOne()
    kit.backend.writeCacheEnabled = false
    kit.settle()
    #expect(kit.operations == [.flush])
    kit.driver.completeOne()
    #expect(kit.client.completed.count == 1)
    // Nothing has changed since: off and on again asks for nothing.
    kit.backend.writeCacheEnabled = true
    kit.backend.writeCacheEnabled = false
    kit.settle()
    #expect(kit.operations.isEmpty)
  }

  @Test func flushThatFailsFailsTheWritesThatWaitForIt() throws {
    let kit = try Kit()
    kit.submit(.write)
    kit.backend.writeCacheEnabled = false
    kit.driver.completeOne()
    kit.driver.completeOne(-EIO)
    kit.settle()
    #expect(kit.client.results == [-EIO])
    #expect(kit.backend.inFlight == 0)
  }

  @Test func flushThatStopsTheMachineKeepsTheWritesThatWaitForIt() throws {
    let kit = try Kit { $0.writeErrorPolicy = .stop }
    var stops = 0
    kit.backend.onStop = { _, _ in stops += 1 }
    kit.submit(.write)
    kit.backend.writeCacheEnabled = false
    kit.driver.completeOne()
    kit.driver.completeOne(-EIO)
    #expect(stops == 1)
    // Neither is with the driver.
    kit.backend.drain()
    #expect(kit.client.completed.isEmpty)
    kit.backend.resume()
    kit.driver.completeOne()
    kit.settle()
    #expect(kit.client.results == [0])
    #expect(kit.backend.inFlight == 0)
  }

  @Test func cacheUnsafeFlushesNothing() throws {
    let kit = try Kit { $0.cache = .unsafe }
    kit.submit(.write)
    kit.submit(.write, 512)
    kit.driver.completeOne()
    kit.backend.writeCacheEnabled = false
    kit.settle()
    kit.driver.completeOne()
    kit.settle()
    #expect(kit.operations.isEmpty)
    #expect(kit.client.results == [0, 0])
  }
}
