// SPDX-License-Identifier: Apache-2.0
import Glibc

/// The date and time that a machine's real-time clock shows as the machine begins.
public enum ClockBase: Equatable, Sendable {
  /// The host's, in UTC.
  case utc
  /// The host's, in its own time zone.
  case localtime
  /// A time of its own, in seconds since 1970 in whatever zone the guest takes it for.
  case date(secondsSinceEpoch: Int64)

  /// Reads `utc`, `localtime`, `2026-11-21` or `2026-11-21T16:01:21`; nil for anything else.
  public init?(_ text: String) {
    switch text {
    case "utc": self = .utc
    case "localtime": self = .localtime
    default:
      guard let seconds = Self.seconds(of: text) else { return nil }
      self = .date(secondsSinceEpoch: seconds)
    }
  }

  private static func seconds(of text: String) -> Int64? {
    let halves = text.split(separator: "T", omittingEmptySubsequences: false)
    guard halves.count <= 2, let date = numbers(halves[0], "-", [4, 2, 2]) else { return nil }
    var clock = [0, 0, 0]
    if halves.count == 2 {
      guard let parsed = numbers(halves[1], ":", [2, 2, 2]) else { return nil }
      clock = parsed
    }
    var fields = tm()
    fields.tm_year = Int32(date[0] - 1900)
    fields.tm_mon = Int32(date[1] - 1)
    fields.tm_mday = Int32(date[2])
    (fields.tm_hour, fields.tm_min, fields.tm_sec) = (Int32(clock[0]), Int32(clock[1]), Int32(clock[2]))
    var normal = fields
    let seconds = timegm(&normal)
    // A date that does not exist comes back as another one.
    let same =
      normal.tm_mon == fields.tm_mon && normal.tm_mday == fields.tm_mday && normal.tm_hour == fields.tm_hour
      && normal.tm_min == fields.tm_min && normal.tm_sec == fields.tm_sec
    return same ? Int64(seconds) : nil
  }

  private static func numbers(_ text: Substring, _ separator: Character, _ digits: [Int]) -> [Int]? {
    let parts = text.split(separator: separator, omittingEmptySubsequences: false)
    guard parts.count == digits.count else { return nil }
    var values: [Int] = []
    for (part, count) in zip(parts, digits) {
      guard part.utf8.count == count, part.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = Int(part)
      else { return nil }
      values.append(value)
    }
    return values
  }

  /// Seconds since 1970 at this moment, as the clock is to show it.
  var secondsNow: Int64 {
    switch self {
    case .utc: return Int64(time(nil))
    case .date(let seconds): return seconds
    case .localtime:
      var now = time(nil)
      var fields = tm()
      localtime_r(&now, &fields)
      return Int64(now) + Int64(fields.tm_gmtoff)
    }
  }
}
