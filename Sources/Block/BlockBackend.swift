// SPDX-License-Identifier: Apache-2.0
// Block: the request, the backend that a device talks to, and the drivers behind it. It knows nothing of devices or vCPUs.
import EventLoop
import Glibc
import Synchronization

/// How host caches are used for a disk, with QEMU's names and meanings.
public enum CacheMode: String, CaseIterable, Sendable {
  /// O_DIRECT, and the guest sees a disk with a volatile write cache.
  case none
  /// The host's page cache, and a disk with a volatile write cache. The default.
  case writeback
  /// The host's page cache; every write is durable when it completes.
  case writethrough
  /// O_DIRECT; every write is durable when it completes.
  case directsync
  /// The host's page cache; flushes do nothing. Data is lost when the host fails.
  case unsafe

  /// Whether the host's page cache is bypassed.
  public var isDirect: Bool { self == .none || self == .directsync }
  /// Whether writes may be volatile until a flush.
  public var hasWriteCache: Bool { self != .writethrough && self != .directsync }
}

/// What a user says of a disk, beside where its bytes are.
public struct BlockConfiguration: Sendable {
  /// How host caches are used.
  public var cache = CacheMode.writeback
  /// The guest may only read.
  public var isReadOnly = false
  /// What the guest reads as serial number.
  public var serial = ""
  /// Requests of a batch that continue each other go to the host as one.
  public var merge = true

  /// A writable disk with the default cache mode and no serial number.
  public init() {}
}

/// Counts of a backend since it was made.
public struct BlockStatistics: Equatable, Sendable {
  /// Requests completed without error, by operation.
  public var reads: UInt64 = 0, writes: UInt64 = 0, flushes: UInt64 = 0
  /// Discard and write-zeroes requests completed without error; a discard that the host did not take counts too.
  public var discards: UInt64 = 0, zeroes: UInt64 = 0
  /// Bytes moved by reads and writes.
  public var readBytes: UInt64 = 0, writtenBytes: UInt64 = 0
  /// Requests completed with an error.
  public var errors: UInt64 = 0
  /// Requests that went to the host as a part of another one.
  public var merged: UInt64 = 0
}

/// A disk as devices see it: checks, write-cache policy, statistics and draining, in front of one driver.
///
/// Belongs to its loop's thread. A request that was submitted is completed exactly once through its client, never from
/// inside `submit`.
public final class BlockBackend: BlockDriverOwner {
  /// Where the bytes are; the backend owns it.
  public let driver: BlockDriver
  /// Usable length in bytes: whole sectors of 512. The tail of an image of another length cannot be reached.
  public let byteCount: UInt64
  /// Writes are refused.
  public let isReadOnly: Bool
  /// How host caches are used.
  public let cache: CacheMode
  /// What the guest reads as serial number.
  public let serial: String
  /// Requests submitted and not completed.
  public private(set) var inFlight = 0
  /// What has been done so far.
  public var statistics: BlockStatistics {
    var all = counts
    all.merged = driver.mergedRequestCount
    return all
  }
  private var counts = BlockStatistics()
  // Written by a vCPU thread under the machine lock when a guest toggles its write cache, read by the loop.
  private let writeCache: Atomic<Bool>
  // The same object twice: owned here, and unmanaged for the hot path, which counts no references.
  private var completions: CompletionList?
  private var completionsReference: Unmanaged<CompletionList>?

  /// Bytes of a sector, the unit of disk addresses.
  public static let sectorBytes: UInt64 = 512

  /// Puts a backend in front of `driver`.
  public init(driver: BlockDriver, loop: EventLoop, configuration: BlockConfiguration) {
    self.driver = driver
    byteCount = driver.byteCount - driver.byteCount % Self.sectorBytes
    isReadOnly = configuration.isReadOnly
    cache = configuration.cache
    serial = configuration.serial
    writeCache = Atomic(configuration.cache.hasWriteCache)
    super.init(loop: loop)
    driver.ownerReference = Unmanaged.passUnretained(self)
    let list = CompletionList(backend: self)
    completions = list
    completionsReference = Unmanaged.passUnretained(list)
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

  /// Whether writes may be volatile until a flush; while it is false, each write is durable when it completes. Any thread.
  public var writeCacheEnabled: Bool {
    get { writeCache.load(ordering: .relaxed) }
    set { writeCache.store(newValue, ordering: .relaxed) }
  }

  // MARK: Requests. Loop thread.

  /// Takes a request. Its range has been checked by the device; a request that may not be is refused all the same.
  public func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight += 1
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
      if !writeCacheEnabled { request.pointee.forceUnitAccess = true }
    }
    driver.submit(request)
  }

  @inline(__always)
  private func isInRange(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    request.pointee.offset <= byteCount && request.pointee.byteCount <= byteCount - request.pointee.offset
  }

  /// Answers without the driver, but still not from inside `submit`.
  @inline(never)
  private func refuse(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    completeLater(request)
  }

  public override func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    completionsReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.append(request) }
  }

  public override func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight -= 1
    count(request)
    // A device sets the flag anew or leaves it to the write-cache policy.
    request.pointee.forceUnitAccess = false
    request.pointee.client.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completed(request) }
  }

  @inline(__always)
  private func count(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.result != 0 {
      counts.errors += 1
      return
    }
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

  /// Runs the loop until nothing is in flight. Loop thread, in nested rounds; what clients submit meanwhile is waited for
  /// as well, so they are paused first.
  public func drain() {
    driver.drainBegins()
    while inFlight > 0 { loop.runOnce(mayBlock: true) }
    driver.drainEnds()
  }
}
