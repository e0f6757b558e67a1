// SPDX-License-Identifier: Apache-2.0
import EventLoop

/// Limiting the speed of a disk that is at work. Loop thread.
extension BlockBackend {
  /// Most that the disk does in a second.
  public var limits: ThrottleLimits { throttle?.limits ?? ThrottleLimits() }

  /// Sets what the disk does in a second at most, from the next request on; what waits for its time waits by the new limits.
  /// A disk that has never had limits pays nothing for them.
  ///
  /// On the loop that the backend is on.
  public func setLimits(_ limits: ThrottleLimits) {
    loop.preconditionOnLoop()
    if let throttle {
      throttle.setLimits(limits)
    } else if !limits.isEmpty {
      putLimits(limits)
    }
  }

  /// Puts a layer of limits in front. Requests that the driver has complete through it, which changes nothing for them.
  func putLimits(_ limits: ThrottleLimits) {
    let layer = ThrottleDriver(over: bottom, limits: limits, loop: loop, drainDepth: driverDrainDepth)
    layer.ownerReference = Unmanaged.passUnretained(self)
    throttle = layer
    top = Unmanaged.passUnretained(layer)
  }
}
