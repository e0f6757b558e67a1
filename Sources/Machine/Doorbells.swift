// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Synchronization

/// A doorbell: a guest write that only has to wake a loop. KVM turns it into an eventfd signal without an exit
/// (KVM_IOEVENTFD); a hosted vCPU looks it up before it takes the machine lock, which is the same shortcut.
public struct Doorbell: Sendable {
  /// Guest-physical address of the register.
  public let address: UInt64
  /// Width of the write in bytes that rings it: 1, 2, 4 or 8. Other widths go to the device as ordinary accesses.
  public let width: Int
  /// What the write signals.
  public let event: EventDescriptor

  /// Describes a doorbell.
  public init(address: UInt64, width: Int, event: EventDescriptor) {
    self.address = address
    self.width = width
    self.event = event
  }
}

/// What an accelerator does when doorbells come and go (KVM registers ioeventfds).
public protocol DoorbellObserver: AnyObject {
  /// A doorbell is live from the return of this call on. Called under the machine lock.
  func doorbellAdded(_ doorbell: Doorbell)
  /// A doorbell is gone. Called under the machine lock.
  func doorbellRemoved(_ doorbell: Doorbell)
}

/// The doorbells of a machine that are mapped now.
///
/// Changed under the machine lock as BARs move; read by hosted vCPU threads without it, so the list has a lock of its
/// own that is held for a few instructions.
public final class DoorbellTable: Sendable {
  private struct State {
    var doorbells: [Doorbell] = []
  }
  private let state = Mutex(State())
  // Set once while the machine is assembled, before any vCPU runs; used under the machine lock.
  nonisolated(unsafe) private weak var observer: (any DoorbellObserver)?

  /// An empty table.
  public init() {}

  /// Names who is told of changes, at once for all doorbells that are mapped already. Main thread, before vCPUs run.
  public func setObserver(_ observer: any DoorbellObserver) {
    self.observer = observer
    state.withLock { $0.doorbells }.forEach(observer.doorbellAdded)
  }

  /// Maps a doorbell. Machine lock held.
  public func add(_ doorbell: Doorbell) {
    state.withLock { $0.doorbells.append(doorbell) }
    observer?.doorbellAdded(doorbell)
  }

  /// Unmaps the doorbell at this address. Machine lock held.
  public func remove(address: UInt64, width: Int) {
    let removed = state.withLock { state -> Doorbell? in
      guard let index = state.doorbells.firstIndex(where: { $0.address == address && $0.width == width }) else {
        return nil
      }
      return state.doorbells.remove(at: index)
    }
    if let removed { observer?.doorbellRemoved(removed) }
  }

  /// Rings the doorbell that a write of `width` bytes at `address` reaches. Any thread.
  /// - Returns: false where there is none, and the write is an ordinary access.
  public func ring(address: UInt64, width: Int) -> Bool {
    let event = state.withLock { state in
      state.doorbells.first { $0.address == address && $0.width == width }?.event
    }
    guard let event else { return false }
    event.signal()
    return true
  }
}
