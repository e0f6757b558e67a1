// SPDX-License-Identifier: Apache-2.0
// AsyncIO: engines that carry operations on host files to the kernel and back. It knows nothing of devices or images.
import Glibc

/// What an operation asks of the kernel.
public enum IOOpcode: UInt8, Sendable {
  /// preadv: `iovecs` are filled from `offset`.
  case read
  /// pwritev: `iovecs` are written at `offset`; with `forceUnitAccess` the data is durable on completion (RWF_DSYNC).
  case write
  /// fdatasync.
  case flush
}

/// One operation on a host file, owned by whoever submits it and lent to the engine until its completion is delivered.
///
/// The value lives at a stable address (a slot of the submitter's); engines link and track operations through it and
/// allocate nothing. The memory behind `iovecs`, and the array itself, must stay valid and untouched until the sink is
/// called; the engine may advance the array's entries to continue a short transfer.
public struct IOOperation {
  /// What to do.
  public var opcode: IOOpcode = .read
  /// Write through to stable storage (FUA); for `write` only.
  public var forceUnitAccess = false
  /// The file.
  public var descriptor: Int32 = -1
  /// Byte offset in the file.
  public var offset: UInt64 = 0
  /// Scatter list; unused for `flush`.
  public var iovecs: UnsafeMutablePointer<iovec>?
  /// Entries in `iovecs`, at most `IOOperation.iovecsMax`.
  public var iovecCount: Int32 = 0
  /// Sum of the lengths in `iovecs`.
  public var byteCount: Int = 0
  /// Bytes moved so far; the engine's.
  public var transferred: Int = 0
  /// Links the engine's overflow and completed lists; the engine's while the operation is lent.
  public var next: UnsafeMutablePointer<IOOperation>?
  /// 0, or a negative errno value; set before the sink is called.
  public var result: Int32 = 0
  /// Who hears of the completion. Not retained: the submitter keeps it alive until then.
  public var sink: Unmanaged<IOCompletionSink>?
  /// The submitter's own pointer, untouched by engines.
  public var context: UnsafeMutableRawPointer?

  /// The kernel's own bound on a scatter list (IOV_MAX).
  public static let iovecsMax = 1024

  /// An operation to be filled in.
  public init() {}
}

/// Hears of completed operations: a base class, because a virtual call is the cheapest dynamic call there is.
open class IOCompletionSink {
  /// For subclasses.
  public init() {}

  /// Called once for each operation, on the loop's thread, never from inside `submit`. `operation.result` is 0 or a
  /// negative errno value: a read past the end of the file has been filled with zeroes, a short write is -ENOSPC.
  open func completed(_ operation: UnsafeMutablePointer<IOOperation>) {}
}
