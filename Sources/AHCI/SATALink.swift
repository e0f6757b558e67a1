// SPDX-License-Identifier: Apache-2.0
import Block

/// A port as the device behind it sees it. A base class, because a virtual call is the cheapest dynamic call there is.
///
/// Everything is called with the machine lock held, by the main loop's thread or by a vCPU's.
class SATALink: BlockClient {
  /// Ends a command: the guest gets `slot.answer` (and the PIO set-up FIS before it). Exactly once for each `execute`,
  /// from inside it or later; the slot is the port's again.
  func finish(_ slot: UnsafeMutablePointer<CommandSlot>) {}

  /// Moves `byteCount` bytes (at least 1, whole sectors of 512) between the disk and the guest's memory, and calls
  /// `SATADevice.transferEnded` with the block layer's result. Only `.read` and `.write`; `durable` is FUA.
  ///
  /// Where the guest's list is too short, a read moves what fits and succeeds with `slot.overflowed`. A write whose list is
  /// too short, and a list that is empty or leaves RAM, end the command without the device.
  func transfer(
    _ operation: BlockOperation, of backend: BlockBackend, offset: UInt64, byteCount: UInt64, durable: Bool,
    for slot: UnsafeMutablePointer<CommandSlot>
  ) {}

  /// Submits `slot.request` as the device has filled it in (flush, discard, or host memory of its own as iovecs), and
  /// calls `SATADevice.transferEnded` with its result.
  func submit(to backend: BlockBackend, for slot: UnsafeMutablePointer<CommandSlot>) {}

  /// Copies bytes of the device to the guest as the command's next data.
  /// - Returns: how many found room in the guest's list; fewer set `slot.overflowed` or `slot.faulted`.
  func send(_ bytes: UnsafeRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>) -> Int { 0 }

  /// Copies the command's next data from the guest.
  /// - Returns: how many bytes the guest's list had; fewer set `slot.overflowed` or `slot.faulted`.
  func receive(
    into bytes: UnsafeMutableRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>
  ) -> Int { 0 }

  /// Tells of a guest's mistake in one log line, rate-limited.
  func report(_ message: @autoclosure () -> String) {}
}

/// What is behind a port: a disk, or a CD-ROM drive.
///
/// Everything is called with the machine lock held. A device is connected to one port at a time.
public class SATADevice {
  /// The port that it is connected to, which outlives the connection; unmanaged, for the hot path.
  final var linkReference: Unmanaged<SATALink>!
  /// The same, for everything else.
  final var link: SATALink { linkReference.takeUnretainedValue() }
  /// Whether READ and WRITE FPDMA QUEUED are queued commands to the device.
  let takesQueued: Bool

  /// PxSIG: the registers after a reset (AHCI 1.3.1 §3.3.9): count, then the low three bytes of the address.
  var signature: UInt32 { 0 }
  /// The disk; nil for an empty drive.
  var backend: BlockBackend? { nil }

  init(takesQueued: Bool = false) { self.takesQueued = takesQueued }

  /// After power-on, COMRESET or an HBA reset: everything as it is then. Nothing is in flight.
  func hardReset() {}
  /// After a software reset (SRST): what such a reset keeps stays (ACS-3, SET FEATURES 66h and CCh). Nothing is in flight.
  func softReset() {}
  /// Serves the command in `slot`, and ends it by `link.finish`, now or later.
  func execute(_ slot: UnsafeMutablePointer<CommandSlot>) {}
  /// A `link.transfer` or `link.submit` of this command has ended; `result` is 0 or a negative errno value. Continues, or
  /// ends the command by `link.finish`. Not called for commands that were abandoned.
  func transferEnded(_ slot: UnsafeMutablePointer<CommandSlot>, result: Int32) {}
  /// A queued command has failed (its answer says how), or one that is not queued came while others were queued: what
  /// READ LOG EXT page 10h tells of (ACS-3 annex A).
  func queueFailed(_ slot: UnsafeMutablePointer<CommandSlot>) {}
}
