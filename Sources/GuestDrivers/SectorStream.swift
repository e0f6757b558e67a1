// SPDX-License-Identifier: Apache-2.0

/// Moves a run of sectors through a queue in large requests, several in flight, and handles them in order.
struct SectorStream<Queue: DiskQueue> {
  let queue: Queue
  /// `bufferCount` buffers of `bufferBytes` each, one after the other.
  let buffers: UInt64
  /// Bytes of a request, a multiple of 512.
  let bufferBytes: UInt64
  let bufferCount: Int

  private var slotCount: Int { min(bufferCount, queue.depth) }

  /// Reads sectors and passes each buffer to `consume`, in order.
  /// - Returns: whether every request succeeded; nothing is in flight afterwards unless an error is thrown.
  func read(
    first: UInt64, count: UInt64, _ consume: (_ address: UInt64, _ byteCount: UInt64) -> Void
  ) throws(DriverError) -> Bool {
    try queue.checkIdle()
    var isGood = true
    var submitted: UInt64 = 0
    var consumed: UInt64 = 0
    var nextSlot = 0
    var oldestSlot = 0
    while consumed < count {
      var isKickDue = false
      while submitted < count, isGood, queue.inFlightCount < slotCount,
        !isHeld(nextSlot, oldestSlot, submitted, consumed)
      {
        submit(nextSlot, false, first + submitted, sectors(at: submitted, of: count))
        submitted += sectors(at: submitted, of: count)
        nextSlot = (nextSlot + 1) % slotCount
        isKickDue = true
      }
      if isKickDue {
        queue.kick()
      }
      guard consumed < submitted else {
        return isGood
      }
      isGood = try settle(oldestSlot) && isGood
      let sectorCount = sectors(at: consumed, of: count)
      if isGood {
        consume(buffers + UInt64(oldestSlot) * bufferBytes, sectorCount << 9)
      }
      consumed += sectorCount
      oldestSlot = (oldestSlot + 1) % slotCount
    }
    return isGood
  }

  /// Writes sectors from buffers that `produce` fills, in order.
  /// - Returns: whether every request succeeded; nothing is in flight afterwards unless an error is thrown.
  func write(
    first: UInt64, count: UInt64, _ produce: (_ address: UInt64, _ byteCount: UInt64) -> Void
  ) throws(DriverError) -> Bool {
    try queue.checkIdle()
    var isGood = true
    var submitted: UInt64 = 0
    var slot = 0
    while submitted < count, isGood {
      isGood = try settle(slot) && isGood
      let sectorCount = sectors(at: submitted, of: count)
      produce(buffers + UInt64(slot) * bufferBytes, sectorCount << 9)
      submit(slot, true, first + submitted, sectorCount)
      queue.kick()
      submitted += sectorCount
      slot = (slot + 1) % slotCount
    }
    for slot in 0..<slotCount {
      isGood = try settle(slot) && isGood
    }
    return isGood
  }

  /// Whether the slot's buffer still waits to be consumed.
  private func isHeld(_ slot: Int, _ oldest: Int, _ submitted: UInt64, _ consumed: UInt64) -> Bool {
    slot == oldest && submitted > consumed
  }

  private func sectors(at done: UInt64, of count: UInt64) -> UInt64 {
    min(bufferBytes >> 9, count - done)
  }

  private func submit(_ slot: Int, _ writes: Bool, _ sector: UInt64, _ sectorCount: UInt64) {
    queue.prepare(
      slot: slot, writes: writes, address: buffers + UInt64(slot) * bufferBytes, byteCount: UInt32(sectorCount << 9))
    queue.submit(slot: slot, sector: sector)
  }

  /// Waits until a slot is not in flight; whether a slot has succeeded stays readable until it is submitted again.
  /// - Returns: whether every request that ended meanwhile succeeded.
  private func settle(_ slot: Int) throws(DriverError) -> Bool {
    var isGood = true
    while queue.isInFlight(slot) {
      isGood = queue.hasSucceeded(try queue.waitForSlot()) && isGood
    }
    return isGood
  }
}
