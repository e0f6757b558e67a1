// SPDX-License-Identifier: Apache-2.0
// Block: the request, the backend that a device talks to, and the drivers behind it. It knows nothing of devices or
// vCPUs.
import EventLoop
import Glibc
import Synchronization
import Tracing

/// A disk as devices see it: checks, write-cache policy, statistics and draining, in front of one driver.
///
/// Belongs to its loop's thread, where nothing else is said. A request that was submitted is completed exactly once
/// through its client, never from inside `submit`. `move` takes it to another loop.
public final class BlockBackend: BlockDriverOwner {
  /// What takes requests: where the bytes are, behind the limits where there have been any. The backend owns it.
  public var driver: BlockDriver { throttle ?? bottom }
  /// Where the bytes are.
  let bottom: BlockDriver
  /// The limits; nil while there have been none.
  var throttle: ThrottleDriver?
  // `driver`; unmanaged for the hot path, which counts no references.
  var top: Unmanaged<BlockDriver>
  /// Usable length in bytes: whole sectors of 512. The tail of an image of another length cannot be reached. `resize`
  /// changes it. Any thread.
  public var byteCount: UInt64 { length.load(ordering: .relaxed) }
  // Written on the loop, read by the threads of vCPUs as well, which have nothing else to see of a change.
  let length: Atomic<UInt64>
  /// Writes are refused.
  public let isReadOnly: Bool
  /// How host caches are used.
  public let cache: CacheMode
  /// Discards are answered without the disk, and zeroes are never unmapped.
  let ignoresDiscard: Bool
  /// What the guest reads as serial number.
  public let serial: String
  /// Requests submitted and not completed, kept ones included.
  public internal(set) var inFlight = 0
  /// What has been done so far.
  public var statistics: BlockStatistics {
    var all = counts
    all.merged = driver.mergedRequestCount
    return all
  }
  var counts = BlockStatistics()
  /// What becomes of requests that fail.
  let readErrorPolicy: ErrorPolicy
  let writeErrorPolicy: ErrorPolicy
  /// Told, on the loop, that a request has failed under a policy that stops the machine: what it was and the errno
  /// value, positive. Once, until `resume` or `reportStopped`. While nobody listens, such errors are reported to the
  /// guest.
  public var onStop: ((BlockOperation, Int32) -> Void)?
  /// Told, on the loop, that the disk has another length now; for the device that the disk is in.
  public var onResize: (() -> Void)?
  /// Told, on the loop, of each request that the host failed: what it was, the errno value, positive, and what becomes of it.
  /// Where the machine stops, before `onStop`.
  public var onError: ((BlockOperation, Int32, ErrorAction) -> Void)?
  /// Requests that failed and wait for `resume`, in the order in which they failed.
  var stopped = RequestQueue()
  /// Requests that came while the backend was paused, in order.
  var held = RequestQueue()
  /// Calls of `drainBegan` without their `drainEnded`.
  var drainDepth = 0
  /// Calls of the driver's `drainBegins` without their `drainEnds`.
  var driverDrainDepth = 0
  /// Calls of `pause` without their `unpause`.
  var pauseDepth = 0
  // Written by a vCPU thread under the machine lock when a guest toggles its write cache, read by the loop.
  let writeCache: Atomic<Bool>
  /// The write cache was turned off, and what was volatile then has not been taken care of. Set by the thread that
  /// turned it off, taken by the loop.
  let flushIsDue = Atomic<Bool>(false)
  /// Where other threads find the loop.
  let home: Mutex<Home>
  /// Makes durable what was written before the write cache was turned off.
  var settling = Settling()
  // One list for each loop that the backend has been on: a round of a loop that it has left may still hold on to its
  // list.
  private var completionLists: [(loop: EventLoop, list: CompletionList)] = []
  // The list of the loop that it is on; unmanaged for the hot path, which counts no references.
  private var completions: Unmanaged<CompletionList>?

  /// Bytes of a sector, the unit of disk addresses.
  public static let sectorBytes: UInt64 = 512

  /// Puts a backend in front of `driver`.
  public init(driver: BlockDriver, loop: EventLoop, configuration: BlockConfiguration) {
    bottom = driver
    top = Unmanaged.passUnretained(driver)
    length = Atomic(driver.byteCount - driver.byteCount % Self.sectorBytes)
    isReadOnly = configuration.isReadOnly
    cache = configuration.cache
    ignoresDiscard = configuration.ignoresDiscard
    serial = configuration.serial
    readErrorPolicy = configuration.readErrorPolicy
    writeErrorPolicy = configuration.writeErrorPolicy
    writeCache = Atomic(configuration.cache.hasWriteCache)
    home = Mutex(Home(loop: loop))
    super.init(loop: loop)
    driver.ownerReference = Unmanaged.passUnretained(self)
    settling.flush = InternalFlush(backend: self)
    completeOn(loop)
    if !configuration.limits.isEmpty { putLimits(configuration.limits) }
  }

