// SPDX-License-Identifier: Apache-2.0

/// Request types (virtio 1.3 §5.2.6).
public enum VirtioBlockType {
  /// Read.
  public static var read: UInt32 { 0 }
  /// Write.
  public static var write: UInt32 { 1 }
  /// Flush.
  public static var flush: UInt32 { 4 }
  /// Get the device's identification string.
  public static var getID: UInt32 { 8 }
}

/// Request status (virtio 1.3 §5.2.6).
public enum VirtioBlockStatus {
  /// Success.
  public static var ok: UInt8 { 0 }
  /// The device or the driver made an error.
  public static var ioError: UInt8 { 1 }
  /// The device does not know the request.
  public static var unsupported: UInt8 { 2 }
  /// What the driver writes before the device does; the device never writes it.
  public static var unwritten: UInt8 { 0xFF }
}

/// A request that the device has finished.
public struct VirtioBlockCompletion: Equatable, Sendable {
  /// The slot that it was submitted in.
  public var slot: Int
  /// The status byte.
  public var status: UInt8
  /// How many bytes the device says it wrote, the status byte included.
  public var usedByteCount: UInt32

  /// Describes the end of the request in `slot`.
  public init(slot: Int, status: UInt8, usedByteCount: UInt32) {
    self.slot = slot
    self.status = status
    self.usedByteCount = usedByteCount
  }
}

/// One request queue of a virtio-blk device, with a fixed set of request slots.
///
/// A slot owns its header, its status byte and its descriptors, all at addresses that never change. `prepare` writes
/// everything that stays the same from one request to the next; `submit` writes the sector and the ring element.
/// One processor owns a queue at a time. Before it is handed to another, the new owner makes its own object over the
/// same memory, with its own bus, and the old object is not used again.
public final class VirtioBlockQueue<B: Bus> {
  /// Bytes of a slot before its indirect table: header (16), status (1), filling.
  static var slotHeaderBytes: UInt64 { 32 }
  static var statusOffset: UInt64 { 16 }
  static var headerBytes: UInt32 { 16 }
  /// Polls between two looks at the clock.
  static var pollsPerClock: UInt32 { 256 }

  /// The queue's number in the device.
  public let index: UInt16
  /// How many requests may be in flight.
  public let depth: Int
  /// The most data segments of one request.
  public let segmentsMax: Int
  /// The interrupt of this queue; nil where it polls.
  public let interrupt: MessageInterrupt?
  /// Whether requests are indirect descriptor tables.
  public let isIndirect: Bool
  /// How many requests the device holds.
  public private(set) var inFlightCount: Int = 0
  /// How many notifications were written.
  public private(set) var notificationCount: UInt64 = 0
  /// How often `waitForUsed` halted or relaxed.
  public private(set) var waitCount: UInt64 = 0
  /// The device put something impossible into the used ring; the queue takes nothing more from it.
  public private(set) var isBroken = false

  let bus: B
  var ring: SplitVirtqueue<B>
  var notifyAddress: UInt64 = 0
  let slots: UInt64
  let slotShift: UInt64
  /// log2 of the descriptors that belong to a slot in the queue's own table; 0 with indirect tables.
  let headShift: UInt32
  private let inFlight: UnsafeMutablePointer<Bool>

  /// How many descriptors a request with `segmentsMax` segments takes, rounded up to a power of two.
  static func descriptorsPerSlot(segmentsMax: Int) -> Int {
    var count = 4
    while count < segmentsMax + 2 {
      count *= 2
    }
    return count
  }

