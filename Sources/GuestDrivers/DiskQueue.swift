// SPDX-License-Identifier: Apache-2.0

/// A queue of reads and writes with a fixed set of slots, whatever the disk behind it: what the load generator and the
/// disk cases are written against.
///
/// A slot is prepared once for a direction, a buffer and a size, and submitted as often as wanted at any sector.
/// Everything here is specialised for the queue at hand. One processor owns a queue at a time.
public protocol DiskQueue: AnyObject {
  /// The bus of the processor that owns the queue.
  associatedtype B: Bus

  /// How many requests may be in flight.
  var depth: Int { get }
  /// How many requests have been submitted and not taken.
  var inFlightCount: Int { get }
  /// How many notifications were written.
  var notificationCount: UInt64 { get }
  /// How often `waitForUsed` halted or relaxed.
  var waitCount: UInt64 { get }

  /// Whether a slot's request was submitted and not taken yet.
  func isInFlight(_ slot: Int) -> Bool
  /// Throws unless every slot may be prepared.
  func checkIdle() throws(DriverError)
  /// Describes a slot's request: `byteCount` bytes (a multiple of 512) at the guest-physical `address`.
  /// - Precondition: `slot` is 0 to `depth` - 1 and not in flight.
  func prepare(slot: Int, writes: Bool, address: UInt64, byteCount: UInt32)
  /// Queues a prepared slot's request at `sector` (of 512 bytes), invisible to the device until `kick`.
  /// - Precondition: `slot` is prepared and not in flight.
  func submit(slot: Int, sector: UInt64)
  /// Shows the device everything that was submitted.
  func kick()
  /// Looks how far the device has got.
  /// - Returns: how many times `takeCounted` may be called.
  func countUsed() -> Int
  /// Takes the next completion that `countUsed` has counted.
  /// - Returns: its slot; nil where the device is broken.
  func takeCounted() -> Int?
  /// Whether the request that a slot has ended last succeeded.
  func hasSucceeded(_ slot: Int) -> Bool
  /// Waits until `countUsed` is not 0, by interrupt where the queue has one and `mode` does not say poll; for `uses` of
  /// them at once where the device can do that.
  func waitForUsed(mode: WaitMode, uses: UInt16) throws(DriverError)
}

extension DiskQueue {
  /// Waits for the next completion and takes it.
  /// - Returns: its slot.
  public func waitForSlot() throws(DriverError) -> Int {
    if countUsed() == 0 {
      try waitForUsed(mode: .interrupt, uses: 1)
    }
    guard countUsed() > 0, let slot = takeCounted() else {
      throw .deviceBroken
    }
    return slot
  }

  /// Reads `byteCount` bytes from `sector` into RAM at `address`, with nothing else in flight.
  /// - Returns: whether the device says that it did.
  public func readAndWait(sector: UInt64, into address: UInt64, byteCount: UInt32) throws(DriverError) -> Bool {
    try performAndWait(writes: false, sector: sector, address: address, byteCount: byteCount)
  }

  /// Writes `byteCount` bytes of RAM at `address` to `sector`, with nothing else in flight.
  /// - Returns: whether the device says that it did.
  public func writeAndWait(sector: UInt64, from address: UInt64, byteCount: UInt32) throws(DriverError) -> Bool {
    try performAndWait(writes: true, sector: sector, address: address, byteCount: byteCount)
  }

  private func performAndWait(
    writes: Bool, sector: UInt64, address: UInt64, byteCount: UInt32
  ) throws(DriverError) -> Bool {
    try checkIdle()
    prepare(slot: 0, writes: writes, address: address, byteCount: byteCount)
    submit(slot: 0, sector: sector)
    kick()
    return hasSucceeded(try waitForSlot())
  }
}
