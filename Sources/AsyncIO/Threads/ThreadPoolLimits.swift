// SPDX-License-Identifier: Apache-2.0

/// How many threads a pool has, and for how long.
public struct ThreadPoolLimits: Equatable, Sendable {
  /// `workersMin` until it is changed: an unused pool costs no thread.
  public static let workersMinDefault = 0
  /// `workersMax` until it is changed.
  public static let workersMaxDefault = 64
  /// `idleNs` until it is changed: 10 seconds.
  public static let idleNsDefault: UInt64 = 10_000_000_000
  /// Most workers that a pool can be given.
  public static let workersBound = 1024

  /// Workers that are started with the pool, and stay however idle; at most `workersMax`.
  public let workersMin: Int
  /// Most workers at a time, 1 to `workersBound`.
  public let workersMax: Int
  /// After how many nanoseconds without a request a worker beyond `workersMin` ends; 0: at once.
  public let idleNs: UInt64

  /// Makes limits; they must lie in the ranges above.
  public init(
    workersMin: Int = workersMinDefault, workersMax: Int = workersMaxDefault, idleNs: UInt64 = idleNsDefault
  ) {
    precondition(1...Self.workersBound ~= workersMax, "a pool has 1 to \(Self.workersBound) workers")
    precondition(0...workersMax ~= workersMin, "a pool's least number of workers is at most its largest")
    self.workersMin = workersMin
    self.workersMax = workersMax
    self.idleNs = idleNs
  }
}

/// Counts of a pool, for tests and reports.
public struct ThreadPoolStatistics: Equatable, Sendable {
  /// Workers now, those that are being started included.
  public var workers = 0
  /// Most workers there have been at a time.
  public var workersMost = 0
  /// Workers that wait for work now.
  public var idle = 0
  /// How often a sleeping worker was woken for work.
  public var wakes: UInt64 = 0
  /// How often queued operations were handed over to the workers.
  public var handovers: UInt64 = 0
}
