// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import EventLoop

/// The monitors that this host lets us use.
let usableMonitors: [LoopMonitor] = LoopMonitor.allCases.filter { monitor in
  monitor != .auto && (try? EventLoop(name: "probe", monitor: monitor)) != nil
}

/// Counts its runs.
final class CountingWork: BottomHalf, @unchecked Sendable {
  let runs = Atomic<Int>(0)
  var onRun: () -> Void = {}
  override func run() {
    runs.add(1, ordering: .sequentiallyConsistent)
    onRun()
  }
}

final class CountingCall: DeferredCall {
  var runs = 0
  var onRun: () -> Void = {}
  override func run() {
    runs += 1
    onRun()
  }
}

/// A gate that one thread opens and others wait at.
final class DispatchGate: @unchecked Sendable {
  private let word = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  init() { sem_init(word, 0, 0) }
  deinit {
    sem_destroy(word)
    word.deallocate()
  }
  func open() { sem_post(word) }
  func wait() { while sem_wait(word) != 0 {} }
  /// For watchdogs: whether the gate was opened in time.
  func wait(secondsMax: Int) -> Bool {
    var end = timespec()
    clock_gettime(CLOCK_REALTIME, &end)
    end.tv_sec += secondsMax
    while sem_timedwait(word, &end) != 0 { if errno != EINTR { return false } }
    return true
  }
}
