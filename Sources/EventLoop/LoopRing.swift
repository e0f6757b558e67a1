// SPDX-License-Identifier: Apache-2.0
import CURing
import Glibc
import HostSystem
import Tracing

/// Something that queues entries on a loop's ring and hears of their completion.
open class RingClient {
  /// For subclasses.
  public init() {}

  /// An entry has completed; its completion queue entry has been given back already, so this may run the loop again.
  /// Called on the loop thread, never from inside a submission.
  /// - Parameters:
  ///   - token: what the entry was queued with.
  ///   - result: the operation's result, or a negative errno value.
  open func completed(token: UInt64, result: Int32) {}
}

/// The io_uring of a loop, shared by everything that runs on it.
///
/// Entries are submitted together at the end of the loop's batch, and earlier whenever `submitBatchMax` are queued: fewer
/// and larger system calls cost less, but the disk should have its first request while the rest are still prepared.
/// Completions are delivered one by one by `reap`; a nested round of the loop goes on where the outer one was.
///
/// Belongs to the loop thread. While that sleeps and lends the loop's state to others (`EventLoop.setSleepHooks`), a vCPU
/// may queue entries too; they are submitted by the loop thread, which is woken for it, or by the vCPU
/// (`EventLoop.submission`).
public final class LoopRing {
  /// Entries of the ring.
  public static let entryCount: UInt32 = 128
  /// What `submitBatchMax` is until it is changed. Measured with random reads of 4 KiB at depth 16: 2 reach what fio
  /// reaches, 4 reach 0.95 of it with 12 % less CPU time, whole batches reach 0.83, as the disk idles meanwhile.
  public static let submitBatchDefault: UInt32 = 2
  /// Clients that a ring can have: 16 bits of the user data name them.
  public static let clientsMax = 1 << 16
  /// Bits of the user data that are the client's own; a pointer of this process fits.
  static let tokenBits: UInt64 = 48

  /// The kernel's side; for reports.
  public let port: RingPort
  private unowned(unsafe) let loop: EventLoop
  private var submitter: Submitter!
  // Indexed by client number; those that have left are nil.
  private var clients: [Unmanaged<RingClient>?] = []
  /// Most entries queued before they are submitted without waiting for the end of the batch.
  public var submitBatchMax = LoopRing.submitBatchDefault
  /// The loop sleeps in the ring, so its wait submits what a batch leaves: one system call for both.
  var submitsWithWait = false
  /// Entries filled in and not yet taken by the kernel.
  public private(set) var queuedCount: UInt32 = 0
  /// Entries that the kernel has and has not completed.
  public private(set) var inFlightCount: UInt32 = 0
  /// Entries of the loop's own monitor among these, which take no room from clients. Written by the monitor.
  var monitorEntries: UInt32 = 0
  /// System calls made to submit.
  public private(set) var submitCount: UInt64 = 0
  /// The kernel could not take entries (EAGAIN, EBUSY); the loop tries again soon, even where nothing completes.
  private(set) var needsRetry = false

  private final class Submitter: DeferredCall {
    unowned(unsafe) let ring: LoopRing
    init(ring: LoopRing) {
      self.ring = ring
      super.init(loop: ring.loop)
    }
    override func run() { ring.submit() }
  }

  init(port: RingPort, loop: EventLoop) {
    self.port = port
    self.loop = loop
    submitter = Submitter(ring: self)
  }

  /// Readable while completions wait; nil where there is nothing to watch.
  var descriptor: Int32? { port.descriptor }

  /// Makes `client` known, until `unregister`. Not retained.
  /// - Returns: its number, for `enqueue`.
  public func register(_ client: RingClient) -> UInt64 {
    let reference = Unmanaged.passUnretained(client)
    if let free = clients.firstIndex(where: { $0 == nil }) {
      clients[free] = reference
      return UInt64(free)
    }
    precondition(clients.count < Self.clientsMax, "a ring has too many clients")
    clients.append(reference)
    return UInt64(clients.count - 1)
  }

  /// Forgets a client that has nothing in flight.
  public func unregister(_ number: UInt64) { clients[Int(number)] = nil }

  /// Whether another entry may be queued now. A full ring has room again when something completes.
  public var hasRoom: Bool {
    queuedCount < Self.entryCount && queuedCount + inFlightCount - monitorEntries < Self.entryCount
  }

  /// Takes an entry to fill in; `hasRoom` said that there is one. Follow with `enqueue`.
  public func takeEntry() -> UnsafeMutablePointer<io_uring_sqe> {
    guard let entry = tryTakeEntry() else { preconditionFailure("the submission queue is full in spite of hasRoom") }
    return entry
  }

