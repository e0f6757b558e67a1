// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// What an operation asks of the kernel.
public enum IOOpcode: UInt8, Sendable {
  /// preadv: `iovecs` are filled from `offset`.
  case read
  /// pwritev: `iovecs` are written at `offset`; with `forceUnitAccess` the data is durable on completion (RWF_DSYNC).
  case write
  /// fdatasync.
  case flush
  /// fallocate: the range's content is not needed any more; on a file its blocks are given back.
  case discard
  /// fallocate: the range reads as zeroes afterwards; with `mayUnmap` its blocks may be given back.
  case writeZeroes
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
  /// The range may be unmapped; for `writeZeroes` only.
  public var mayUnmap = false
  /// The file.
  public var descriptor: Int32 = -1
  /// Byte offset in the file.
  public var offset: UInt64 = 0
  /// Scatter list; for `read` and `write`.
  public var iovecs: UnsafeMutablePointer<iovec>?
  /// Entries in `iovecs`, at most `IOOperation.iovecsMax`.
  public var iovecCount: Int32 = 0
  /// Sum of the lengths in `iovecs`; length of the range of `discard` and `writeZeroes`.
  public var byteCount: Int = 0
  /// `cancel` was called: what would be asked of the kernel again ends as cancelled. The engine's.
  var isCancelling = false
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
  /// The slot of the request that the operation serves, by whose address traces name it; nil for none. Never followed.
  public var request: UnsafeRawPointer?
  /// The submitter's own mark, untouched by engines.
  public var mark = false

  /// The kernel's own bound on a scatter list (IOV_MAX).
  public static let iovecsMax = 1024

  /// An operation to be filled in.
  public init() {}

  /// fallocate(2)'s mode for `discard` and `writeZeroes`. Block devices have the same modes (Linux 4.9): punching a hole
  /// zeroes and may deallocate, a zeroed range stays allocated.
  var fallocateMode: Int32 {
    let zeroes = opcode == .writeZeroes && !mayUnmap
    return clinux_FALLOC_FL_KEEP_SIZE | (zeroes ? clinux_FALLOC_FL_ZERO_RANGE : clinux_FALLOC_FL_PUNCH_HOLE)
  }
}

/// What becomes of an operation after an answer of the kernel.
enum IOProgress {
  /// `result` is set.
  case finished
  /// The kernel is to be asked again, for what is left.
  case unfinished
}

extension UnsafeMutablePointer<IOOperation> {
  /// Takes the kernel's answer: bytes moved, or a negative errno value. One policy for all engines.
  ///
  /// -EINTR and -EAGAIN are tried again (EAGAIN happens on some SCSI disks). A short read goes on where it stopped; a
  /// read of nothing is the end of the file, and the rest of the buffer reads as zeroes. So does one that direct I/O
  /// refuses to go on with: only the end of a file stops it at an odd place. A short write goes on too; a write of nothing
  /// is -ENOSPC.
  @inline(__always)
  func take(_ answer: Int) -> IOProgress {
    if answer >= 0 && answer == pointee.byteCount && pointee.transferred == 0 {
      pointee.result = 0
      return .finished
    }
    return takeOther(answer)
  }

  @inline(never)
  private func takeOther(_ answer: Int) -> IOProgress {
    if answer == -Int(EINTR) || answer == -Int(EAGAIN) { return goOn() }
    pointee.result = 0
    guard pointee.opcode == .read || pointee.opcode == .write else {
      pointee.result = Int32(clamping: Swift.min(answer, 0))
      return .finished
    }
    if answer > 0 {
      pointee.transferred += answer
      if pointee.transferred >= pointee.byteCount { return .finished }
      advance(by: answer)
      return goOn()
    }
    let isEnd = answer == 0 || (answer == -Int(EINVAL) && pointee.transferred > 0)
    if isEnd && pointee.opcode == .read {
      zeroRest()
    } else {
      pointee.result = answer == 0 ? -ENOSPC : Int32(clamping: answer)
    }
    return .finished
  }

  private func goOn() -> IOProgress {
    if !pointee.isCancelling { return .unfinished }
    pointee.result = -ECANCELED
    return .finished
  }

  /// Steps over `byteCount` bytes of the scatter list that a short transfer has moved.
  private func advance(by byteCount: Int) {
    var left = byteCount
    while left > 0, let first = pointee.iovecs, pointee.iovecCount > 0 {
      if left < first.pointee.iov_len {
        first.pointee.iov_base += left
        first.pointee.iov_len -= left
        return
      }
      left -= first.pointee.iov_len
      pointee.iovecs = first + 1
      pointee.iovecCount -= 1
    }
  }

  /// Fills what is left of the scatter list with zeroes: beyond the end of a file everything reads as zero.
  private func zeroRest() {
    guard let iovecs = pointee.iovecs else { return }
    for index in 0..<Int(pointee.iovecCount) { memset(iovecs[index].iov_base, 0, iovecs[index].iov_len) }
  }
}

/// Hears of completed operations: a base class, because a virtual call is the cheapest dynamic call there is.
open class IOCompletionSink {
  /// For subclasses.
  public init() {}

  /// Called once for each operation, on the loop's thread, never from inside `submit`. `operation.result` is 0 or a
  /// negative errno value: a read past the end of the file has been filled with zeroes, a short write is -ENOSPC.
  open func completed(_ operation: UnsafeMutablePointer<IOOperation>) {}
}
