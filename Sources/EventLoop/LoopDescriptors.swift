// SPDX-License-Identifier: Apache-2.0
// The descriptors of a loop: adding, changing and removing handlers from any thread, the choice of the monitor, and the
// loop's ring.
import Glibc
import HostSystem

/// Takes the signal of other threads; what they queued is run by the round itself.
final class NotifierHandler: DescriptorHandler, @unchecked Sendable {
  private let notifier: LoopNotifier
  init(notifier: LoopNotifier) {
    self.notifier = notifier
    super.init(descriptor: notifier.event.number)
  }
  override func ready() { notifier.accept() }
}

/// Wakes a loop whose monitor does not sleep in the ring for completions of the ring.
final class RingHandler: DescriptorHandler, @unchecked Sendable {
  private unowned(unsafe) let ring: LoopRing
  init(ring: LoopRing, descriptor: Int32) {
    self.ring = ring
    super.init(descriptor: descriptor)
  }
  override func ready() { _ = ring.reap() }
}

extension EventLoop {
  // MARK: Handlers

  /// Watches a handler's descriptor. Any thread; the loop keeps the handler until it has seen its removal. Adding what is
  /// watched already changes nothing.
  public func add(_ handler: DescriptorHandler) { change(handler, events: handler.events) }

  /// Watches a handler's descriptor for other events than before (poll(2)'s POLLIN, POLLOUT; 0 for errors only). Any thread.
  public func change(_ handler: DescriptorHandler, events: Int16) {
    // Release: pairs with the loop thread's acquiring load, so that it sees the handler as it is now.
    handler.wanted.store(DescriptorHandler.isWanted | UInt32(UInt16(bitPattern: events)), ordering: .releasing)
    announceChange(handler)
  }

  /// Stops watching. The descriptor may be closed as soon as this returns.
  ///
  /// On the loop thread nothing of the handler is called after this returns, not even where it was ready in this round. On
  /// another thread a call that has begun may still be running; what is `execute`d after this runs after that call. Any
  /// thread; removing what is not watched does nothing.
  public func remove(_ handler: DescriptorHandler) {
    handler.wanted.store(0, ordering: .releasing)
    if !isOnLoop { epollMonitor?.dropEarly(handler) }
    announceChange(handler)
  }

  private func announceChange(_ handler: DescriptorHandler) {
    if isOnLoop {
      if handler.wanted.load(ordering: .relaxed) != handler.armed { apply(handler) }
      return
    }
    watchList.noteChange(handler)
    notifier.notify()
  }

  /// Brings the monitor in line with what other threads have asked for.
  func applyChanges() { watchList.takeChanges { apply($0) } }

  /// What is wanted now may be what was wanted before, and the descriptor another one meanwhile: so the monitor is told all
  /// the same.
  private func apply(_ handler: DescriptorHandler) {
    if handler.slot < 0 {
      if handler.wanted.load(ordering: .acquiring) == 0 { return }
      watchList.insert(handler)
    }
    guard let armed = monitor.update(handler) else {
      fallBack("\(monitor.kind.rawValue) cannot watch descriptor \(handler.descriptor)")
      return
    }
    handler.armed = armed
    if armed == 0 { watchList.remove(handler) }
  }

  /// Calls the handlers that are ready. One that is removed meanwhile is not called any more; a nested round takes over
  /// what is left.
  func dispatchReady() -> Bool {
    var progress = false
    while let handler = watchList.takeReady() {
      monitor.willCall(handler)
      // Acquire: another thread may have removed it, and the loop has not come to that.
      if handler.wanted.load(ordering: .acquiring) == 0 { continue }
      progress = true
      handler.ready()
    }
    if monitor.hasFailed { fallBack("\(monitor.kind.rawValue) refuses to watch a descriptor") }
    return progress
  }

