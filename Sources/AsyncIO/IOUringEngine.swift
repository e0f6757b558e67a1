// SPDX-License-Identifier: Apache-2.0
import CURing
import EventLoop
import Glibc
import HostSystem

public final class IOUringEngine: RingClient {
  let ring: LoopRing
  var id: UInt64 = 0
  public private(set) var inFlight = 0
  public init(loop: EventLoop) throws(SystemError) {
    ring = try loop.ring()
    super.init()
    id = ring.register(self)
  }
  public func submit(_ op: UnsafeMutablePointer<IOOperation>) {
    guard let sqe = ring.entry() else { fatalError("full") }
    switch op.pointee.opcode {
    case .read:
      io_uring_prep_readv(sqe, op.pointee.descriptor, op.pointee.iovecs, UInt32(op.pointee.iovecCount), op.pointee.offset)
    case .write:
      io_uring_prep_writev2(
        sqe, op.pointee.descriptor, op.pointee.iovecs, UInt32(op.pointee.iovecCount), op.pointee.offset,
        op.pointee.forceUnitAccess ? 2 : 0)
    case .flush: io_uring_prep_fsync(sqe, op.pointee.descriptor, UInt32(IORING_FSYNC_DATASYNC))
    }
    sqe.pointee.user_data = id << 48 | UInt64(UInt(bitPattern: op))
    inFlight += 1
    ring.entryReady()
  }
  public override func completed(token: UInt64, result: Int32, flags: UInt32) {
    let op = UnsafeMutablePointer<IOOperation>(bitPattern: UInt(token))!
    inFlight -= 1
    op.pointee.result = result < 0 ? result : 0
    op.pointee.sink!._withUnsafeGuaranteedRef { $0.completed(op) }
  }
}
