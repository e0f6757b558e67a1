// SPDX-License-Identifier: Apache-2.0
import CLinux

/// Signals as something to poll for: they are blocked for the thread that makes this and all threads it starts later.
public final class SignalDescriptor: Sendable {
  private let owned: OwnedDescriptor

  /// Takes over `signals`. Call before other threads are started, so that no thread is interrupted by them.
  public init(_ signals: [Int32]) throws(SystemError) {
    owned = OwnedDescriptor(taking: try checked("signalfd") { clinux_signalfd(signals, Int32(signals.count)) })
  }

  /// For polling.
  public var number: Int32 { owned.number }

  /// The next signal that came, or nil.
  public func next() -> Int32? {
    let number = clinux_signalfd_read(owned.number)
    return number > 0 ? number : nil
  }
}
