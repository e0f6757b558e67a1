// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem

/// A layer over another driver that fails requests by QEMU's `blkdebug` rules, for test programs that bring such rules.
/// `FaultDriver` is our own, and can do more.
///
/// The driver has a state, 1 at first. At each event on a request's way the rules for that event and state act: injections
/// become the active ones, in place of those before, and fail or delay the requests that they match; the last rule that
/// sets a state sets it, when all have been looked at. A breakpoint holds the next request that comes to its event, once,
/// until it is told to go on. (Facts: QEMU, docs/devel/testing/blkdebug; qemu-io's break and resume.) Loop thread only.
public final class DebugDriver: HoldingDriver {
  private struct Entry {
    var rule: DebugRule
    var isActive = false
    /// An injection for one request has had it.
    var isSpent = false
  }

  /// A request at a breakpoint.
  private struct Waiting {
    let request: UnsafeMutablePointer<BlockRequest>
    let tag: String
    /// How many of the events on its way are behind it.
    let step: Int
  }

  /// A request whose time has not come, and what it fails with then; 0 for nothing.
  private struct Delayed {
    let request: UnsafeMutablePointer<BlockRequest>
    let due: UInt64
    let code: Int32
  }

  private var entries: [Entry]
  /// The state that rules look at.
  public private(set) var state = 1
  private var breakpoints: [(event: DebugEvent, tag: String)] = []
  private var waiting: [Waiting] = []
  private var watchers: [(tag: String, call: () -> Void)] = []
  private var delayed: [Delayed] = []

  /// Puts rules over `lower`, which belongs to the new driver from here on.
  /// - Parameter loop: the loop that the backend on top runs on.
  public init(over lower: BlockDriver, rules: [DebugRule], loop: EventLoop) {
    entries = rules.map { Entry(rule: $0) }
    super.init(over: lower, loop: loop)
    happened(.none)
  }

  // MARK: The way of a request

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) { goOn(request, from: 0) }

  /// Takes a request past the events that are left on its way to the disk.
  private func goOn(_ request: UnsafeMutablePointer<BlockRequest>, from step: Int) {
    let events = DebugEvent.way(of: request.pointee.operation)
    for index in step..<events.count {
      happened(events[index])
      // Someone waits for the disk to be idle: nothing may wait now.
      guard !isDraining, let place = breakpoints.firstIndex(where: { $0.event == events[index] }) else { continue }
      return hold(Waiting(request: request, tag: breakpoints.remove(at: place).tag, step: index + 1))
    }
    guard let injection = takeInjection(request) else { return lower.submit(request) }
    if injection.delayNs > 0 && !isDraining { return delay(request, injection) }
    act(injection.code, on: request)
  }

  private func act(_ code: Int32, on request: UnsafeMutablePointer<BlockRequest>) {
    if code == 0 { return lower.submit(request) }
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

  /// The first active injection that is about the request; nil where none is, or where it does nothing.
  private func takeInjection(_ request: UnsafeMutablePointer<BlockRequest>) -> DebugRule.Injection? {
    for index in entries.indices where entries[index].isActive {
      guard case .injectError(let injection) = entries[index].rule.action, injection.matches(request) else { continue }
      if injection.code == 0 && injection.delayNs == 0 { return nil }
      if injection.once {
        entries[index].isActive = false
        entries[index].isSpent = true
      }
      return injection
    }
    return nil
  }

  // MARK: Breakpoints

  /// Holds the next request that comes to `event`, under a name that later calls use.
  /// - Returns: false for an event at which no request can be held.
  public func setBreakpoint(at event: DebugEvent, tag: String) -> Bool {
    guard event.canHold else { return false }
    breakpoints.append((event, tag))
    return true
  }

  /// Lets the request go on that has been held longest under this name.
  /// - Returns: whether there is one.
  public func resume(tag: String) -> Bool {
    guard let index = waiting.firstIndex(where: { $0.tag == tag }) else { return false }
    let held = waiting.remove(at: index)
    goOn(held.request, from: held.step)
    return true
  }

  /// Forgets every breakpoint of this name, and lets the requests go on that are held under it.
  /// - Returns: whether there was one of either.
  public func removeBreakpoints(tag: String) -> Bool {
    let count = breakpoints.count
    breakpoints.removeAll { $0.tag == tag }
    var isKnown = breakpoints.count < count
    while resume(tag: tag) { isKnown = true }
    return isKnown
  }

  /// Calls `call` once a request is held under this name: now, or when it comes. Submitting threads call it.
  public func whenHeld(tag: String, _ call: @escaping () -> Void) {
    if waiting.contains(where: { $0.tag == tag }) { call() } else { watchers.append((tag, call)) }
  }

  private func hold(_ held: Waiting) {
    waiting.append(held)
    let told = watchers.filter { $0.tag == held.tag }
    watchers.removeAll { $0.tag == held.tag }
    for watcher in told { watcher.call() }
  }

  /// What is held has not reached the disk, and never does.
  public override func clientGaveUp() {
    let all = waiting
    waiting = []
    for held in all {
      held.request.pointee.result = -ECANCELED
      held.request.pointee.isAnswered = true
      completeLater(held.request)
    }
    super.clientGaveUp()
  }

  // MARK: Delays

  private func delay(_ request: UnsafeMutablePointer<BlockRequest>, _ injection: DebugRule.Injection) {
    let due = HostClock.nanoseconds.addingReportingOverflow(injection.delayNs)
    delayed.append(Delayed(request: request, due: due.overflow ? .max : due.partialValue, code: injection.code))
    arm()
  }

  private func arm() {
    if let due = delayed.map(\.due).min() { wake(atNanoseconds: due) }
  }

  override func timeCame() {
    let now = HostClock.nanoseconds
    let due = delayed.filter { $0.due <= now }.sorted { $0.due < $1.due }
    delayed.removeAll { $0.due <= now }
    due.forEach { act($0.code, on: $0.request) }
    arm()
  }

  /// What waits for time or for a command goes on.
  override func release() {
    let (held, late) = (waiting, delayed)
    waiting = []
    delayed = []
    held.forEach { goOn($0.request, from: $0.step) }
    late.forEach { act($0.code, on: $0.request) }
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

extension BlockBackend {
  /// The driver that follows `blkdebug` rules, where there is one among those on the way to the disk. Loop thread.
  public var debugDriver: DebugDriver? {
    var next: BlockDriver = driver
    while true {
      if let found = next as? DebugDriver { return found }
      guard let layer = next as? LayerDriver else { return nil }
      next = layer.lower
    }
  }
}
