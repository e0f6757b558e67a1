// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem
import Synchronization

/// Watches descriptors by epoll(7), level-triggered: the cost of a wait does not grow with the number of descriptors.
///
/// The kernel keeps a registration until the last copy of the descriptor is closed, so a handler that another thread
/// removes is taken out at once, by that thread: its owner may close the descriptor right after, and copies of it may
/// live on. `lock` makes "what does the handler want" and "tell the kernel" one step on both sides; without it the loop
/// thread could register what has just been removed.
final class EpollMonitor: DescriptorMonitor {
  /// Events taken by one system call; more wait for the next.
  private static let eventsMax = 64

  private let epoll: OwnedDescriptor
  // Handlers that the kernel knows, by object, with what they are registered for.
  private let lock = Mutex<[ObjectIdentifier: UInt32]>([:])
  private let events = UnsafeMutablePointer<clinux_epoll_event>.allocate(capacity: EpollMonitor.eventsMax)
  private var readyCount: Int32 = 0

  override init(list: WatchList) { fatalError("an epoll monitor is made by init(watching:)") }

  /// - Throws: what epoll_create1 said.
  init(watching list: WatchList) throws(SystemError) {
    epoll = OwnedDescriptor(taking: try checked("epoll_create1") { clinux_epoll_create() })
    super.init(list: list)
  }

  deinit { events.deallocate() }

  override var kind: LoopMonitor { .epoll }

  override func update(_ handler: DescriptorHandler) -> UInt32? {
    // Tokens of an earlier arming are not heard of any more.
    list.renew(handler)
    let token = list.token(of: handler)
    return lock.withLock { registered in
      let wanted = handler.wanted.load(ordering: .acquiring)
      let key = ObjectIdentifier(handler)
      let isKnown = registered[key] != nil
      if wanted == 0 {
        if isKnown { control(clinux_EPOLL_CTL_DEL, handler, 0, token) }
        registered[key] = nil
        return 0
      }
      let result = control(isKnown ? clinux_EPOLL_CTL_MOD : clinux_EPOLL_CTL_ADD, handler, wanted, token)
      if result < 0 { return nil }
      registered[key] = wanted
      return wanted
    }
  }

  override func dropEarly(_ handler: DescriptorHandler) {
    lock.withLock { registered in
      guard handler.wanted.load(ordering: .acquiring) == 0 else { return }
      if registered.removeValue(forKey: ObjectIdentifier(handler)) != nil {
        control(clinux_EPOLL_CTL_DEL, handler, 0, 0)
      }
    }
  }

  @discardableResult
  private func control(_ operation: Int32, _ handler: DescriptorHandler, _ wanted: UInt32, _ token: UInt64) -> Int32 {
    // epoll's EPOLLIN, EPOLLOUT and so on have the values of poll's.
    let events = UInt32(UInt16(bitPattern: DescriptorHandler.events(of: wanted)))
    return clinux_epoll_ctl(epoll.number, operation, handler.descriptor, events, token)
  }

  override func wait(timeoutNs: UInt64?) {
    readyCount = clinux_epoll_wait(epoll.number, events, Int32(Self.eventsMax), timeoutNs ?? .max)
    precondition(readyCount >= 0 || readyCount == -EINTR, "epoll_wait failed: errno \(-readyCount)")
  }

  override func collect() {
    for index in 0..<Int(max(readyCount, 0)) {
      if let handler = list.handler(of: events[index].token) { list.markReady(handler) }
    }
    readyCount = 0
  }

  override func hostDescriptors() -> [pollfd] { [pollfd(fd: epoll.number, events: Int16(POLLIN), revents: 0)] }
  override func takeHostResult(_ descriptors: [pollfd]) { wait(timeoutNs: 0) }

  override func retire() {
    lock.withLock { registered in
      list.forEach { handler in
        if registered.removeValue(forKey: ObjectIdentifier(handler)) != nil {
          control(clinux_EPOLL_CTL_DEL, handler, 0, 0)
        }
      }
    }
  }
}
