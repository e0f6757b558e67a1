// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem

/// What went over the channel, a line each, with the seconds since the client came: `[R +0.000025] readb 0` was received,
/// `[S +0.000040] OK` was sent; the form of QEMU's `-qtest-log`.
///
/// Main loop's thread. A file that takes nothing any more loses the rest.
public final class QTestLog {
  private let file: OwnedDescriptor
  private var start: UInt64 = 0
  private static let nsPerMicrosecond: UInt64 = 1000
  private static let microsecondsPerSecond: UInt64 = 1_000_000

  /// Creates or empties the file at `path`, or opens what is there (`/dev/fd/2`).
  public init(path: String) throws(QTestError) {
    do throws(SystemError) {
      file = try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC)
    } catch {
      throw QTestError("\(path): the log cannot be written: \(SystemError.text(of: error.code))")
    }
  }

  /// A client has come.
  func opened() {
    start = HostClock.nanoseconds
    write(Array("[I 0.000000] OPENED\n".utf8)[...])
  }

  /// The client has gone.
  func closed() { write("[I +\(elapsed)] CLOSED\n".utf8) }

  /// A line came, without its end.
  func received(_ line: UnsafeBufferPointer<UInt8>) {
    write("[R +\(elapsed)] ".utf8 + Array(line) + [UInt8(ascii: "\n")])
  }

  /// A line was sent, with its end.
  func sent(_ line: ArraySlice<UInt8>) { write("[S +\(elapsed)] ".utf8 + Array(line)) }

  private var elapsed: String {
    let microseconds = (HostClock.nanoseconds - start) / Self.nsPerMicrosecond
    let fraction = String(microseconds % Self.microsecondsPerSecond)
    let zeroes = String(repeating: "0", count: 6 - fraction.count)
    return "\(microseconds / Self.microsecondsPerSecond).\(zeroes)\(fraction)"
  }

  private func write(_ text: some Collection<UInt8>) {
    var rest = Array(text)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { clinux_write(file.number, $0.baseAddress!, $0.count) }
      if count == -Int(EINTR) { continue }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}
