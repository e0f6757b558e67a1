// SPDX-License-Identifier: Apache-2.0
import CLinux
import GuestMemory

/// What a guest did wrong with a virtqueue. Each breaks the device until it is reset (DEVICE_NEEDS_RESET).
enum QueueFault: Error, Equatable {
  /// avail.idx moved by more than the queue holds (virtio 1.3 §2.7.6; known from rust-vmm PR 196).
  case availableIndexJumped(by: UInt16)
  /// avail.idx said that there was more, and then that there is not; it never goes back (virtio 1.3 §2.7.6.1).
  case availableIndexWentBack
  /// A head or a `next` names no descriptor.
  case descriptorOutOfRange(UInt16)
  /// A head was made available again while its request is still in flight (CVE-2026-45782).
  case headInFlight(UInt16)
  /// A chain has more descriptors than the queue (a loop, or worse).
  case chainTooLong
  /// A buffer is not in guest RAM in its full length.
  case bufferOutsideMemory(address: UInt64, byteCount: UInt64)
  /// The buffers of a chain are together larger than a transfer can be.
  case chainTooLarge
  /// A device-readable descriptor follows a device-writable one (virtio 1.3 §2.7.4.2).
  case readableAfterWritable
  /// INDIRECT was not negotiated, is nested, is combined with NEXT, or its table is not whole (virtio 1.3 §2.7.5.3).
  case badIndirectTable
  /// A chain has no room for the request's header or for its status byte (virtio 1.3 §5.2.6).
  case noHeaderOrStatus
}

/// The device's side of a split virtqueue (virtio 1.3 §2.7): where the rings are, and how far both sides have come.
///
/// Made on the vCPU thread that starts the device, then handed to the loop that owns it: it may be sent. Ring memory
/// belongs to the guest, which may write it at any time: every value is loaded once into a local and checked there.
struct SplitQueue: @unchecked Sendable {
  let entryCount: UInt16
  let usesEventIndex: Bool
  let allowsIndirect: Bool
  private let mask: UInt16
  let descriptors: UnsafeRawPointer
  private let available: UnsafeMutableRawPointer
  private let used: UnsafeMutableRawPointer
  /// The next entry of the available ring to take.
  private(set) var lastAvailable: UInt16 = 0
  /// The next entry of the used ring to fill; published by `publish`.
  private var usedIndex: UInt16 = 0
  /// The used index that the guest last saw when it was interrupted or spared.
  private var signalledIndex: UInt16 = 0

  /// Offsets in the available and used rings (virtio 1.3 §2.7.6, §2.7.8).
  private static let indexOffset = 2
  private static let entriesOffset = 4
  private static let noNotifyFlag: UInt16 = 1
  private static let noInterruptFlag: UInt16 = 1

  /// Finds the three areas of a queue in guest memory.
  /// - Returns: nil where an area is misaligned or not wholly in one region of RAM (CVE-2023-41051).
  init?(
    entryCount: UInt16, descriptors: UInt64, available: UInt64, used: UInt64, features: UInt64, memory: GuestMemory
  ) {
    let count = UInt64(entryCount)
    guard entryCount > 0, entryCount & (entryCount - 1) == 0,
      descriptors % 16 == 0, available % 2 == 0, used % 4 == 0,
      let descriptorBase = memory.pointer(at: descriptors, byteCount: 16 * count),
      let availableBase = memory.pointer(at: available, byteCount: 6 + 2 * count),
      let usedBase = memory.pointer(at: used, byteCount: 6 + 8 * count)
    else { return nil }
    self.entryCount = entryCount
    mask = entryCount - 1
    usesEventIndex = features & Feature.eventIndex != 0
    allowsIndirect = features & Feature.indirectDescriptors != 0
    self.descriptors = UnsafeRawPointer(descriptorBase)
    self.available = availableBase
    self.used = usedBase
  }

  // MARK: Available ring

  /// How many chains the guest has made available and we have not taken.
  @inline(__always)
  func pendingCount() throws(QueueFault) -> UInt16 {
    // Acquire: the ring entries and descriptors that this index covers are read after it (pairs with the driver's
    // write barrier before its store of idx, virtio 1.3 §2.7.13.3).
    let count = clinux_load16_acquire(available + Self.indexOffset) &- lastAvailable
    if count > entryCount { throw .availableIndexJumped(by: count) }
    return count
  }

  /// Whether there is something to take, or a fault to report.
  @inline(__always)
  var hasPending: Bool { clinux_load16_acquire(available + Self.indexOffset) != lastAvailable }

  /// Takes the next head; `pendingCount` said that there is one.
  @inline(__always)
  mutating func takeHead() throws(QueueFault) -> UInt16 {
    let head = clinux_load16(available + Self.entriesOffset + Int(lastAvailable & mask) * 2)
    if head >= entryCount { throw .descriptorOutOfRange(head) }
    lastAvailable &+= 1
    return head
  }

  /// Tells the guest not to ring while we look at the queue anyway (virtio 1.3 §2.7.10).
  @inline(__always)
  func suppressNotifications() {
    // With EVENT_IDX there is nothing to store: avail_event stays behind until `requestNotifications`.
    if !usesEventIndex { clinux_store16(used, Self.noNotifyFlag) }
  }

  /// Asks to be rung for the next chain. The caller looks at the ring once more afterwards.
  @inline(__always)
  func requestNotifications() {
    if usesEventIndex {
      clinux_store16(used + Self.entriesOffset + Int(entryCount) * 8, lastAvailable)
    } else {
      clinux_store16(used, 0)
    }
    // Our request must be visible before we look at avail.idx again. Pairs with the driver's full barrier between its
    // store of avail.idx and its load of avail_event or flags (virtio 1.3 §2.7.13.4.1).
    clinux_fence_full()
  }

  // MARK: Used ring

  /// Fills the next used entry; the guest sees it after `publish`.
  @inline(__always)
  mutating func push(head: UInt16, writtenBytes: UInt32) {
    let entry = used + Self.entriesOffset + Int(usedIndex & mask) * 8
    clinux_store32(entry, UInt32(head))
    clinux_store32(entry + 4, writtenBytes)
    usedIndex &+= 1
  }

  /// Shows the guest all entries pushed so far.
  /// - Returns: whether the guest wants an interrupt for them (virtio 1.3 §2.7.7).
  mutating func publish() -> Bool {
    let old = signalledIndex
    if old == usedIndex { return false }
    // Release: entries and request data are visible before the index (pairs with the driver's load barrier after it
    // has read idx, virtio 1.3 §2.7.14).
    clinux_store16_release(used + Self.indexOffset, usedIndex)
    signalledIndex = usedIndex
    // Our store of idx must be visible before we look at what the driver wants. Pairs with the driver's full barrier
    // between its store of used_event and its check of idx (virtio 1.3 §2.7.7.1).
    clinux_fence_full()
    if usesEventIndex {
      let event = clinux_load16(available + Self.entriesOffset + Int(entryCount) * 2)
      return usedIndex &- event &- 1 < usedIndex &- old
    }
    return clinux_load16(available) & Self.noInterruptFlag == 0
  }
}
