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

  @Test func aLongBurstLastsItsSecondsAtItsRate() {
    var bucket = LeakyBucket(.init(10, burst: 100, burstSeconds: 3))
    // A tenth of a second of the burst at once, and then at the burst's rate.
    bucket.pour(10)
    #expect(bucket.wait(at: 0) == 0)
    bucket.pour(10)
    #expect(bucket.wait(at: 0) == Self.second / 10 + 1)
    bucket.pour(90)
    #expect(bucket.wait(at: 0) == Self.second + 1)
    // What three seconds of it hold has come, so it goes on at the average.
    bucket.pour(200)
    #expect(bucket.wait(at: 3 * Self.second) == 0)
    bucket.pour(30)
    #expect(bucket.wait(at: 3 * Self.second) == Self.second + 1)
  }

  @Test func aWaitThatNoNumberHoldsIsLong() {
    var bucket = LeakyBucket(.init(1))
    // As much as a guest may ask for at once, many times.
    for _ in 0..<1000 { bucket.pour(1 << 41) }
    #expect(bucket.wait(at: 0) > 1_000_000 * Self.second)
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

  // MARK: Limits of a disk at work

  private func plainBackend() throws -> (HeldDriver, BlockBackend) {
    let lower = HeldDriver()
    let loop = try EventLoop(name: "test")
    return (lower, BlockBackend(driver: lower, loop: loop, configuration: BlockConfiguration()))
  }

  private func submit(_ backend: BlockBackend, _ client: TestClient) -> UnsafeMutablePointer<BlockRequest> {
    let request = TestRequest(.write, pieces: [4096], client: client).pointer
    backend.submit(request)
    return request
  }

  @Test func limitsArePutOnADiskThatHadNone() throws {
    let (lower, backend) = try plainBackend()
    let client = TestClient()
    #expect(backend.driver === lower && backend.limits.isEmpty)
    let before = submit(backend, client)
    var limits = ThrottleLimits()
    limits.requests.total = Self.slow
    backend.setLimits(limits)
    #expect(backend.limits == limits)
    let first = submit(backend, client)
    let second = submit(backend, client)
    #expect(lower.held == [before, first])
    // None: what waits goes on, and nothing waits any more.
    backend.setLimits(ThrottleLimits())
    let third = submit(backend, client)
    #expect(lower.held == [before, first, second, third])
    lower.completeAll()
    #expect(client.results == [0, 0, 0, 0] && backend.inFlight == 0)
  }

  @Test func whatWaitsGoesOnByTheNewLimits() throws {
    let kit = try Kit { $0.bytes.total = Self.slow }
    for _ in 0..<3 { kit.submit(.read) }
    #expect(kit.lower.held.count == 1)
    var limits = ThrottleLimits()
    limits.bytes.write = Self.slow
    kit.driver.setLimits(limits)
    #expect(kit.lower.held.count == 3 && kit.driver.waitingCount == 0)
    kit.submit(.write)
    kit.submit(.write)
    #expect(kit.driver.waitingCount == 1)
    kit.backend.hurry()
    kit.lower.completeAll()
  }

  @Test func limitsThatComeDuringADrainHoldNothingUntilItsEnd() throws {
    let (lower, backend) = try plainBackend()
    let client = TestClient()
    var limits = ThrottleLimits()
    limits.requests.total = Self.slow
    backend.drainBegan()
    backend.setLimits(limits)
    let during = [submit(backend, client), submit(backend, client)]
    #expect(lower.held == during)
    backend.drainEnded()
    let after = [submit(backend, client), submit(backend, client)]
    #expect(lower.held == during + after[..<1])
    backend.hurry()
    lower.completeAll()
  }

  @Test func aLargeRequestCountsAsSeveral() throws {
    let kit = try Kit {
      $0.requests.total = ThrottleLimits.Limit(1, burst: 3)
      $0.requestBytes = 4096
    }
    // One of two and a half parts counts as three, and does not fill the bucket of three beyond its size.
    kit.submit(.read, bytes: 10240)
    kit.submit(.read, bytes: 512)
    kit.submit(.read, bytes: 512)
    #expect(kit.lower.held.count == 2 && kit.driver.waitingCount == 1)
    kit.backend.hurry()
    kit.lower.completeAll()
  }
}
