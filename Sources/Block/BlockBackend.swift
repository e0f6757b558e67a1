// SPDX-License-Identifier: Apache-2.0
// Block: the request, the backend that a device talks to, and the drivers behind it. It knows nothing of devices or vCPUs.
import EventLoop

/// A driver under a backend.
open class BlockDriver {
  /// For subclasses.
  public init() {}
  /// Length of the disk in bytes.
  open var byteCount: UInt64 { 0 }
  /// Takes the request.
  open func submit(_ request: UnsafeMutablePointer<BlockRequest>) {}
}
