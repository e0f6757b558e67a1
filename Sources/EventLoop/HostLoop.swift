// SPDX-License-Identifier: Apache-2.0
// The second way to run a loop: a program with a main loop of its own (as GLib's) drives it step by step:
//
//     let timeout = loop.prepare()                  // nanoseconds, nil: no limit
//     var descriptors = loop.descriptorsToPoll()
//     ppoll(&descriptors, …, timeout)
//     if loop.check(descriptors) { loop.dispatch() }
//
// The loop is made with `isHosted: true`. All four on one thread, which owns the loop from the first `prepare` until `release`. Polling in memory is left out: the
// host loop has others to serve. What is queued on the ring is submitted before the host loop waits.
import Glibc
import Tracing

extension EventLoop {
  /// First step: makes ready for a wait.
  /// - Returns: how long the host loop may wait at most, in nanoseconds; 0 where there is work already, nil for no limit.
  public func prepare() -> UInt64? {
    claim()
    notifier.prepareToSleep()
    // From here on, whoever queues work writes the eventfd, which is among what the host loop polls.
    applyChanges()
    monitor.prepare(timeoutNs: 0)
    hostDescriptors = monitor.hostDescriptors()
    Tracing.record(.sleeping, value: Tracing.tag(of: notifier))
    // After the descriptors are known: what comes from here on makes one of them readable.
    return hasWork ? 0 : nextTimeout()
  }

  /// Second step: what the host loop is to poll.
  public func descriptorsToPoll() -> [pollfd] { hostDescriptors }

  /// Third step: takes what the host loop found; it is not an error if it did not wait at all.
  /// - Parameter descriptors: what `descriptorsToPoll` gave, with `revents` set.
  /// - Returns: whether `dispatch` has something to do.
  public func check(_ descriptors: [pollfd]) -> Bool {
    Tracing.record(.woken, value: Tracing.tag(of: notifier))
    notifier.finishSleep()
    monitor.takeHostResult(descriptors)
    return hasWork || watchList.hasChanges || nextTimeout() == 0 || descriptors.contains { $0.revents != 0 }
  }

  /// Fourth step: runs what is to be run, as one round.
  /// - Returns: whether anything was done.
  @discardableResult
  public func dispatch() -> Bool {
    let outer = enterRound()
    defer { leaveRound(outer) }
    let progress = collectAndDispatch()
    return runQueuedWork() || progress || outer.hadDeferred
  }
}
