// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem

/// Locks an image against other users the way QEMU does it, so that both respect each other.
///
/// Two bytes stand for each permission: one says "I use it", the other "nobody else may". Both are held as shared
/// open-file-description locks and so never conflict themselves; a newcomer takes its own bytes first and then looks
/// whether someone holds the opposite ones, so of two that come together at least one is refused. (Facts: QEMU,
/// docs/system/images and block/file-posix.c.)
enum ImageLock {
  /// First byte of "I use it", first byte of "nobody else may"; the permission's number is added.
  private static let usedBase = 100
  private static let notSharedBase = 200
  private static let consistentRead = 0
  private static let write = 1
  private static let resize = 3

  /// How long an image that is locked is tried again, and how often: a process that was killed with io_uring requests in
  /// flight is gone some time before the kernel has given back its files.
  static let patience = (attempts: 50, pauseUs: 20_000 as UInt32)

  /// Takes the locks of a reader or a writer; where another process excludes us, calls `pause` and tries again, as often as
  /// `attempts` allows.
  static func take(
    _ descriptor: Int32, forWriting: Bool, attempts: Int, pause: () -> Void = { usleep(patience.pauseUs) }
  ) -> Bool {
    for attempt in 1...attempts {
      if take(descriptor, forWriting: forWriting) { return true }
      release(descriptor)
      if attempt < attempts { pause() }
    }
    return false
  }

  /// Gives every lock back, so that of two who wait for each other one gets on.
  private static func release(_ descriptor: Int32) {
    for base in [usedBase, notSharedBase] { _ = clinux_ofd_unlock(descriptor, base, resize + 1) }
  }

  /// Takes the locks of a reader or a writer on an open image; they go when the descriptor is closed.
  /// - Returns: false where another process excludes us. A file system without locks locks nothing, and true is
  ///   returned.
  private static func take(_ descriptor: Int32, forWriting: Bool) -> Bool {
    let used = forWriting ? [consistentRead, write] : [consistentRead]
    // A reader does not want to see the image change either.
    let notShared = [write, resize]
    for byte in used.map({ usedBase + $0 }) + notShared.map({ notSharedBase + $0 }) {
      let result = clinux_ofd_lock(descriptor, 0, byte, 1)
      if result == -EAGAIN || result == -EACCES { return false }
      if result < 0 { return true }
    }
    let opposite = used.map { notSharedBase + $0 } + notShared.map { usedBase + $0 }
    return opposite.allSatisfy { clinux_ofd_test(descriptor, $0, 1) != 1 }
  }
}
