// SPDX-License-Identifier: Apache-2.0
import CURing
import Glibc
import HostSystem

/// Watches descriptors by poll entries on the loop's own ring, so that one system call submits the loop's I/O, arms its
/// descriptors and waits for both (origin: QEMU's io_uring descriptor monitor).
///
/// An entry is one-shot, and armed again before the next wait after its event. Multishot entries would save that, but they
/// report only that something came, not that something is there: a handler that leaves a part of its input for the next
/// round, as handlers may with the other monitors, would never be called for the rest.
///
/// Removal has two phases. The handler goes at once, and with it the token that its entry was queued with; a POLL_REMOVE is
/// queued. The entry itself completes when the kernel says so, before or after, and its token then names nobody. So
/// additions, removals and events may cross in any order.
final class RingMonitor: DescriptorMonitor {
  /// Tokens of entries whose completion means nothing: POLL_REMOVE, TIMEOUT.
  private static let nobody: UInt64 = 1 << LoopRing.tokenBits - 1

  private let ring: LoopRing
  private let client = Client()
  private var clientNumber: UInt64 = 0
  // Tokens of handlers to be armed, and of entries to be removed, before the next wait.
  private var toArm: [UInt64] = []
  private var toRemove: [UInt64] = []
  // Second step of a wait: handed over, and what the kernel said.
  private var toSubmit: UInt32 = 0
  private var result: Int32?
  // Of these, handed over before the call that waits.
  private var handedOver: UInt32 = 0
  // For kernels whose wait takes no time: read by the kernel when the entry is submitted.
  private let time = UnsafeMutablePointer<__kernel_timespec>.allocate(capacity: 1)
  private var hasRefused = false

  private final class Client: RingClient {
    unowned(unsafe) var monitor: RingMonitor!
    override func completed(token: UInt64, result: Int32) { monitor.completed(token: token, result: result) }
  }

  init(ring: LoopRing, list: WatchList) {
    self.ring = ring
    super.init(list: list)
    client.monitor = self
    clientNumber = ring.register(client)
  }

  deinit { time.deallocate() }

  override var kind: LoopMonitor { .ioUring }
  override var hasFailed: Bool { hasRefused }

  override func update(_ handler: DescriptorHandler) -> UInt32? {
    let wanted = handler.wanted.load(ordering: .acquiring)
    if handler.armed != 0 { toRemove.append(list.token(of: handler)) }
    list.renew(handler)
    handler.hasPollEntry = false
    if wanted != 0 { toArm.append(list.token(of: handler)) }
    return wanted
  }

  override var handsOver: Bool { toSubmit > ring.submitBatchMax }

  override func prepare(timeoutNs: UInt64?) {
    if !toRemove.isEmpty { removeEntries() }
    if !toArm.isEmpty { armHandlers() }
    if let timeoutNs, timeoutNs > 0, !ring.port.takesTimeout { queueTimeout(timeoutNs) }
    toSubmit = ring.prepareToWait()
  }

  private func removeEntries() {
    var rest: [UInt64] = []
    for token in toRemove {
      guard let entry = ring.tryTakeEntry() else {
        rest.append(token)
        continue
      }
      io_uring_prep_poll_remove(entry, clientNumber << LoopRing.tokenBits | token)
      ring.enqueueForWait(entry, client: clientNumber, token: Self.nobody)
    }
    toRemove = rest
  }

  private func armHandlers() {
    var armed = 0
    for token in toArm {
      // A token that was renewed is of a handler that has gone or was changed since.
      if let handler = list.handler(of: token), !handler.hasPollEntry {
        guard let entry = ring.tryTakeEntry() else { break }
        let events = UInt32(UInt16(bitPattern: DescriptorHandler.events(of: handler.armed)))
        io_uring_prep_poll_add(entry, handler.descriptor, events)
        ring.enqueueForWait(entry, client: clientNumber, token: token)
        handler.hasPollEntry = true
      }
      armed += 1
    }
    // Keeps its capacity: arming is on the hot path.
    toArm.removeSubrange(..<armed)
  }

  /// A TIMEOUT entry that any completion ends too, so that none is left over for the next wait.
  private func queueTimeout(_ timeoutNs: UInt64) {
    guard let entry = ring.tryTakeEntry() else { return }
    time.pointee.tv_sec = Int64(timeoutNs / 1_000_000_000)
    time.pointee.tv_nsec = Int64(timeoutNs % 1_000_000_000)
    io_uring_prep_timeout(entry, time, 1, 0)
    ring.enqueueForWait(entry, client: clientNumber, token: Self.nobody)
  }

  /// A wait that must not block needs no system call where nothing is to be handed over: completions are in memory.
  override func wait(timeoutNs: UInt64?) {
    if timeoutNs == 0 && toSubmit == 0 { return }
    // What a vCPU has queued comes as a whole; the disk should have its first request while the rest are handed over.
    while toSubmit - handedOver > ring.submitBatchMax {
      let answer = ring.port.enter(toSubmit: ring.submitBatchMax, waitFor: 0, timeoutNs: 0)
      guard answer == Int32(ring.submitBatchMax) else {
        result = answer
        return
      }
      handedOver += ring.submitBatchMax
    }
    // What found no room to be armed must not be slept on: the eventfd may be among it.
    let mayBlock = timeoutNs != 0 && toArm.isEmpty
    result = ring.port.enter(
      toSubmit: toSubmit - handedOver, waitFor: mayBlock ? 1 : 0, timeoutNs: mayBlock ? timeoutNs : 0)
  }

  override func collect() {
    if let result { ring.waited(result, toSubmit: toSubmit, handedOver: handedOver) }
    result = nil
    handedOver = 0
    _ = ring.reap()
  }

  private func completed(token: UInt64, result: Int32) {
    ring.monitorEntries -= 1
    guard token != Self.nobody, let handler = list.handler(of: token) else { return }
    if result == -EINVAL || result == -EOPNOTSUPP || result == -EPERM {
      hasRefused = true
      return
    }
    handler.hasPollEntry = false
    // Other errors are the handler's to find out.
    if result == -ECANCELED { toArm.append(token) } else { list.markReady(handler) }
  }

  /// One-shot: armed again before the next wait. Not earlier, or what the handler is about to take would be reported twice.
  override func willCall(_ handler: DescriptorHandler) { toArm.append(list.token(of: handler)) }

  override func hostDescriptors() -> [pollfd] {
    // The host loop waits; what is queued must be on its way before.
    ring.submit()
    toSubmit = 0
    guard let descriptor = ring.descriptor else { return [] }
    return [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
  }

  override func retire() {
    list.forEach { handler in
      if handler.armed != 0 { toRemove.append(list.token(of: handler)) }
      list.renew(handler)
    }
    toArm = []
    removeEntries()
    ring.submit()
  }
}
