// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import CLinux
import EventLoop
import Glibc
import Histogram
import HostSystem

/// One measurement of an engine on a file: operations on a loop that runs on the calling thread, without a device.
struct EnginePath {
  /// What was measured.
  struct Figures: Sendable {
    var iops = 0.0
    var requestCount: UInt64 = 0
    /// CPU time per request of all threads, microseconds.
    var userMicroseconds = 0.0
    var systemMicroseconds = 0.0
    /// From the submission to the call of the sink, microseconds.
    var medianMicroseconds = 0.0
    var p99Microseconds = 0.0
    var p999Microseconds = 0.0
  }

  /// What carries the operations.
  var engine: EngineKind
  /// What the loop waits with.
  var monitor: LoopMonitor
  /// The file.
  var path: String
  /// The page cache is bypassed.
  var isDirect = true
  /// What to do.
  var workload: Workload
  /// Operations in flight.
  var depth: Int
  /// How long.
  var seconds: Double

  /// Whether the host has such an engine on such a loop.
  /// - Throws: what the kernel said where it has not.
  static func probe(_ engine: EngineKind, _ monitor: LoopMonitor) throws(SystemError) {
    try engine.makeEngine(on: EventLoop(name: "probe", monitor: monitor)).close()
  }

  /// Opens the file, loads it, and takes everything down again.
  func run() throws -> Figures {
    let flags = (workload.isWrite ? O_RDWR : O_RDONLY) | (isDirect ? clinux_O_DIRECT : 0)
    let descriptor = try OwnedDescriptor.open(path, flags: flags)
    let loop = try EventLoop(name: "bench", monitor: monitor)
    loop.claim()
    defer { loop.release() }
    let carrier = try engine.makeEngine(on: loop)
    defer { carrier.close() }
    let load = EngineLoad(engine: carrier, descriptor: descriptor.number, workload: workload, depth: depth)
    let usage = ResourceUsage()
    let elapsed = try load.run(nanoseconds: UInt64(seconds * 1e9))
    let usageAfter = ResourceUsage()
    var figures = Figures()
    figures.requestCount = load.completedCount
    figures.iops = Double(load.completedCount) / Double(elapsed) * 1e9
    func perRequest(_ field: KeyPath<ResourceUsage, UInt64>) -> Double {
      Double(usageAfter[keyPath: field] - usage[keyPath: field]) / Double(load.completedCount)
    }
    figures.userMicroseconds = perRequest(\.userMicroseconds)
    figures.systemMicroseconds = perRequest(\.systemMicroseconds)
    func percentile(_ percent: Double) -> Double { Double(load.latencies.valueAtPercentile(percent)) / 1000 }
    figures.medianMicroseconds = percentile(50)
    figures.p99Microseconds = percentile(99)
    figures.p999Microseconds = percentile(99.9)
    return figures
  }
}

/// Keeps `depth` operations in flight: each completion submits the next one, in the batch of the loop's round.
private final class EngineLoad: IOCompletionSink {
  /// One request in flight, at a stable address.
  private struct Slot {
    var operation = IOOperation()
    // Engines may advance it, so it is written for each request.
    var vector = iovec()
    var buffer: UnsafeMutableRawPointer
    var startNs: UInt64 = 0
  }

  /// What O_DIRECT wants of memory everywhere.
  private static let alignment = 4096

  /// Requests completed.
  private(set) var completedCount: UInt64 = 0
  /// Nanoseconds of each request.
  private(set) var latencies = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
  private unowned(unsafe) let engine: IOEngine
  private let descriptor: Int32
  private let workload: Workload
  private let blockCount: UInt64
  private let depth: Int
  private let slots: UnsafeMutablePointer<Slot>
  private let memory: UnsafeMutableRawPointer
  private var nextBlock: UInt64 = 0
  private var random = UInt64.random(in: 1 ... .max)
  private var deadlineNs: UInt64 = 0
  private var inFlightCount = 0
  private var failure: Int32 = 0

  init(engine: IOEngine, descriptor: Int32, workload: Workload, depth: Int) {
    self.engine = engine
    self.descriptor = descriptor
    self.workload = workload
    self.depth = depth
    blockCount = workload.spanBytes / UInt64(workload.blockBytes)
    memory = .allocate(byteCount: depth * workload.blockBytes, alignment: Self.alignment)
    memory.initializeMemory(as: UInt8.self, repeating: 0xa5, count: depth * workload.blockBytes)
    slots = .allocate(capacity: depth)
    for index in 0..<depth {
      (slots + index).initialize(to: Slot(buffer: memory + index * workload.blockBytes))
    }
  }

  deinit {
    slots.deallocate()
    memory.deallocate()
  }

  /// Runs until the time is over and everything in flight has completed.
  /// - Returns: nanoseconds from the first submission to the last completion.
  func run(nanoseconds: UInt64) throws(BenchError) -> UInt64 {
    let start = HostClock.nanoseconds
    deadlineNs = start + nanoseconds
    inFlightCount = depth
    engine.loop.beginBatch()
    for index in 0..<depth { submitNext(slots + index, start) }
    engine.loop.endBatch()
    while inFlightCount > 0 { engine.loop.runOnce(mayBlock: true) }
    let elapsed = HostClock.nanoseconds - start
    if failure != 0 { throw BenchError("\(engine.name): a request failed: \(SystemError.text(of: -failure))") }
    return elapsed
  }

  private func submitNext(_ slot: UnsafeMutablePointer<Slot>, _ now: UInt64) {
    slot.pointee.startNs = now
    slot.pointee.vector = iovec(iov_base: slot.pointee.buffer, iov_len: workload.blockBytes)
    var operation = IOOperation()
    operation.opcode = workload.isWrite ? .write : .read
    operation.forceUnitAccess = workload.operation == .fuaWrite
    operation.descriptor = descriptor
    operation.offset = takeBlock() * UInt64(workload.blockBytes)
    operation.iovecs = slot.pointer(to: \.vector)
    operation.iovecCount = 1
    operation.byteCount = workload.blockBytes
    operation.sink = Unmanaged.passUnretained(self)
    operation.context = UnsafeMutableRawPointer(slot)
    slot.pointee.operation = operation
    engine.submit(slot.pointer(to: \.operation).unsafelyUnwrapped)
  }

  private func takeBlock() -> UInt64 {
    if workload.isSequential {
      let block = nextBlock
      nextBlock = block + 1 < blockCount ? block + 1 : 0
      return block
    }
    // Marsaglia's xorshift64.
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    return random % blockCount
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    if operation.pointee.result != 0 { failure = operation.pointee.result }
    if workload.operation == .flushedWrite && operation.pointee.opcode == .write && failure == 0 {
      operation.pointee.opcode = .flush
      engine.submit(operation)
      return
    }
    let slot = operation.pointee.context.unsafelyUnwrapped.assumingMemoryBound(to: Slot.self)
    let now = HostClock.nanoseconds
    latencies.record(now &- slot.pointee.startNs)
    completedCount += 1
    if now < deadlineNs && failure == 0 { submitNext(slot, now) } else { inFlightCount -= 1 }
  }
}
