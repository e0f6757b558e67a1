// SPDX-License-Identifier: Apache-2.0
import CLinux
import CURing
import EventLoop
import Glibc
import HostSystem

/// Operations on files through the loop's own io_uring (origin: QEMU's io_uring engine).
///
/// Operations that the ring has no room for wait in a queue, in order, and go as completions make room. The kernel's
/// -EINTR and -EAGAIN are submitted again (EAGAIN happens on some SCSI disks). A short read goes on where it stopped; a
/// read of nothing is the end of the file, and the rest of the buffer reads as zeroes. A short write goes on too; a write
/// of nothing is -ENOSPC. Loop thread only.
public final class IOUringEngine: RingClient, IOEngine {
  /// What users call it.
  public static let name = "io_uring"

  private let ring: LoopRing
  private var client: UInt64 = 0
  /// Operations that were taken and are not completed.
  public private(set) var inFlightCount = 0
  // Operations that wait for room in the ring, oldest first.
  private var waitingFirst: UnsafeMutablePointer<IOOperation>?
  private var waitingLast: UnsafeMutablePointer<IOOperation>?

  /// Makes an engine on the loop's ring, which is set up where it is not there yet.
  /// - Throws: what io_uring_setup said.
  public init(loop: EventLoop) throws(SystemError) {
    ring = try loop.ring()
    super.init()
    client = ring.register(self)
  }

  /// Makes an engine on a ring that is there; for tests that play the kernel.
  public init(ring: LoopRing) {
    self.ring = ring
    super.init()
    client = ring.register(self)
  }

  /// Takes an operation. Loop thread.
  public func submit(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.transferred = 0
    inFlightCount += 1
    start(operation)
  }

  // MARK: To the ring

  @inline(__always)
  private func start(_ operation: UnsafeMutablePointer<IOOperation>) {
    // Behind those that wait, even if there is room now: sequential streams reach the disk in order.
    if waitingFirst == nil && ring.hasRoom { enqueue(operation) } else { wait(operation) }
  }

  private func enqueue(_ operation: UnsafeMutablePointer<IOOperation>) {
    let entry = ring.takeEntry()
    let offset = operation.pointee.offset + UInt64(operation.pointee.transferred)
    let iovecs = operation.pointee.iovecs
    let count = UInt32(operation.pointee.iovecCount)
    switch operation.pointee.opcode {
    case .read:
      io_uring_prep_readv(entry, operation.pointee.descriptor, iovecs, count, offset)
    case .write:
      let flags = operation.pointee.forceUnitAccess ? clinux_RWF_DSYNC : 0
      io_uring_prep_writev2(entry, operation.pointee.descriptor, iovecs, count, offset, flags)
    case .flush:
      io_uring_prep_fsync(entry, operation.pointee.descriptor, UInt32(IORING_FSYNC_DATASYNC))
    }
    ring.enqueue(entry, client: client, token: UInt64(UInt(bitPattern: operation)))
  }

  private func wait(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.next = nil
    if let last = waitingLast { last.pointee.next = operation } else { waitingFirst = operation }
    waitingLast = operation
  }

  private func startWaiting() {
    while let operation = waitingFirst, ring.hasRoom {
      waitingFirst = operation.pointee.next
      if waitingFirst == nil { waitingLast = nil }
      enqueue(operation)
    }
  }

  // MARK: From the ring

  public override func completed(token: UInt64, result: Int32) {
    guard let operation = UnsafeMutablePointer<IOOperation>(bitPattern: UInt(token)) else { return }
    if waitingFirst != nil { startWaiting() }
    if result == -EINTR || result == -EAGAIN {
      start(operation)
    } else if result < 0 || operation.pointee.opcode == .flush {
      finish(operation, min(result, 0))
    } else {
      transferred(operation, Int(result))
    }
  }

  @inline(__always)
  private func transferred(_ operation: UnsafeMutablePointer<IOOperation>, _ byteCount: Int) {
    operation.pointee.transferred += byteCount
    if operation.pointee.transferred >= operation.pointee.byteCount {
      finish(operation, 0)
    } else if byteCount > 0 {
      operation.advance(by: byteCount)
      start(operation)
    } else if operation.pointee.opcode == .read {
      operation.zeroRest()
      finish(operation, 0)
    } else {
      finish(operation, -ENOSPC)
    }
  }

  @inline(__always)
  private func finish(_ operation: UnsafeMutablePointer<IOOperation>, _ result: Int32) {
    inFlightCount -= 1
    operation.pointee.result = result
    operation.pointee.sink.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completed(operation) }
  }
}

extension UnsafeMutablePointer<IOOperation> {
  /// Steps over `byteCount` bytes of the scatter list that a short transfer has moved.
  @inline(never)
  func advance(by byteCount: Int) {
    var left = byteCount
    while left > 0, let first = pointee.iovecs, pointee.iovecCount > 0 {
      if left < first.pointee.iov_len {
        first.pointee.iov_base += left
        first.pointee.iov_len -= left
        return
      }
      left -= first.pointee.iov_len
      pointee.iovecs = first + 1
      pointee.iovecCount -= 1
    }
  }

  /// Fills what is left of the scatter list with zeroes: beyond the end of a file everything reads as zero.
  @inline(never)
  func zeroRest() {
    guard let iovecs = pointee.iovecs else { return }
    for index in 0..<Int(pointee.iovecCount) { memset(iovecs[index].iov_base, 0, iovecs[index].iov_len) }
  }
}
