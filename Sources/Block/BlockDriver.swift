// SPDX-License-Identifier: Apache-2.0

/// Where a disk's bytes are. A driver completes each request exactly once by `complete`, on the loop's
/// thread and never from inside `submit`. A base class, because a virtual call is the cheapest dynamic call there is.
open class BlockDriver {
  /// The backend in front of the driver, which owns it; set by the backend. Unmanaged, because this is on the hot path.
  public internal(set) final var backendReference: Unmanaged<BlockBackend>?

  /// Completes a request whose `result` is set; see `BlockBackend.driverCompleted`.
  @inlinable @inline(__always)
  public final func complete(_ request: UnsafeMutablePointer<BlockRequest>) {
    backendReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.driverCompleted(request) }
  }

  /// Completes a request whose `result` is set at the end of the batch; for answers that need no I/O.
  @inlinable @inline(__always)
  public final func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    backendReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completeLater(request) }
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
  /// Takes a request whose range lies in the disk.
  open func submit(_ request: UnsafeMutablePointer<BlockRequest>) {}
}

/// A disk without bytes: every request succeeds, reads leave the guest's memory as it is. For measuring the way there.
public final class NullDriver: BlockDriver {
  private let bytes: UInt64

  /// Makes a disk of `byteCount` bytes.
  public init(byteCount: UInt64) {
    bytes = byteCount
    super.init()
  }

  public override var byteCount: UInt64 { bytes }
  public override var supportsDiscard: Bool { true }
  public override var supportsWriteZeroes: Bool { true }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.result = 0
    completeLater(request)
  }
}
