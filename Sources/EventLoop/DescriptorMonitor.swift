// SPDX-License-Identifier: Apache-2.0
import Glibc

/// How a loop watches its descriptors (`--loop`).
public enum LoopMonitor: String, CaseIterable, Sendable {
  /// The best that works here: io_uring, else epoll, else poll.
  case auto
  /// ppoll(2) over an array.
  case poll
  /// epoll(7).
  case epoll
  /// Poll entries on the loop's io_uring: one system call submits I/O and waits for everything.
  case ioUring = "io_uring"
}

/// What waits for descriptors: the base class of the three monitors.
///
/// A wait has three steps, because the loop's state belongs to others while the loop sleeps: `prepare` brings the monitor
/// in line with that state, `wait` sleeps and touches nothing but the monitor's own, `collect` marks who is ready. Loop
/// thread only, where nothing else is said.
class DescriptorMonitor {
  /// Which one it is.
  var kind: LoopMonitor { .poll }
  /// The kernel refuses to watch something that it should; the loop goes on with another monitor.
  var hasFailed: Bool { false }
  /// The loop's handlers.
  unowned(unsafe) let list: WatchList

  init(list: WatchList) { self.list = list }

  /// Watches a handler for what it wants now; it has a place in the list.
  /// - Returns: what it is watched for, in the form of `wanted`; nil where this monitor cannot watch such a descriptor.
  func update(_ handler: DescriptorHandler) -> UInt32? { nil }

  /// Stops watching a descriptor before its owner closes it, where that cannot wait for the loop thread. Any thread.
  func dropEarly(_ handler: DescriptorHandler) {}

  /// First step of a wait.
  /// - Parameter timeoutNs: the second step's.
  func prepare(timeoutNs: UInt64?) {}

  /// Between the steps: whether the second one hands over many entries to the kernel, which takes its time.
  var handsOver: Bool { false }

  /// Second step: waits until a descriptor is ready or the time is over; nil waits without end.
  func wait(timeoutNs: UInt64?) {}

  /// Third step: marks the handlers whose descriptors are ready.
  func collect() {}

  /// A ready handler is about to be called.
  func willCall(_ handler: DescriptorHandler) {}

  /// What a host loop is to poll in place of `wait`; after `prepare`.
  func hostDescriptors() -> [pollfd] { [] }

  /// Takes what the host loop found, in place of `wait`.
  func takeHostResult(_ descriptors: [pollfd]) {}

  /// The loop goes on with another monitor.
  func retire() {}
}

extension DescriptorHandler {
  /// poll(2)'s events out of a value of `wanted`.
  static func events(of wanted: UInt32) -> Int16 { Int16(truncatingIfNeeded: wanted & 0xffff) }
}
