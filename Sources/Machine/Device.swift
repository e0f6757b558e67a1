// SPDX-License-Identifier: Apache-2.0

/// A device of the machine. Every function is called with the machine lock held.
open class Device {
  /// What the user calls it (`id=`), or the kind and a number.
  public let name: String

  /// Names the device.
  public init(name: String) { self.name = name }

  /// Brings every register to its value after power-on. Requests in flight have been drained.
  open func reset() {}

  /// Starts to finish what is in flight: takes no new requests from the guest, and tells when the last one is done.
  ///
  /// `isQuiet` becomes true later, on the main loop; the machine keeps running its loops until then.
  open func quiesce() {}

  /// Whether nothing of this device is in flight and no completion can reach guest memory.
  open var isQuiet: Bool { true }

  /// Takes requests again after `quiesce`.
  open func resume() {}

  /// The device leaves the machine for good, quiet; it closes what it owns.
  open func shutdown() {}
}