  /// Takes the memory of a queue of `size` descriptors.
  init(
    bus: B, index: UInt16, size: UInt16, segmentsMax: Int, isIndirect: Bool, usesEventIndex: Bool,
    interrupt: MessageInterrupt?
  ) throws(DriverError) {
    let perSlot = VirtioBlockQueue.descriptorsPerSlot(segmentsMax: segmentsMax)
    let depth = isIndirect ? Int(size) : Int(size) / perSlot
    guard depth > 0 else {
      throw .queueRefused
    }
    var shift: UInt64 = 0
    let slotBytes = VirtioBlockQueue.slotHeaderBytes + UInt64(perSlot) * SplitVirtqueue<B>.descriptorBytes
    while 1 << shift < slotBytes {
      shift += 1
    }
    guard let rings = bus.allocate(byteCount: SplitVirtqueue<B>.byteCount(size: size), alignment: 4096),
      let slots = bus.allocate(byteCount: UInt64(depth) << shift, alignment: 4096)
    else {
      throw .outOfResources
    }
    self.bus = bus
    self.index = index
    self.depth = depth
    self.segmentsMax = segmentsMax
    self.interrupt = interrupt
    self.isIndirect = isIndirect
    self.slots = slots
    slotShift = shift
    headShift = isIndirect ? 0 : UInt32(perSlot.trailingZeroBitCount)
    ring = SplitVirtqueue(bus: bus, memory: rings, size: size, usesEventIndex: usesEventIndex)
    inFlight = UnsafeMutablePointer<Bool>.allocate(capacity: depth)
    inFlight.initialize(repeating: false, count: depth)
  }

  /// Takes over an idle queue for the processor that `bus` belongs to.
  /// - Precondition: nothing is in flight, and nobody uses `other` any more.
  public init(takingOver other: VirtioBlockQueue<B>, on bus: B) {
    precondition(other.inFlightCount == 0)
    self.bus = bus
    index = other.index
    depth = other.depth
    segmentsMax = other.segmentsMax
    interrupt = other.interrupt
    isIndirect = other.isIndirect
    slots = other.slots
    slotShift = other.slotShift
    headShift = other.headShift
    notifyAddress = other.notifyAddress
    ring = SplitVirtqueue(continuing: other.ring, on: bus)
    inFlight = UnsafeMutablePointer<Bool>.allocate(capacity: depth)
    inFlight.initialize(repeating: false, count: depth)
  }

  deinit {
    inFlight.deallocate()
  }

  /// Forgets everything in flight, after the device was reset.
  func clear() {
    ring.clear()
    inFlight.update(repeating: false, count: depth)
    inFlightCount = 0
    isBroken = false
    if interrupt == nil {
      ring.suppressInterrupts()
    }
  }

  // MARK: Requests

  @inline(__always)
  private func slotAddress(_ slot: Int) -> UInt64 { slots &+ UInt64(slot) << slotShift }

  /// The status byte of a slot.
  @inline(__always)
  public func status(_ slot: Int) -> UInt8 {
    bus.ramRead8(slotAddress(slot) &+ VirtioBlockQueue.statusOffset)
  }

  /// Whether a slot's request is with the device.
  public func isInFlight(_ slot: Int) -> Bool { inFlight[slot] }

