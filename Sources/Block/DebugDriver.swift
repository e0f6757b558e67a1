// SPDX-License-Identifier: Apache-2.0
import EventLoop

/// A layer over another driver that fails requests by QEMU's `blkdebug` rules, for test programs that bring such rules.
/// `FaultDriver` is our own, and can do more.
///
/// The driver has a state, 1 at first. At each event on a request's way the rules for that event and state act: injections
/// become the active ones, in place of those before, and fail the requests that they match; the last rule that sets a state
/// sets it, when all have been looked at. (Facts: QEMU, docs/devel/testing/blkdebug.) Loop thread only.
public final class DebugDriver: LayerDriver {
  private struct Entry {
    var rule: DebugRule
    var isActive = false
    /// An injection for one request has had it.
    var isSpent = false
  }

  private var entries: [Entry]
  /// The state that rules look at.
  public private(set) var state = 1

  /// Puts rules over `lower`, which belongs to the new driver from here on.
  /// - Parameter loop: the loop that the backend on top runs on.
  public init(over lower: BlockDriver, rules: [DebugRule], loop: EventLoop) {
    entries = rules.map { Entry(rule: $0) }
    super.init(over: lower, loop: loop)
    happened(.none)
  }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: happened(.readAIO)
    case .write:
      happened(.writeAIO)
      happened(.pwritev)
    case .writeZeroes: happened(.pwritevZero)
    case .flush:
      happened(.flushToOS)
      happened(.flushToDisk)
    case .discard: break
    }
    guard let code = takeError(request) else { return lower.submit(request) }
    request.pointee.result = -code
    completeLater(request)
    done(request)
  }

  override func lowerCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    done(request)
    complete(request)
  }

  override func lowerCompletesLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    done(request)
    completeLater(request)
  }

  private func done(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.operation == .write || request.pointee.operation == .writeZeroes { happened(.pwritevDone) }
  }

  private func happened(_ event: DebugEvent) {
    var newState = state
    var hasInjection = false
    for index in entries.indices {
      let rule = entries[index].rule
      guard rule.event == event, rule.state == 0 || rule.state == state, !entries[index].isSpent else { continue }
      switch rule.action {
      case .setState(let next): newState = next
      case .injectError:
        if !hasInjection {
          hasInjection = true
          for other in entries.indices { entries[other].isActive = false }
        }
        entries[index].isActive = true
      }
    }
    state = newState
  }

  /// The error of the first active injection that is about the request.
  private func takeError(_ request: UnsafeMutablePointer<BlockRequest>) -> Int32? {
    for index in entries.indices where entries[index].isActive {
      guard case .injectError(let injection) = entries[index].rule.action, injection.matches(request) else { continue }
      if injection.code == 0 { return nil }
      if injection.once {
        entries[index].isActive = false
        entries[index].isSpent = true
      }
      return injection.code
    }
    return nil
  }
}

extension DebugRule.Injection {
  fileprivate func matches(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    guard operations.contains(FaultOperations(request.pointee.operation)) else { return false }
    guard let sector else { return true }
    let (offset, overflows) = sector.multipliedReportingOverflow(by: BlockBackend.sectorBytes)
    guard request.pointee.operation != .flush, !overflows, offset >= request.pointee.offset else { return false }
    return offset - request.pointee.offset < request.pointee.byteCount
  }
}
