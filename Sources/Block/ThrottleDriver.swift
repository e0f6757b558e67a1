// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// A layer over another driver that lets so many requests and bytes through in a second.
///
/// Time is the host's, whatever the machine's clock does. Reads wait for reads, and writes and write-zeroes requests for
/// each other, each in its order; flushes and discards never wait. Whoever waits for the disk to be idle waits for the disk
/// and not for the time: what is held goes on then. Loop thread only; allocates nothing for a request.
public final class ThrottleDriver: HoldingDriver {
  /// The buckets that a request of one direction goes by, and those that wait for them.
  private struct Direction {
    var bytes: LeakyBucket
    var requests: LeakyBucket
    var waiting = RequestQueue()
  }

  /// Most that is let through.
  public private(set) var limits: ThrottleLimits
  // No request is held back at all.
  private var isOpen: Bool
  private var totalBytes: LeakyBucket
  private var totalRequests: LeakyBucket
  private var reads: Direction
  private var writes: Direction

  /// Puts limits over `lower`, which belongs to the new driver from here on.
  /// - Parameters:
  ///   - loop: the loop that the backend on top runs on.
  ///   - drainDepth: calls of `drainBegins` that `lower` has had without their `drainEnds`.
  public init(over lower: BlockDriver, limits: ThrottleLimits, loop: EventLoop, drainDepth: Int = 0) {
    self.limits = limits
    isOpen = limits.isEmpty
    totalBytes = LeakyBucket(limits.bytes.total)
    totalRequests = LeakyBucket(limits.requests.total)
    reads = Direction(bytes: LeakyBucket(limits.bytes.read), requests: LeakyBucket(limits.requests.read))
    writes = Direction(bytes: LeakyBucket(limits.bytes.write), requests: LeakyBucket(limits.requests.write))
    super.init(over: lower, loop: loop, drainDepth: drainDepth)
  }

  /// Puts other limits in the place of those that there are. What waits goes on by the new ones, whose buckets are empty.
  func setLimits(_ limits: ThrottleLimits) {
    self.limits = limits
    isOpen = limits.isEmpty
    totalBytes = LeakyBucket(limits.bytes.total)
    totalRequests = LeakyBucket(limits.requests.total)
    (reads.bytes, reads.requests) = (LeakyBucket(limits.bytes.read), LeakyBucket(limits.requests.read))
    (writes.bytes, writes.requests) = (LeakyBucket(limits.bytes.write), LeakyBucket(limits.requests.write))
    submitDue()
  }

  /// Requests that wait for their time.
  public var waitingCount: Int { reads.waiting.count + writes.waiting.count }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: take(request, \.reads)
    case .write, .writeZeroes: take(request, \.writes)
    case .flush, .discard: lower.submit(request)
    }
  }

  private func take(
    _ request: UnsafeMutablePointer<BlockRequest>, _ direction: ReferenceWritableKeyPath<ThrottleDriver, Direction>
  ) {
    if isDraining || isOpen { return lower.submit(request) }
    self[keyPath: direction].waiting.append(request)
    if self[keyPath: direction].waiting.count == 1 { submitDue() }
  }

  override func timeCame() { submitDue() }

  /// Submits what may go on now, and wakes for the next one.
  private func submitDue() {
    let now = HostClock.nanoseconds
    let waits = [submitDue(\.reads, at: now), submitDue(\.writes, at: now)]
    guard let wait = waits.compactMap({ $0 }).min() else { return wakeNoMore() }
    wake(atNanoseconds: now.addingReportingOverflow(wait).partialValue)
  }

  /// - Returns: how long the first request that is left has to wait; nil where none is left.
  private func submitDue(_ direction: ReferenceWritableKeyPath<ThrottleDriver, Direction>, at now: UInt64) -> UInt64? {
    while let request = self[keyPath: direction].waiting.first {
      let wait = max(
        totalBytes.wait(at: now), totalRequests.wait(at: now), self[keyPath: direction].bytes.wait(at: now),
        self[keyPath: direction].requests.wait(at: now))
      if wait > 0 { return wait }
      let requests = limits.count(ofBytes: request.pointee.byteCount)
      totalBytes.pour(request.pointee.byteCount)
      totalRequests.pour(requests)
      self[keyPath: direction].bytes.pour(request.pointee.byteCount)
      self[keyPath: direction].requests.pour(requests)
      _ = self[keyPath: direction].waiting.takeFirst()
      lower.submit(request)
    }
    return nil
  }

  /// What waits goes on now.
  override func release() {
    wakeNoMore()
    var all = reads.waiting.takeAll()
    all.append(all: writes.waiting.takeAll())
    while let request = all.takeFirst() { lower.submit(request) }
  }
}
