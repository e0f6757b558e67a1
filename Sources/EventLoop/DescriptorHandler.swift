// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What a loop does when a descriptor is ready, and how it looks for the same work without a system call.
///
/// Owned by whoever adds it; the loop keeps it from `add` to `remove`. Every function runs on the loop thread.
open class DescriptorHandler {
  /// The descriptor; it stays open until the handler is removed.
  public let descriptor: Int32
  /// What to wait for: poll(2)'s POLLIN, POLLOUT.
  public let events: Int16
  /// Whether `poll` finds work; handlers that cannot look leave this false and are not asked.
  public let isPollable: Bool

  /// Describes a handler for `events` of `descriptor`.
  public init(descriptor: Int32, events: Int16 = Int16(POLLIN), isPollable: Bool = false) {
    self.descriptor = descriptor
    self.events = events
    self.isPollable = isPollable
  }

  /// The descriptor is ready (or has an error, which the handler finds out by using it).
  open func ready() {}

  /// Looks for work in memory and does it.
  /// - Returns: whether there was some.
  open func poll() -> Bool { false }

  /// The loop begins to poll: notifications through the descriptor may be turned off.
  open func pollBegin() {}

  /// The loop stops polling: notifications are needed again. Work that slipped in between is done here.
  /// - Returns: whether there was some.
  open func pollEnd() -> Bool { false }
}

/// Runs a closure; for descriptors off the hot path.
final class ReaderHandler: DescriptorHandler {
  private let body: () -> Void

  init(descriptor: Int32, _ body: @escaping () -> Void) {
    self.body = body
    super.init(descriptor: descriptor)
  }

  override func ready() { body() }
}

/// Work that is put off to the end of the batch that a loop is in: submissions, used rings, interrupts.
///
/// Preallocated and owned by whoever defers it, for longer than it is deferred. Loop thread only.
open class DeferredCall {
  /// The loop that runs it.
  public final var loop: EventLoop { loopReference.takeUnretainedValue() }
  // Unmanaged, because this is on the hot path, where even a reference that is never released costs two atomic adds.
  @usableFromInline final let loopReference: Unmanaged<EventLoop>
  @usableFromInline final var isDeferred = false

  /// Makes a call for `loop`, which outlives it.
  public init(loop: EventLoop) { loopReference = Unmanaged.passUnretained(loop) }

  /// Runs this once at the end of the loop's outermost batch, or at once where none is open. Loop thread.
  @inlinable
  public final func deferToBatchEnd() {
    if isDeferred { return }
    loopReference._withUnsafeGuaranteedRef { $0.deferToBatchEnd(self) }
  }

  /// The work, once for any number of `deferToBatchEnd` before it.
  open func run() {}
}

/// A timer of a loop.
open class LoopTimer {
  /// The loop that fires it.
  public unowned let loop: EventLoop
  /// When it fires, in nanoseconds of `HostClock`; nil while it is not armed.
  public private(set) final var deadline: UInt64?

  /// Makes a timer that is not armed.
  public init(loop: EventLoop) { self.loop = loop }

  /// Fires once at a time of `HostClock`, or soon if that has passed; replaces an earlier time. Loop thread. The loop
  /// keeps the timer until it has fired or is cancelled.
  public final func arm(atNanoseconds deadline: UInt64) {
    loop.preconditionOnLoop()
    if self.deadline == nil { loop.timers.append(self) }
    self.deadline = deadline
  }

  /// Does not fire any more. Loop thread.
  public final func cancel() {
    guard deadline != nil else { return }
    deadline = nil
    loop.timers.removeAll { $0 === self }
  }

  /// The time has come. Loop thread; may arm the timer again.
  open func fired() {}
}
