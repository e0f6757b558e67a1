// SPDX-License-Identifier: Apache-2.0

/// The driver's side of a split virtqueue (virtio 1.3 §2.7): the rings, not what the descriptors are for.
///
/// All memory is taken once. Chains are pushed without being visible; `publish` makes all of them visible with one
/// index and says whether the device wants to be told. `refresh` reads the device's index once and `pop` takes what it
/// covers.
public struct SplitVirtqueue<B: Bus> {
  /// Descriptor flags (virtio 1.3 §2.7.5).
  public enum DescriptorFlags {
    /// The chain goes on at `next`.
    public static var next: UInt16 { 1 }
    /// The device writes the buffer.
    public static var write: UInt16 { 2 }
    /// The buffer holds a table of descriptors.
    public static var indirect: UInt16 { 4 }
  }

  /// Bytes of one descriptor.
  public static var descriptorBytes: UInt64 { 16 }
  /// Largest size of a split queue (virtio 1.3 §2.7).
  public static var sizeMax: UInt16 { 32768 }
  /// avail.flags: the driver does not want interrupts (virtio 1.3 §2.7.6); ignored with EVENT_IDX.
  static var availNoInterrupt: UInt16 { 1 }
  /// used.flags: the device does not want notifications (virtio 1.3 §2.7.8); ignored with EVENT_IDX.
  static var usedNoNotify: UInt16 { 1 }

  /// How many descriptors the table has, a power of two.
  public let size: UInt16
  /// Address of the descriptor table.
  public let descriptorTable: UInt64
  /// Address of the driver's (available) ring.
  public let availRing: UInt64
  /// Address of the device's (used) ring.
  public let usedRing: UInt64
  /// Whether both sides name the index at which they want to be told (VIRTIO_F_EVENT_IDX).
  public let usesEventIndex: Bool

  let bus: B
  let mask: UInt16
  let availElements: UInt64
  let usedElements: UInt64
  let usedEvent: UInt64
  let availEvent: UInt64

  /// Where the next chain goes; not yet visible from `publishedIndex` on.
  public private(set) var availIndex: UInt16 = 0
  /// The index that the device has been shown.
  public private(set) var publishedIndex: UInt16 = 0
  /// The next used element to take.
  public private(set) var usedIndex: UInt16 = 0
  /// The device's index when it was last read.
  private var deviceIndex: UInt16 = 0
  /// The device's index went where it cannot be, and nothing more is taken from the ring.
  public private(set) var isBroken = false

  /// Bytes that the rings of a queue of `size` take.
  public static func byteCount(size: UInt16) -> UInt64 {
    usedOffset(size: size) + 6 + 8 * UInt64(size)
  }

  private static func availOffset(size: UInt16) -> UInt64 {
    descriptorBytes * UInt64(size)
  }

  /// The used ring begins 4 bytes after a multiple of 8: it needs alignment to 4, and so its elements are aligned to 8.
  private static func usedOffset(size: UInt16) -> UInt64 {
    ((availOffset(size: size) + 6 + 2 * UInt64(size) + 7) & ~7) + 4
  }

  /// Lays out a queue in zeroed memory at `memory`, aligned to 16.
  ///
  /// - Precondition: `size` is a power of two and at most `sizeMax`.
  public init(bus: B, memory: UInt64, size: UInt16, usesEventIndex: Bool) {
    precondition(size > 0 && size & (size - 1) == 0 && size <= SplitVirtqueue.sizeMax)
    self.bus = bus
    self.size = size
    self.usesEventIndex = usesEventIndex
    mask = size - 1
    descriptorTable = memory
    availRing = memory + SplitVirtqueue.availOffset(size: size)
    usedRing = memory + SplitVirtqueue.usedOffset(size: size)
    availElements = availRing + 4
    usedElements = usedRing + 4
    usedEvent = availElements + 2 * UInt64(size)
    availEvent = usedElements + 8 * UInt64(size)
  }

