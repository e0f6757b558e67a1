// SPDX-License-Identifier: Apache-2.0
// Real files, and requests on them.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO
@testable import Block

/// Whether this host lets us use io_uring at all.
let ioUringWorks: Bool = {
  guard let loop = try? EventLoop(name: "probe") else { return false }
  return (try? loop.ring()) != nil
}()

/// A file that is gone when the test is over.
final class TemporaryFile {
  let path: String

  init(_ bytes: [UInt8]) throws {
    // /var/tmp is on a disk file system, where O_DIRECT works.
    path = "/var/tmp/spindle-test-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    try writeWholeFile(path, bytes)
  }

  deinit { unlink(path) }

  var bytes: [UInt8] { (try? readWholeFile(path)) ?? [] }

  static func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 / 512 &+ seed) &* 31 &+ $0) }
  }
}

/// A client that keeps what completed, and requests with memory of their own.
class TestClient: BlockClient {
  var completed: [UnsafeMutablePointer<BlockRequest>] = []
  /// Keeps the requests' memory until the test is over, whatever becomes of its variables.
  var requests: [TestRequest] = []
  var results: [Int32] { completed.map { $0.pointee.result } }
  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) { completed.append(request) }
}

final class TestRequest {
  let pointer = UnsafeMutablePointer<BlockRequest>.allocate(capacity: 1)
  private let memory: UnsafeMutableRawPointer
  private let iovecs: UnsafeMutablePointer<iovec>
  private let byteCount: Int
  private let shift: Int

  /// - Parameter shift: how far the buffers are from an aligned address.
  init(
    _ operation: BlockOperation, offset: UInt64 = 0, pieces: [Int] = [], fill: [UInt8]? = nil, shift: Int = 0,
    client: TestClient
  ) {
    byteCount = pieces.reduce(0, +)
    self.shift = shift
    memory = .allocate(byteCount: byteCount + shift + 1, alignment: 4096)
    memset(memory, 0xee, byteCount + shift + 1)
    if let fill { memcpy(memory + shift, fill, byteCount) }
    iovecs = .allocate(capacity: max(1, pieces.count))
    var position = shift
    for (index, piece) in pieces.enumerated() {
      iovecs[index] = iovec(iov_base: memory + position, iov_len: piece)
      position += piece
    }
    pointer.initialize(to: BlockRequest())
    pointer.pointee.operation = operation
    pointer.pointee.offset = offset
    pointer.pointee.byteCount = UInt64(byteCount)
    pointer.pointee.iovecs = iovecs
    pointer.pointee.iovecCount = Int32(pieces.count)
    pointer.pointee.client = Unmanaged.passUnretained(client)
    client.requests.append(self)
  }

  deinit {
    pointer.deallocate()
    memory.deallocate()
    iovecs.deallocate()
  }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: memory + shift, count: byteCount)) }
}

/// A backend, and someone who makes requests of it.
protocol BackendKit {
  var loop: EventLoop { get }
  var backend: BlockBackend { get }
  var client: TestClient { get }
}

extension BackendKit {
  func submit(_ requests: TestRequest...) {
    loop.beginBatch()
    requests.forEach { backend.submit($0.pointer) }
    loop.endBatch()
  }

  func request(
    _ operation: BlockOperation, offset: UInt64 = 0, pieces: [Int] = [], fill: [UInt8]? = nil, shift: Int = 0
  ) -> TestRequest {
    TestRequest(operation, offset: offset, pieces: pieces, fill: fill, shift: shift, client: client)
  }
}

/// A backend on a real file.
struct FileKit: BackendKit {
  let loop: EventLoop
  let backend: BlockBackend
  let client = TestClient()

  init(
    _ file: TemporaryFile, cache: CacheMode = .writeback, readOnly: Bool = false, alignment: IOAlignment? = nil
  ) throws {
    loop = try EventLoop(name: "test")
    let image = try ImageFile.open(path: file.path, cache: cache, readOnly: readOnly)
    var configuration = BlockConfiguration()
    configuration.cache = cache
    configuration.isReadOnly = readOnly
    let driver = FileDriver(image: image, engine: try IOUringEngine(loop: loop), alignment: alignment)
    backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
  }
}
