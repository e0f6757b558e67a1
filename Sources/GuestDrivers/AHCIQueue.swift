// SPDX-License-Identifier: Apache-2.0

/// Reads and writes of an ATA disk behind AHCI, up to 32 in flight: queued commands where the disk takes them, else DMA
/// commands that the HBA does one after the other (AHCI 1.3.1 §5.6.4, §5.6.5).
///
/// A slot's number is its tag. `prepare` writes header and PRDs; `submit` writes the FIS; `kick` writes PxSACT and PxCI
/// once for all of them. Where a command fails, the port is recovered inside `waitForUsed`, and everything that had not
/// ended is done again, one at a time, so that only the failing ones count as failed. Belongs to one processor.
public final class AHCIQueue<B: Bus>: DiskQueue {
  /// Polls between two looks for an error and at the clock.
  static var pollsPerCheck: UInt32 { 16 }

  /// How many requests may be in flight, 1 to 32.
  public let depth: Int
  /// Whether requests are READ and WRITE FPDMA QUEUED; else they are READ and WRITE DMA EXT.
  public let usesCommandQueuing: Bool
  /// Whether writes that are prepared from now on are on the medium when they end (FUA).
  public var forcesUnitAccess = false
  /// How many requests were submitted and not taken.
  public private(set) var inFlightCount = 0
  /// How often `kick` has written the registers.
  public private(set) var notificationCount: UInt64 = 0
  /// How often `waitForUsed` halted or relaxed.
  public private(set) var waitCount: UInt64 = 0
  /// How often the port had to be recovered.
  public private(set) var recoveryCount: UInt64 = 0

  let bus: B
  let engine: AHCIPortEngine<B>
  /// PxSACT or PxCI: where a request's bit is until it has ended.
  private let register: UInt64
  /// Bytes 0 to 15 of each slot's FIS, all but the LBA.
  private let templates: UnsafeMutablePointer<UInt64>
  /// Submitted, and not taken.
  private var inFlight: UInt32 = 0
  /// Submitted, and not shown to the HBA.
  private var pending: UInt32 = 0
  /// Ended, and not taken.
  private var finished: UInt32 = 0
  private var failed: UInt32 = 0
  /// Something that a reset alone ends has happened.
  private var isBroken = false

  /// A queue over the port of `engine`, on which nothing else is done while requests are in flight.
  ///
  /// - Parameters:
  ///   - engine: a port with an ATA disk of 512-byte logical sectors and 48-bit addresses.
  ///   - depth: at most how many requests are in flight; no more than the HBA's slots and 32.
  ///   - usesCommandQueuing: whether the requests are queued commands, which HBA and disk must both have.
  public init(engine: AHCIPortEngine<B>, depth: Int, usesCommandQueuing: Bool) {
    bus = engine.bus
    self.engine = engine
    self.depth = max(1, min(depth, engine.slotCount, AHCICommandMemory<B>.slotsMax))
    self.usesCommandQueuing = usesCommandQueuing
    register = usesCommandQueuing ? AHCIPortRegister.active : AHCIPortRegister.issue
    templates = UnsafeMutablePointer<UInt64>.allocate(capacity: 2 * self.depth)
    templates.initialize(repeating: 0, count: 2 * self.depth)
  }

  deinit {
    templates.deallocate()
  }

  /// Forgets everything in flight, after the port was reset.
  public func clear() {
    inFlightCount = 0
    inFlight = 0
    pending = 0
    finished = 0
    failed = 0
    isBroken = false
  }

  // MARK: Requests

  /// Whether a slot's request was submitted and not taken yet.
  public func isInFlight(_ slot: Int) -> Bool { inFlight >> UInt32(slot) & 1 != 0 }

  /// Throws unless every slot may be prepared.
  public func checkIdle() throws(DriverError) {
    guard !isBroken, inFlightCount == 0, engine.isRunning else {
      throw .deviceBroken
    }
  }

  /// Writes a slot's header and PRDs for a read or a write of `byteCount` bytes at `address`.
  public func prepare(slot: Int, writes: Bool, address: UInt64, byteCount: UInt32) {
    prepare(slot: slot, AHCIBuffer(address: address, byteCount: byteCount, writes: writes))
  }

  /// Writes a slot's header and PRDs for a read or a write of a buffer, which may be in pieces.
  /// - Precondition: the slot is not in flight, and the buffer has a multiple of 512 bytes, at most 32 MiB - 512.
  public func prepare(slot: Int, _ buffer: AHCIBuffer) {
    precondition(slot >= 0 && slot < depth && !isInFlight(slot))
    var opcode = buffer.writes ? ATAOpcode.writeDMAExt : ATAOpcode.readDMAExt
    if usesCommandQueuing {
      opcode = buffer.writes ? ATAOpcode.writeQueued : ATAOpcode.readQueued
    } else if buffer.writes, forcesUnitAccess {
      opcode = ATAOpcode.writeDMAFUAExt
    }
    var command = ATACommand(opcode, lba: 0, count: UInt16(truncatingIfNeeded: buffer.byteCount >> 9), tag: slot)
    if usesCommandQueuing, buffer.writes, forcesUnitAccess {
      command.device |= ATACommand.forcedUnitAccess
    }
    engine.memory.prepare(slot: slot, command, buffer)
    templates[2 * slot] = command.firstWords
    templates[2 * slot + 1] = command.secondWords
  }

