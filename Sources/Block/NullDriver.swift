// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem

/// A disk without bytes: every request succeeds, and reads leave the guest's memory as it is or find zeroes. For measuring
/// the way there.
///
/// With a latency it plays a disk that takes that long for each request and any number of them at once.
public final class NullDriver: BlockDriver {
  private var bytes: UInt64
  private let latencyNs: UInt64
  private let readsZeroes: Bool
  // Neither of the two: one look on the way that is measured.
  private let isPlain: Bool
  // Requests whose time has not come, oldest first, linked by `next`; each holds its time in `io.offset`, which no
  // engine uses here.
  private var waiting = RequestQueue()
  private var timer: Timer?

  private final class Timer: DriverTimer {
    unowned(unsafe) let driver: NullDriver
    init(driver: NullDriver, loop: EventLoop) {
      self.driver = driver
      super.init(loop: loop)
    }
    override func fired() { driver.completeDue() }
  }

  /// Makes a disk of `byteCount` bytes.
  /// - Parameter latencyNs: requests complete in order, and no earlier than this many nanoseconds after they came; 0
  ///   for at the end of their batch.
  /// - Parameter readsZeroes: reads find zeroes; otherwise they leave the guest's memory as it is.
  public init(byteCount: UInt64, latencyNs: UInt64 = 0, readsZeroes: Bool = false) {
    self.readsZeroes = readsZeroes
    isPlain = latencyNs == 0 && !readsZeroes
    bytes = byteCount
    self.latencyNs = latencyNs
    super.init()
  }

  deinit { timer?.end() }

  public override var byteCount: UInt64 { bytes }
  public override var supportsDiscard: Bool { true }
  public override var supportsWriteZeroes: Bool { true }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.result = 0
    if isPlain { completeLater(request) } else { submitWithCare(request) }
  }

  @inline(never)
  private func submitWithCare(_ request: UnsafeMutablePointer<BlockRequest>) {
    if readsZeroes && request.pointee.operation == .read { clear(request) }
    if latencyNs != 0 { wait(request) } else { completeLater(request) }
  }

  public override func resize(to byteCount: UInt64) throws(SystemError) { bytes = byteCount }

  public override func detach() {
    timer?.end()
    timer = nil
  }

  private func clear(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard let iovecs = request.pointee.iovecs else { return }
    for index in 0..<Int(request.pointee.iovecCount) {
      if let base = iovecs[index].iov_base { memset(base, 0, iovecs[index].iov_len) }
    }
  }

  private func wait(_ request: UnsafeMutablePointer<BlockRequest>) {
    let due = HostClock.nanoseconds.addingReportingOverflow(latencyNs)
    request.pointee.io.offset = due.overflow ? .max : due.partialValue
    waiting.append(request)
    if waiting.count == 1 { arm() }
  }

  private func arm() {
    guard let first = waiting.first, let ownerReference else { return }
    let timer = self.timer ?? Timer(driver: self, loop: ownerReference._withUnsafeGuaranteedRef { $0.loop })
    self.timer = timer
    timer.armSoon(atNanoseconds: first.pointee.io.offset)
  }

  private func completeDue() {
    let now = HostClock.nanoseconds
    while let request = waiting.first, request.pointee.io.offset <= now {
      _ = waiting.takeFirst()
      completeLater(request)
    }
    arm()
  }
}
