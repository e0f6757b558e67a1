// SPDX-License-Identifier: Apache-2.0
// Faults by rule, over a disk in memory, and the text form of the rules.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import Block

@Suite struct FaultTests {
  private final class Kit {
    let loop: EventLoop
    let driver: FaultDriver
    let backend: BlockBackend
    let client = TestClient()

    init(_ rules: FaultRule..., lower: BlockDriver? = nil) throws {
      loop = try EventLoop(name: "test")
      let disk = try lower ?? MemoryDriver(byteCount: 1 << 16, initial: TemporaryFile.pattern(1 << 16))
      driver = FaultDriver(over: disk, rules: rules, loop: loop)
      backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    }

    func request(_ operation: BlockOperation, _ offset: UInt64 = 0, _ pieces: [Int] = [512]) -> TestRequest {
      TestRequest(operation, offset: offset, pieces: operation == .flush ? [] : pieces, client: client)
    }

    /// Submits one request and gives its result.
    func result(_ operation: BlockOperation, _ offset: UInt64 = 0, _ pieces: [Int] = [512]) -> Int32 {
      let request = request(operation, offset, pieces)
      backend.submit(request.pointer)
      backend.drain()
      return request.pointer.pointee.result
    }
  }

  @Test func errorHitsTheKindsOfTheRuleAndNothingIsDone() throws {
    let kit = try Kit(FaultRule([.write, .flush], .error(ENOSPC)))
    #expect(kit.result(.write) == -ENOSPC)
    #expect(kit.result(.flush) == -ENOSPC)
    let read = kit.request(.read)
    kit.backend.submit(read.pointer)
    kit.backend.drain()
    #expect(read.pointer.pointee.result == 0)
    #expect(read.bytes == TemporaryFile.pattern(512))
  }

  @Test func nthIsOneRequestAndFromIsAllThatFollow() throws {
    let one = try Kit(FaultRule(.read, .error(EIO), occurrence: .only(3)))
    #expect((0..<5).map { _ in one.result(.read) } == [0, 0, -EIO, 0, 0])
    let all = try Kit(FaultRule(.read, .error(EIO), occurrence: .from(3)))
    #expect((0..<5).map { _ in all.result(.read) } == [0, 0, -EIO, -EIO, -EIO])
    #expect(all.result(.write) == 0)
  }

  @Test func rangeIsHitByRequestsThatTouchIt() throws {
    let kit = try Kit(FaultRule(.any, .error(EIO), range: 1024..<2048))
    #expect(kit.result(.read, 512) == 0)
    #expect(kit.result(.read, 512, [1024]) == -EIO)
    #expect(kit.result(.write, 1536) == -EIO)
    #expect(kit.result(.read, 2048) == 0)
    #expect(kit.result(.flush) == 0)
  }

  @Test func everyRuleCountsAndTheFirstWhoseTurnItIsDecides() throws {
    let kit = try Kit(
      FaultRule(.read, .error(EIO), occurrence: .only(2)), FaultRule(.any, .error(ENOSPC), occurrence: .from(2)))
    #expect((0..<3).map { _ in kit.result(.read) } == [0, -EIO, -ENOSPC])
  }

  @Test func shortTransferMovesItsFirstPartAndFails() throws {
    let kit = try Kit(FaultRule([.read, .write], .short(bytes: 1100), occurrence: .only(1)))
    let data = TemporaryFile.pattern(4096, seed: 11)
    let write = TestRequest(.write, offset: 4096, pieces: [700, 3396], fill: data, client: kit.client)
    kit.backend.submit(write.pointer)
    kit.backend.drain()
    #expect(write.pointer.pointee.result == -EIO)
    // The request is its old self again.
    #expect(write.pointer.pointee.byteCount == 4096)
    #expect(write.pointer.pointee.iovecCount == 2)
    #expect(write.pointer.pointee.iovecs?[1].iov_len == 3396)
    let read = kit.request(.read, 4096, [4096])
    kit.backend.submit(read.pointer)
    kit.backend.drain()
    #expect(read.bytes == Array(data[..<1024]) + Array(TemporaryFile.pattern(1 << 16)[5120..<8192]))
  }

  @Test func transferThatIsNoLongerIsWholeAndOneOfNoSectorOnlyFails() throws {
    let kit = try Kit(
      FaultRule(.read, .short(bytes: 512)), FaultRule(.write, .short(bytes: 511)), FaultRule(.flush, .short(bytes: 512))
    )
    #expect(kit.result(.read) == 0)
    #expect(kit.result(.write) == -EIO)
    #expect(kit.result(.flush) == -EIO)
  }

