// SPDX-License-Identifier: Apache-2.0
import CLinux
import CURing
import Glibc
import HostSystem
import Synchronization

/// An event loop.
public final class EventLoop: @unchecked Sendable {
  public let name: String
  public var pollNsMax: UInt64 = 0
  private let event: EventDescriptor
  private let pending = Atomic<UInt>(0)
  private let stopping = Atomic<Bool>(false)
  private let notifyMe = Atomic<Int>(0)
  private let notified = Atomic<Bool>(false)
  private let closures = Mutex<[@Sendable () -> Void]>([])
  private var closureRunner: ClosureRunner!
  private var handlers: [DescriptorHandler] = []
  private var readers: [Int32: ReaderHandler] = [:]
  private var fds: [pollfd] = []
  private var beforeSleep: () -> Void = {}
  private var afterSleep: () -> Void = {}
  private var depth = 0
  private var deferred: [Unmanaged<DeferredCall>] = []
  var ringStorage: LoopRing?

  private final class ClosureRunner: BottomHalf, @unchecked Sendable {
    override func run() {
      let work = loop.closures.withLock { q in
        let a = q
        q = []
        return a
      }
      for c in work { c() }
    }
  }
  public init(name: String) throws(SystemError) {
    self.name = name
    event = try EventDescriptor()
    closureRunner = ClosureRunner(loop: self)
  }
  public func run() { while !stopping.exchange(false, ordering: .acquiringAndReleasing) { runOnce(mayBlock: true) } }
  public func stop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    notify()
  }
  public func execute(_ work: @escaping @Sendable () -> Void) {
    closures.withLock { $0.append(work) }
    schedule(closureRunner)
  }
  public var isOnLoop: Bool { true }
  public func preconditionOnLoop() {}
  public func setSleepHooks(before: @escaping () -> Void, after: @escaping () -> Void) {
    beforeSleep = before
    afterSleep = after
  }
  private var hasPending: Bool {
    pending.load(ordering: .sequentiallyConsistent) != 0 || stopping.load(ordering: .sequentiallyConsistent)
  }
  @discardableResult public func runOnce(mayBlock: Bool) -> Bool {
    beginBatch()
    var progress = runPending()
    if ringStorage?.reap() == true { progress = true }
    endBatch()
    if progress { return true }
    if mayBlock && pollNsMax > 0 {
      let end = HostClock.nanoseconds &+ pollNsMax
      for h in handlers { h.pollBegin() }
      var found = false
      repeat {
        beginBatch()
        for h in handlers where h.poll() { found = true }
        if ringStorage?.reap() == true { found = true }
        endBatch()
        if hasPending { found = true }
      } while !found && HostClock.nanoseconds < end
      for h in handlers where h.pollEnd() {
        _ = h.poll()
        found = true
      }
      if found { return true }
    }
    notifyMe.add(1, ordering: .sequentiallyConsistent)
    var block = mayBlock
    if hasPending || ringStorage?.hasCompletions == true { block = false }
    var zero = timespec(tv_sec: 0, tv_nsec: 0)
    fds.removeAll(keepingCapacity: true)
    fds.append(pollfd(fd: event.number, events: Int16(POLLIN), revents: 0))
    for h in handlers { fds.append(pollfd(fd: h.descriptor, events: h.events, revents: 0)) }
    if let r = ringStorage { fds.append(pollfd(fd: r.descriptor, events: Int16(POLLIN), revents: 0)) }
    if block {
      beforeSleep()
      _ = clinux_ppoll(&fds, UInt(fds.count), nil, nil)
      afterSleep()
    } else {
      _ = clinux_ppoll(&fds, UInt(fds.count), &zero, nil)
    }
    notifyMe.subtract(1, ordering: .sequentiallyConsistent)
    if fds[0].revents != 0 { event.consume() }
    notified.store(false, ordering: .sequentiallyConsistent)
    beginBatch()
    for (i, h) in handlers.enumerated() where fds[i + 1].revents != 0 {
      h.ready()
      progress = true
    }
    if ringStorage?.reap() == true { progress = true }
    progress = runPending() || progress
    endBatch()
    return progress
  }
  func notify() {
    clinux_fence_full()
    if notifyMe.load(ordering: .sequentiallyConsistent) != 0 {
      if !notified.exchange(true, ordering: .sequentiallyConsistent) { event.signal() }
    }
  }
  public func add(_ handler: DescriptorHandler) { handlers.append(handler) }
  public func remove(_ handler: DescriptorHandler) { handlers.removeAll { $0 === handler } }
  public func addReader(_ descriptor: Int32, _ handler: @escaping () -> Void) {
    let h = ReaderHandler(loop: self, descriptor: descriptor, handler)
    readers[descriptor] = h
    add(h)
  }
  public func removeReader(_ descriptor: Int32) { if let h = readers.removeValue(forKey: descriptor) { remove(h) } }
  public func beginBatch() { depth += 1 }
  public func endBatch() {
    if depth == 1 {
      var i = 0
      while i < deferred.count {
        let c = deferred[i]
        c._withUnsafeGuaranteedRef {
          $0.isQueued = false
          $0.run()
        }
        i += 1
      }
      deferred.removeAll(keepingCapacity: true)
    }
    depth -= 1
  }
  public func deferToBatchEnd(_ call: DeferredCall) {
    if depth == 0 {
      call.run()
      return
    }
    if call.isQueued { return }
    call.isQueued = true
    deferred.append(Unmanaged.passUnretained(call))
  }
  func schedule(_ work: BottomHalf) {
    if work.isScheduled.exchange(true, ordering: .acquiringAndReleasing) { return }
    let pointer = UInt(bitPattern: Unmanaged.passUnretained(work).toOpaque())
    var head = pending.load(ordering: .relaxed)
    while true {
      work.nextPending = head
      let (done, now) = pending.compareExchange(expected: head, desired: pointer, ordering: .sequentiallyConsistent)
      if done { break }
      head = now
    }
    notify()
  }
  private func runPending() -> Bool {
    var list = pending.exchange(0, ordering: .acquiringAndReleasing)
    if list == 0 { return false }
    var ordered: [BottomHalf] = []
    while let pointer = UnsafeRawPointer(bitPattern: list) {
      let work = Unmanaged<BottomHalf>.fromOpaque(pointer).takeUnretainedValue()
      list = work.nextPending
      ordered.append(work)
    }
    for work in ordered.reversed() {
      work.isScheduled.store(false, ordering: .sequentiallyConsistent)
      work.run()
    }
    return true
  }
}
open class DescriptorHandler {
  public let descriptor: Int32
  public let events: Int16
  public init(loop: EventLoop, descriptor: Int32, events: Int16) {
    self.descriptor = descriptor
    self.events = events
  }
  open func ready() {}
  open func poll() -> Bool { false }
  open func pollBegin() {}
  open func pollEnd() -> Bool { false }
}
final class ReaderHandler: DescriptorHandler {
  let body: () -> Void
  init(loop: EventLoop, descriptor: Int32, _ body: @escaping () -> Void) {
    self.body = body
    super.init(loop: loop, descriptor: descriptor, events: Int16(POLLIN))
  }
  override func ready() { body() }
}
open class DeferredCall: @unchecked Sendable {
  public unowned(unsafe) let loop: EventLoop
  var isQueued = false
  public init(loop: EventLoop) { self.loop = loop }
  open func run() {}
}
