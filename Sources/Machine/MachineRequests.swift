// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Synchronization

/// What other threads ask of the main loop: to end, to reset, to look again whether devices are quiet.
///
/// Asking never takes the machine lock, so a vCPU, an I/O thread and a signal's watcher can all do it.
final class MachineRequests: @unchecked Sendable {
  private final class Flag: BottomHalf, @unchecked Sendable {
    // Touched only on the loop thread.
    var isSet = false
    override func run() { isSet = true }
  }

  /// Calls `action` on the loop. It is set as the machine is made, and not changed.
  final class Notice: BottomHalf, @unchecked Sendable {
    var action: () -> Void = {}
    override func run() { action() }
  }

  /// A device has settled. Scheduled by any thread.
  let settled: Notice
  // `ShutdownReason.word` of the first request; 0 before. The releasing exchange pairs with the acquiring load.
  private let reasonWord = Atomic<UInt64>(0)
  private let shutdown: Flag
  private let reset: Flag
  private let quiet: Flag
  private let halt: Flag
  // `ShutdownReason.word` of the first request since the last one was taken. Pairs as `reasonWord` does.
  private let haltWord = Atomic<UInt64>(0)
  /// `ShutdownPolicy.pause`. Set on the loop, read by any thread that has something to end.
  let pausesAtShutdown = Atomic<Bool>(false)
  /// The reset that is asked for is the host's user's wish. Loop thread.
  var resetIsForHost = false

  init(loop: EventLoop) {
    shutdown = Flag(loop: loop)
    reset = Flag(loop: loop)
    quiet = Flag(loop: loop)
    halt = Flag(loop: loop)
    settled = Notice(loop: loop)
  }

  /// Asks for the end. Any thread; the first reason counts.
  func askForShutdown(_ reason: ShutdownReason) {
    let (isFirst, _) = reasonWord.compareExchange(expected: 0, desired: reason.word, ordering: .acquiringAndReleasing)
    // Only the first asks the loop, and the loop waits for that: nothing is scheduled after it has ended.
    if isFirst { shutdown.schedule() }
  }

  /// Asks for the guest's end without the machine's. Any thread; the first reason counts.
  func askForHalt(_ reason: ShutdownReason) {
    _ = haltWord.compareExchange(expected: 0, desired: reason.word, ordering: .acquiringAndReleasing)
    halt.schedule()
  }

  /// Why the guest is to end, if that was asked for since the last call. Loop thread.
  func takeHalt() -> ShutdownReason? {
    guard halt.isSet else { return nil }
    halt.isSet = false
    return ShutdownReason(word: haltWord.exchange(0, ordering: .acquiringAndReleasing))
  }

  /// Asks for a reset of the devices. Any thread.
  func askForReset() { reset.schedule() }

  /// Makes the loop look again whether devices are quiet. Any thread.
  func wakeForQuiet() { quiet.schedule() }

  /// Why the machine is to end; nil before anything asked. Any thread.
  var reason: ShutdownReason? { ShutdownReason(word: reasonWord.load(ordering: .acquiring)) }

  /// Whether the loop has seen the request for the end. Loop thread.
  var shutdownIsDue: Bool { shutdown.isSet }

  /// Whether a reset was asked for since the last call. Loop thread.
  func takeReset() -> Bool {
    defer { reset.isSet = false }
    return reset.isSet
  }
}