  @Test func errorOfTheDiskUnderAShortTransferStays() throws {
    let loop = try EventLoop(name: "test")
    let disk = FaultDriver(
      over: NullDriver(byteCount: 1 << 16), rules: [FaultRule(.any, .error(ENODEV))], loop: loop)
    let driver = FaultDriver(over: disk, rules: [FaultRule(.read, .short(bytes: 512))], loop: loop)
    let backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    backend.submit(TestRequest(.read, pieces: [1024], client: client).pointer)
    backend.drain()
    #expect(client.results == [-ENODEV])
  }

  @Test func delayedRequestIsOvertakenAndServedAfterItsTime() throws {
    let kit = try Kit(FaultRule(.read, .delay(ns: 3_000_000), occurrence: .only(1)))
    let start = HostClock.nanoseconds
    let slow = kit.request(.read)
    let fast = kit.request(.read, 512)
    kit.backend.submit(slow.pointer)
    kit.backend.submit(fast.pointer)
    kit.backend.drain()
    #expect(kit.client.completed == [fast, slow].map(\.pointer))
    #expect(HostClock.nanoseconds >= start + 3_000_000)
    #expect(slow.bytes == TemporaryFile.pattern(512))
  }

  @Test func hangingRequestsWaitForTheirRelease() throws {
    let kit = try Kit(FaultRule(.write, .hang))
    let writes = (0..<3).map { kit.request(.write, UInt64($0) * 512) }
    let read = kit.request(.read, 8192)
    for request in writes + [read] { kit.backend.submit(request.pointer) }
    for _ in 0..<5 { kit.loop.runOnce(mayBlock: false) }
    #expect(kit.client.completed == [read.pointer])
    #expect(kit.driver.hangingCount == 3)
    kit.driver.release()
    for _ in 0..<5 { kit.loop.runOnce(mayBlock: false) }
    #expect(kit.client.completed == ([read] + writes).map(\.pointer))
    #expect(kit.client.results == [0, 0, 0, 0])
  }

  @Test func drainReleasesWhatHangsAndWhatComesMeanwhile() throws {
    let kit = try Kit(FaultRule(.any, .hang))
    let client = ResubmittingClient(kit.backend, times: 3)
    kit.backend.submit(TestRequest(.read, pieces: [512], client: client).pointer)
    kit.loop.runOnce(mayBlock: false)
    #expect(client.completed.isEmpty)
    kit.backend.drain()
    #expect(client.completed.count == 4)
    // Afterwards requests hang again.
    kit.backend.submit(kit.request(.read).pointer)
    #expect(kit.driver.hangingCount == 1)
    kit.backend.drain()
  }

  private final class ResubmittingClient: TestClient {
    private unowned let backend: BlockBackend
    private var times: Int
    init(_ backend: BlockBackend, times: Int) {
      self.backend = backend
      self.times = times
    }
    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      super.completed(request)
      times -= 1
      if times >= 0 { backend.submit(request) }
    }
  }
}

@Suite struct FaultRuleTextTests {
  @Test func rulesAreReadAsWritten() throws {
    #expect(
      try FaultRule.parse("write:error=ENOSPC:nth=3") == [FaultRule(.write, .error(ENOSPC), occurrence: .only(3))])
    #expect(
      try FaultRule.parse(
        "read+flush:range=1M-2M:delay=5ms;any:hang;write-zeroes+discard:from=2:short=4K;read:delay=7s")
        == [
          FaultRule([.read, .flush], .delay(ns: 5_000_000), range: 1 << 20..<2 << 20), FaultRule(.any, .hang),
          FaultRule([.writeZeroes, .discard], .short(bytes: 4096), occurrence: .from(2)),
          FaultRule(.read, .delay(ns: 7_000_000_000)),
        ])
  }

  @Test(
    arguments: [
      "", ";", "write", "write:", "write:error", "write:error=", "write:error=EWHAT", "write:error=28", "writes:hang",
      "write+:hang", "write:hang=1", "write:hang:error=EIO", "write:delay=5", "write:delay=5m", "write:delay=-5ms",
      "write:delay=99999999999999s", "write:short=", "write:short=1k", "write:short=20000000T", "write:hang:nth=0",
      "write:hang:nth=x", "write:hang:nth=1:from=2", "write:hang:range=5", "write:hang:range=5-5",
      "write:hang:range=6-5",
      "write:hang:range=-5", "write:hang:range=1-2:range=1-2", "write:hang;", "write:hang:why=1",
    ]) func mistakesAreOneLine(text: String)
  {
    let error = #expect(throws: FaultRuleError.self) { try FaultRule.parse(text) }
    #expect(error?.description.isEmpty == false)
    #expect(error?.description.contains("\n") == false)
  }

  @Test func unknownNamesAreToldWhatThereIs() {
    #expect(
      throws: FaultRuleError(
        "fault 'writes': unknown kind of request; choose from any, read, write, flush, "
          + "discard, write-zeroes")
    ) { try FaultRule.parse("writes:hang") }
  }
}
