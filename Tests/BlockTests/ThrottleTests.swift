// SPDX-License-Identifier: Apache-2.0
// Limits: what the bucket says at which time, and who waits for it.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import Block

@Suite struct LeakyBucketTests {
  private static let second: UInt64 = 1_000_000_000

  @Test func aTenthOfASecondsUnitsMayComeAtOnce() {
    var bucket = LeakyBucket(.init(1000))
    #expect(bucket.wait(at: 5 * Self.second) == 0)
    bucket.pour(100)
    #expect(bucket.wait(at: 5 * Self.second) == 0)
    bucket.pour(50)
    // 50 units too many, at 1000 a second.
    #expect(bucket.wait(at: 5 * Self.second) == 50_000_001)
    #expect(bucket.wait(at: 5 * Self.second + 20_000_000) == 30_000_001)
    #expect(bucket.wait(at: 5 * Self.second + 50_000_001) == 0)
  }

  @Test func aBurstIsAsLargeAsItIsSaidToBe() {
    var bucket = LeakyBucket(.init(10, burst: 40))
    bucket.pour(40)
    #expect(bucket.wait(at: 0) == 0)
    bucket.pour(10)
    #expect(bucket.wait(at: 0) == Self.second + 1)
    // After a long rest the bucket is empty, and not more than empty.
    #expect(bucket.wait(at: 100 * Self.second) == 0)
    bucket.pour(41)
    #expect(bucket.wait(at: 100 * Self.second) == Self.second / 10 + 1)
  }

  @Test func noLimitNeverWaits() {
    var bucket = LeakyBucket(.init())
    bucket.pour(.max)
    #expect(bucket.wait(at: 0) == 0)
  }

  @Test func aClockThatStandsDoesNotEmptyTheBucket() {
    var bucket = LeakyBucket(.init(10))
    #expect(bucket.wait(at: 7 * Self.second) == 0)
    bucket.pour(11)
    #expect(bucket.wait(at: 7 * Self.second) == Self.second + 1)
    #expect(bucket.wait(at: 6 * Self.second) == Self.second + 1)
  }
}

@Suite(.timeLimit(.minutes(2))) struct ThrottleDriverTests {
  private final class Kit {
    let loop: EventLoop
    let lower = HeldDriver()
    let driver: ThrottleDriver
    let backend: BlockBackend
    let client = TestClient()

    init(_ change: (inout ThrottleLimits) -> Void) throws {
      loop = try EventLoop(name: "test")
      var limits = ThrottleLimits()
      change(&limits)
      driver = ThrottleDriver(over: lower, limits: limits, loop: loop)
      backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    }

    @discardableResult
    func submit(_ operation: BlockOperation, bytes: Int = 4096) -> UnsafeMutablePointer<BlockRequest> {
      let request = TestRequest(operation, pieces: operation == .flush ? [] : [bytes], client: client)
      backend.submit(request.pointer)
      return request.pointer
    }
  }

  /// A limit that no test lives long enough to see the end of.
  private static let slow = ThrottleLimits.Limit(1)

  @Test func theFirstWriteGoesAtOnceAndLaterOnesWaitInOrder() throws {
    let kit = try Kit { $0.bytes.write = Self.slow }
    let requests = [kit.submit(.write), kit.submit(.write), kit.submit(.writeZeroes)]
    #expect(kit.lower.held == [requests[0]])
    #expect(kit.driver.waitingCount == 2)
    // What has no limit passes.
    let others = [kit.submit(.read), kit.submit(.flush), kit.submit(.discard)]
    #expect(kit.lower.held == [requests[0]] + others)
    kit.backend.hurry()
    #expect(kit.lower.held == [requests[0]] + others + requests[1...])
    kit.lower.completeAll()
    #expect(kit.backend.inFlight == 0 && kit.client.results.allSatisfy { $0 == 0 })
    // The limit is as it was afterwards.
    kit.submit(.write)
    #expect(kit.driver.waitingCount == 1)
    kit.backend.hurry()
    kit.lower.completeAll()
  }

  @Test(arguments: [BlockOperation.read, .write]) func theTotalIsOfBothDirections(second: BlockOperation) throws {
    let kit = try Kit { $0.requests.total = Self.slow }
    kit.submit(.read)
    kit.submit(second)
    #expect(kit.lower.held.count == 1 && kit.driver.waitingCount == 1)
    kit.backend.hurry()
    kit.lower.completeAll()
  }

  @Test func readsAndWritesWaitForThemselvesOnly() throws {
    let kit = try Kit {
      $0.requests.read = Self.slow
      $0.bytes.read = ThrottleLimits.Limit(1 << 30)
    }
    kit.submit(.read)
    kit.submit(.read)
    kit.submit(.write)
    #expect(kit.lower.held.map(\.pointee.operation) == [.read, .write])
    kit.backend.hurry()
    kit.lower.completeAll()
  }

  @Test func requestsGoOnByThemselvesWhenTheirTimeHasCome() throws {
    let kit = try Kit { $0.requests.write = ThrottleLimits.Limit(20) }
    for _ in 0..<5 { kit.submit(.write) }
    while kit.driver.waitingCount > 0 { kit.loop.runOnce(mayBlock: true) }
    #expect(kit.lower.held.count == 5)
    kit.lower.completeAll()
  }

  @Test func aDrainWaitsForTheDiskAndNotForTheTime() throws {
    let loop = try EventLoop(name: "test")
    var limits = ThrottleLimits()
    limits.bytes.total = Self.slow
    let driver = ThrottleDriver(over: try MemoryDriver(byteCount: 1 << 20), limits: limits, loop: loop)
    let backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    let written = TestRequest(
      .write, offset: 8192, pieces: [4096], fill: TemporaryFile.pattern(4096), client: client)
    backend.submit(TestRequest(.write, pieces: [512], client: client).pointer)
    backend.submit(written.pointer)
    #expect(driver.waitingCount == 1)
    backend.drain()
    #expect(client.results == [0, 0])
    let read = TestRequest(.read, offset: 8192, pieces: [4096], client: client)
    backend.submit(read.pointer)
    backend.close()
    #expect(read.bytes == TemporaryFile.pattern(4096))
  }
}
