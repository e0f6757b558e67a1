// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc

/// What becomes of writes of nothing but zeroes, with QEMU's names and meanings (`detect-zeroes=`).
public enum ZeroDetection: String, CaseIterable, Sendable {
  /// They are written.
  case off
  /// The range is zeroed in the way that is best for the disk, and stays allocated.
  case on
  /// The range is zeroed, and may be unmapped.
  case unmap
}

/// A layer over another driver that makes write-zeroes requests of writes of nothing but zeroes. Loop thread only;
/// allocates nothing.
public final class ZeroDetector: LayerDriver {
  private let mayUnmap: Bool

  /// Puts the layer over `lower`, which belongs to it from here on and serves write-zeroes requests.
  /// - Parameter mayUnmap: what is found may be unmapped.
  /// - Parameter loop: the loop that the backend on top runs on.
  public init(over lower: BlockDriver, mayUnmap: Bool, loop: EventLoop) {
    self.mayUnmap = mayUnmap
    super.init(over: lower, loop: loop)
  }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.operation == .write && request.pointee.byteCount > 0 && Self.isZero(request) {
      request.pointee.operation = .writeZeroes
      request.pointee.mayUnmap = mayUnmap
      request.pointee.isDetectedZero = true
    }
    lower.submit(request)
  }

  override func lowerCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    restore(request)
    complete(request)
  }

  override func lowerCompletesLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    restore(request)
    completeLater(request)
  }

  private func restore(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard request.pointee.isDetectedZero else { return }
    request.pointee.isDetectedZero = false
    request.pointee.mayUnmap = false
    request.pointee.operation = .write
  }

  private static func isZero(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    guard let iovecs = request.pointee.iovecs else { return false }
    for index in 0..<Int(request.pointee.iovecCount) {
      guard let base = iovecs[index].iov_base, iovecs[index].iov_len > 0 else { continue }
      let first = base.load(as: UInt8.self)
      // The first byte is zero, and each other is the same as the one before it.
      if first != 0 || memcmp(base, base + 1, iovecs[index].iov_len - 1) != 0 { return false }
    }
    return true
  }
}