  /// Writes a slot's header type and descriptors: `byteCount` bytes at `address`, in segments of `segmentBytes`.
  ///
  /// - Parameters:
  ///   - slot: 0 to `depth` - 1, not in flight.
  ///   - type: a `VirtioBlockType`, or anything else to see what the device makes of it.
  ///   - address: where the data is or goes; the device writes it unless `type` is write.
  ///   - byteCount: 0 for a request without data.
  ///   - segmentBytes: how much of the data each descriptor covers; 0 for one descriptor.
  /// - Precondition: the data takes at most `segmentsMax` segments.
  public func prepare(slot: Int, type: UInt32, address: UInt64, byteCount: UInt32, segmentBytes: UInt32 = 0) {
    precondition(slot >= 0 && slot < depth && !inFlight[slot])
    let base = slotAddress(slot)
    bus.ramWrite64(base, UInt64(type))
    let head = UInt16(truncatingIfNeeded: slot << Int(headShift))
    let indirectTable = base &+ VirtioBlockQueue.slotHeaderBytes
    let table =
      isIndirect
      ? indirectTable : ring.descriptorTable &+ UInt64(head) &* SplitVirtqueue<B>.descriptorBytes
    let firstNumber: UInt16 = isIndirect ? 0 : head
    var count: UInt16 = 0
    let next = SplitVirtqueue<B>.DescriptorFlags.next
    let write = SplitVirtqueue<B>.DescriptorFlags.write
    func append(_ buffer: UInt64, _ bytes: UInt32, _ flags: UInt16) {
      let place = table &+ UInt64(count) &* SplitVirtqueue<B>.descriptorBytes
      ring.writeDescriptor(
        at: place, buffer: buffer, byteCount: bytes, flags: flags,
        next: flags & next == 0 ? 0 : firstNumber &+ count &+ 1)
      count &+= 1
    }
    append(base, VirtioBlockQueue.headerBytes, next)
    let direction = type == VirtioBlockType.write ? next : next | write
    let step = segmentBytes == 0 ? max(byteCount, 1) : segmentBytes
    var done: UInt32 = 0
    while done < byteCount {
      let bytes = min(step, byteCount - done)
      precondition(Int(count) <= segmentsMax)
      append(address &+ UInt64(done), bytes, direction)
      done += bytes
    }
    append(base &+ VirtioBlockQueue.statusOffset, 1, write)
    if isIndirect {
      ring.writeDescriptor(
        at: ring.descriptorTable &+ UInt64(head) &* SplitVirtqueue<B>.descriptorBytes, buffer: indirectTable,
        byteCount: UInt32(count) * UInt32(SplitVirtqueue<B>.descriptorBytes),
        flags: SplitVirtqueue<B>.DescriptorFlags.indirect, next: 0)
    }
  }

  /// Queues a prepared slot's request at `sector` (of 512 bytes), invisible to the device until `kick`.
  /// - Precondition: `slot` is prepared and not in flight.
  @inline(__always)
  public func submit(slot: Int, sector: UInt64) {
    let base = slotAddress(slot)
    bus.ramWrite64(base &+ 8, sector)
    bus.ramWrite8(base &+ VirtioBlockQueue.statusOffset, VirtioBlockStatus.unwritten)
    inFlight[slot] = true
    inFlightCount &+= 1
    ring.push(UInt16(truncatingIfNeeded: slot << Int(headShift)))
  }

  /// Makes everything submitted visible, and notifies the device where it wants that.
  public func kick() {
    if ring.publish() {
      bus.mmioWrite16(notifyAddress, index)
      notificationCount &+= 1
    }
  }

  /// Makes everything submitted visible, and notifies the device whether it wants that or not.
  public func kickAlways() {
    _ = ring.publish()
    bus.mmioWrite16(notifyAddress, index)
    notificationCount &+= 1
  }

  /// Reads once how far the device has got.
  /// - Returns: how many times `reapCounted` may be called.
  @inline(__always)
  public func countUsed() -> Int {
    if isBroken {
      return 0
    }
    let count = ring.refresh(outstanding: UInt16(truncatingIfNeeded: min(inFlightCount, 0xFFFF)))
    if ring.isBroken {
      isBroken = true
    }
    return Int(count)
  }

  /// Takes the next completion that `countUsed` has counted.
  /// - Returns: its slot and what the device says it wrote; nil where the device named no slot that is in flight, and
  ///   then the queue is broken.
  @inline(__always)
  public func reapCounted() -> (slot: Int, usedByteCount: UInt32)? {
    let (head, byteCount) = ring.pop()
    let slot = Int(head >> headShift)
    guard slot < depth, UInt32(truncatingIfNeeded: slot << Int(headShift)) == head, inFlight[slot] else {
      isBroken = true
      return nil
    }
    inFlight[slot] = false
    inFlightCount &-= 1
    return (slot, byteCount)
  }

  /// Takes one completion, where there is one.
  public func reap() -> VirtioBlockCompletion? {
    guard ring.hasCounted || countUsed() > 0, !isBroken, let (slot, byteCount) = reapCounted() else {
      return nil
    }
    return VirtioBlockCompletion(slot: slot, status: status(slot), usedByteCount: byteCount)
  }

  // MARK: Waiting

