// SPDX-License-Identifier: Apache-2.0
import CLinux
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import Block

@Suite(.enabled(if: ioUringWorks, "io_uring is not permitted here")) struct FileTests {
  @Test(arguments: CacheMode.allCases)
  func readsAndWritesReachTheFileInEveryCacheMode(cache: CacheMode) throws {
    let original = TemporaryFile.pattern(1 << 16)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: cache)
    let new = TemporaryFile.pattern(4096, seed: 99)
    let write = kit.request(.write, offset: 8192, pieces: [512, 1024, 2560], fill: new)
    let flush = kit.request(.flush)
    kit.submit(write)
    kit.backend.drain()
    kit.submit(flush)
    kit.backend.drain()
    let read = kit.request(.read, offset: 4096, pieces: [4096, 4096, 4096])
    kit.submit(read)
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    var expected = original
    expected.replaceSubrange(8192..<12288, with: new)
    #expect(read.bytes == Array(expected[4096..<16384]))
    #expect(file.bytes == expected)
    #expect(kit.backend.inFlight == 0)
  }

  @Test func manyRequestsCompleteExactlyOnce() throws {
    let original = TemporaryFile.pattern(1 << 20)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: .none)
    let requests = (0..<1000).map { kit.request(.read, offset: UInt64($0 % 256) * 4096, pieces: [4096]) }
    kit.loop.beginBatch()
    requests.forEach { kit.backend.submit($0.pointer) }
    kit.loop.endBatch()
    kit.backend.drain()
    #expect(kit.client.completed.count == 1000)
    #expect(Set(kit.client.completed).count == 1000)
    for (index, request) in requests.enumerated() {
      let start = index % 256 * 4096
      #expect(request.bytes == Array(original[start..<start + 4096]))
    }
    #expect(kit.backend.statistics.reads == 1000)
    #expect(kit.backend.statistics.readBytes == 1000 * 4096)
  }

  @Test func tailOfAnOddImageCannotBeReached() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1000))
    let kit = try FileKit(file)
    #expect(kit.backend.byteCount == 512)
    let read = kit.request(.read, offset: 512, pieces: [512])
    kit.submit(read)
    kit.backend.drain()
    #expect(kit.client.results == [-EINVAL])
  }

  @Test func fileThatShrankReadsAsZeroes() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(8192))
    let kit = try FileKit(file)
    #expect(truncate(file.path, 4096) == 0)
    let read = kit.request(.read, offset: 0, pieces: [8192])
    kit.submit(read)
    kit.backend.drain()
    #expect(kit.client.results == [0])
    #expect(read.bytes == TemporaryFile.pattern(4096) + [UInt8](repeating: 0, count: 4096))
  }

  @Test func readOnlyBackendRefusesWritesAndAllowsFlush() throws {
    let original = TemporaryFile.pattern(4096)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, readOnly: true)
    let write = kit.request(.write, pieces: [512])
    let flush = kit.request(.flush)
    kit.submit(write, flush)
    kit.backend.drain()
    #expect(write.pointer.pointee.result == -EPERM)
    #expect(flush.pointer.pointee.result == 0)
    #expect(file.bytes == original)
  }

  @Test func completionNeverArrivesFromInsideSubmit() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(4096))
    let kit = try FileKit(file, cache: .unsafe)
    // Both are answered without I/O: a refused range, and a flush of cache=unsafe.
    let outside = kit.request(.read, offset: 1 << 40, pieces: [512])
    let flush = kit.request(.flush)
    kit.backend.submit(outside.pointer)
    kit.backend.submit(flush.pointer)
    #expect(kit.client.completed.isEmpty)
    kit.backend.drain()
    #expect(kit.client.results == [-EINVAL, 0])
  }

  @Test(arguments: [CacheMode.writeback, .none])
  func discardAndWriteZeroesClearTheRangeAndNothingElse(cache: CacheMode) throws {
    let original = TemporaryFile.pattern(1 << 18)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: cache)
    func range(_ operation: BlockOperation, _ range: Range<Int>, mayUnmap: Bool) -> TestRequest {
      let request = kit.request(operation, offset: UInt64(range.lowerBound))
      request.pointer.pointee.byteCount = UInt64(range.count)
      request.pointer.pointee.mayUnmap = mayUnmap
      return request
    }
    kit.submit(
      range(.discard, 0..<65536, mayUnmap: false), range(.writeZeroes, 66048..<99328, mayUnmap: false),
      range(.writeZeroes, 131072..<196608, mayUnmap: true))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    // What discarding does to the content is the file system's business; most give zeroes back.
    var expected = original
    for range in [66048..<99328, 131072..<196608] {
      expected.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
    }
    #expect(Array(file.bytes[65536...]) == Array(expected[65536...]))
    #expect(kit.backend.statistics.discards == 1)
    #expect(kit.backend.statistics.zeroes == 2)
  }

  // MARK: Alignment

  @Test func misalignedBuffersAreServedWithDirectIO() throws {
    let original = TemporaryFile.pattern(1 << 16)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, cache: .none)
    let data = TemporaryFile.pattern(1024, seed: 5)
    let write = kit.request(.write, offset: 512, pieces: [100, 924], fill: data, shift: 1)
    kit.submit(write)
    kit.backend.drain()
    let read = kit.request(.read, offset: 512, pieces: [3, 1021], shift: 7)
    kit.submit(read)
    kit.backend.drain()
    #expect(kit.client.results == [0, 0])
    #expect(read.bytes == data)
    var expected = original
    expected.replaceSubrange(512..<1536, with: data)
    #expect(file.bytes == expected)
  }

  @Test func sectorsOfALargeBlockAreReadModifiedAndWrittenOneAfterTheOther() throws {
    // All eight sectors of a 4 KiB block at once, and a whole block between them: none may undo another.
    let original = TemporaryFile.pattern(1 << 14)
    let file = try TemporaryFile(original)
    let kit = try FileKit(file, alignment: .page)
    #expect(kit.backend.logicalBlockBytes == 4096)
    var expected = original
    var requests: [TestRequest] = []
    for sector in [0, 3, 1, 9, 2, 7, 5, 4, 6, 10] {
      let data = TemporaryFile.pattern(512, seed: 100 + sector)
      requests.append(kit.request(.write, offset: UInt64(sector) * 512, pieces: [512], fill: data))
      expected.replaceSubrange(sector * 512..<sector * 512 + 512, with: data)
    }
    let block = TemporaryFile.pattern(4096, seed: 77)
    requests.append(kit.request(.write, offset: 8192, pieces: [4096], fill: block))
    expected.replaceSubrange(8192..<12288, with: block)
    kit.loop.beginBatch()
    requests.forEach { kit.backend.submit($0.pointer) }
    kit.loop.endBatch()
    kit.backend.drain()
    #expect(kit.client.results == [Int32](repeating: 0, count: requests.count))
    #expect(file.bytes == expected)
  }
}

