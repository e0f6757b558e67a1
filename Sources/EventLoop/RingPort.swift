// SPDX-License-Identifier: Apache-2.0
import CURing
import Glibc
import HostSystem
import Tracing

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

/// The kernel's side of a ring, as narrow as a test can play it: entries, one system call, completions.
///
/// A base class instead of a protocol, since this is on the hot path and a virtual call costs no existential.
open class RingPort {
  /// For subclasses.
  public init() {}
  /// Readable while completions wait; nil where there is nothing to watch.
  open var descriptor: Int32? { nil }
  /// Whether `enter` can end a wait by itself; where it cannot, the caller queues a TIMEOUT entry.
  open var takesTimeout: Bool { true }
  /// A cleared entry to fill in, or nil where the submission queue is full.
  open func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? { nil }
  /// Makes the entries filled in visible to the kernel, without a system call; how many it has not taken.
  open func flush() -> UInt32 { 0 }
  /// One system call: hands over `toSubmit` visible entries and waits for `waitFor` completions; nil waits without end.
  /// Touches nothing that `nextEntry` and `flush` touch, so another thread may queue entries meanwhile.
  /// - Returns: how many entries were taken, or a negative errno value where none was.
  open func enter(toSubmit: UInt32, waitFor: UInt32, timeoutNs: UInt64?) -> Int32 { 0 }
  /// Hands all entries filled in to the kernel; how many it took, or a negative errno value.
  open func submit() -> Int32 { enter(toSubmit: flush(), waitFor: 0, timeoutNs: 0) }
  /// Whether a completion waits; it may take a system call to fetch it.
  open var hasCompletions: Bool { false }
  /// Takes the oldest completion out of the ring.
  open func takeCompletion() -> RingCompletion? { nil }

  /// Makes a table of `count` files that entries may name by place; 0, or a negative errno value.
  open func registerFileTable(count: UInt32) -> Int32 { -EOPNOTSUPP }
  /// Puts a descriptor, or -1 for none, into the table; a negative errno value where that failed.
  open func setFile(_ descriptor: Int32, at place: UInt32) -> Int32 { -EOPNOTSUPP }
  /// Pins memory that entries may name by place; 0, or a negative errno value (ENOMEM: the limit of locked memory).
  open func registerBuffers(_ buffers: [iovec]) -> Int32 { -EOPNOTSUPP }
}

/// What a ring was set up with, of what a kernel may offer.
public struct RingSetup: OptionSet, Sendable, CustomStringConvertible {
  /// The flags as io_uring_setup takes them.
  public let rawValue: UInt32
  /// Takes flags as io_uring_setup does.
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// IORING_SETUP_SINGLE_ISSUER: only the loop's thread submits, and the kernel relies on it (Linux 6.0).
  public static let singleIssuer = RingSetup(rawValue: UInt32(IORING_SETUP_SINGLE_ISSUER))
  /// IORING_SETUP_DEFER_TASKRUN: completions are finished when the loop asks for them, not by interrupting it (6.1).
  public static let deferredTaskWork = RingSetup(rawValue: UInt32(IORING_SETUP_DEFER_TASKRUN))
  /// For a loop that sleeps in the ring, from the best to what every kernel has.
  public static let forSleepersInTheRing: [RingSetup] = [[.singleIssuer, .deferredTaskWork], [.singleIssuer], []]
  /// For a loop that sleeps elsewhere and polls the ring's descriptor. With deferred task work the kernel finishes nothing
  /// before it is asked, and such a poll sleeps on (seen on Linux 6.18; an eventfd of the ring's does no better, since it
  /// is not written from inside the write of another eventfd). Cooperative task work keeps completions from a loop that
  /// looks for them in memory.
  public static let forOthers: [RingSetup] = [[.singleIssuer], []]

  /// For a ring that several threads submit to, one at a time.
  public static let forAnyThread: [RingSetup] = [[]]

  /// The names of what is in use, for reports.
  public var description: String {
    let names: [(RingSetup, String)] = [
      (.singleIssuer, "single issuer"), (.deferredTaskWork, "deferred task work"),
    ]
    return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
  }
}