  /// Puts the rings back to how a fresh queue has them; the device must not be using them.
  public mutating func clear() {
    bus.ramWrite16(availRing, 0)
    bus.ramWrite16(availRing + 2, 0)
    bus.ramWrite16(usedEvent, 0)
    bus.ramWrite16(usedRing, 0)
    bus.ramWrite16(usedRing + 2, 0)
    bus.ramWrite16(availEvent, 0)
    availIndex = 0
    publishedIndex = 0
    usedIndex = 0
    deviceIndex = 0
    isBroken = false
  }

  /// Takes over where another processor's ring stands.
  mutating func adoptIndices(of other: SplitVirtqueue<B>) {
    availIndex = other.availIndex
    publishedIndex = other.publishedIndex
    usedIndex = other.usedIndex
    deviceIndex = other.deviceIndex
    isBroken = other.isBroken
  }

  /// Writes the descriptor at `address`, in the queue's table or in an indirect one.
  @inline(__always)
  public func writeDescriptor(at address: UInt64, buffer: UInt64, byteCount: UInt32, flags: UInt16, next: UInt16) {
    bus.ramWrite64(address, buffer)
    bus.ramWrite64(address &+ 8, UInt64(byteCount) | UInt64(flags) << 32 | UInt64(next) << 48)
  }

  /// Puts the chain that begins at descriptor `head` into the available ring, invisible until `publish`.
  @inline(__always)
  public mutating func push(_ head: UInt16) {
    bus.ramWrite16(availElements &+ 2 &* UInt64(availIndex & mask), head)
    availIndex &+= 1
  }

  /// Shows the device everything that was pushed.
  /// - Returns: whether the device wants a notification.
  public mutating func publish() -> Bool {
    let old = publishedIndex
    let new = availIndex
    if new == old {
      return false
    }
    // Descriptors and ring elements before the index that covers them (virtio 1.3 §2.7.13).
    bus.storeBarrier()
    bus.ramWrite16(availRing &+ 2, new)
    publishedIndex = new
    // The index before the question whether to notify; pairs with the device's barrier between asking to be
    // notified and looking at the index again (virtio 1.3 §2.7.13.4.1).
    bus.fullBarrier()
    if usesEventIndex {
      let event = bus.ramRead16(availEvent)
      return new &- event &- 1 < new &- old
    }
    return bus.ramRead16(usedRing) & SplitVirtqueue.usedNoNotify == 0
  }

  /// Reads how far the device has got.
  /// - Returns: how many used elements `pop` may take, at most `outstanding`: that is how many chains the device holds.
  public mutating func refresh(outstanding: UInt16) -> UInt16 {
    let index = bus.ramRead16(usedRing &+ 2)
    let count = index &- usedIndex
    if count > outstanding {
      isBroken = true
      return 0
    }
    if count != 0 {
      // The index before the elements it covers.
      bus.loadBarrier()
    }
    deviceIndex = index
    return count
  }

  /// Takes the next used element; one that `refresh` has counted.
  @inline(__always)
  public mutating func pop() -> (head: UInt32, byteCount: UInt32) {
    let element = bus.ramRead64(usedElements &+ 8 &* UInt64(usedIndex & mask))
    usedIndex &+= 1
    return (UInt32(truncatingIfNeeded: element), UInt32(truncatingIfNeeded: element >> 32))
  }

  /// Whether `pop` may take another element without a new `refresh`.
  @inline(__always)
  public var hasCounted: Bool { usedIndex != deviceIndex }

  /// Asks for an interrupt once `count` more chains have been used; the caller looks at the ring again afterwards.
  public func requestInterrupt(afterUses count: UInt16 = 1) {
    if usesEventIndex {
      bus.ramWrite16(usedEvent, usedIndex &+ count &- 1)
    } else {
      bus.ramWrite16(availRing, 0)
    }
    // Asking before the second look; pairs with the device's barrier between its index and its question whether to
    // interrupt (virtio 1.3 §2.7.7.2).
    bus.fullBarrier()
  }

  /// Asks for no interrupts; with EVENT_IDX one may still come when the index has wrapped around.
  public func suppressInterrupts() {
    if usesEventIndex {
      bus.ramWrite16(usedEvent, usedIndex &- 1)
    } else {
      bus.ramWrite16(availRing, SplitVirtqueue.availNoInterrupt)
    }
  }
}