  /// Writes a prepared slot's FIS for `sector` (of 512 bytes); the HBA does not see it until `kick`.
  /// - Precondition: `slot` is prepared and not in flight.
  @inline(__always)
  public func submit(slot: Int, sector: UInt64) {
    let table = engine.memory.table(slot)
    bus.ramWrite64(table, templates[2 &* slot] | (sector & 0xFF_FFFF) << 32)
    bus.ramWrite64(table &+ 8, templates[2 &* slot &+ 1] | (sector >> 24 & 0xFF_FFFF))
    engine.memory.clearByteCount(slot)
    let bit: UInt32 = 1 &<< UInt32(truncatingIfNeeded: slot)
    inFlight |= bit
    pending |= bit
    failed &= ~bit
    inFlightCount &+= 1
  }

  /// Shows the HBA everything that was submitted.
  public func kick() {
    let slots = pending
    if slots == 0 {
      return
    }
    pending = 0
    engine.issue(slots, queued: usesCommandQueuing ? slots : 0)
    notificationCount &+= 1
  }

  /// Reads how far the device has got, unless something that has ended waits to be taken.
  /// - Returns: how many times `takeCounted` may be called.
  public func countUsed() -> Int {
    if finished == 0 {
      let issued = inFlight & ~pending
      if issued == 0 || isBroken {
        return 0
      }
      var ended = issued & ~engine.read(register)
      // A DMA command that fails may look like one that has ended; a queued one keeps its bit.
      if ended != 0, !usesCommandQueuing, hasError {
        ended = 0
      }
      if ended != 0 {
        // The register before the data that it tells of.
        bus.loadBarrier()
      }
      finished = ended
    }
    return finished.nonzeroBitCount
  }

  /// Takes the lowest slot that has ended.
  /// - Returns: nil where none has.
  @inline(__always)
  public func takeCounted() -> Int? {
    if finished == 0 {
      return nil
    }
    let slot = finished.trailingZeroBitCount
    let bit: UInt32 = 1 &<< UInt32(truncatingIfNeeded: slot)
    finished &= ~bit
    inFlight &= ~bit
    inFlightCount &-= 1
    return slot
  }

  /// Whether the request that a slot has ended last succeeded.
  @inline(__always)
  public func hasSucceeded(_ slot: Int) -> Bool { failed >> UInt32(truncatingIfNeeded: slot) & 1 == 0 }

  // MARK: Waiting

  private var hasError: Bool { engine.read(AHCIPortRegister.interruptStatus) & AHCIPortInterrupt.errors != 0 }

  /// Waits until something has ended; for one thing only, whatever `uses` says, since an HBA cannot be asked for more.
  public func waitForUsed(mode: WaitMode = .interrupt, uses: UInt16 = 1) throws(DriverError) {
    if countUsed() > 0 {
      return
    }
    guard !isBroken, inFlight & ~pending != 0 else {
      throw .deviceBroken
    }
    do {
      if let interrupt = engine.interrupt, mode == .interrupt {
        try waitByInterrupt(interrupt)
      } else {
        try waitByPolling()
      }
    } catch {
      // Nobody knows what the device still does; a reset does.
      isBroken = true
      throw error
    }
  }

  private func waitByInterrupt(_ interrupt: MessageInterrupt) throws(DriverError) {
    let start = bus.ticks
    while true {
      // The count first, then PxIS and IS, then the register: what ends after that raises a message (AHCI 1.3.1 §5.6.2).
      let seen = bus.interruptCount(interrupt)
      engine.acknowledge(AHCIPortInterrupt.completions)
      if try hasEndedOrRecovered() {
        return
      }
      waitCount &+= 1
      guard bus.waitForInterrupt(interrupt, after: seen) else {
        throw .machineStopped
      }
      guard bus.ticks &- start < waitTicksMax else {
        throw .timedOut
      }
    }
  }

  private func waitByPolling() throws(DriverError) {
    let start = bus.ticks
    var polls: UInt32 = 0
    while countUsed() == 0 {
      waitCount &+= 1
      guard bus.relax() else {
        throw .machineStopped
      }
      polls &+= 1
      if polls % AHCIQueue.pollsPerCheck == 0 {
        if try hasEndedOrRecovered() {
          return
        }
        if bus.ticks &- start >= waitTicksMax {
          throw .timedOut
        }
      }
    }
  }

  private func hasEndedOrRecovered() throws(DriverError) -> Bool {
    if countUsed() > 0 {
      return true
    }
    guard hasError else {
      return false
    }
    try recover()
    return true
  }

  /// Recovers the port, and does everything again that had not ended.
  private func recover() throws(DriverError) {
    recoveryCount &+= 1
    let issued = inFlight & ~pending
    // The register of queued commands still says which ones have ended well; that of others may say it of the failing
    // one too.
    let again = usesCommandQueuing ? issued & engine.read(register) : issued
    try engine.recover(wasQueued: usesCommandQueuing)
    for slot in 0..<depth where again >> UInt32(slot) & 1 != 0 {
      let outcome = try engine.performPrepared(slot: slot, isQueued: usesCommandQueuing)
      if !outcome.isGood {
        failed |= 1 << UInt32(slot)
      }
    }
    finished = issued
  }
}
