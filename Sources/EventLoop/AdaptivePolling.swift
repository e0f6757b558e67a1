// SPDX-License-Identifier: Apache-2.0

/// How long a loop looks for work in memory before it sleeps.
///
/// The time grows at once to what would have caught an event that came a little later, and shrinks by half with each event
/// that even the longest time would have missed. So one slow request among fast ones (a write that is durable on
/// completion where there were fast flushes before: the caveat of QEMU's change of March 2025) changes little, and a disk
/// that is slow throughout soon costs no polling.
struct AdaptivePolling {
  /// The time at which growing begins.
  static let nsStart: UInt64 = 4_000
  /// The factor of each step, up and down; below the start there is no time.
  static let growth: UInt64 = 2

  /// The longest time; 0 for never.
  let nsMax: UInt64
  /// The time now.
  private(set) var ns: UInt64 = 0

  init(nsMax: UInt64) { self.nsMax = nsMax }

  /// An event that polling did not catch came `waited` nanoseconds after the loop had nothing more to do.
  mutating func eventCame(after waited: UInt64) {
    guard nsMax > 0 else { return }
    if waited <= ns { return }
    if waited > nsMax {
      ns /= Self.growth
      if ns < min(Self.nsStart, nsMax) { ns = 0 }
    } else {
      while ns < waited && ns < nsMax { ns = ns == 0 ? min(Self.nsStart, nsMax) : min(ns * Self.growth, nsMax) }
    }
  }
}
