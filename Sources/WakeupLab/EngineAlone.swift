// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import CLinux
import EventLoop
import Glibc
import GuestDrivers
import HostSystem

/// The workload's reads straight through the io_uring engine, without thoughts and without a device: the disk's own time.
final class EngineAlone: IOCompletionSink {
  // What O_DIRECT wants of memory everywhere.
  private static let alignment = 4096

  private let requestBytes: Int
  private let batchCount: Int
  private let operations: UnsafeMutablePointer<IOOperation>
  private let vectors: UnsafeMutablePointer<iovec>
  private let memory: UnsafeMutableRawPointer
  private var inFlightCount = 0
  private var failure: Int32 = 0

  init(requestBytes: Int, batchCount: Int) {
    self.requestBytes = requestBytes
    self.batchCount = batchCount
    operations = .allocate(capacity: batchCount)
    operations.initialize(repeating: IOOperation(), count: batchCount)
    vectors = .allocate(capacity: batchCount)
    memory = .allocate(byteCount: requestBytes * batchCount, alignment: Self.alignment)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: requestBytes * batchCount)
  }

  deinit {
    operations.deallocate()
    vectors.deallocate()
    memory.deallocate()
  }

  /// Reads `totalBytes` of the file in batches, each submitted when the one before has ended.
  /// - Returns: seconds.
  func run(path: String, totalBytes: UInt64) throws -> Double {
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDONLY | clinux_O_DIRECT)
    let loop = try EventLoop(name: "engine", monitor: .auto)
    loop.claim()
    defer { loop.release() }
    let engine = try EngineKind.ioUring.makeEngine(on: loop)
    defer { engine.close() }
    let start = HostClock.nanoseconds
    var offset: UInt64 = 0
    while offset < totalBytes {
      loop.beginBatch()
      for index in 0..<batchCount where offset < totalBytes {
        submit(index, offset, descriptor.number, engine)
        offset += UInt64(requestBytes)
      }
      loop.endBatch()
      while inFlightCount > 0 { loop.runOnce(mayBlock: true) }
    }
    if failure != 0 { throw WakeupError("\(path): a read failed: \(SystemError.text(of: -failure))") }
    return Double(HostClock.nanoseconds - start) / 1e9
  }

  private func submit(_ index: Int, _ offset: UInt64, _ descriptor: Int32, _ engine: IOEngine) {
    vectors[index] = iovec(iov_base: memory + index * requestBytes, iov_len: requestBytes)
    var operation = IOOperation()
    operation.opcode = .read
    operation.descriptor = descriptor
    operation.offset = offset
    operation.iovecs = vectors + index
    operation.iovecCount = 1
    operation.byteCount = requestBytes
    operation.sink = Unmanaged.passUnretained(self)
    operations[index] = operation
    inFlightCount += 1
    engine.submit(operations + index)
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    if operation.pointee.result != 0 { failure = operation.pointee.result }
    inFlightCount -= 1
  }
}