  /// Waits until the device has used something, by interrupt where the queue has one and `mode` does not say poll.
  ///
  /// With a wait for several (`uses` above 1) and EVENT_IDX, the device interrupts only for the last of them.
  public func waitForUsed(mode: WaitMode = .interrupt, uses: UInt16 = 1) throws(DriverError) {
    if countUsed() > 0 {
      return
    }
    if let interrupt, mode == .interrupt {
      try waitByInterrupt(interrupt, uses: uses)
    } else {
      try waitByPolling()
    }
  }

  private func waitByInterrupt(_ interrupt: MessageInterrupt, uses: UInt16) throws(DriverError) {
    let start = bus.ticks
    while true {
      // The count before the question: an interrupt that arrives in between ends the wait at once.
      let seen = bus.interruptCount(interrupt)
      ring.requestInterrupt(afterUses: uses)
      if countUsed() >= Int(uses) {
        return
      }
      if isBroken {
        throw .deviceBroken
      }
      waitCount &+= 1
      guard bus.waitForInterrupt(interrupt, after: seen) else {
        throw .machineStopped
      }
      if countUsed() > 0 {
        return
      }
      guard bus.ticks &- start < waitTicksMax else {
        throw .timedOut
      }
    }
  }

  private func waitByPolling() throws(DriverError) {
    let start = bus.ticks
    var polls: UInt32 = 0
    while countUsed() == 0 {
      if isBroken {
        throw .deviceBroken
      }
      waitCount &+= 1
      guard bus.relax() else {
        throw .machineStopped
      }
      polls &+= 1
      if polls % VirtioBlockQueue.pollsPerClock == 0, bus.ticks &- start >= waitTicksMax {
        throw .timedOut
      }
    }
  }

  /// Waits for the next completion and takes it.
  public func waitForCompletion(mode: WaitMode = .interrupt) throws(DriverError) -> VirtioBlockCompletion {
    if let completion = reap() {
      return completion
    }
    try waitForUsed(mode: mode)
    guard let completion = reap() else {
      throw .deviceBroken
    }
    return completion
  }

  /// Throws unless every slot may be prepared.
  public func checkIdle() throws(DriverError) {
    guard !isBroken, inFlightCount == 0 else {
      throw .deviceBroken
    }
  }

  /// Does one request in slot 0 and waits for it.
  ///
  /// Where an earlier request never ended, the queue counts as broken until the device is started again.
  public func perform(
    type: UInt32, sector: UInt64, address: UInt64, byteCount: UInt32, segmentBytes: UInt32 = 0
  ) throws(DriverError) -> VirtioBlockCompletion {
    try checkIdle()
    prepare(slot: 0, type: type, address: address, byteCount: byteCount, segmentBytes: segmentBytes)
    submit(slot: 0, sector: sector)
    kick()
    return try waitForCompletion()
  }
}

// One processor owns a queue at a time; it changes hands only while a processor is started or has parked.
extension VirtioBlockQueue: @unchecked Sendable {}

extension VirtioBlockQueue: DiskQueue {
  /// Writes a slot's header and descriptors for a read or a write of `byteCount` bytes at `address`.
  @inline(__always)
  public func prepare(slot: Int, writes: Bool, address: UInt64, byteCount: UInt32) {
    prepare(
      slot: slot, type: writes ? VirtioBlockType.write : VirtioBlockType.read, address: address, byteCount: byteCount)
  }

  /// Takes the next completion that `countUsed` has counted.
  /// - Returns: its slot; nil where the queue is broken.
  @inline(__always)
  public func takeCounted() -> Int? { reapCounted()?.slot }

  /// Whether the slot's last request ended with the status OK.
  @inline(__always)
  public func hasSucceeded(_ slot: Int) -> Bool { status(slot) == VirtioBlockStatus.ok }
}

extension SplitVirtqueue {
  /// Goes on with another processor's ring; the other is not used any more.
  init(continuing other: SplitVirtqueue<B>, on bus: B) {
    self = SplitVirtqueue(
      bus: bus, memory: other.descriptorTable, size: other.size, usesEventIndex: other.usesEventIndex)
    adoptIndices(of: other)
  }
}
