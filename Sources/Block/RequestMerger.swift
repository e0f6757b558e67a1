// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import EventLoop
import Glibc
import Tracing

/// Makes one operation of requests of a batch that continue each other, on their way from a `FileDriver` to its engine.
///
/// It holds back one open run of reads or writes. A request that begins where the run ends joins it; any other sends
/// the run off first, so the order of issue is kept and at most one run waits, to the end of the batch at the latest. A
/// run of one goes as it came. Loop thread only; allocates nothing after it is made.
final class RequestMerger: DeferredCall {
  /// Most bytes in one operation. Beyond that a system call costs nothing against the transfer, and a longer operation
  /// only keeps its first requests waiting for its last.
  static let bytesMax: UInt64 = 1 << 20
  /// Merged operations in flight at a time; while all are out, requests go as they come.
  static let slotCount = 64

  /// A merged operation: its members are linked by `next`, from `first`.
  private struct Slot {
    var io = IOOperation()
    var first: UnsafeMutablePointer<BlockRequest>?
    var iovecs: UnsafeMutablePointer<iovec>
    var nextFree: UnsafeMutablePointer<Slot>?
  }

  private final class Sink: IOCompletionSink {
    unowned(unsafe) var merger: RequestMerger!
    override func completed(_ operation: UnsafeMutablePointer<IOOperation>) { merger.completed(operation) }
  }

  private unowned(unsafe) let driver: FileDriver
  private let engine: IOEngine
  private let sink = Sink()
  private let slots: UnsafeMutablePointer<Slot>
  private let iovecs: UnsafeMutablePointer<iovec>
  private var free: UnsafeMutablePointer<Slot>?
  // The open run; `runEnd` is `noRun` where there is none.
  private var runFirst: UnsafeMutablePointer<BlockRequest>?
  private var runLast: UnsafeMutablePointer<BlockRequest>?
  private var runEnd = noRun
  private var runBytes: UInt64 = 0
  private var runIovecs: Int32 = 0
  private var runCount = 0
  /// Requests that went in another one's operation.
  private(set) var mergedCount: UInt64 = 0

  /// No request begins there.
  private static let noRun = UInt64.max

  init(driver: FileDriver, engine: IOEngine) {
    self.driver = driver
    self.engine = engine
    slots = .allocate(capacity: Self.slotCount)
    // calloc: the lists of slots that are never used cost no resident memory.
    iovecs = calloc(Self.slotCount * IOOperation.iovecsMax, MemoryLayout<iovec>.stride)!
      .assumingMemoryBound(to: iovec.self)
    super.init(loop: engine.loop)
    sink.merger = self
    for index in 0..<Self.slotCount {
      let slot = slots + index
      slot.initialize(to: Slot(iovecs: iovecs + index * IOOperation.iovecsMax, nextFree: free))
      slot.pointee.io.sink = Unmanaged.passUnretained(sink)
      slot.pointee.io.context = UnsafeMutableRawPointer(slot)
      free = slot
    }
  }

  deinit {
    slots.deallocate()
    Glibc.free(iovecs)
  }

  // MARK: To the engine

  /// Takes a request whose `io` is filled in.
  @inline(__always)
  func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.offset == runEnd && joinsRun(request) { return }
    closeRun()
    guard Self.mayMerge(request) else {
      withUnsafeMutablePointer(to: &request.pointee.io) { engine.submit($0) }
      return
    }
    request.pointee.next = nil
    runFirst = request
    runLast = request
    runEnd = request.pointee.offset + request.pointee.byteCount
    runBytes = request.pointee.byteCount
    runIovecs = request.pointee.iovecCount
    runCount = 1
    deferToBatchEnd()
  }

  /// Durable writes stay alone, so that a run is not durable for the sake of one of them.
  @inline(__always)
  private static func mayMerge(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    request.pointee.operation == .read || (request.pointee.operation == .write && !request.pointee.forceUnitAccess)
  }

  @inline(never)
  private func joinsRun(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    guard let last = runLast, Self.mayMerge(request), request.pointee.operation == last.pointee.operation, free != nil,
      runIovecs + request.pointee.iovecCount <= Int32(IOOperation.iovecsMax),
      request.pointee.byteCount <= Self.bytesMax && runBytes + request.pointee.byteCount <= Self.bytesMax
    else { return false }
    request.pointee.next = nil
    last.pointee.next = request
    runLast = request
    runEnd += request.pointee.byteCount
    runBytes += request.pointee.byteCount
    runIovecs += request.pointee.iovecCount
    runCount += 1
    return true
  }

  /// The batch is over.
  override func run() { closeRun() }

  /// Sends the open run off, if there is one.
  @inline(__always)
  func closeRun() {
    guard let first = runFirst else { return }
    runFirst = nil
    runLast = nil
    runEnd = Self.noRun
    if runCount == 1 {
      withUnsafeMutablePointer(to: &first.pointee.io) { engine.submit($0) }
    } else {
      submitMerged(first)
    }
  }

  @inline(never)
  private func submitMerged(_ first: UnsafeMutablePointer<BlockRequest>) {
    // A slot was free when the second member joined, and only this takes one.
    let slot = free.unsafelyUnwrapped
    free = slot.pointee.nextFree
    mergedCount += UInt64(runCount - 1)
    var count = 0
    var member: UnsafeMutablePointer<BlockRequest>? = first
    while let request = member {
      if member != first { Tracing.record(.queued, request: request, value: TraceQueueing.rider.rawValue) }
      if let iovecs = request.pointee.iovecs {
        (slot.pointee.iovecs + count).update(from: iovecs, count: Int(request.pointee.iovecCount))
        count += Int(request.pointee.iovecCount)
      }
      member = request.pointee.next
    }
    slot.pointee.first = first
    slot.pointee.io.request = UnsafeRawPointer(first)
    slot.pointee.io.opcode = first.pointee.io.opcode
    slot.pointee.io.descriptor = first.pointee.io.descriptor
    slot.pointee.io.offset = first.pointee.offset
    slot.pointee.io.iovecs = slot.pointee.iovecs
    slot.pointee.io.iovecCount = Int32(count)
    slot.pointee.io.byteCount = Int(runBytes)
    withUnsafeMutablePointer(to: &slot.pointee.io) { engine.submit($0) }
  }

  // MARK: From the engine

  /// Where the whole failed, each member is tried by itself, so that each has its own result.
  private func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    let slot = context.assumingMemoryBound(to: Slot.self)
    let hasFailed = operation.pointee.result != 0
    var member = slot.pointee.first
    slot.pointee.nextFree = free
    free = slot
    while let request = member {
      member = request.pointee.next
      if hasFailed {
        withUnsafeMutablePointer(to: &request.pointee.io) { engine.submit($0) }
      } else {
        // At the end of the batch: a client that drains in its completion must find the others delivered.
        driver.finishDirectLater(request)
      }
    }
  }
}
