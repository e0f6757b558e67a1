// SPDX-License-Identifier: Apache-2.0
import CLinux
import CLinuxAIO
import EventLoop
import Glibc
import HostSystem
import Tracing

/// Operations on files through a Linux AIO context of its own (io_setup(2); QEMU's `aio=native`).
///
/// Control blocks are submitted together at the end of the loop's batch, and earlier when the context is full; operations
/// beyond its size wait, in order. Completions are read from the kernel's ring in memory. The kernel works asynchronously
/// only with O_DIRECT: buffered operations are carried out inside io_submit. Loop thread.
public final class LinuxAIOEngine: IOEngine {
  /// Operations that the context holds, queued for submission or in the kernel. As many as the completions delivered at
  /// one time at most, so that those that keep coming do not keep the loop from its other work.
  public static let eventsMax = 128
  /// What `submitBatchMax` is until it is changed: as with io_uring, the disk should have its first request while the rest
  /// are still prepared. Whole batches reached 0.85 of fio at depth 16.
  public static let submitBatchDefault = 2
  /// Most operations queued before they are submitted without waiting for the end of the batch.
  public var submitBatchMax = LinuxAIOEngine.submitBatchDefault
  /// After what time a submission is tried again where the kernel has nothing of ours that could complete.
  static let retryNs: UInt64 = 1_000_000

  private let port: LinuxAIOPort
  private let portDescriptor: UInt32
  private var blocks = ControlBlocks(count: eventsMax)
  // Operations for which there is no control block, oldest first.
  private var waiting = OperationQueue()
  private var inKernelCount = 0
  // The kernel took no more (EAGAIN): nothing is submitted before a completion, or before `retry` fires.
  private var isBlocked = false
  private var isSubmissionDeferred = false
  private var isDataSyncRefused = false
  private var isClosed = false
  private var handler: Handler!
  private var submitter: Submitter!
  private var reaper: Reaper!
  private var retry: Retry!

  /// Wakes the loop for completions, and finds them in memory while the loop polls.
  private final class Handler: DescriptorHandler, @unchecked Sendable {
    private unowned(unsafe) let engine: LinuxAIOEngine
    init(engine: LinuxAIOEngine) {
      self.engine = engine
      super.init(descriptor: engine.port.descriptor, isPollable: engine.port.isPollable)
    }
    override func ready() {
      // Before the look at the ring: a completion that comes in between is signalled again.
      engine.port.acknowledge()
      _ = engine.reap()
    }
    override func poll() -> Bool { engine.reap() }
  }

  /// Submits what a batch has queued.
  private final class Submitter: DeferredCall {
    unowned(unsafe) let engine: LinuxAIOEngine
    init(engine: LinuxAIOEngine) {
      self.engine = engine
      super.init(loop: engine.loop)
    }
    override func run() {
      engine.isSubmissionDeferred = false
      // The batch may have been submitted in part, and blocked, before its end.
      if !engine.isBlocked { engine.submitQueued() }
    }
  }

  /// Delivers, in a round of the loop that is not inside `submit`, what a look at the ring has found.
  private final class Reaper: BottomHalf, @unchecked Sendable {
    unowned(unsafe) var engine: LinuxAIOEngine!
    override func run() { _ = engine.reap() }
  }

  private final class Retry: LoopTimer {
    unowned(unsafe) var engine: LinuxAIOEngine!
    override func fired() { engine.submitQueued() }
  }

  /// Makes an engine with a context for `eventsMax` operations.
  /// - Throws: what io_setup said: EAGAIN where fs.aio-max-nr leaves too little, ENOSYS where there is no Linux AIO; what
  ///   eventfd said.
  public convenience init(loop: EventLoop) throws(SystemError) {
    self.init(port: try KernelAIO(eventCount: Self.eventsMax), loop: loop)
  }

  /// Makes an engine on a context that is there; for tests that play the kernel.
  init(port: LinuxAIOPort, loop: EventLoop) {
    self.port = port
    portDescriptor = UInt32(bitPattern: port.descriptor)
    super.init(deliveringOn: loop)
    handler = Handler(engine: self)
    submitter = Submitter(engine: self)
    reaper = Reaper(loop: loop)
    reaper.engine = self
    retry = Retry(loop: loop)
    retry.engine = self
    loop.add(handler)
  }

  /// Whether the kernel takes a data sync (IOCB_CMD_FDSYNC, Linux 4.18) of this file; where it does not, flushes belong on
  /// a thread pool. It tries one, and waits for it: not while a guest runs. Any thread.
  public static func supportsDataSync(descriptor: Int32) -> Bool {
    guard let port = try? KernelAIO(eventCount: 1) else { return false }
    return supportsDataSync(descriptor: descriptor, port: port)
  }

