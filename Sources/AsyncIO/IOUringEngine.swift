// SPDX-License-Identifier: Apache-2.0
import CLinux
import CURing
import EventLoop
import Glibc
import HostSystem
import Tracing

/// Operations on files through the loop's own io_uring (origin: QEMU's io_uring engine).
///
/// Operations that the ring has no room for wait in a queue, in order, and go as completions make room.
public final class IOUringEngine: IOEngine {
  private let ring: LoopRing
  private let client = Client()
  private var clientNumber: UInt64 = 0
  // Operations that wait for room in the ring, oldest first.
  private var waiting = OperationQueue()
  private var files = RingFiles()
  private var buffers = RingBuffers()
  /// The token of entries whose completion means nothing; no operation lives at address 0.
  private static let nobody: UInt64 = 0

  private final class Client: RingClient {
    unowned(unsafe) var engine: IOUringEngine!
    override func completed(token: UInt64, result: Int32) { engine.completed(token: token, result: result) }
  }

  /// Makes an engine on the loop's ring, which is set up where it is not there yet.
  /// - Throws: what io_uring_setup said.
  public convenience init(loop: EventLoop) throws(SystemError) { self.init(ring: try loop.ring(), loop: loop) }

  /// Makes an engine on a ring that is there; for tests that play the kernel.
  init(ring: LoopRing, loop: EventLoop) {
    self.ring = ring
    super.init(deliveringOn: loop)
    client.engine = self
    clientNumber = ring.register(client)
  }

  public override var name: String { "io_uring" }

  public override func submit(_ operation: UnsafeMutablePointer<IOOperation>) {
    began(operation)
    start(operation)
  }

  /// What waits for room ends soon; for what the ring has, the kernel is asked, where the ring has room for the question.
  public override func cancel(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.isCancelling = true
    if waiting.remove(operation) { return finishLater(operation, -ECANCELED) }
    guard ring.hasRoom else { return }
    let entry = ring.takeEntry()
    io_uring_prep_cancel64(entry, ring.userData(client: clientNumber, token: token(of: operation)), 0)
    Tracing.record(.queued, value: TraceQueueing.entry.rawValue)
    ring.enqueue(entry, client: clientNumber, token: Self.nobody)
  }

  public override func close() {
    super.close()
    files.close(ring.port)
    ring.unregister(clientNumber)
  }

  // MARK: What the kernel may know beforehand

  public override var features: [String] {
    var list: [String] = []
    if let setup = (ring.port as? KernelRing)?.setup, !setup.isEmpty { list.append("\(setup)") }
    if files.isInUse { list.append("registered files") }
    if buffers.isInUse { list.append("registered buffers") }
    return list
  }

  public override func attach(descriptor: Int32) { files.add(descriptor, ring.port) }
  public override func detach(descriptor: Int32) { files.remove(descriptor, ring.port) }
  public override func pin(_ memory: [UnsafeRawBufferPointer]) -> Int32 { buffers.register(memory, ring.port) }

  // MARK: To the ring

  @inline(__always)
  private func start(_ operation: UnsafeMutablePointer<IOOperation>) {
    // Behind those that wait, even if there is room now: sequential streams reach the disk in order.
    if waiting.isEmpty && ring.hasRoom { enqueue(operation) } else { waiting.append(operation) }
  }

  private func enqueue(_ operation: UnsafeMutablePointer<IOOperation>) {
    let entry = ring.takeEntry()
    let offset = operation.pointee.offset + UInt64(operation.pointee.transferred)
    let descriptor = operation.pointee.descriptor
    switch operation.pointee.opcode {
    case .read, .write:
      prepareTransfer(entry, operation, offset)
    case .flush:
      io_uring_prep_fsync(entry, descriptor, UInt32(IORING_FSYNC_DATASYNC))
    case .discard, .writeZeroes:
      let mode = operation.pointee.fallocateMode
      io_uring_prep_fallocate(entry, descriptor, mode, off_t(offset), off_t(operation.pointee.byteCount))
    }
    if let place = files.place(of: descriptor) {
      entry.pointee.fd = place
      entry.pointee.flags |= UInt8(1 << IOSQE_FIXED_FILE_BIT)
    }
    Tracing.record(.queued, request: operation.pointee.request, value: TraceQueueing.entry.rawValue)
    ring.enqueue(entry, client: clientNumber, token: token(of: operation))
  }

  @inline(__always)
  private func prepareTransfer(
    _ entry: UnsafeMutablePointer<io_uring_sqe>, _ operation: UnsafeMutablePointer<IOOperation>, _ offset: UInt64
  ) {
    let isRead = operation.pointee.opcode == .read
    let descriptor = operation.pointee.descriptor
    let iovecs = operation.pointee.iovecs
    let count = UInt32(operation.pointee.iovecCount)
    if count == 1, let first = iovecs, let place = buffers.place(of: first.pointee) {
      let length = UInt32(first.pointee.iov_len)
      if isRead {
        io_uring_prep_read_fixed(entry, descriptor, first.pointee.iov_base, length, offset, place)
      } else {
        io_uring_prep_write_fixed(entry, descriptor, first.pointee.iov_base, length, offset, place)
      }
    } else if isRead {
      io_uring_prep_readv(entry, descriptor, iovecs, count, offset)
    } else {
      io_uring_prep_writev(entry, descriptor, iovecs, count, offset)
    }
    if operation.pointee.forceUnitAccess && !isRead { entry.pointee.rw_flags = clinux_RWF_DSYNC }
  }

  @inline(__always)
  private func token(of operation: UnsafeMutablePointer<IOOperation>) -> UInt64 { UInt64(UInt(bitPattern: operation)) }

  private func startWaiting() {
    while !waiting.isEmpty && ring.hasRoom {
      if let operation = waiting.takeFirst() { enqueue(operation) }
    }
  }

  // MARK: From the ring

  private func completed(token: UInt64, result: Int32) {
    guard let operation = UnsafeMutablePointer<IOOperation>(bitPattern: UInt(token)) else { return }
    if !waiting.isEmpty { startWaiting() }
    switch operation.take(Int(result)) {
    case .finished: finish(operation)
    case .unfinished: start(operation)
    }
  }
}
