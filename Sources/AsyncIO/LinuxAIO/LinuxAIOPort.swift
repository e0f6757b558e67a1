// SPDX-License-Identifier: Apache-2.0
import CLinuxAIO
import Glibc

/// The kernel's side of a Linux AIO context, as narrow as a test can play it: submission, cancellation, events.
///
/// A base class instead of a protocol, since this is on the hot path and a virtual call costs no existential. Loop thread.
open class LinuxAIOPort {
  /// For subclasses.
  public init() {}
  /// The eventfd that control blocks name (IOCB_FLAG_RESFD); readable when something has completed since `acknowledge`.
  open var descriptor: Int32 { -1 }
  /// Resets the eventfd.
  open func acknowledge() {}
  /// Whether `hasEvents` is only a look at memory; where it is not, it makes a system call.
  open var isPollable: Bool { false }
  /// Hands `count` control blocks to the kernel, oldest first; how many it took, or a negative errno value where it took
  /// none. The kernel reads them only during the call.
  open func submit(_ blocks: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>, count: Int) -> Int32 { 0 }
  /// Asks that a submitted operation end. Whatever the answer (0, or a negative errno value), its event comes through
  /// `takeEvent`, once.
  open func cancel(_ block: UnsafeMutablePointer<iocb>) -> Int32 { -EINVAL }
  /// Whether an event waits.
  open var hasEvents: Bool { false }
  /// Takes the oldest event; nil where none waits, and after `close`.
  open func takeEvent() -> io_event? { nil }
  /// Gives the context back. The owner has taken the eventfd away from the loop, and nothing is in flight.
  open func close() {}
}