  /// Takes an entry to fill in; nil where the submission queue is full and the kernel does not take anything.
  func tryTakeEntry() -> UnsafeMutablePointer<io_uring_sqe>? {
    if let entry = port.nextEntry() { return entry }
    // As many entries as the ring has can only wait in it if the kernel refused them before.
    submit()
    return port.nextEntry()
  }

  /// The user data of an entry, by which the kernel is asked to cancel it.
  public func userData(client: UInt64, token: UInt64) -> UInt64 { client << Self.tokenBits | token }

  /// Queues a filled entry for the client; it is submitted with its batch.
  /// - Parameter token: below 2^48.
  public func enqueue(_ entry: UnsafeMutablePointer<io_uring_sqe>, client: UInt64, token: UInt64) {
    entry.pointee.user_data = userData(client: client, token: token)
    queuedCount += 1
    let isOnLoop = loop.isOnLoop
    if isOnLoop && (submitsWithWait ? queuedCount == submitBatchMax : queuedCount >= submitBatchMax) {
      // Where there are more, a vCPU has queued them, and the next wait hands them over, in pieces.
      submit()
    } else if !isOnLoop && loop.submission == .vcpu {
      // The end of the vCPU's batch submits the rest.
      if queuedCount >= submitBatchMax || !loop.isInBatch { submit() }
    } else if !submitsWithWait {
      submitter.deferToBatchEnd()
    } else if !isOnLoop {
      // The sleeping loop's next wait hands over what a vCPU has queued, outside the machine lock; without this it
      // would sleep on till its next timer (the lost wakeup of QEMU's AHCI).
      loop.notifier.notifySubmission()
    }
  }

  /// Queues a filled entry of the monitor, which submits it together with the next wait.
  func enqueueForWait(_ entry: UnsafeMutablePointer<io_uring_sqe>, client: UInt64, token: UInt64) {
    entry.pointee.user_data = userData(client: client, token: token)
    queuedCount += 1
    monitorEntries += 1
    Tracing.record(.queued, value: TraceQueueing.entry.rawValue)
  }

  /// Hands queued entries to the kernel. The kernel may take a part, or nothing yet: what is left is tried again
  /// after the next completion, or after a moment. Loop thread, or a vCPU's where those submit themselves.
  func submit() {
    if loop.submission == .loop { loop.preconditionOnLoop() }
    needsRetry = false
    while queuedCount > 0 {
      submitCount += 1
      guard submitted(port.submit()) else { return }
    }
  }

  /// Counts what a system call has taken.
  /// - Returns: whether it makes sense to try at once with what is left.
  private func submitted(_ result: Int32) -> Bool {
    switch result {
    case 1...:
      let taken = min(UInt32(result), queuedCount)
      queuedCount -= taken
      inFlightCount += taken
      return true
    case -EINTR:
      return true
    case 0, -EAGAIN, -EBUSY, -ENOMEM:
      needsRetry = true
      return false
    default:
      preconditionFailure("io_uring_enter refuses our entries: errno \(-result)")
    }
  }

  // MARK: Submit and wait, for the monitor that sleeps in the ring

  /// Before a wait: makes what is queued visible to the kernel.
  /// - Returns: how many entries the wait has to hand over.
  func prepareToWait() -> UInt32 {
    needsRetry = false
    return queuedCount > 0 ? port.flush() : 0
  }

  /// After a wait for which `toSubmit` entries were to be handed over: so many were, before a last call ended with
  /// `result`: -EINTR and -ETIME are as good as any other
  /// end, since the loop looks at everything anyway.
  func waited(_ result: Int32, toSubmit: UInt32, handedOver: UInt32) {
    if handedOver > 0 {
      submitCount += UInt64(handedOver / submitBatchMax)
      _ = submitted(Int32(handedOver))
    }
    let toSubmit = toSubmit - handedOver
    if toSubmit > 0 { submitCount += 1 }
    let isOver = result == -EINTR || result == -ETIME || (result == 0 && toSubmit == 0)
    if !isOver { _ = submitted(result) }
    if result == -EINTR && queuedCount > 0 { needsRetry = true }
  }

  /// Whether completions wait, by a look at memory.
  var hasCompletions: Bool { port.hasCompletions }

  /// Delivers what has completed, as many as the ring has entries at most: completions that keep coming (page cache
  /// hits do, as fast as they are submitted) must not keep the loop from its other work and from the end of its batch.
  /// - Returns: whether something had.
  func reap() -> Bool {
    var delivered: UInt32 = 0
    while delivered < Self.entryCount, let completion = port.takeCompletion() {
      delivered += 1
      inFlightCount -= 1
      let token = completion.userData & (1 << Self.tokenBits - 1)
      if let client = clients[Int(completion.userData >> Self.tokenBits)] {
        client._withUnsafeGuaranteedRef { $0.completed(token: token, result: completion.result) }
      }
    }
    if needsRetry && queuedCount > 0 { submit() }
    return delivered > 0
  }
}
