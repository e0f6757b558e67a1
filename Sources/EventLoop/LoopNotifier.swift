// SPDX-License-Identifier: Apache-2.0
import CLinux
import HostSystem
import Synchronization
import Tracing

/// When a thread that queues work for a loop writes the loop's eventfd.
public enum WakePolicy: String, CaseIterable, Sendable {
  /// Each time.
  case always
  /// Only while the loop may be about to sleep or sleeps, and only once until it has woken. The default.
  case elided
  /// As `elided`, but not at all after queuing a submission on a loop that belongs to another thread: the mistake that
  /// made QEMU's AHCI disks slow on io_uring until February 2026. The loop sleeps on until something else wakes it.
  case never
}

/// Who enters the kernel for what a vCPU queues on a sleeping loop's ring (`--submit`).
public enum SubmissionThread: String, CaseIterable, Sendable {
  /// The loop, which is woken for it: the vCPU goes back to its guest at once.
  case loop
  /// The vCPU's thread itself, while it has the machine lock: nobody is woken before something completes, but the guest
  /// waits while the kernel takes the requests.
  case vcpu
}

/// Counts of the wake protocol, for tests and reports.
public struct WakeStatistics: Equatable, Sendable {
  /// How often work was announced.
  public var notifications: UInt64 = 0
  /// How often the eventfd was written for it.
  public var eventWrites: UInt64 = 0
  /// How often the loop found the eventfd written.
  public var wakeups: UInt64 = 0
}

/// The wake protocol: how a thread makes sure that a loop sees the work it has queued.
///
/// The loop says in `notifyMe` that it may be about to sleep, and looks for work once more before it does. A thread queues
/// its work and then looks at `notifyMe`. With a full fence between the two steps on both sides, at least one of them
/// sees the other (Dekker), so work is never queued on a loop that sleeps on. `notified` keeps the second and later
/// threads from writing the eventfd again.
final class LoopNotifier: Sendable {
  let event: EventDescriptor
  let policy: WakePolicy
  // Nesting rounds that may sleep; written by the loop thread, read by notifiers.
  private let notifyMe = Atomic<Int>(0)
  // The eventfd was written and not yet consumed. Exchanged by notifiers, cleared by the loop thread.
  private let notified = Atomic<Bool>(false)
  private let notificationCount = Atomic<UInt64>(0)
  private let eventWriteCount = Atomic<UInt64>(0)
  private let wakeupCount = Atomic<UInt64>(0)

  init(policy: WakePolicy) throws(SystemError) {
    self.policy = policy
    event = try EventDescriptor()
  }

  /// A submission has been queued by a thread that is not the loop's: the one step in which the policies differ. Any
  /// thread that the loop's state is lent to.
  func notifySubmission() {
    if policy != .never { notify() }
  }

  /// Work has been queued. Any thread.
  func notify() {
    notificationCount.add(1, ordering: .relaxed)
    // Pairs with the fence in `prepareToSleep`: the work is visible before we look whether the loop may sleep.
    clinux_fence_full()
    guard policy == .always || notifyMe.load(ordering: .relaxed) != 0 else { return }
    // Acquire-release: pairs with the exchange in `accept`, after which the loop looks for our work again.
    if notified.exchange(true, ordering: .acquiringAndReleasing) && policy != .always { return }
    eventWriteCount.add(1, ordering: .relaxed)
    Tracing.record(.notified, value: Tracing.tag(of: self))
    event.signal()
  }

  /// The loop may sleep from here on; it looks for work after this and before it sleeps. Loop thread.
  func prepareToSleep() {
    notifyMe.add(1, ordering: .relaxed)
    // Pairs with the fence in `notify`.
    clinux_fence_full()
  }

  /// The loop is awake. Loop thread.
  func finishSleep() { notifyMe.subtract(1, ordering: .relaxed) }

  /// Takes the eventfd's signal, before the loop looks for work. Loop thread.
  ///
  /// The eventfd is emptied before `notified` is cleared: the other way round, a notifier in between could set the flag
  /// for a signal that we then take from it, and nobody would ever be woken again.
  func accept() {
    if event.consume() > 0 { wakeupCount.add(1, ordering: .relaxed) }
    _ = notified.exchange(false, ordering: .acquiringAndReleasing)
  }

  var statistics: WakeStatistics {
    WakeStatistics(
      notifications: notificationCount.load(ordering: .relaxed),
      eventWrites: eventWriteCount.load(ordering: .relaxed), wakeups: wakeupCount.load(ordering: .relaxed))
  }
}
