// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Watches descriptors by ppoll(2).
///
/// The array that the kernel reads is made anew only when handlers come or go, so a round costs one system call and no
/// allocation. ppoll looks at every descriptor each time, which is right for the handful that a loop here has; monitors
/// on epoll or io_uring answer the same four calls: `add`, `remove`, `wait`, `dispatch`. All on the loop thread.
final class PollMonitor {
  private struct Entry {
    let handler: DescriptorHandler
    // Distinguishes a handler from another that took the same place, or was added again, during a dispatch.
    let identifier: UInt64
  }

  private var entries: [Entry] = []
  private var descriptors: [pollfd] = []
  private var identifiers: [UInt64] = []
  private var isStale = true
  private var nextIdentifier: UInt64 = 0
  private(set) var pollable: [DescriptorHandler] = []

  func add(_ handler: DescriptorHandler) {
    entries.append(Entry(handler: handler, identifier: nextIdentifier))
    nextIdentifier += 1
    if handler.isPollable { pollable.append(handler) }
    isStale = true
  }

  func remove(_ handler: DescriptorHandler) {
    entries.removeAll { $0.handler === handler }
    pollable.removeAll { $0 === handler }
    isStale = true
  }

  /// Waits until a descriptor is ready or the time is over; nil waits without end.
  /// - Returns: whether one is ready.
  func wait(timeoutNs: UInt64?) -> Bool {
    if isStale { rebuild() }
    let result: Int32
    if let timeoutNs {
      var time = timespec(tv_sec: Int(timeoutNs / 1_000_000_000), tv_nsec: Int(timeoutNs % 1_000_000_000))
      result = clinux_ppoll(&descriptors, UInt(descriptors.count), &time, nil)
    } else {
      result = clinux_ppoll(&descriptors, UInt(descriptors.count), nil, nil)
    }
    // A signal ends the sleep early; the loop simply goes round. Everything else could only be our own mistake.
    precondition(result >= 0 || result == -EINTR || result == -EAGAIN, "ppoll failed: errno \(-result)")
    return result > 0
  }

  private func rebuild() {
    descriptors.removeAll(keepingCapacity: true)
    identifiers.removeAll(keepingCapacity: true)
    for entry in entries {
      descriptors.append(pollfd(fd: entry.handler.descriptor, events: entry.handler.events, revents: 0))
      identifiers.append(entry.identifier)
    }
    isStale = false
  }

  /// Calls the handlers of ready descriptors. A handler that is removed meanwhile is not called any more; a nested
  /// `wait` takes over what is left, and nothing is called twice for one event.
  func dispatch() -> Bool {
    var progress = false
    var index = 0
    while index < descriptors.count {
      if descriptors[index].revents != 0 {
        descriptors[index].revents = 0
        let identifier = identifiers[index]
        if let entry = entries.first(where: { $0.identifier == identifier }) {
          progress = true
          entry.handler.ready()
        }
      }
      index += 1
    }
    return progress
  }
}
