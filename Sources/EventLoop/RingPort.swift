// SPDX-License-Identifier: Apache-2.0
import CURing
import Glibc
import HostSystem

/// A completion queue entry, copied out of the ring.
public struct RingCompletion: Sendable {
  /// What the entry was queued with.
  public var userData: UInt64
  /// The result, or a negative errno value.
  public var result: Int32

  /// Describes a completion.
  public init(userData: UInt64, result: Int32) {
    self.userData = userData
    self.result = result
  }
}

/// The kernel's side of a ring, as narrow as a test can play it: entries, one submit, completions.
///
/// A base class instead of a protocol, since this is on the hot path and a virtual call costs no existential.
open class RingPort {
  /// For subclasses.
  public init() {}
  /// Readable while completions wait; nil where there is nothing to watch.
  open var descriptor: Int32? { nil }
  /// A cleared entry to fill in, or nil where the submission queue is full.
  open func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? { nil }
  /// Hands all entries filled in to the kernel; how many it took, or a negative errno value.
  open func submit() -> Int32 { 0 }
  /// Whether a completion waits.
  open var hasCompletions: Bool { false }
  /// Takes the oldest completion out of the ring.
  open func takeCompletion() -> RingCompletion? { nil }
}

/// A real io_uring, by liburing.
public final class KernelRing: RingPort {
  private let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)

  /// Sets up a ring of `entries`.
  ///
  /// No set-up flag is used: cooperative task running would post completions only at the next system call, and this loop
  /// looks for them in memory; the others were no faster here.
  /// - Throws: ENOSYS, EPERM where the host forbids io_uring (`kernel.io_uring_disabled`, seccomp), ENOMEM.
  public init(entries: UInt32) throws(SystemError) {
    let result = io_uring_queue_init(entries, ring, 0)
    if result < 0 {
      ring.deallocate()
      throw SystemError("io_uring_setup", code: -result)
    }
    super.init()
  }

  deinit {
    io_uring_queue_exit(ring)
    ring.deallocate()
  }

  public override var descriptor: Int32? { ring.pointee.ring_fd }
  public override func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? { io_uring_get_sqe(ring) }
  public override func submit() -> Int32 { io_uring_submit(ring) }
  public override var hasCompletions: Bool { io_uring_cq_ready(ring) > 0 }

  public override func takeCompletion() -> RingCompletion? {
    var entry: UnsafeMutablePointer<io_uring_cqe>?
    // peek also fetches what the kernel keeps back after an overflow of the completion queue.
    guard io_uring_peek_cqe(ring, &entry) == 0, let entry else { return nil }
    let completion = RingCompletion(userData: entry.pointee.user_data, result: entry.pointee.res)
    io_uring_cqe_seen(ring, entry)
    return completion
  }
}
