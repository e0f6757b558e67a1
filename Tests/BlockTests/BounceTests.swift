// SPDX-License-Identifier: Apache-2.0
// Requests that miss the alignment of direct I/O. The alignment is given to the driver, so that these run on any disk.
import Glibc
import Testing

@testable import AsyncIO
@testable import Block

@Suite(.enabled(if: ioUringWorks, "io_uring is not permitted here")) struct BounceTests {
  @Test func requestLongerThanTheWindowIsServedInSteps() throws {
    let original = TemporaryFile.pattern(6 << 20)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: .none, alignment: .page)
    // Starts and ends in the middle of a block, and its pieces end nowhere near the window's ends.
    let byteCount = (3 << 20) + 1024
    let data = TemporaryFile.pattern(byteCount, seed: 7)
    let pieces = [700_000, 1, 1_400_511, byteCount - 2_100_512]
    let write = kit.request(.write, offset: 1536, pieces: pieces, fill: data, shift: 3)
    kit.submit(write)
    kit.backend.drain()
    let read = kit.request(.read, offset: 1536, pieces: pieces.reversed(), shift: 5)
    kit.submit(read)
    kit.backend.drain()
    #expect(kit.client.results == [0, 0])
    #expect(read.bytes == data)
    var expected = original
    expected.replaceSubrange(1536..<1536 + byteCount, with: data)
    #expect(file.bytes == expected)
  }

  @Test func moreRequestsThanMayBeUnderWayAreAllServedOnce() throws {
    let original = TemporaryFile.pattern(1 << 20)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: .none, alignment: .page)
    let requests = (0..<Bouncer.activeMax * 4).map {
      kit.request(.read, offset: UInt64($0) * 4096, pieces: [4096], shift: 1)
    }
    kit.loop.beginBatch()
    requests.forEach { kit.backend.submit($0.pointer) }
    kit.loop.endBatch()
    kit.backend.drain()
    #expect(kit.client.completed.count == requests.count)
    #expect(Set(kit.client.completed).count == requests.count)
    for (index, request) in requests.enumerated() {
      #expect(request.bytes == Array(original[index * 4096..<(index + 1) * 4096]))
    }
  }

  @Test func alignedRequestsBehindAPartialWriteSeeWhatItWrote() throws {
    let original = TemporaryFile.pattern(1 << 16)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: .none, alignment: .page)
    let data = TemporaryFile.pattern(512, seed: 3)
    let before = kit.request(.read, offset: 8192, pieces: [4096])
    let write = kit.request(.write, offset: 512, pieces: [512], fill: data)
    let after = kit.request(.read, pieces: [4096])
    kit.submit(before, write, after)
    kit.backend.drain()
    #expect(kit.client.completed == [before, write, after].map(\.pointer))
    #expect(Array(after.bytes[512..<1024]) == data)
    #expect(Array(after.bytes[1024...]) == Array(original[1024..<4096]))
  }

  @Test func partOfABlockAtTheEndIsNotReachedAndTheFileKeepsItsLength() throws {
    let original = TemporaryFile.pattern(4096 * 2 + 1536)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, alignment: .page)
    #expect(kit.backend.byteCount == 8192)
    let beyond = kit.request(.write, offset: 8192, pieces: [512])
    let last = kit.request(.write, offset: 7680, pieces: [512], fill: [UInt8](repeating: 9, count: 512))
    kit.submit(beyond, last)
    kit.backend.drain()
    #expect(beyond.pointer.pointee.result == -EINVAL)
    #expect(last.pointer.pointee.result == 0)
    var expected = original
    expected.replaceSubrange(7680..<8192, with: [UInt8](repeating: 9, count: 512))
    #expect(file.bytes == expected)
  }

  @Test func requestWithoutBytesSucceeds() throws {
    let original = TemporaryFile.pattern(8192)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, alignment: .page)
    kit.submit(kit.request(.write, offset: 512), kit.request(.read, offset: 512), kit.request(.read, offset: 8192))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    #expect(file.bytes == original)
  }

  /// Batches of requests on sectors that do not touch each other, against an array of bytes as the model.
  @Test(arguments: [CacheMode.none, .directsync]) func anyMixLeavesWhatTheModelSays(cache: CacheMode) throws {
    var random = Seeded(state: 20_251_121)
    var model = TemporaryFile.pattern(1 << 16)
    let file = try TemporaryFile(model)
    let kit = try FileKit(file, cache: cache, alignment: .page)
    for round in 0..<60 {
      var sector = Int.random(in: 0..<4, using: &random)
      var requests: [(request: TestRequest, range: Range<Int>, isRead: Bool)] = []
      while sector < 128 {
        let count = min(Int.random(in: 1...12, using: &random), 128 - sector)
        let range = sector * 512..<(sector + count) * 512
        let isRead = Bool.random(using: &random)
        let cut = Int.random(in: 1..<range.count, using: &random)
        let request = kit.request(
          isRead ? .read : .write, offset: UInt64(range.lowerBound), pieces: [cut, range.count - cut],
          fill: TemporaryFile.pattern(range.count, seed: round * 1000 + sector),
          shift: [0, 0, 1, 512].randomElement(using: &random) ?? 0)
        requests.append((request, range, isRead))
        sector += count + Int.random(in: 0..<3, using: &random)
      }
      requests.shuffle(using: &random)
      let before = model
      for (request, range, isRead) in requests where !isRead { model.replaceSubrange(range, with: request.bytes) }
      kit.loop.beginBatch()
      requests.forEach { kit.backend.submit($0.request.pointer) }
      kit.loop.endBatch()
      kit.backend.drain()
      for (request, range, isRead) in requests where isRead { #expect(request.bytes == Array(before[range])) }
      #expect(file.bytes == model)
    }
    #expect(kit.client.results.allSatisfy { $0 == 0 })
  }
}

/// A generator whose numbers repeat (splitmix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
