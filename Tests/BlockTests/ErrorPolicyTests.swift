// SPDX-License-Identifier: Apache-2.0
// What becomes of requests that the host failed.
import EventLoop
import Glibc
import Testing

@testable import Block

@Suite struct ErrorPolicyTests {
  private final class Kit {
    let loop: EventLoop
    let driver = HeldDriver()
    let backend: BlockBackend
    let client = TestClient()
    var stops: [(operation: BlockOperation, code: Int32)] = []

    init(read: ErrorPolicy? = nil, write: ErrorPolicy? = nil, listens: Bool = true) throws {
      loop = try EventLoop(name: "test")
      var configuration = BlockConfiguration()
      if let read { configuration.readErrorPolicy = read }
      if let write { configuration.writeErrorPolicy = write }
      backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
      if listens { backend.onStop = { [unowned self] in stops.append(($0, $1)) } }
    }

    @discardableResult
    func submit(_ operation: BlockOperation, _ offset: UInt64 = 0) -> TestRequest {
      let request = TestRequest(operation, offset: offset, pieces: operation == .flush ? [] : [512], client: client)
      backend.submit(request.pointer)
      return request
    }
  }

  private static let changing: [BlockOperation] = [.write, .flush, .discard, .writeZeroes]

  @Test func everyErrorIsReportedByDefaultExceptMissingSpace() throws {
    let kit = try Kit()
    for operation in Self.changing + [.read] {
      kit.submit(operation)
      kit.driver.completeOne(-EIO)
    }
    kit.submit(.read)
    kit.driver.completeOne(-ENOSPC)
    #expect(kit.client.results == [-EIO, -EIO, -EIO, -EIO, -EIO, -ENOSPC])
    #expect(kit.backend.statistics.errors == 6)
    kit.submit(.write)
    kit.driver.completeOne(-ENOSPC)
    #expect(kit.client.completed.count == 6)
    #expect(kit.stops.map(\.code) == [ENOSPC])
    #expect(kit.backend.inFlight == 1)
    kit.backend.resume()
    kit.driver.completeOne(0)
    #expect(kit.client.results.last == 0)
  }

  @Test func stopKeepsRequestsTellsOnceAndResumeTriesThemInOrder() throws {
    let kit = try Kit(read: .stop, write: .stop)
    let requests = [kit.submit(.read, 512), kit.submit(.write, 1024), kit.submit(.flush)]
    let fine = kit.submit(.read, 4096)
    for _ in requests { kit.driver.completeOne(-EIO) }
    kit.driver.completeOne(0)
    #expect(kit.client.completed == [fine.pointer])
    #expect(kit.stops.map(\.operation) == [.read])
    #expect(kit.stops.map(\.code) == [EIO])
    #expect(kit.backend.inFlight == 3)
    #expect(kit.backend.keptCount == 3)
    // Does not wait for what is kept.
    kit.backend.drain()
    kit.backend.resume()
    #expect(kit.driver.held == requests.map(\.pointer))
    kit.driver.completeOne(-EIO)
    #expect(kit.stops.count == 2)
    kit.driver.completeOne(0)
    kit.driver.completeOne(0)
    kit.backend.resume()
    kit.driver.completeOne(0)
    #expect(kit.client.completed == [fine, requests[1], requests[2], requests[0]].map(\.pointer))
    #expect(kit.client.results == [0, 0, 0, 0])
    #expect(kit.backend.statistics.errors == 0)
    #expect(kit.backend.inFlight == 0)
  }

  @Test func durableWriteIsStillDurableWhenItIsTriedAgain() throws {
    let kit = try Kit(write: .stop)
    kit.backend.writeCacheEnabled = false
    kit.driver.completeAll()
    kit.submit(.write)
    #expect(kit.driver.held.last?.pointee.forceUnitAccess == true)
    kit.driver.completeOne(-EIO)
    kit.backend.resume()
    #expect(kit.driver.held.last?.pointee.forceUnitAccess == true)
    kit.driver.completeAll()
  }

  @Test(arguments: changing) func writePolicyIsForAllThatChangesTheDisk(operation: BlockOperation) throws {
    let kit = try Kit(read: .report, write: .ignore)
    kit.submit(operation)
    kit.driver.completeOne(-EIO)
    kit.submit(.read)
    kit.driver.completeOne(-EIO)
    #expect(kit.client.results == [0, -EIO])
  }

  @Test func refusedRequestsAreNotSubjectToPolicies() throws {
    let kit = try Kit(read: .stop, write: .ignore)
    kit.submit(.read, 1 << 40)
    kit.submit(.write, 1 << 40)
    kit.backend.drain()
    #expect(kit.client.results == [-EINVAL, -EINVAL])
    #expect(kit.stops.isEmpty)
    // The slot is an ordinary one again.
    kit.client.completed[0].pointee.offset = 0
    kit.backend.submit(kit.client.completed[0])
    kit.driver.completeOne(-EIO)
    #expect(kit.backend.keptCount == 1)
    kit.backend.reportStopped()
    kit.backend.drain()
  }

  @Test func whileNobodyListensErrorsAreReported() throws {
    let kit = try Kit(read: .stop, write: .stop, listens: false)
    kit.submit(.read)
    kit.driver.completeOne(-EIO)
    #expect(kit.client.results == [-EIO])
  }

  @Test func keptRequestsCanBeGivenBackWithTheirErrors() throws {
    let kit = try Kit(write: .stop)
    let requests = [kit.submit(.write), kit.submit(.write, 512)]
    kit.driver.completeOne(-EIO)
    kit.driver.completeOne(-ENOSPC)
    kit.backend.reportStopped()
    #expect(kit.client.completed.isEmpty)
    kit.backend.drain()
    #expect(kit.client.completed == requests.map(\.pointer))
    #expect(kit.client.results == [-EIO, -ENOSPC])
    #expect(kit.backend.inFlight == 0)
  }
}

/// A driver whose requests complete when the test says so.
class HeldDriver: BlockDriver {
  var held: [UnsafeMutablePointer<BlockRequest>] = []
  override var byteCount: UInt64 { 1 << 20 }
  override func submit(_ request: UnsafeMutablePointer<BlockRequest>) { held.append(request) }
  func completeOne(_ result: Int32 = 0) {
    let request = held.removeFirst()
    request.pointee.result = result
    complete(request)
  }
  func completeAll() { while !held.isEmpty { completeOne() } }
}