  /// Completions arrive on `loop` from here on.
  func completeOn(_ loop: EventLoop) {
    self.loop = loop
    let list: CompletionList
    if let known = completionLists.first(where: { $0.loop === loop }) {
      list = known.list
    } else {
      list = CompletionList(backend: self, loop: loop)
      completionLists.append((loop, list))
    }
    completions = Unmanaged.passUnretained(list)
  }

  /// Smallest unit that the guest should address, bytes.
  public var logicalBlockBytes: Int { driver.logicalBlockBytes }
  /// Unit that the disk writes at its best, bytes.
  public var physicalBlockBytes: Int { driver.physicalBlockBytes }
  /// Whether discard requests are served.
  public var supportsDiscard: Bool { driver.supportsDiscard }
  /// Whether write-zeroes requests are served.
  public var supportsWriteZeroes: Bool { driver.supportsWriteZeroes }
  /// Unit in which discarding frees anything, bytes.
  public var discardGranularityBytes: Int { max(driver.discardGranularityBytes, driver.logicalBlockBytes) }
  /// What `writeCacheEnabled` is until a guest changes it.
  public var writeCacheDefault: Bool { cache.hasWriteCache }

  // MARK: Requests. Loop thread.

  /// Takes a request. Its range has been checked by the device; a request that may not be is refused all the same.
  public func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight += 1
    Tracing.record(.request, request: request, value: request.pointee.traceSource)
    if pauseDepth > 0 { return hold(request) }
    accept(request)
  }

  @inline(never)
  private func hold(_ request: UnsafeMutablePointer<BlockRequest>) { held.append(request) }

  /// Checks a request and hands it to the driver.
  @inline(__always)
  func accept(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read:
      guard isInRange(request) else { return refuse(request, -EINVAL) }
    case .write:
      guard isInRange(request) else { return refuse(request, -EINVAL) }
      guard !isReadOnly else { return refuse(request, -EPERM) }
      if !writeCacheEnabled { request.pointee.forceUnitAccess = true }
    case .flush:
      if cache == .unsafe { return refuse(request, 0) }
    case .discard, .writeZeroes:
      guard isInRange(request) else { return refuse(request, -EINVAL) }
      guard !isReadOnly else { return refuse(request, -EPERM) }
      if ignoresDiscard {
        request.pointee.mayUnmap = false
        if request.pointee.operation == .discard { return refuse(request, 0) }
      }
      if !writeCacheEnabled { request.pointee.forceUnitAccess = true }
    }
    top._withUnsafeGuaranteedRef { $0.submit(request) }
  }

  @inline(__always)
  private func isInRange(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    let end = byteCount
    return request.pointee.offset <= end && request.pointee.byteCount <= end - request.pointee.offset
  }

  /// Answers without the driver, but still not from inside `submit`.
  @inline(never)
  private func refuse(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    request.pointee.isAnswered = result != 0
    completeLater(request)
  }

  public override func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    completions.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.append(request) }
  }

  public override func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.result != 0 || isVolatileChange(request) { return completedWithCare(request) }
    countSuccess(request)
    finish(request)
  }

  @inline(__always)
  private func finish(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight -= 1
    // A device sets the flag anew or leaves it to the write-cache policy.
    request.pointee.forceUnitAccess = false
    request.pointee.client.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completed(request) }
  }

  /// Whether a request may have changed the disk without being durable, although the write cache is off (now).
  @inline(__always)
  private func isVolatileChange(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    request.pointee.operation != .read && !request.pointee.forceUnitAccess && !writeCacheEnabled
  }

  /// Completes a request, unless it failed and is tried again later, or is to be flushed first. Apart from the rest, which
  /// then saves no registers.
  @inline(never)
  private func completedWithCare(_ request: UnsafeMutablePointer<BlockRequest>) {
    let isKept = request.pointee.result != 0 ? keepsFailed(request) : settles(request)
    if isKept { return }
    if request.pointee.result == 0 { countSuccess(request) } else { counts.errors += 1 }
    finish(request)
  }

  @inline(__always)
  private func countSuccess(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read:
      counts.reads += 1
      counts.readBytes += request.pointee.byteCount
    case .write:
      counts.writes += 1
      counts.writtenBytes += request.pointee.byteCount
    case .flush: counts.flushes += 1
    case .discard: counts.discards += 1
    case .writeZeroes: counts.zeroes += 1
    }
  }
}
