// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem
import Synchronization

/// An event loop: one thread that sleeps until a descriptor, a timer or another thread has work for it.
public final class EventLoop: @unchecked Sendable {
  /// For logs and thread names.
  public let name: String
  private let event: EventDescriptor
  private let pending = Atomic<UInt>(0)
  private let stopping = Atomic<Bool>(false)
  private var handlers: [Int32: () -> Void] = [:]
  private var beforeSleep: () -> Void = {}
  private var afterSleep: () -> Void = {}

  /// Makes a loop; it runs on the thread that calls `run`.
  public init(name: String) throws(SystemError) {
    self.name = name
    event = try EventDescriptor()
  }

  /// Runs until `stop`.
  public func run() {
    while !stopping.exchange(false, ordering: .acquiringAndReleasing) { runOnce(mayBlock: true) }
  }

  /// Ends `run` soon. Any thread.
  public func stop() {
    stopping.store(true, ordering: .releasing)
    event.signal()
  }

  /// One round. Loop thread.
  @discardableResult
  public func runOnce(mayBlock: Bool) -> Bool {
    var progress = runPending()
    var descriptors = [pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)]
    descriptors += handlers.keys.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    var zero = timespec(tv_sec: 0, tv_nsec: 0)
    if mayBlock && !progress {
      beforeSleep()
      _ = clinux_ppoll(&descriptors, UInt(descriptors.count), nil, nil)
      afterSleep()
    } else {
      _ = clinux_ppoll(&descriptors, UInt(descriptors.count), &zero, nil)
    }
    if descriptors[0].revents != 0 { event.consume() }
    for descriptor in descriptors.dropFirst() where descriptor.revents != 0 {
      handlers[descriptor.fd]?()
      progress = true
    }
    return runPending() || progress
  }

  /// Called around each sleep (the machine lock is given back for it). Set before `run`.
  public func setSleepHooks(before: @escaping () -> Void, after: @escaping () -> Void) {
    beforeSleep = before
    afterSleep = after
  }

  /// Watches a descriptor for input.
  public func addReader(_ descriptor: Int32, _ handler: @escaping () -> Void) { handlers[descriptor] = handler }

  /// Stops watching.
  public func removeReader(_ descriptor: Int32) { handlers[descriptor] = nil }

  func schedule(_ work: BottomHalf) {
    if work.isScheduled.exchange(true, ordering: .acquiringAndReleasing) { return }
    let pointer = UInt(bitPattern: Unmanaged.passUnretained(work).toOpaque())
    var head = pending.load(ordering: .relaxed)
    while true {
      work.nextPending = head
      let (done, now) = pending.compareExchange(expected: head, desired: pointer, ordering: .acquiringAndReleasing)
      if done { break }
      head = now
    }
    event.signal()
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