  static func supportsDataSync(descriptor: Int32, port: LinuxAIOPort) -> Bool {
    var block = iocb()
    block.aio_lio_opcode = UInt16(IOCB_CMD_FDSYNC)
    block.aio_fildes = UInt32(bitPattern: descriptor)
    // The answer is that of the submission; closing the port waits for what was taken.
    defer { port.close() }
    return withUnsafeMutablePointer(to: &block) { pointer in
      var entry: UnsafeMutablePointer<iocb>? = pointer
      var answer: Int32
      repeat { answer = port.submit(&entry, count: 1) } while answer == -EINTR
      return answer == 1
    }
  }

  public override var name: String { "linux-aio" }

  /// Linux AIO has no fallocate; a flush is left to others after the kernel has refused one.
  public override func supports(_ opcode: IOOpcode) -> Bool {
    switch opcode {
    case .read, .write: true
    case .flush: !isDataSyncRefused
    case .discard, .writeZeroes: false
    }
  }

  public override func submit(_ operation: UnsafeMutablePointer<IOOperation>) {
    began(operation)
    switch operation.pointee.opcode {
    case .read, .write, .flush: start(operation)
    case .discard, .writeZeroes: finishLater(operation, -EOPNOTSUPP)
    }
  }

  public override func cancel(_ operation: UnsafeMutablePointer<IOOperation>) {
    if waiting.remove(operation) {
      finishLater(operation, -ECANCELED)
      return
    }
    // Neither there nor here: its result is known already, and on its way.
    guard let block = blocks.find(operation) else { return }
    if blocks.dequeue(block) {
      if blocks.queuedCount == 0 { isBlocked = false }
      fail(block, operation, -ECANCELED)
      deferSubmissionOfQueued()
    } else {
      // Its event comes, whether the kernel cancels (0, EINPROGRESS) or will not (EINVAL, EAGAIN, ENOSYS). Most files are
      // of the second kind, but an operation that would have to be submitted again ends there.
      blocks.markCancelled(block)
      _ = port.cancel(block)
    }
  }

  /// Also takes the eventfd away from the loop and ends the context.
  public override func close() {
    if isClosed { return }
    super.close()
    // The loop knows the call by address only, so it runs before the engine may go.
    while isSubmissionDeferred { loop.runOnce(mayBlock: false) }
    isClosed = true
    retry.cancel()
    reaper.cancel()
    loop.remove(handler)
    port.close()
  }

  // MARK: To the kernel

  @inline(__always)
  private func start(_ operation: UnsafeMutablePointer<IOOperation>) {
    // A free block means that nobody waits, since each goes to the next one as it is given back: sequential streams reach
    // the disk in order.
    guard blocks.hasFree else {
      waiting.append(operation)
      return
    }
    enqueue(blocks.take(), operation)
    if isBlocked { return }
    let isEnough = blocks.queuedCount >= submitBatchMax || blocks.queuedCount + inKernelCount >= Self.eventsMax
    // A thread that the loop has lent its state to must not wait in io_submit.
    if isEnough && loop.isOnLoop { submitQueued() } else { deferSubmission() }
  }

  /// Queues operations that waited; the caller has them submitted.
  private func queueWaiting() {
    while blocks.hasFree, let operation = waiting.takeFirst() { enqueue(blocks.take(), operation) }
  }

  /// Submits what is queued at the end of the batch: free blocks come with completions, which seldom come alone.
  @inline(__always)
  private func deferSubmissionOfQueued() {
    if blocks.queuedCount > 0 && !isBlocked { deferSubmission() }
  }

  @inline(__always)
  private func deferSubmission() {
    isSubmissionDeferred = true
    submitter.deferToBatchEnd()
  }

  @inline(__always)
  private func enqueue(_ block: UnsafeMutablePointer<iocb>, _ operation: UnsafeMutablePointer<IOOperation>) {
    var content = iocb()
    content.aio_data = UInt64(UInt(bitPattern: operation))
    content.aio_fildes = UInt32(bitPattern: operation.pointee.descriptor)
    content.aio_flags = UInt32(IOCB_FLAG_RESFD)
    content.aio_resfd = portDescriptor
    if operation.pointee.opcode == .flush {
      content.aio_lio_opcode = UInt16(IOCB_CMD_FDSYNC)
    } else {
      let isRead = operation.pointee.opcode == .read
      content.aio_lio_opcode = UInt16(isRead ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV)
      content.aio_rw_flags = !isRead && operation.pointee.forceUnitAccess ? clinux_RWF_DSYNC : 0
      content.aio_buf = UInt64(UInt(bitPattern: operation.pointee.iovecs))
      content.aio_nbytes = UInt64(operation.pointee.iovecCount)
      content.aio_offset = Int64(bitPattern: operation.pointee.offset + UInt64(operation.pointee.transferred))
    }
    block.pointee = content
    blocks.enqueue(block)
    Tracing.record(.queued, request: operation.pointee.request, value: TraceQueueing.named.rawValue)
  }