@Suite struct ImageTests {
  private func error(_ path: String, cache: CacheMode = .writeback, readOnly: Bool = false) -> ImageError? {
    do throws(ImageError) {
      _ = try ImageFile.open(path: path, cache: cache, readOnly: readOnly)
      return nil
    } catch { return error }
  }

  @Test func mistakesAreNamed() throws {
    let empty = try TemporaryFile([])
    #expect(
      error("/nonexistent/disk.img") == .cannotOpen(path: "/nonexistent/disk.img", SystemError("open", code: ENOENT)))
    #expect(error("/var/tmp") == .isDirectory(path: "/var/tmp"))
    #expect(error("/var/tmp", readOnly: true) == .isDirectory(path: "/var/tmp"))
    #expect(error(empty.path) == .isEmpty(path: empty.path))
    #expect(error("/dev/null") == .notAFile(path: "/dev/null"))
    for case let line? in [error("/var/tmp"), error(empty.path), error("/dev/null")].map({ $0?.description }) {
      #expect(!line.contains("\n"))
    }
  }

  @Test func imageShorterThanABlockIsNamedAndATailIsCounted() throws {
    let short = try TemporaryFile([UInt8](repeating: 1, count: 511))
    #expect(error(short.path) == .isTooShort(path: short.path, blockBytes: 512))
    let odd = try TemporaryFile([UInt8](repeating: 1, count: 1000))
    #expect(try ImageFile.open(path: odd.path, cache: .writeback, readOnly: true).unreachableBytes == 488)
    let even = try TemporaryFile([UInt8](repeating: 1, count: 1024))
    #expect(try ImageFile.open(path: even.path, cache: .writeback, readOnly: true).unreachableBytes == 0)
  }

  @Test(arguments: CacheMode.allCases) func descriptorWaitsForItsBytesAndIsDirectWhereAsked(cache: CacheMode) throws {
    // io_uring answers EAGAIN, again and again, on a non-blocking file whose file system has no non-blocking reads.
    let file = try TemporaryFile([UInt8](repeating: 1, count: 8192))
    let image = try ImageFile.open(path: file.path, cache: cache, readOnly: false)
    let flags = clinux_fcntl(image.descriptor.number, F_GETFL, 0)
    #expect(flags >= 0)
    #expect(flags & O_NONBLOCK == 0)
    #expect((flags & clinux_O_DIRECT != 0) == cache.isDirect)
  }

  @Test func fileSystemWithoutDirectIOIsNamed() {
    // procfs files are regular files that know no O_DIRECT.
    #expect(error("/proc/self/status", cache: .none, readOnly: true) == .noDirectIO(path: "/proc/self/status"))
  }

  @Test func lockOfAProcessThatEndsIsWaitedFor() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(4096))
    let holder = open(file.path, O_RDWR)
    #expect(ImageLock.take(holder, forWriting: true, attempts: 1))
    let newcomer = try OwnedDescriptor.open(file.path, flags: O_RDWR)
    var pauses = 0
    let isTaken = ImageLock.take(newcomer.number, forWriting: true, attempts: 5) {
      pauses += 1
      if pauses == 3 { close(holder) }
    }
    #expect(isTaken)
    #expect(pauses == 3)
  }

  @Test func lockThatIsNotTakenLeavesNothingBehind() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(4096))
    let holder = try OwnedDescriptor.open(file.path, flags: O_RDWR)
    #expect(ImageLock.take(holder.number, forWriting: true, attempts: 1))
    let newcomer = try OwnedDescriptor.open(file.path, flags: O_RDWR)
    var pauses = 0
    #expect(!ImageLock.take(newcomer.number, forWriting: true, attempts: 3) { pauses += 1 })
    #expect(pauses == 2)
    // The holder looks at its own locks again, as if it had come now: the newcomer's are gone.
    #expect(ImageLock.take(holder.number, forWriting: true, attempts: 1))
  }

  @Test func secondWriterIsRefusedAndReadersShare() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(4096))
    do {
      let writer = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
      #expect(error(file.path) == .locked(path: file.path, forWriting: true))
      #expect(error(file.path, readOnly: true) == .locked(path: file.path, forWriting: false))
      _ = consume writer
    }
    do {
      let reader = try ImageFile.open(path: file.path, cache: .writeback, readOnly: true)
      #expect(error(file.path, readOnly: true) == nil)
      #expect(error(file.path) == .locked(path: file.path, forWriting: true))
      _ = consume reader
    }
    #expect(error(file.path) == nil)
  }

  @Test func directIOFindsAnAlignmentThatWorks() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let image = try ImageFile.open(path: file.path, cache: .none, readOnly: true)
    #expect(image.alignment.offset >= 512)
    #expect(image.alignment.offset & (image.alignment.offset - 1) == 0)
    #expect(image.alignment.memory & (image.alignment.memory - 1) == 0)
    let cached = try ImageFile.open(path: file.path, cache: .writeback, readOnly: true)
    #expect(cached.alignment == .none)
  }
}
