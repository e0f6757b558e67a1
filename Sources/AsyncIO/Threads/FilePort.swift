// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// The system calls on files that block, as narrow as a test can play them.
///
/// Each call gives bytes moved or 0, or a negative errno value, and may be made by many threads at the same time. A base
/// class instead of a protocol, since this is on the hot path and a virtual call costs no existential.
open class FilePort: @unchecked Sendable {
  /// For subclasses.
  public init() {}

  /// A worker has taken an operation and makes its first call next. Called with the queue locked, so in the order in
  /// which operations were taken; must not block.
  open func taken(_ operation: UnsafeMutablePointer<IOOperation>) {}

  /// preadv2(2).
  open func read(_ descriptor: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t) -> Int { 0 }

  /// pwritev2(2) with RWF_ flags.
  open func write(
    _ descriptor: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t, flags: Int32
  ) -> Int { 0 }

  /// fdatasync(2).
  open func syncData(_ descriptor: Int32) -> Int { 0 }

  /// fallocate(2).
  open func allocate(_ descriptor: Int32, mode: Int32, offset: off_t, byteCount: off_t) -> Int { 0 }

  /// ioctl(2) on a range of a block device: BLKDISCARD or BLKZEROOUT; -ENOTTY on anything else.
  open func deviceRange(_ descriptor: Int32, request: UInt, offset: off_t, byteCount: off_t) -> Int { 0 }
}

/// The real calls.
public final class KernelFilePort: FilePort, @unchecked Sendable {
  public override func read(
    _ descriptor: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t
  ) -> Int {
    clinux_preadv2(descriptor, iovecs, count, offset, 0)
  }

  public override func write(
    _ descriptor: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t, flags: Int32
  ) -> Int {
    clinux_pwritev2(descriptor, iovecs, count, offset, flags)
  }

  public override func syncData(_ descriptor: Int32) -> Int { Int(clinux_fdatasync(descriptor)) }

  public override func allocate(_ descriptor: Int32, mode: Int32, offset: off_t, byteCount: off_t) -> Int {
    Int(clinux_fallocate(descriptor, mode, offset, byteCount))
  }

  public override func deviceRange(_ descriptor: Int32, request: UInt, offset: off_t, byteCount: off_t) -> Int {
    Int(clinux_ioctl_range(descriptor, request, UInt64(clamping: offset), UInt64(clamping: byteCount)))
  }
}
