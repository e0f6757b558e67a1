// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// The MSI capability of a function (PCI 3.0, section 6.8.1): one vector with a 64-bit address, without mask bits.
///
/// The guest changes it under the machine lock; the device calls `notify` from any thread without it. A lock of its own
/// orders the two: when a guest's write that disables MSI has returned, no message comes any more.
public final class MSI: @unchecked Sendable {
  /// Offsets in the capability (PCI 3.0, figure 6-9, 64-bit message address).
  enum Register {
    static let control = 2
    static let address = 4
    static let addressHigh = 8
    static let data = 12
    /// Bytes of the whole capability.
    static let byteCount = 14
  }

  /// Bits of the message control register (PCI 3.0, section 6.8.1.3). The fields for several vectors stay 0: there is
  /// one, so that is all that software may allocate.
  enum Control {
    static let enable: UInt16 = 1 << 0
    static let is64Bit: UInt16 = 1 << 7
  }

  /// Bits of the lower address that a guest can write: a message is a write of 4 aligned bytes.
  static let addressMask: UInt32 = ~3

  /// What the lock guards.
  private struct State {
    var routed = RoutedMessage()
    // Enabled, and the function is a bus master.
    var isOpen = false
  }

  private let state = Mutex(State())
  // The same as the guarded flag, for those who only ask. Stored under the lock and loaded without it; nothing else is
  // concluded from the value, so the accesses are relaxed.
  private let enabled = Atomic<Bool>(false)

  init() {}

  deinit { close() }

  // MARK: The device's side. Any thread.

  /// Whether the guest has enabled MSI; the function does not use its interrupt pin then. Any thread.
  public var isEnabled: Bool { enabled.load(ordering: .relaxed) }

  /// Sends the message, once. Any thread, machine lock not needed; allocates nothing.
  ///
  /// Where MSI is disabled, or the function no bus master, nothing happens, and nothing is remembered: without mask bits
  /// there is no pending bit (PCI 3.0, section 6.8.1.6). A device whose reasons outlast that notifies again.
  public func notify() {
    state.withLock { state in
      if state.isOpen { state.routed.fire() }
    }
  }

  // MARK: The guest's side. Machine lock held.

  /// Follows the capability's registers: what they say now.
  /// - Parameter maySend: whether the function is a bus master.
  func set(isEnabled: Bool, maySend: Bool, message: MSIMessage, interrupts: InterruptController) {
    let isOpen = isEnabled && maySend
    let needsRoute = state.withLock { isOpen && !$0.routed.hasRoute }
    // Made outside the lock, as an accelerator may take its time over it; the machine lock keeps other writes away.
    let route = needsRoute ? Unmanaged.passRetained(interrupts.makeRoute()) : nil
    state.withLock { state in
      if let route { state.routed.adopt(route) }
      state.routed.set(message)
      state.isOpen = isOpen
      if isOpen { state.routed.updateRoute() }
      enabled.store(isEnabled, ordering: .relaxed)
    }
  }

  /// Disables MSI and forgets the message. The route stays for its next use.
  func reset() {
    state.withLock { state in
      state.isOpen = false
      state.routed.set(MSIMessage(address: 0, data: 0))
      enabled.store(false, ordering: .relaxed)
    }
  }

  /// Gives up the route; a later notification does nothing.
  func close() {
    let route = state.withLock { state in
      state.isOpen = false
      enabled.store(false, ordering: .relaxed)
      return state.routed.take()
    }
    route.close()
  }
}
