// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// A file descriptor with one owner, closed when the owner lets go of it.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The descriptor's number, valid as long as this value lives.
  public let number: Int32

  /// Takes ownership of an open descriptor.
  public init(taking number: Int32) {
    precondition(number >= 0)
    self.number = number
  }

  /// Hands the descriptor over to whoever takes its number; it stays open.
  public consuming func release() -> Int32 {
    let number = number
    discard self
    return number
  }

  deinit {
    // close never needs a repeat on Linux: the descriptor is gone even where it says EINTR.
    _ = clinux_close(number)
  }

  /// Opens a file. `flags` are open(2)'s; close-on-exec is always added.
  public static func open(_ path: String, flags: Int32, mode: mode_t = 0o644) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("open") { clinux_open(path, flags, Int32(mode)) })
  }
}

/// An eventfd: a counter that one thread adds to and another sleeps on.
///
/// Any thread may `signal`; the descriptor lives as long as this object.
public final class EventDescriptor: Sendable {
  private let owned: OwnedDescriptor

  /// Makes a non-blocking eventfd with count 0.
  public init() throws(SystemError) {
    owned = OwnedDescriptor(taking: try checked("eventfd") { clinux_eventfd(0, 1) })
  }

  /// The descriptor's number, for poll, ioeventfd and irqfd.
  public var number: Int32 { owned.number }

  /// Adds one to the count, waking whoever sleeps on it.
  public func signal() {
    var one: UInt64 = 1
    // EAGAIN means that the count is at its limit, so it is readable already; nothing is lost.
    while clinux_write(owned.number, &one, 8) == -Int(EINTR) {}
  }

  /// Takes the count and resets it to 0; 0 where nothing was signalled.
  @discardableResult
  public func consume() -> UInt64 {
    var count: UInt64 = 0
    while true {
      let result = clinux_read(owned.number, &count, 8)
      if result == 8 { return count }
      if result != -Int(EINTR) { return 0 }
    }
  }
}
