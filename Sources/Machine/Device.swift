// SPDX-License-Identifier: Apache-2.0

/// A device of the machine. Every function is called with the machine lock held.
///
/// The machine owns its devices. A device's life is: `added`, then any number of times `quiesce`, quiet, `reset`,
/// `resume`; at the end `quiesce`, quiet, `shutdown`.
open class Device {
  /// What the user calls it (`id=`), or the kind and a number.
  public let name: String

  /// The machine that owns this device; nil until it has been added. The machine outlives its devices' use of it.
  public internal(set) unowned var machine: Machine?

  /// Names the device.
  public init(name: String) { self.name = name }

  /// The device has become part of `machine`, and `self.machine` is set: maps what it always maps (fixed ports).
  open func added(to machine: Machine) {}

  /// Brings every register to its value after power-on. Requests in flight have been drained.
  open func reset() {}

  /// Starts to finish what is in flight: takes no new requests from the guest, and tells when the last one is done.
  ///
  /// `isQuiet` becomes true later, on the main loop, which runs until then. Where it becomes true on another thread,
  /// that thread calls `Machine.deviceBecameQuiet()` afterwards, so that a sleeping main loop looks again.
  open func quiesce() {}

  /// Whether nothing of this device is in flight and no completion can reach guest memory.
  open var isQuiet: Bool { true }

  /// Whether a register access has begun something that the guest sees the end of later: a reset that waits for requests
  /// in flight. A qtest server answers after it, because its clients expect resets to be over at once. Whoever answers
  /// true calls `Machine.deviceSettled()` when it is over.
  open var isSettling: Bool { false }

  /// Takes requests again after `quiesce`.
  open func resume() {}

  /// The device leaves the machine for good, quiet; it closes what it owns.
  open func shutdown() {}
}
