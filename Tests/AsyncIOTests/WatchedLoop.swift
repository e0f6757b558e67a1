// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// Ends the process where a test waits for what never comes: a loop asleep cannot be ended by the test library.
private final class Watchdog: LoopTimer {
  static let secondsMax: UInt64 = 120
  override func fired() { fatalError("loop \(loop.name) was still waiting after \(Self.secondsMax) s") }
}

/// A loop that does not wait for ever.
func makeWatchedLoop() throws -> EventLoop {
  let loop = try EventLoop(name: "test")
  Watchdog(loop: loop).arm(atNanoseconds: HostClock.nanoseconds + Watchdog.secondsMax * 1_000_000_000)
  return loop
}
