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
/// Changed under the machine lock as BARs move; rung by hosted vCPU threads without it. A ring scans addresses without
/// a lock, then takes the lock of the one doorbell that it found, so that two vCPUs that ring different queues never
/// meet, and a doorbell that is being removed is either rung before or not at all.
public final class DoorbellTable: @unchecked Sendable {
  /// At most so many doorbells are mapped at once; writes to further ones reach the device as ordinary accesses.
  public static let doorbellsMax = 1024

  private struct Slot: ~Copyable {
    // Says where to look; `doorbell` decides. 0 in a free slot, which no doorbell has: BARs at 0 are not mapped.
    let address = Atomic<UInt64>(0)
    let doorbell = Mutex<Unmanaged<Live>?>(nil)
  }

  private final class Live {
    let doorbell: Doorbell
    init(_ doorbell: Doorbell) { self.doorbell = doorbell }
  }

  private let slots = UnsafeMutablePointer<Slot>.allocate(capacity: DoorbellTable.doorbellsMax)
  // Slots from here on were never used. Grows only. The releasing store in add() pairs with the acquiring load in ring().
  private let used = Atomic<Int>(0)
  // Set once while the machine is assembled, before any vCPU runs; used under the machine lock.
  private weak var observer: (any DoorbellObserver)?

  /// An empty table.
  public init() {
    for index in 0..<DoorbellTable.doorbellsMax { (slots + index).initialize(to: Slot()) }
  }

  deinit {
    for index in 0..<used.load(ordering: .acquiring) {
      slots[index].doorbell.withLock { $0.take()?.release() }
    }
    slots.deinitialize(count: DoorbellTable.doorbellsMax)
    slots.deallocate()
  }

  /// The doorbells that are mapped now. Machine lock held.
  public var doorbells: [Doorbell] {
    (0..<used.load(ordering: .relaxed)).compactMap { index in
      slots[index].doorbell.withLock { $0?.takeUnretainedValue().doorbell }
    }
  }

  /// Names who is told of changes, at once for all doorbells that are mapped already. Main thread, before vCPUs run.
  public func setObserver(_ observer: any DoorbellObserver) {
    self.observer = observer
    doorbells.forEach(observer.doorbellAdded)
  }

  /// Maps a doorbell. Machine lock held.
  /// - Returns: false where the table is full or the address is 0; the write then reaches the device as an ordinary one.
  @discardableResult
  public func add(_ doorbell: Doorbell) -> Bool {
    let count = used.load(ordering: .relaxed)
    let free = (0..<count).first { slots[$0].address.load(ordering: .relaxed) == 0 } ?? count
    guard free < DoorbellTable.doorbellsMax, doorbell.address != 0 else { return false }
    slots[free].doorbell.withLock { $0 = .passRetained(Live(doorbell)) }
    slots[free].address.store(doorbell.address, ordering: .relaxed)
    if free == count { used.store(count + 1, ordering: .releasing) }
    observer?.doorbellAdded(doorbell)
    return true
  }

  /// Unmaps the doorbell at this address. Machine lock held. No ring of it is under way after the return.
  public func remove(address: UInt64, width: Int) {
    for index in 0..<used.load(ordering: .relaxed) where slots[index].address.load(ordering: .relaxed) == address {
      let removed = slots[index].doorbell.withLock { live -> Doorbell? in
        guard let doorbell = live?.takeUnretainedValue().doorbell, doorbell.width == width else { return nil }
        live.take()?.release()
        return doorbell
      }
      guard let removed else { continue }
      slots[index].address.store(0, ordering: .relaxed)
      observer?.doorbellRemoved(removed)
      return
    }
  }

  /// Rings the doorbell that a write of `width` bytes at `address` reaches. Any thread.
  /// - Returns: false where there is none, and the write is an ordinary access.
  public func ring(address: UInt64, width: Int) -> Bool {
    // Pairs with the releasing store in add().
    let count = used.load(ordering: .acquiring)
    var index = 0
    while index < count {
      if slots[index].address.load(ordering: .relaxed) == address, ring(slot: index, address: address, width: width) {
        return true
      }
      index += 1
    }
    return false
  }

  private func ring(slot index: Int, address: UInt64, width: Int) -> Bool {
    slots[index].doorbell.withLock { live in
      guard let live else { return false }
      // The slot owns the doorbell while its lock is held, so no reference is counted.
      return live._withUnsafeGuaranteedRef { live in
        guard live.doorbell.address == address, live.doorbell.width == width else { return false }
        live.doorbell.event.signal()
        return true
      }
    }
  }
}
