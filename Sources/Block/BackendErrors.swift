// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What becomes of requests that the host failed (`ErrorPolicy`). Loop thread.
extension BlockBackend {
  /// Applies the policy to a request that failed.
  /// - Returns: whether the request is kept for `resume`; it is completed otherwise, with the result that it has now.
  @inline(never)
  func keepsFailed(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    if request.pointee.isAnswered {
      request.pointee.isAnswered = false
      return false
    }
    let policy = request.pointee.operation == .read ? readErrorPolicy : writeErrorPolicy
    if policy == .ignore { request.pointee.result = 0 }
    let code = -request.pointee.result
    guard policy.stops(on: code), let onStop else { return false }
    let isFirst = stopped.isEmpty
    stopped.append(request)
    if isInternal(request) { settling.isStopped = true }
    if isFirst { onStop(request.pointee.operation, code) }
    return true
  }

  /// Tries the requests again that stopped the machine, in the order in which they failed.
  ///
  /// A flush that failed is tried again as well, as QEMU does it; what the kernel dropped after the failure is not
  /// written by that, so `report` is the safer policy for files on disks that fail.
  public func resume() {
    settling.isStopped = false
    var all = stopped.takeAll()
    if pauseDepth > 0 {
      // Before what came later.
      all.append(all: held.takeAll())
      held = all
    } else {
      submitAll(&all)
    }
  }

  /// Gives the requests that stopped the machine back to their clients with the errors that they had: the machine does
  /// not go on with them (a reset, the end).
  public func reportStopped() {
    settling.isStopped = false
    var all = stopped.takeAll()
    while let request = all.takeFirst() {
      request.pointee.isAnswered = true
      completeLater(request)
    }
  }
}
