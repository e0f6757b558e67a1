// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import Glibc
import HostSystem

/// Drives the null driver through the block layer on the calling thread: what a request costs there where no byte moves.
public struct NullPath {
  /// Requests of one batch.
  public static let batch = 16
  /// Bytes of the disk.
  static let diskBytes: UInt64 = 1 << 30
  private static let blockBytes = 4096
  /// Rounds of the loop between two looks at the clock.
  private static let roundsPerLook = 256

  private let loop: EventLoop
  private let backend: BlockBackend
  private let client: Client

  /// Puts a disk of `diskBytes` on a loop of its own.
  public init(monitor: LoopMonitor = .poll) throws {
    loop = try EventLoop(name: "null", monitor: monitor)
    backend = BlockBackend(
      driver: NullDriver(byteCount: Self.diskBytes), loop: loop, configuration: BlockConfiguration())
    client = Client(backend: backend, count: Self.batch, blockBytes: Self.blockBytes)
  }

  /// Submits a batch and has it completed, `passes` times, without a round of the loop (`Tools/instructions` counts inside
  /// `spindle_block_pass` only).
  /// - Returns: requests completed.
  public func run(passes: Int) -> Int {
    for _ in 0..<passes { blockPass(UnsafeRawPointer(Unmanaged.passUnretained(client).toOpaque())) }
    return client.completedCount
  }

  /// Keeps a batch in flight for about `seconds`: each completion submits the next request, in rounds of the loop.
  /// - Returns: requests per second.
  func run(isWrite: Bool, seconds: Double) -> Double {
    client.operation = isWrite ? .write : .read
    client.resubmits = true
    let before = client.completedCount
    let start = HostClock.nanoseconds
    let deadline = start + UInt64(seconds * 1e9)
    client.submitBatch()
    var now = start
    while now < deadline {
      for _ in 0..<Self.roundsPerLook { loop.runOnce(mayBlock: true) }
      now = HostClock.nanoseconds
    }
    let completed = client.completedCount - before
    client.resubmits = false
    backend.drain()
    return Double(completed) / Double(now - start) * 1e9
  }

  /// Goes through the disk in order, as `qemu-img bench` does.
  fileprivate final class Client: BlockClient {
    var operation = BlockOperation.read
    var resubmits = false
    private(set) var completedCount = 0
    private unowned(unsafe) let backend: BlockBackend
    private let requests: UnsafeMutablePointer<BlockRequest>
    private let vectors: UnsafeMutablePointer<iovec>
    private let memory: UnsafeMutableRawPointer
    private let count: Int
    private let blockBytes: Int
    private var nextOffset: UInt64 = 0

    init(backend: BlockBackend, count: Int, blockBytes: Int) {
      self.backend = backend
      self.count = count
      self.blockBytes = blockBytes
      memory = .allocate(byteCount: count * blockBytes, alignment: blockBytes)
      memory.initializeMemory(as: UInt8.self, repeating: 0, count: count * blockBytes)
      vectors = .allocate(capacity: count)
      requests = .allocate(capacity: count)
      super.init()
      for index in 0..<count {
        (vectors + index).initialize(to: iovec(iov_base: memory + index * blockBytes, iov_len: blockBytes))
        var request = BlockRequest()
        request.byteCount = UInt64(blockBytes)
        request.iovecs = vectors + index
        request.iovecCount = 1
        request.client = Unmanaged.passUnretained(self)
        (requests + index).initialize(to: request)
      }
    }

    deinit {
      requests.deallocate()
      vectors.deallocate()
      memory.deallocate()
    }

    func submitBatch() {
      backend.loop.beginBatch()
      for index in 0..<count { submitNext(requests + index) }
      backend.loop.endBatch()
    }

    @inline(__always)
    private func submitNext(_ request: UnsafeMutablePointer<BlockRequest>) {
      request.pointee.operation = operation
      request.pointee.offset = nextOffset
      nextOffset += UInt64(blockBytes)
      if nextOffset >= NullPath.diskBytes { nextOffset = 0 }
      backend.submit(request)
    }

    override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
      completedCount += 1
      if resubmits { submitNext(request) }
    }
  }
}

/// One batch from its submission to the last completion. A symbol of its own, never inlined, so that callgrind can be told
/// to count inside it.
@inline(never) @_cdecl("spindle_block_pass")
func blockPass(_ client: UnsafeRawPointer) {
  Unmanaged<NullPath.Client>.fromOpaque(client)._withUnsafeGuaranteedRef { $0.submitBatch() }
}