/// A real io_uring, by liburing.
public final class KernelRing: RingPort {
  private let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
  /// What the kernel agreed to.
  public let setup: RingSetup
  // The ring belongs to the thread that submits first, which need not be the one that made it.
  private var isEnabled = false

  /// Sets up a ring of `entries`, with the first of `attempts` that this kernel knows.
  /// - Throws: ENOSYS, EPERM where the host forbids io_uring (`kernel.io_uring_disabled`, seccomp), ENOMEM.
  public init(entries: UInt32, attempts: [RingSetup] = RingSetup.forOthers) throws(SystemError) {
    var failure = EINVAL
    for setup in attempts {
      var flags = setup.rawValue
      // The kernel tells in memory that completions wait for a system call.
      if setup.contains(.deferredTaskWork) { flags |= UInt32(IORING_SETUP_TASKRUN_FLAG) }
      if setup.contains(.singleIssuer) { flags |= UInt32(IORING_SETUP_R_DISABLED) }
      let result = io_uring_queue_init(entries, ring, flags)
      if result == 0 {
        self.setup = setup
        super.init()
        isEnabled = !setup.contains(.singleIssuer)
        return
      }
      failure = -result
      // Only a flag that the kernel does not know is a reason to try with fewer.
      if failure != EINVAL { break }
    }
    ring.deallocate()
    throw SystemError("io_uring_setup", code: failure)
  }

  deinit {
    io_uring_queue_exit(ring)
    ring.deallocate()
  }

  public override var descriptor: Int32? { setup.contains(.deferredTaskWork) ? nil : ring.pointee.ring_fd }
  public override var takesTimeout: Bool { ring.pointee.features & UInt32(IORING_FEAT_EXT_ARG) != 0 }
  public override func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? { io_uring_get_sqe(ring) }
  public override func flush() -> UInt32 { curing_flush(ring) }

  public override func enter(toSubmit: UInt32, waitFor: UInt32, timeoutNs: UInt64?) -> Int32 {
    if !isEnabled { enable() }
    if toSubmit > 0 { Tracing.record(.submitted, value: toSubmit) }
    return curing_enter(ring, toSubmit, waitFor, timeoutNs ?? .max)
  }

  private func enable() {
    let result = curing_enable(ring)
    precondition(result == 0, "io_uring_register refuses to enable the ring: errno \(-result)")
    isEnabled = true
  }

  public override var hasCompletions: Bool { io_uring_cq_ready(ring) > 0 || curing_needs_enter(ring) != 0 }

  public override func takeCompletion() -> RingCompletion? {
    if io_uring_cq_ready(ring) == 0 {
      guard curing_needs_enter(ring) != 0 else { return nil }
      _ = curing_enter(ring, 0, 0, 0)
    }
    var entry: UnsafeMutablePointer<io_uring_cqe>?
    guard io_uring_peek_cqe(ring, &entry) == 0, let entry else { return nil }
    let completion = RingCompletion(userData: entry.pointee.user_data, result: entry.pointee.res)
    io_uring_cqe_seen(ring, entry)
    return completion
  }

  public override func registerFileTable(count: UInt32) -> Int32 { io_uring_register_files_sparse(ring, count) }
  public override func setFile(_ descriptor: Int32, at place: UInt32) -> Int32 {
    var descriptor = descriptor
    return io_uring_register_files_update(ring, place, &descriptor, 1)
  }
  public override func registerBuffers(_ buffers: [iovec]) -> Int32 {
    io_uring_register_buffers(ring, buffers, UInt32(buffers.count))
  }

  /// Whether the kernel knows an operation (IORING_REGISTER_PROBE).
  public func knows(_ operation: io_uring_op) -> Bool {
    guard let probe = io_uring_get_probe_ring(ring) else { return false }
    defer { io_uring_free_probe(probe) }
    return io_uring_opcode_supported(probe, Int32(operation.rawValue)) != 0
  }
}
