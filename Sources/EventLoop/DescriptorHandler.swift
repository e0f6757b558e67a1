// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

/// What a loop does when a descriptor is ready, and how it looks for the same work without a system call.
///
/// Owned by whoever adds it; the loop keeps it from `add` until it has seen its removal. A handler belongs to one loop all
/// its life. Every function runs on the loop thread.
open class DescriptorHandler: @unchecked Sendable {
  /// The descriptor; it stays open until the handler is removed.
  public final let descriptor: Int32
  /// What to wait for from `add` on: poll(2)'s POLLIN, POLLOUT.
  public final let events: Int16
  /// Whether `poll` finds work; handlers that cannot look leave this false and are not asked.
  public final let isPollable: Bool

  /// Set in `wanted` while the handler is to be watched.
  static let isWanted: UInt32 = 1 << 31
  // What the loop should watch for: 0 for nothing, else `isWanted` and the events. Stored by any thread (release), read
  // by the loop thread (acquire) before it acts and before each call.
  final let wanted = Atomic<UInt32>(0)
  // The handler is in the list of changes. Claimed by the first thread that changes something, cleared by the loop
  // thread before it looks at `wanted` (both acquire-release).
  final let isChanged = Atomic<Bool>(false)
  // Link of the list of changes; owned by whoever set `isChanged`, then by the loop thread.
  final var nextChanged: UInt = 0

  // Loop thread only: what the monitor watches for, and where the handler is in the watch list.
  final var armed: UInt32 = 0
  final var slot = -1
  // The ring has, or is about to get, a poll entry with the handler's present token.
  final var hasPollEntry = false
  // In the list of ready handlers, and its link.
  final var isReady = false
  final var nextReady: Unmanaged<DescriptorHandler>?

  /// What most handlers wait for: something to read (poll(2), POLLIN).
  public static let readable = Int16(POLLIN)

  /// Describes a handler for `events` of `descriptor`.
  public init(descriptor: Int32, events: Int16 = readable, isPollable: Bool = false) {
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
final class ReaderHandler: DescriptorHandler, @unchecked Sendable {
  private let body: () -> Void

  init(descriptor: Int32, _ body: @escaping () -> Void) {
    self.body = body
    super.init(descriptor: descriptor)
  }

  override func ready() { body() }
}
