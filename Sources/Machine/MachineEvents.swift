// SPDX-License-Identifier: Apache-2.0
import EventLoop

/// Something that happened to a machine and that its host's user may want to know (QMP events).
public enum MachineEvent: Equatable, Sendable {
  /// The virtual processors were stopped.
  case stopped
  /// They run again.
  case resumed
  /// Every device was reset; by the guest, or by the host's user.
  case reset(byGuest: Bool)
  /// The machine ends, or is stopped for good (`ShutdownPolicy.pause`), for this reason.
  case shutdown(ShutdownReason)
  /// The guest was asked to power down.
  case powerdown
  /// A request failed on the host: the drive's name, whether it was a read, what becomes of it, and the errno value.
  case blockError(drive: String, isRead: Bool, action: BlockErrorAction, code: Int32)
  /// A CD-ROM drive's tray was opened or closed: the device's name.
  case trayMoved(device: String, isOpen: Bool)
  /// A device has left the machine: its name.
  case deviceDeleted(device: String)
}

/// What becomes of a request that failed on the host.
public enum BlockErrorAction: String, Sendable {
  /// The guest is told.
  case report
  /// It counts as done.
  case ignore
  /// The machine is stopped, and the request is tried again when it runs on.
  case stop
}

/// Tells observers what happens to a machine, in the order in which it happens. Machine lock held, on the main loop's
/// thread; from elsewhere schedule a bottom half.
public final class MachineEvents {
  private var observers: [(MachineEvent) -> Void] = []

  /// `observer` is told of every event from here on, for the machine's life.
  public func observe(_ observer: @escaping (MachineEvent) -> Void) { observers.append(observer) }

  /// Tells of an event.
  public func post(_ event: MachineEvent) { for observer in observers { observer(event) } }
}
