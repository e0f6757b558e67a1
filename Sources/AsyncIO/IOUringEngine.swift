// SPDX-License-Identifier: Apache-2.0
import CLinux
import CURing
import EventLoop
import Glibc
import HostSystem

/// Operations on files through the loop's own io_uring (origin: QEMU's io_uring engine).
///
/// Operations that the ring has no room for wait in a queue, in order, and go as completions make room.
public final class IOUringEngine: IOEngine {
  private let ring: LoopRing
  private let client = Client()
  private var clientNumber: UInt64 = 0
  // Operations that wait for room in the ring, oldest first.
  private var waiting = OperationQueue()

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

  /// What waits for room ends at once; for what the kernel has, it is asked.
  public override func cancel(_ operation: UnsafeMutablePointer<IOOperation>) {
    if waiting.remove(operation) { finishLater(operation, -ECANCELED) }
  }

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
    let iovecs = operation.pointee.iovecs
    let count = UInt32(operation.pointee.iovecCount)
    switch operation.pointee.opcode {
    case .read:
      io_uring_prep_readv(entry, descriptor, iovecs, count, offset)
    case .write:
      let flags = operation.pointee.forceUnitAccess ? clinux_RWF_DSYNC : 0
      io_uring_prep_writev2(entry, descriptor, iovecs, count, offset, flags)
    case .flush:
      io_uring_prep_fsync(entry, descriptor, UInt32(IORING_FSYNC_DATASYNC))
    case .discard, .writeZeroes:
      let mode = operation.pointee.fallocateMode
      io_uring_prep_fallocate(entry, descriptor, mode, off_t(offset), off_t(operation.pointee.byteCount))
    }
    ring.enqueue(entry, client: clientNumber, token: UInt64(UInt(bitPattern: operation)))
  }

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
