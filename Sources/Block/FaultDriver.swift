// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem

/// A layer over another driver that makes requests fail, wait or hang by rules. For tests of guests and of the house.
///
/// Each rule counts the requests that match it; the first rule whose turn it is decides, and a request that none is
/// about goes through. Loop thread only; requests with a fault may allocate, others do not.
public final class FaultDriver: HoldingDriver {
  private let rules: [FaultRule]
  private var matchCounts: [UInt64]
  private var hanging: [UnsafeMutablePointer<BlockRequest>] = []
  private var delayed: [(due: UInt64, request: UnsafeMutablePointer<BlockRequest>)] = []
  private var shortened: [Shortened] = []

  /// A request of which the lower driver sees only the first part, and what it has to get back.
  private struct Shortened {
    let request: UnsafeMutablePointer<BlockRequest>
    let byteCount: UInt64
    let iovecCount: Int32
    let lastIovecBytes: Int
  }

  /// Puts rules over `lower`, which belongs to the new driver from here on.
  /// - Parameter loop: the loop that the backend on top runs on.
  public init(over lower: BlockDriver, rules: [FaultRule], loop: EventLoop) {
    self.rules = rules
    matchCounts = Array(repeating: 0, count: rules.count)
    super.init(over: lower, loop: loop)
  }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard let action = takeAction(request) else { return lower.submit(request) }
    switch action {
    case .error(let code): answer(request, -code)
    case .delay(let ns): delay(request, ns)
    case .short(let bytes): shorten(request, bytes)
    case .hang:
      // Someone waits for the disk to be idle: nothing may hang now.
      if isDraining { lower.submit(request) } else { hanging.append(request) }
    }
  }

  override func lowerCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    if !shortened.isEmpty { restore(request) }
    complete(request)
  }

  override func lowerCompletesLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    if !shortened.isEmpty { restore(request) }
    completeLater(request)
  }

  /// Counts the request with every rule that it matches.
  private func takeAction(_ request: UnsafeMutablePointer<BlockRequest>) -> FaultRule.Action? {
    var action: FaultRule.Action?
    for index in rules.indices where rules[index].matches(request) {
      matchCounts[index] += 1
      if action == nil && rules[index].occurrence.includes(matchCounts[index]) { action = rules[index].action }
    }
    return action
  }

  private func answer(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    completeLater(request)
  }

  // MARK: Hanging

  /// Requests that hang now.
  public var hangingCount: Int { hanging.count }

  /// Lets the requests that hang go on, in the order in which they came.
  public override func release() {
    let all = hanging
    hanging = []
    all.forEach { lower.submit($0) }
  }

  // MARK: Delays

  private func delay(_ request: UnsafeMutablePointer<BlockRequest>, _ ns: UInt64) {
    let due = HostClock.nanoseconds.addingReportingOverflow(ns)
    delayed.append((due.overflow ? .max : due.partialValue, request))
    arm()
  }

  private func arm() {
    if let due = delayed.map(\.due).min() { wake(atNanoseconds: due) }
  }

  override func timeCame() {
    let now = HostClock.nanoseconds
    let due = delayed.filter { $0.due <= now }.sorted { $0.due < $1.due }
    delayed.removeAll { $0.due <= now }
    due.forEach { lower.submit($0.request) }
    arm()
  }

  // MARK: Short transfers

  private func shorten(_ request: UnsafeMutablePointer<BlockRequest>, _ bytes: UInt64) {
    let count = bytes / BlockBackend.sectorBytes * BlockBackend.sectorBytes
    if request.pointee.operation == .flush || count == 0 { return answer(request, -EIO) }
    if count >= request.pointee.byteCount { return lower.submit(request) }
    var entries: Int32 = 0
    var lastBytes = 0
    if !request.pointee.operation.isRange, let iovecs = request.pointee.iovecs {
      var left = Int(count)
      while left > 0 && entries < request.pointee.iovecCount {
        let entry = iovecs + Int(entries)
        lastBytes = entry.pointee.iov_len
        entry.pointee.iov_len = min(lastBytes, left)
        left -= entry.pointee.iov_len
        entries += 1
      }
    }
    shortened.append(
      Shortened(
        request: request, byteCount: request.pointee.byteCount, iovecCount: request.pointee.iovecCount,
        lastIovecBytes: lastBytes))
    request.pointee.byteCount = count
    request.pointee.iovecCount = entries
    lower.submit(request)
  }

  /// The first part is done: the request is its old self again, and failed.
  private func restore(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard let index = shortened.firstIndex(where: { $0.request == request }) else { return }
    let old = shortened.remove(at: index)
    if request.pointee.iovecCount > 0, let iovecs = request.pointee.iovecs {
      iovecs[Int(request.pointee.iovecCount) - 1].iov_len = old.lastIovecBytes
    }
    request.pointee.byteCount = old.byteCount
    request.pointee.iovecCount = old.iovecCount
    if request.pointee.result == 0 { request.pointee.result = -EIO }
  }
}
