// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Glibc
import Tracing

/// What a device asks of its disk.
public enum BlockOperation: UInt8, Sendable {
  /// Disk to guest memory.
  case read
  /// Guest memory to disk.
  case write
  /// Everything completed before is on stable storage afterwards.
  case flush
  /// The range's content is no longer needed.
  case discard
  /// The range reads as zeroes afterwards.
  case writeZeroes

  /// Whether the operation is on a range alone, without data.
  @inline(__always)
  var isRange: Bool { self == .discard || self == .writeZeroes }
}

/// One request to a disk, in a slot that its device preallocated, lent to the block layer until `completed`.
///
/// Request → driver → `IOOperation` → kernel, and back by slot: nothing on the way allocates. The guest memory behind
/// `iovecs` stays mapped until the completion (the device drains before memory goes away).
public struct BlockRequest {
  /// The engine's part; filled by drivers that end in a file.
  public var io = IOOperation()
  /// What to do.
  public var operation: BlockOperation = .read
  /// Durable on completion (FUA), for all that change the disk.
  public var forceUnitAccess = false
  /// For writeZeroes: the range may be unmapped.
  public var mayUnmap = false
  /// Byte offset on the disk.
  public var offset: UInt64 = 0
  /// Length in bytes: the sum of the iovecs for reads and writes, the range's length for discard and writeZeroes.
  public var byteCount: UInt64 = 0
  /// Scatter list in host addresses; room for what the device needs, owned by the slot.
  public var iovecs: UnsafeMutablePointer<iovec>?
  /// Entries in use.
  public var iovecCount: Int32 = 0
  /// The device's number of this slot.
  public var slot: Int32 = 0
  /// 0, or a negative errno value; valid when `completed` is called.
  public var result: Int32 = 0
  /// `result` is the block layer's own answer, which no error policy changes.
  var isAnswered = false
  /// A write of zeroes that goes to the disk as a write-zeroes request (`ZeroDetector`).
  var isDetectedZero = false
  /// Who hears of the completion. Not retained: the device drains before it goes away.
  public var client: Unmanaged<BlockClient>?
  /// Links the block layer's lists while the request is lent.
  public var next: UnsafeMutablePointer<BlockRequest>?

  /// A request to be filled in.
  public init() {}

  /// Whose it is, as traces tell it.
  @inline(__always)
  var traceSource: UInt32 { client.map { Tracing.tag(of: $0.toOpaque()) } ?? 0 }
}

/// A device's side of the block layer.
open class BlockClient {
  /// For subclasses.
  public init() {}

  /// Called exactly once for each request, on the loop that the backend is attached to, never from inside `submit`.
  open func completed(_ request: UnsafeMutablePointer<BlockRequest>) {}
}
