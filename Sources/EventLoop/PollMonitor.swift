// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Watches descriptors by ppoll(2): works everywhere and for every kind of descriptor.
///
/// The array that the kernel reads is made anew only when handlers come or go, so a round costs one system call and no
/// allocation. ppoll looks at every descriptor each time.
final class PollMonitor: DescriptorMonitor {
  private var descriptors: [pollfd] = []
  private var tokens: [UInt64] = []
  private var isStale = true
  private var readyCount: Int32 = 0

  override var kind: LoopMonitor { .poll }

  override func update(_ handler: DescriptorHandler) -> UInt32? {
    isStale = true
    return handler.wanted.load(ordering: .acquiring)
  }

  override func prepare(timeoutNs: UInt64?) {
    if !isStale { return }
    isStale = false
    descriptors.removeAll(keepingCapacity: true)
    tokens.removeAll(keepingCapacity: true)
    list.forEach { handler in
      let events = DescriptorHandler.events(of: handler.armed)
      descriptors.append(pollfd(fd: handler.descriptor, events: events, revents: 0))
      tokens.append(list.token(of: handler))
    }
  }

  override func wait(timeoutNs: UInt64?) {
    var time = timespec(nanoseconds: timeoutNs ?? 0)
    let count = UInt(descriptors.count)
    let result =
      timeoutNs == nil
      ? clinux_ppoll(&descriptors, count, nil, nil) : clinux_ppoll(&descriptors, count, &time, nil)
    // A signal ends the sleep early; the loop simply goes round. Everything else could only be our own mistake.
    precondition(result >= 0 || result == -EINTR || result == -EAGAIN, "ppoll failed: errno \(-result)")
    readyCount = result
  }

  override func collect() {
    if readyCount <= 0 { return }
    readyCount = 0
    for index in descriptors.indices where descriptors[index].revents != 0 {
      descriptors[index].revents = 0
      if let handler = list.handler(of: tokens[index]) { list.markReady(handler) }
    }
  }

  override func hostDescriptors() -> [pollfd] { descriptors }

  override func takeHostResult(_ found: [pollfd]) {
    // Others may have come meanwhile; those were not polled yet.
    guard !isStale, found.count == descriptors.count else { return }
    descriptors = found
    readyCount = Int32(found.count)
  }
}

extension timespec {
  /// A duration.
  init(nanoseconds: UInt64) {
    self.init(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
  }
}
