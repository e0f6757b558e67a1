// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// Changing the length of a disk that is at work.
extension BlockBackend {
  /// Makes the disk longer, by zeroes, or shorter; waits for the requests in flight first, and tells the device.
  ///
  /// On the loop that the backend is on, from a round of it or between rounds, and not from a client's completion. What
  /// clients submit meanwhile is held, and refused afterwards where it lies beyond the new end.
  /// - Parameter byteCount: whole sectors of 512, at least one.
  /// - Throws: why the disk keeps its length: EINVAL for one that it cannot have, EACCES where it may not be written,
  ///   EOPNOTSUPP where its driver has a fixed one, or what the host said.
  public func resize(to byteCount: UInt64) throws(SystemError) {
    loop.preconditionOnLoop()
    guard byteCount >= Self.sectorBytes, byteCount % Self.sectorBytes == 0 else {
      throw SystemError("changing the length", code: EINVAL)
    }
    guard !isReadOnly else { throw SystemError("changing the length", code: EACCES) }
    pause()
    // Held requests go on with the new length.
    defer { unpause() }
    drain()
    try driver.resize(to: byteCount)
    length.store(byteCount, ordering: .relaxed)
    onResize?()
  }
}
