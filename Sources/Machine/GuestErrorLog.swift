// SPDX-License-Identifier: Apache-2.0
import Logging
import Synchronization

/// Log lines about a misbehaving guest, bounded: a guest must not be able to fill the host's disk.
public final class GuestErrorLog: Sendable {
  private let logger: Logger
  private let left: Atomic<Int>

  /// Lets `linesMax` lines through and says with the last one that it falls silent.
  public init(device: String, linesMax: Int) {
    logger = Logger(label: device)
    left = Atomic(linesMax)
  }

  /// Logs one line as a warning. Any thread.
  public func report(_ message: @autoclosure () -> String) {
    let before = left.load(ordering: .relaxed)
    guard before > 0 else { return }
    let line = message()
    let remaining = left.subtract(1, ordering: .relaxed).newValue
    if remaining > 0 {
      logger.warning("\(line)")
    } else if remaining == 0 {
      logger.warning("\(line) (further guest errors of this device are not logged)")
    }
  }
}