  /// Hands everything queued to the kernel, which may take a part, or nothing yet.
  private func submitQueued() {
    isBlocked = false
    while blocks.queuedCount > 0 && !isBlocked {
      if Tracing.isOn { traceQueued() }
      let answer = port.submit(blocks.queue, count: blocks.queuedCount)
      switch answer {
      case 1...:
        let taken = min(Int(answer), blocks.queuedCount)
        blocks.dequeue(taken)
        inKernelCount += taken
      case -EINTR:
        continue
      case 0, -EAGAIN:
        isBlocked = true
        if inKernelCount == 0 { retry.arm(atNanoseconds: HostClock.nanoseconds &+ Self.retryNs) }
      default:
        refuseFirst(answer)
      }
    }
    // Cache hits and buffered operations are complete already; the eventfd would say so only after a system call.
    if port.isPollable && port.hasEvents { reaper.schedule() }
  }

  @inline(never)
  private func traceQueued() {
    for index in 0..<blocks.queuedCount {
      guard let block = blocks.queue[index], let operation = Self.operation(block.pointee.aio_data) else { continue }
      Tracing.record(.submitted, request: operation.pointee.request)
    }
  }

  /// The kernel says what is wrong with the first block of a submission, and has not looked at the others.
  private func refuseFirst(_ answer: Int32) {
    let first = blocks.queue[0]
    blocks.dequeue(1)
    guard let block = first, let operation = Self.operation(block.pointee.aio_data) else { return }
    noteRefusal(operation, answer)
    fail(block, operation, answer)
  }

  /// Ends an operation that the kernel does not have, later, and gives its block to one that waits.
  private func fail(
    _ block: UnsafeMutablePointer<iocb>, _ operation: UnsafeMutablePointer<IOOperation>, _ result: Int32
  ) {
    blocks.giveBack(block)
    finishLater(operation, result)
    queueWaiting()
  }

  private func noteRefusal(_ operation: UnsafeMutablePointer<IOOperation>, _ answer: Int32) {
    if answer == -EINVAL && operation.pointee.opcode == .flush { isDataSyncRefused = true }
  }

  private static func operation(_ data: UInt64) -> UnsafeMutablePointer<IOOperation>? {
    UnsafeMutablePointer(bitPattern: UInt(data))
  }

  // MARK: From the kernel

  /// Delivers what has completed, one by one, `eventsMax` at most.
  /// - Returns: whether something had.
  private func reap() -> Bool {
    var reaped = 0
    while reaped < Self.eventsMax, let event = port.takeEvent() {
      reaped += 1
      // A nested round that a sink runs goes on with the rest, though the eventfd says nothing of them any more.
      if port.hasEvents { reaper.schedule() }
      completed(event)
    }
    if reaped == Self.eventsMax && port.hasEvents { reaper.schedule() } else { reaper.cancel() }
    return reaped > 0
  }

  @inline(__always)
  private func completed(_ event: io_event) {
    guard let operation = Self.operation(event.data),
      let block = UnsafeMutablePointer<iocb>(bitPattern: UInt(event.obj))
    else { return }
    inKernelCount -= 1
    isBlocked = false
    // `res2` is 0 for files; a driver that has two results means an error with a negative one.
    let answer = event.res >= 0 && event.res2 < 0 ? event.res2 : event.res
    switch operation.take(Int(answer)) {
    case .unfinished where !blocks.isCancelled(block):
      // In its own block, so before those that wait.
      enqueue(block, operation)
      deferSubmission()
    case .unfinished:
      operation.pointee.result = -ECANCELED
      finish(block, operation)
    case .finished:
      finish(block, operation)
    }
  }

  @inline(__always)
  private func finish(_ block: UnsafeMutablePointer<iocb>, _ operation: UnsafeMutablePointer<IOOperation>) {
    if operation.pointee.result < 0 { noteRefusal(operation, operation.pointee.result) }
    blocks.giveBack(block)
    // Before the sink is called: a nested round that it runs may wait for an operation that the kernel did not take.
    queueWaiting()
    deferSubmissionOfQueued()
    finish(operation)
  }
}
