// SPDX-License-Identifier: Apache-2.0
// Drivers without a file: memory, and a null disk that takes its time.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import Block

@Suite struct MemoryDriverTests {
  private func kit(_ bytes: Int, initial: [UInt8] = []) throws -> BlockBackend {
    let driver = try MemoryDriver(byteCount: UInt64(bytes), initial: initial)
    return BlockBackend(driver: driver, loop: try EventLoop(name: "test"), configuration: BlockConfiguration())
  }

  private func range(
    _ operation: BlockOperation, _ range: Range<Int>, mayUnmap: Bool = false, _ client: TestClient
  ) -> TestRequest {
    let request = TestRequest(operation, offset: UInt64(range.lowerBound), client: client)
    request.pointer.pointee.byteCount = UInt64(range.count)
    request.pointer.pointee.mayUnmap = mayUnmap
    return request
  }

  @Test func beginsWithItsInitialBytesAndThenZeroes() throws {
    let initial = TemporaryFile.pattern(1000)
    let backend = try kit(8192, initial: initial)
    let client = TestClient()
    let read = TestRequest(.read, pieces: [300, 3796], client: client)
    backend.submit(read.pointer)
    backend.drain()
    #expect(read.bytes == initial + [UInt8](repeating: 0, count: 3096))
  }

  @Test func writesAreTakenAtOnceAndCompleteLater() throws {
    let backend = try kit(8192)
    let client = TestClient()
    let data = TemporaryFile.pattern(1024, seed: 4)
    let write = TestRequest(.write, offset: 512, pieces: [100, 924], fill: data, client: client)
    let read = TestRequest(.read, offset: 512, pieces: [1024], client: client)
    let flush = TestRequest(.flush, client: client)
    backend.loop.beginBatch()
    [write, read, flush].forEach { backend.submit($0.pointer) }
    #expect(client.completed.isEmpty)
    backend.loop.endBatch()
    #expect(client.completed == [write, read, flush].map(\.pointer))
    #expect(read.bytes == data)
  }

  @Test(arguments: [false, true]) func zeroesClearTheirRangeAndNothingElse(mayUnmap: Bool) throws {
    for zeroed in [512..<1024, 512..<13312, 4096..<12288, 0..<16384, 4096..<4608, 3584..<4608, 512..<512] {
      let original = TemporaryFile.pattern(16384)
      let backend = try kit(16384, initial: original)
      let client = TestClient()
      let read = TestRequest(.read, pieces: [16384], client: client)
      backend.submit(range(.writeZeroes, zeroed, mayUnmap: mayUnmap, client).pointer)
      backend.submit(read.pointer)
      backend.drain()
      var expected = original
      expected.replaceSubrange(zeroed, with: [UInt8](repeating: 0, count: zeroed.count))
      #expect(client.results == [0, 0])
      #expect(read.bytes == expected, "\(zeroed)")
    }
  }

  @Test func discardFreesWholePagesOnly() throws {
    let original = TemporaryFile.pattern(16384)
    let backend = try kit(16384, initial: original)
    let client = TestClient()
    let read = TestRequest(.read, pieces: [16384], client: client)
    backend.submit(range(.discard, 512..<12800, client).pointer)
    backend.submit(read.pointer)
    backend.drain()
    var expected = original
    expected.replaceSubrange(4096..<12288, with: [UInt8](repeating: 0, count: 8192))
    #expect(read.bytes == expected)
    #expect(backend.discardGranularityBytes == 4096)
  }
}

@Suite struct LatencyTests {
  private final class TimedClient: TestClient {
    var times: [UInt64] = []
    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      super.completed(request)
      times.append(HostClock.nanoseconds)
    }
  }

  @Test func requestsCompleteInOrderAndNotBeforeTheirTime() throws {
    let latency: UInt64 = 2_000_000
    let loop = try EventLoop(name: "test")
    let driver = NullDriver(byteCount: 1 << 20, latencyNs: latency)
    let backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    let client = TimedClient()
    let requests = (0..<8).map { TestRequest(.read, offset: UInt64($0) * 512, pieces: [512], client: client) }
    var submitted: [UInt64] = []
    for request in requests {
      submitted.append(HostClock.nanoseconds)
      backend.submit(request.pointer)
    }
    backend.drain()
    #expect(client.completed == requests.map(\.pointer))
    for (submitted, completed) in zip(submitted, client.times) { #expect(completed >= submitted + latency) }
    // The driver goes on after it was idle.
    backend.submit(requests[0].pointer)
    backend.drain()
    #expect(client.completed.count == 9)
  }

  @Test func requestWhoseTimeHasNotComeStaysInFlight() throws {
    let loop = try EventLoop(name: "test")
    let driver = NullDriver(byteCount: 1 << 20, latencyNs: .max)
    let backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    let client = TestClient()
    backend.submit(TestRequest(.read, pieces: [512], client: client).pointer)
    for _ in 0..<10 { loop.runOnce(mayBlock: false) }
    #expect(client.completed.isEmpty)
    #expect(backend.inFlight == 1)
  }
}
