// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What became of a request that the host failed.
public enum ErrorAction: Sendable {
  /// The guest is told.
  case report
  /// It counts as done.
  case ignore
  /// It waits for `BlockBackend.resume`.
  case stop
}

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
    let code = -request.pointee.result
    // Whoever waits for the disk to be idle does not wait for a command.
    guard policy.stops(on: code), let onStop, drainDepth == 0 else {
      if policy == .ignore { request.pointee.result = 0 }
      onError?(request.pointee.operation, code, policy == .ignore ? .ignore : .report)
      return false
    }
    onError?(request.pointee.operation, code, .stop)
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
