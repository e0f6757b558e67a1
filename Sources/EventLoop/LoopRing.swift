// SPDX-License-Identifier: Apache-2.0
import CURing
import Glibc
import HostSystem

open class RingClient {
  public init() {}
  open func completed(token: UInt64, result: Int32, flags: UInt32) {}
}
public final class LoopRing {
  private let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
  private var clients: [Unmanaged<RingClient>] = []
  private var queued: UInt32 = 0
  public var submitBatchMax: UInt32 = 4
  public private(set) var enters = 0
  private let submitter: Submitter
  final class Submitter: DeferredCall, @unchecked Sendable {
    unowned(unsafe) var ring: LoopRing!
    override func run() { ring.submit() }
  }
  private unowned let loop: EventLoop
  init(loop: EventLoop) throws(SystemError) {
    self.loop = loop
    submitter = Submitter(loop: loop)
    let r = io_uring_queue_init(128, ring, 0)
    if r < 0 { throw SystemError("io_uring_setup", code: -r) }
    submitter.ring = self
  }
  var descriptor: Int32 { ring.pointee.ring_fd }
  public func register(_ c: RingClient) -> UInt64 {
    clients.append(Unmanaged.passUnretained(c))
    return UInt64(clients.count - 1)
  }
  public func entry() -> UnsafeMutablePointer<io_uring_sqe>? {
    if let e = io_uring_get_sqe(ring) {
      queued += 1
      return e
    }
    submit()
    if let e = io_uring_get_sqe(ring) {
      queued += 1
      return e
    }
    return nil
  }
  public func entryReady() {
    if queued >= submitBatchMax { submit() } else { loop.deferToBatchEnd(submitter) }
  }
  func submit() {
    if queued == 0 { return }
    enters += 1
    let r = io_uring_submit(ring)
    if r > 0 { queued -= UInt32(r) }
  }
  var hasCompletions: Bool { io_uring_cq_ready(ring) > 0 }
  func reap() -> Bool {
    var any = false
    var cqe: UnsafeMutablePointer<io_uring_cqe>?
    while io_uring_peek_cqe(ring, &cqe) == 0, let c = cqe {
      let data = c.pointee.user_data
      let res = c.pointee.res
      let flags = c.pointee.flags
      io_uring_cqe_seen(ring, c)
      clients[Int(data >> 48)]._withUnsafeGuaranteedRef {
        $0.completed(token: data & 0xffff_ffff_ffff, result: res, flags: flags)
      }
      any = true
    }
    return any
  }
}
extension EventLoop {
  public func ring() throws(SystemError) -> LoopRing {
    if let r = ringStorage { return r }
    let r = try LoopRing(loop: self)
    ringStorage = r
    return r
  }
}
