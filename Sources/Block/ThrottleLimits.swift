// SPDX-License-Identifier: Apache-2.0

/// Most that a disk does in a second, with QEMU's meanings (`throttling.*`).
public struct ThrottleLimits: Equatable, Sendable {
  /// One limit; units are bytes or requests.
  public struct Limit: Equatable, Sendable {
    /// Units in a second on average; 0 for no limit.
    public var average: UInt64 = 0
    /// Units that may come at once after a rest; 0 for a tenth of a second's.
    public var burst: UInt64 = 0
    /// Seconds for which `burst` units a second may come after a rest; 1 lets the units of one second come at once.
    public var burstSeconds: UInt64 = 1

    /// No limit.
    public init() {}
    /// A limit on the average, and, where it is not 0, on bursts.
    public init(_ average: UInt64, burst: UInt64 = 0, burstSeconds: UInt64 = 1) {
      self.average = average
      self.burst = burst
      self.burstSeconds = burstSeconds
    }
  }

  /// Limits of one unit: of all requests, of reads, and of writes and write-zeroes requests.
  public struct Limits: Equatable, Sendable {
    /// Of all, of reads, of writes.
    public var total = Limit(), read = Limit(), write = Limit()

    /// No limits.
    public init() {}
  }

  /// On bytes.
  public var bytes = Limits()
  /// On the number of requests.
  public var requests = Limits()
  /// Bytes of a request beyond which it counts as several; 0 where each counts as one.
  public var requestBytes: UInt64 = 0
  /// Largest limit, units in a second.
  public static let unitsMax: UInt64 = 1_000_000_000_000_000

  /// No limits.
  public init() {}

  /// Whether nothing is limited.
  public var isEmpty: Bool { bytes == Limits() && requests == Limits() }

  /// As how many requests one of so many bytes counts.
  func count(ofBytes byteCount: UInt64) -> UInt64 {
    guard requestBytes > 0, byteCount > requestBytes else { return 1 }
    return byteCount / requestBytes + (byteCount % requestBytes == 0 ? 0 : 1)
  }
}

/// A bucket that leaks at a rate, and that requests pour into: while it holds more than its size, the next one waits.
struct LeakyBucket {
  private static let nsPerSecond = 1e9
  /// The part of a second whose units may come at once where no burst is set.
  private static let burstDefaultSeconds = 0.1

  /// Longest wait that is told, a century. A guest's request may be so large, and a limit so low, that no number of
  /// nanoseconds holds the real one.
  private static let waitSecondsMax = 3.2e9

  private let average: Double
  private let size: Double
  private var level = 0.0
  // Of a burst that lasts longer than a second: its rate, and what has come that this has not leaked; else 0.
  private let burst: Double
  private var burstLevel = 0.0
  private var leakedAt: UInt64 = 0

  init(_ limit: ThrottleLimits.Limit) {
    average = Double(limit.average)
    let isLong = limit.burst > 0 && limit.burstSeconds > 1
    burst = isLong ? Double(limit.burst) : 0
    size =
      limit.burst > 0 ? Double(limit.burst) * Double(max(1, limit.burstSeconds)) : average * Self.burstDefaultSeconds
  }

  /// Nanoseconds from `now` on that the next request has to wait; 0 for none.
  mutating func wait(at now: UInt64) -> UInt64 {
    guard average > 0 else { return 0 }
    let elapsed = Double(now &- min(leakedAt, now))
    level = max(0, level - average * elapsed / Self.nsPerSecond)
    burstLevel = max(0, burstLevel - burst * elapsed / Self.nsPerSecond)
    leakedAt = now
    var seconds = (level - size) / average
    if burst > 0 { seconds = max(seconds, burstLevel / burst - Self.burstDefaultSeconds) }
    guard seconds > 0 else { return 0 }
    // Up, so that a timer for that moment does not come too early.
    return UInt64((min(seconds, Self.waitSecondsMax) * Self.nsPerSecond).rounded(.up)) + 1
  }

  /// A request of so many units goes on.
  mutating func pour(_ units: UInt64) {
    if average > 0 { level += Double(units) }
    if burst > 0 { burstLevel += Double(units) }
  }
}