  /// Calls `handler` whenever `descriptor` is readable; for descriptors off the hot path. Loop thread.
  public func addReader(_ descriptor: Int32, _ handler: @escaping () -> Void) {
    preconditionOnLoop()
    let reader = ReaderHandler(descriptor: descriptor, handler)
    readers[descriptor] = reader
    add(reader)
  }

  /// Ends `addReader`. Loop thread.
  public func removeReader(_ descriptor: Int32) {
    if let reader = readers.removeValue(forKey: descriptor) { remove(reader) }
  }

  // MARK: The monitor

  /// How the loop watches its descriptors now.
  public var monitorInUse: LoopMonitor { monitor.kind }

  /// `.auto` makes one too, for hosts where io_uring is forbidden.
  static func makeEpoll(_ choice: LoopMonitor, _ list: WatchList) throws(SystemError) -> EpollMonitor? {
    switch choice {
    case .poll, .ioUring: return nil
    case .epoll: return try EpollMonitor(watching: list)
    case .auto: return try? EpollMonitor(watching: list)
    }
  }

  /// Takes the ring as monitor. Before any handler was added.
  func useRing(isRequired: Bool, isHosted: Bool) throws(SystemError) {
    do throws(SystemError) {
      let setups = isHosted ? RingSetup.forOthers : RingSetup.forSleepersInTheRing
      let ring = makeRing(try KernelRing(entries: LoopRing.entryCount, attempts: setups))
      monitor = RingMonitor(ring: ring, list: watchList)
      ring.submitsWithWait = true
    } catch {
      if isRequired { throw error }
      fallbackReason = "io_uring: \(SystemError.text(of: error.code))"
    }
  }

  /// Goes on with ppoll, which can watch everything, whatever the kernel says of the monitor so far.
  func fallBack(_ reason: String) {
    precondition(monitor.kind != .poll, "ppoll is the last monitor")
    fallbackReason = reason
    monitor.retire()
    retiredMonitors.append(monitor)
    sharedRing?.submitsWithWait = false
    monitor = PollMonitor(list: watchList)
    watchList.forEach { handler in
      watchList.renew(handler)
      handler.armed = monitor.update(handler) ?? 0
    }
    if let sharedRing { watch(sharedRing) }
    // Those that are wanted no more were only waiting for their turn.
    var gone: [DescriptorHandler] = []
    watchList.forEach { if $0.armed == 0 { gone.append($0) } }
    gone.forEach(watchList.remove)
  }

  // MARK: The ring

  /// The loop's ring, made when it is first asked for. Loop thread, or before the loop runs.
  public func ring() throws(SystemError) -> LoopRing {
    if let sharedRing { return sharedRing }
    let setups = submission == .vcpu ? RingSetup.forAnyThread : RingSetup.forOthers
    return install(try KernelRing(entries: LoopRing.entryCount, attempts: setups))
  }

  /// Gives the loop a ring whose kernel is `port`; for tests that play the kernel. Before anything asked for the ring.
  public func install(_ port: RingPort) -> LoopRing {
    let ring = makeRing(port)
    watch(ring)
    return ring
  }

  /// Gives the loop a ring whose kernel is `port`, and sleeps in it; for tests that play the kernel.
  func installAsMonitor(_ port: RingPort) -> LoopRing {
    let ring = makeRing(port)
    let handlers = watchList
    monitor.retire()
    monitor = RingMonitor(ring: ring, list: handlers)
    ring.submitsWithWait = true
    handlers.forEach { handler in
      handler.armed = 0
      handler.armed = monitor.update(handler) ?? 0
    }
    return ring
  }

  private func makeRing(_ port: RingPort) -> LoopRing {
    precondition(sharedRing == nil, "the loop has a ring already")
    let ring = LoopRing(port: port, loop: self)
    sharedRing = ring
    return ring
  }

  private func watch(_ ring: LoopRing) {
    guard ringHandler == nil, let descriptor = ring.descriptor else { return }
    let handler = RingHandler(ring: ring, descriptor: descriptor)
    ringHandler = handler
    add(handler)
  }
}
