// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Synchronization

/// Turning the write cache off while the disk is at work.
///
/// From then on whatever completes is durable, as the guest expects: new writes are written through; writes that were
/// under way complete only when a flush after them is done; and what completed before is flushed at once, unasked.
extension BlockBackend {
  /// Whether writes may be volatile until a flush; while it is false, each write is durable when it completes. Any
  /// thread.
  ///
  /// Where it is turned off, a flush of all that was written before is on its way when the next request is served.
  public var writeCacheEnabled: Bool {
    get { writeCache.load(ordering: .relaxed) }
    set {
      let old = writeCache.exchange(newValue, ordering: .sequentiallyConsistent)
      guard old && !newValue && cache != .unsafe else { return }
      // Before the message: whoever finds the backend moving leaves it to `settleHere`, which looks after it has
      // arrived. Both take the lock of `home` between their store and their load.
      flushIsDue.store(true, ordering: .sequentiallyConsistent)
      postFlush()
    }
  }

  /// What waits for flushes that no client asked for. Loop thread.
  struct Settling {
    /// The request that flushes, one at a time; nil before the backend is complete.
    var flush: InternalFlush?
    var isFlushing = false
    /// The flush has failed and waits for `resume`.
    var isStopped = false
    /// Another flush has to follow the one under way.
    var isWantedAgain = false
    /// Requests that are done and wait for the flush under way, and for the next one.
    var flushing = RequestQueue()
    var waiting = RequestQueue()
    /// Changes of the disk that were completed when the last flush of this kind began.
    var changesSeen: UInt64 = 0
  }

  /// Sends word to the loop that the backend is on. Any thread.
  private func postFlush() {
    let handover = Handover(backend: self)
    home.withLock { home in
      if home.isMoving { return }
      let loop = home.loop
      loop.execute { handover.backend.flushPosted(on: loop) }
    }
  }

  /// The message may find that the backend has moved on.
  private func flushPosted(on loop: EventLoop) {
    let isHere = home.withLock { $0.loop === loop && !$0.isMoving }
    if isHere { flushIfDue() } else { postFlush() }
  }

  func flushIfDue() {
    guard flushIsDue.exchange(false, ordering: .sequentiallyConsistent) else { return }
    // A disk that nobody has changed since needs no flush.
    if changes != settling.changesSeen { flushUnasked() }
  }

  private var changes: UInt64 { counts.writes + counts.discards + counts.zeroes }

  /// Whether a request without error has to be flushed before it completes: a change that was under way when the write
  /// cache was turned off.
  func settles(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    guard request.pointee.operation == .write || request.pointee.operation.isRange, !request.pointee.forceUnitAccess,
      cache != .unsafe, !isReadOnly
    else { return false }
    // When it comes back from its flush, it is durable.
    request.pointee.forceUnitAccess = true
    settling.waiting.append(request)
    flushUnasked()
    return true
  }

  /// Flushes now, or once more when the flush under way is done.
  private func flushUnasked() {
    guard !settling.isFlushing else {
      settling.isWantedAgain = true
      return
    }
    guard let flush = settling.flush else { return }
    settling.isFlushing = true
    settling.isWantedAgain = false
    settling.flushing = settling.waiting.takeAll()
    settling.changesSeen = changes
    inFlight += 1
    flush.request.pointee.operation = .flush
    // Past the pause: what it makes durable is done already.
    driver.submit(flush.request)
  }

  func isInternal(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool { request == settling.flush?.request }

  fileprivate func flushedUnasked(_ result: Int32) {
    settling.isFlushing = false
    var done = settling.flushing.takeAll()
    while let request = done.takeFirst() {
      request.pointee.result = result
      // The flush has been through the error policy.
      request.pointee.isAnswered = result != 0
      completeLater(request)
    }
    if settling.isWantedAgain { flushUnasked() }
  }
}

/// A flush that the backend itself asks for.
final class InternalFlush: BlockClient {
  fileprivate let request = UnsafeMutablePointer<BlockRequest>.allocate(capacity: 1)
  private unowned(unsafe) let backend: BlockBackend

  init(backend: BlockBackend) {
    self.backend = backend
    super.init()
    request.initialize(to: BlockRequest())
    request.pointee.client = Unmanaged.passUnretained(self)
  }

  deinit { request.deallocate() }

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
    backend.flushedUnasked(request.pointee.result)
  }
}
