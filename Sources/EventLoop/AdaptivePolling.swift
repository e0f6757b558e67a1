// SPDX-License-Identifier: Apache-2.0

/// How long a loop looks for work in memory before it sleeps.
///
/// The time grows while events come a little later than it lasts, and is given up where even the longest time would have
/// missed them; the next event that comes soon enough starts it again. One slow request therefore costs one sleep, and
/// does not switch polling off for good (the caveat of QEMU's change of March 2025).
struct AdaptivePolling {
  /// The time at which growing begins.
  static let nsStart: UInt64 = 4_000
  /// The factor of each step.
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
      ns = 0
    } else {
      while ns < waited && ns < nsMax { ns = ns == 0 ? min(Self.nsStart, nsMax) : min(ns * Self.growth, nsMax) }
    }
  }
}
