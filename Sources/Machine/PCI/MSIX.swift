// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// The MSI-X table of a function (PCI 3.0, section 6.8.2): where each vector's message goes, and what is masked.
///
/// The guest changes the table under the machine lock; devices `notify` from any thread without it. So each vector has
/// a lock of its own, held for a few instructions and for the route's `fire`. A change by the guest takes the same lock
/// after it has stored the new state; hence when a guest's write that masks a vector has returned, no interrupt of that
/// vector comes any more, and a vector that was notified while it was masked is delivered by the write that unmasks it.
public final class MSIX: @unchecked Sendable {
  /// Vectors are numbered below this (PCI 3.0, section 6.8.2.3: the table size field has 11 bits).
  public static let vectorsMax = 2048
  /// Bytes of one table entry: address, upper address, data, vector control.
  public static let entryBytes: UInt64 = 16

  /// Bits of the message control register.
  enum Control {
    static let functionMask: UInt16 = 1 << 14
    static let enable: UInt16 = 1 << 15
    static let writable = functionMask | enable
    /// No bit of the register, where it belongs to the table's size: the function is no bus master, so nothing is sent.
    static let silent: UInt16 = 1 << 0
  }

  /// What the lock of one vector guards.
  private struct Vector {
    // The route knows the message while the vector is open, so that firing needs no update.
    var routed = RoutedMessage()
    var isMasked = true
    var isPending = false
  }

  private struct Slot: ~Copyable {
    let vector = Mutex(Vector())
  }

  /// How many vectors there are.
  public let vectorCount: Int
  private let slots: UnsafeMutablePointer<Slot>
  // The message control register. Stored by setControl() before it takes each vector's lock, loaded under such a lock:
  // the lock orders the two, so the accesses themselves are relaxed.
  private let control = Atomic<UInt16>(0)

  /// Makes a table of masked vectors; 1 to `vectorsMax` of them.
  init(vectorCount: Int) {
    precondition(vectorCount >= 1 && vectorCount <= MSIX.vectorsMax, "no such number of MSI-X vectors")
    self.vectorCount = vectorCount
    slots = .allocate(capacity: vectorCount)
    for index in 0..<vectorCount { (slots + index).initialize(to: Slot()) }
  }

  deinit {
    close()
    slots.deinitialize(count: vectorCount)
    slots.deallocate()
  }

  /// Bytes of the table.
  var tableBytes: UInt64 { UInt64(vectorCount) * MSIX.entryBytes }
  /// Bytes of the pending bits: whole 64-bit words.
  var pendingBytes: UInt64 { UInt64((vectorCount + 63) / 64 * 8) }

  // MARK: The device's side. Any thread.

  /// Raises the interrupt of a vector: sends its message, or remembers it in the pending bit where the vector or the
  /// function is masked, MSI-X is off, or the function is no bus master. Any thread, machine lock not needed; allocates nothing.
  ///
  /// A vector that does not exist is ignored, since a guest chooses vectors.
  public func notify(_ vector: Int) {
    guard vector >= 0, vector < vectorCount else { return }
    slots[vector].vector.withLock { state in
      guard isOpen(state), state.routed.hasRoute else {
        state.isPending = true
        return
      }
      state.routed.fire()
    }
  }

  /// Whether the guest has enabled MSI-X; a device uses its interrupt pin otherwise. Any thread.
  public var isEnabled: Bool { control.load(ordering: .relaxed) & Control.enable != 0 }

  /// Whether the vector cannot send now: masked itself or by the function, MSI-X off, or no bus master. Any thread.
  public func isMasked(_ vector: Int) -> Bool {
    guard vector >= 0, vector < vectorCount else { return true }
    return slots[vector].vector.withLock { !isOpen($0) }
  }

  /// Whether the vector's pending bit is set. Any thread.
  public func isPending(_ vector: Int) -> Bool {
    guard vector >= 0, vector < vectorCount else { return false }
    return slots[vector].vector.withLock { $0.isPending }
  }

  /// Takes back a notification that has not been delivered: the device's reason for it is gone. Any thread.
  public func clearPending(_ vector: Int) {
    guard vector >= 0, vector < vectorCount else { return }
    slots[vector].vector.withLock { $0.isPending = false }
  }

  private func isOpen(_ state: Vector) -> Bool {
    control.load(ordering: .relaxed) & (Control.writable | Control.silent) == Control.enable && !state.isMasked
  }

  // MARK: The guest's side. Machine lock held.

  /// Takes a new value of the message control register.
  /// - Parameter maySend: whether the function is a bus master.
  func setControl(_ value: UInt16, maySend: Bool, interrupts: InterruptController) {
    let value = value & Control.writable | (maySend ? 0 : Control.silent)
    if value == control.exchange(value, ordering: .relaxed) { return }
    for index in 0..<vectorCount { settle(index, interrupts: interrupts) }
  }

  /// Reads one of the four words of a table entry.
  func tableWord(_ vector: Int, _ word: Int) -> UInt32 {
    slots[vector].vector.withLock { state in
      switch word {
      case 0: UInt32(truncatingIfNeeded: state.routed.message.address)
      case 1: UInt32(truncatingIfNeeded: state.routed.message.address >> 32)
      case 2: state.routed.message.data
      default: state.isMasked ? 1 : 0
      }
    }
  }

  /// Writes one of the four words of a table entry.
  func setTableWord(_ vector: Int, _ word: Int, _ value: UInt32, interrupts: InterruptController?) {
    slots[vector].vector.withLock { state in
      var message = state.routed.message
      switch word {
      case 0: message.address = message.address & ~0xffff_ffff | UInt64(value)
      case 1: message.address = UInt64(value) << 32 | message.address & 0xffff_ffff
      case 2: message.data = value
      default: state.isMasked = value & 1 != 0
      }
      state.routed.set(message)
    }
    if let interrupts { settle(vector, interrupts: interrupts) }
  }

  /// Reads 64 pending bits.
  func pendingWord(_ word: Int) -> UInt64 {
    var bits: UInt64 = 0
    for bit in 0..<min(64, vectorCount - 64 * word) where isPending(64 * word + bit) { bits |= 1 << UInt64(bit) }
    return bits
  }

  /// Masks every vector, forgets messages and pending bits, turns MSI-X off. The routes stay for their next use.
  func reset() {
    control.store(0, ordering: .relaxed)
    for index in 0..<vectorCount {
      slots[index].vector.withLock { state in
        state.routed.set(MSIMessage(address: 0, data: 0))
        state.isMasked = true
        state.isPending = false
      }
    }
  }

  /// Gives up every route; a later notification only sets its pending bit.
  func close() {
    control.store(0, ordering: .relaxed)
    for index in 0..<vectorCount {
      let route = slots[index].vector.withLock { state in
        state.isMasked = true
        return state.routed.take()
      }
      route.close()
    }
  }

  /// Follows a change of the guest's: an open vector has a route that knows its message, and nothing pending.
  private func settle(_ index: Int, interrupts: InterruptController) {
    let needsRoute = slots[index].vector.withLock { isOpen($0) && !$0.routed.hasRoute }
    // Made outside the vector's lock, as an accelerator may take its time over it; the machine lock keeps others away.
    let route = needsRoute ? Unmanaged.passRetained(interrupts.makeRoute()) : nil
    slots[index].vector.withLock { state in
      if let route { state.routed.adopt(route) }
      guard isOpen(state) else { return }
      state.routed.updateRoute()
      if state.isPending {
        state.isPending = false
        state.routed.fire()
      }
    }
  }
}
