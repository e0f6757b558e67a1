// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem

/// Who hears of a driver's completions: the backend, or a driver that stands on top of another one. A base class,
/// because a virtual call is the cheapest dynamic call there is. Loop thread only.
open class BlockDriverOwner {
  /// The loop that requests run on.
  public internal(set) final var loop: EventLoop

  /// For subclasses.
  public init(loop: EventLoop) { self.loop = loop }

  /// The driver has finished a request; `request.result` is set. Called once for each request, never from inside the
  /// driver's `submit`.
  open func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {}

  /// The driver has finished a request from inside its `submit`; it is completed at the end of the batch.
  open func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {}
}

/// Where a disk's bytes are. A driver completes each request exactly once by `complete`, on the loop's
/// thread and never from inside `submit`. A base class, because a virtual call is the cheapest dynamic call there is.
open class BlockDriver {
  /// What is above the driver and owns it; set by the owner. Unmanaged, because this is on the hot path.
  public internal(set) final var ownerReference: Unmanaged<BlockDriverOwner>?

  /// Completes a request whose `result` is set; see `BlockDriverOwner.driverCompleted`.
  @inlinable @inline(__always)
  public final func complete(_ request: UnsafeMutablePointer<BlockRequest>) {
    ownerReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.driverCompleted(request) }
  }

  /// Completes a request whose `result` is set at the end of the batch; for answers that need no I/O.
  @inlinable @inline(__always)
  public final func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    ownerReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completeLater(request) }
  }

  /// For subclasses.
  public init() {}

  /// Length in bytes.
  open var byteCount: UInt64 { 0 }
  /// Smallest unit that the disk can be addressed in, bytes, a power of two from 512.
  open var logicalBlockBytes: Int { 512 }
  /// Unit that the disk writes without reading first, bytes.
  open var physicalBlockBytes: Int { 512 }
  /// Whether discard requests are served; where they are not, they are answered with -EOPNOTSUPP.
  open var supportsDiscard: Bool { false }
  /// Whether write-zeroes requests are served; where they are not, they are answered with -EOPNOTSUPP.
  open var supportsWriteZeroes: Bool { false }
  /// Unit in which discarding frees anything, bytes, a power of two from `logicalBlockBytes`.
  open var discardGranularityBytes: Int { logicalBlockBytes }
  /// Requests that went to the host as a part of another one, since the driver was made.
  open var mergedRequestCount: UInt64 { 0 }
  /// Makes the disk longer, by zeroes, or shorter. The driver has no request, and what it is asked for is whole sectors, at
  /// least one.
  /// - Throws: why it keeps its length.
  open func resize(to byteCount: UInt64) throws(SystemError) {
    throw SystemError("changing the length", code: EOPNOTSUPP)
  }
  /// Takes a request whose range lies in the disk.
  open func submit(_ request: UnsafeMutablePointer<BlockRequest>) {}

  /// The driver has no request and gets none any more: it gives back what it has on its loop and in the kernel. On the
  /// loop, once.
  open func close() {}

  /// The owner begins to wait until the driver has no request any more: what waits for no more than time or a command
  /// goes on by itself now. Calls nest.
  open func drainBegins() {}
  /// Ends `drainBegins`.
  open func drainEnds() {}

  /// The device has given up every command that the driver's requests are for: what waits for a user's word need not reach
  /// the disk any more, and fails. Before `drainBegins`.
  open func clientGaveUp() {}

  /// The owner leaves its loop: the driver has no request and gets none until the owner is on another loop or back on
  /// this one. What the driver has on the loop goes, or waits for `attach`. On the loop that is left.
  open func detach() {}

  /// The owner comes to `loop`, on its thread, after `detach`; a driver that was made on a loop is attached to it.
  /// - Throws: why the driver cannot work there; it is then on its former loop still.
  open func attach(to loop: EventLoop) throws(SystemError) {}
}
