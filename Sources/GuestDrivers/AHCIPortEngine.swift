// SPDX-License-Identifier: Apache-2.0

/// One port's registers, memory and engines, whatever is attached: start, stop, reset, issue, wait (AHCI 1.3.1 §10).
///
/// It checks nothing that a test might want to do wrongly; `AHCIPort` and `AHCIQueue` keep the rules. Belongs to one
/// processor at a time.
public final class AHCIPortEngine<B: Bus> {
  /// How long COMRESET is sent, in ticks: at least 1 ms on anything up to 10 GHz (AHCI 1.3.1 §10.4.2).
  static var resetTicks: UInt64 { 10_000_000 }
  /// How long a link may take to come up, in ticks: at least 3 ms, and 12 ms at 2.5 GHz (AHCI 1.3.1 §10.1.2).
  static var detectionTicksMax: UInt64 { 30_000_000 }
  /// Polls between two looks at the clock.
  static var pollsPerClock: UInt32 { 16 }

  /// The port's number.
  public let number: Int
  /// How many command slots the HBA has.
  public let slotCount: Int
  /// Where the commands are.
  public let memory: AHCICommandMemory<B>
  /// The interrupt of the HBA; nil where the port is polled.
  public internal(set) var interrupt: MessageInterrupt?
  /// Whether PxCMD.ST was set, and commands may be issued.
  public private(set) var isRunning = false

  /// What the disk has said of the last queued command that failed; nil where it has no such log.
  public private(set) var lastErrorLog: ATAErrorLog?
  /// 512 bytes of RAM for the queued error log; 0 where the disk has none.
  var errorLog: UInt64 = 0

  let bus: B
  let globalRegisters: UInt64
  let registers: UInt64
  let hasListOverride: Bool

  /// Takes the memory of port `number` of the HBA whose registers begin at `globalRegisters`.
  init(bus: B, globalRegisters: UInt64, capabilities: UInt32, number: Int) throws(DriverError) {
    guard let memory = AHCICommandMemory(bus: bus),
      capabilities & AHCIControl.addresses64 != 0 || memory.end <= 1 << 32
    else {
      throw .outOfResources
    }
    self.bus = bus
    self.memory = memory
    self.number = number
    self.globalRegisters = globalRegisters
    registers = globalRegisters + AHCIRegister.firstPort + UInt64(number) * AHCIRegister.portBytes
    slotCount = Int(capabilities >> AHCIControl.slotCountShift & AHCIControl.slotCountMask) + 1
    hasListOverride = capabilities & AHCIControl.commandListOverride != 0
  }

  // MARK: Registers

  /// Reads one of `AHCIPortRegister`.
  @inline(__always)
  public func read(_ register: UInt64) -> UInt32 { bus.mmioRead32(registers &+ register) }

  /// Writes one of `AHCIPortRegister`.
  @inline(__always)
  public func write(_ register: UInt64, _ value: UInt32) { bus.mmioWrite32(registers &+ register, value) }

  private func change(_ register: UInt64, set: UInt32, clear: UInt32 = 0) {
    write(register, read(register) & ~clear | set)
  }

  /// Waits until the bits of `mask` are `value`.
  /// - Returns: whether they became that in `ticksMax` from `since` on, which is now where it is nil.
  func settles(
    _ register: UInt64, _ mask: UInt32, _ value: UInt32, since: UInt64? = nil, ticksMax: UInt64 = waitTicksMax
  ) throws(DriverError) -> Bool {
    let start = since ?? bus.ticks
    while read(register) & mask != value {
      guard bus.relax() else {
        throw .machineStopped
      }
      guard bus.ticks &- start < ticksMax else {
        return false
      }
    }
    return true
  }

  /// Clears what has happened so far: the link's errors, the port's interrupts, the HBA's bit for the port.
  func clearEvents() {
    write(AHCIPortRegister.linkError, read(AHCIPortRegister.linkError))
    acknowledge(UInt32.max)
  }

  /// Clears interrupts of the port, and then the HBA's bit, which would come back at once otherwise (AHCI 1.3.1 §5.6.2).
  @inline(__always)
  func acknowledge(_ bits: UInt32) {
    write(AHCIPortRegister.interruptStatus, bits)
    bus.mmioWrite32(globalRegisters &+ AHCIRegister.interruptStatus, 1 << UInt32(number))
  }

  // MARK: Engines

  /// Whether either engine runs or was told to.
  public var hasEngines: Bool {
    let bits =
      AHCIPortCommand.start | AHCIPortCommand.listRuns | AHCIPortCommand.receive | AHCIPortCommand.receiveRuns
    return read(AHCIPortRegister.command) & bits != 0
  }

  /// Stops command processing, which also ends every command (AHCI 1.3.1 §3.3.7, §10.3.2).
  public func stop() throws(DriverError) {
    isRunning = false
    change(AHCIPortRegister.command, set: 0, clear: AHCIPortCommand.start)
    guard try settles(AHCIPortRegister.command, AHCIPortCommand.listRuns, 0) else {
      throw .stuck
    }
  }

  /// Stops both engines, commands first (AHCI 1.3.1 §10.3.2).
  public func stopAll() throws(DriverError) {
    try stop()
    change(AHCIPortRegister.command, set: 0, clear: AHCIPortCommand.receive)
    guard try settles(AHCIPortRegister.command, AHCIPortCommand.receiveRuns, 0) else {
      throw .stuck
    }
  }

  /// Starts command processing (AHCI 1.3.1 §10.3.1).
  public func start() throws(DriverError) {
    let busy = AHCITaskFile.busy | AHCITaskFile.dataRequest
    if hasListOverride, read(AHCIPortRegister.taskFile) & busy != 0 {
      change(AHCIPortRegister.command, set: AHCIPortCommand.listOverride)
      _ = try settles(AHCIPortRegister.command, AHCIPortCommand.listOverride, 0)
    }
    guard read(AHCIPortRegister.taskFile) & busy == 0 else {
      throw .noDevice
    }
    change(AHCIPortRegister.command, set: AHCIPortCommand.start)
    guard try settles(AHCIPortRegister.command, AHCIPortCommand.listRuns, AHCIPortCommand.listRuns) else {
      throw .stuck
    }
    isRunning = true
  }

  /// Gives the port its memory and lets it receive; no commands yet (AHCI 1.3.1 §10.1.2).
  func configure() throws(DriverError) {
    if hasEngines {
      try stopAll()
    }
    isRunning = false
    write(AHCIPortRegister.interruptEnable, 0)
    write(AHCIPortRegister.commandList, UInt32(truncatingIfNeeded: memory.list))
    write(AHCIPortRegister.commandListUpper, UInt32(truncatingIfNeeded: memory.list >> 32))
    write(AHCIPortRegister.receivedFIS, UInt32(truncatingIfNeeded: memory.receivedFIS))
    write(AHCIPortRegister.receivedFISUpper, UInt32(truncatingIfNeeded: memory.receivedFIS >> 32))
    write(AHCIPortRegister.linkError, read(AHCIPortRegister.linkError))
    change(
      AHCIPortRegister.command, set: AHCIPortCommand.receive | AHCIPortCommand.spinUp | AHCIPortCommand.powerOn)
    guard try settles(AHCIPortRegister.command, AHCIPortCommand.receiveRuns, AHCIPortCommand.receiveRuns) else {
      throw .stuck
    }
  }

  /// Whether a device is there, waiting for a link that has been coming up since `since`.
  func detect(since: UInt64? = nil) throws(DriverError) -> Bool {
    try settles(
      AHCIPortRegister.linkStatus, AHCILink.detectionMask, AHCILink.present, since: since,
      ticksMax: AHCIPortEngine.detectionTicksMax)
  }

  /// Waits until the device has sent its signature and is not busy (AHCI 1.3.1 §10.4.2).
  func awaitDevice() throws(DriverError) {
    guard try detect() else {
      throw .noDevice
    }
    // BSY does not go away before the link's errors were cleared, which the reset itself has raised.
    write(AHCIPortRegister.linkError, read(AHCIPortRegister.linkError))
    let busy = AHCITaskFile.busy | AHCITaskFile.dataRequest
    guard try settles(AHCIPortRegister.taskFile, busy, 0) else {
      throw .noDevice
    }
  }

  /// Resets the device by COMRESET; commands are ended, and none may be issued until `start` (AHCI 1.3.1 §10.4.2).
  public func resetDevice() throws(DriverError) {
    try stop()
    change(AHCIPortRegister.linkControl, set: AHCILink.reset, clear: AHCILink.detectionMask)
    let start = bus.ticks
    while bus.ticks &- start < AHCIPortEngine.resetTicks {
      guard bus.relax() else {
        throw .machineStopped
      }
    }
    change(AHCIPortRegister.linkControl, set: 0, clear: AHCILink.detectionMask)
    try awaitDevice()
    clearEvents()
  }

  /// Lets the port work again after an error; commands that had not ended are ended now (AHCI 1.3.1 §6.2.2).
  ///
  /// After an error of a queued command a disk takes nothing until its error log was read; one that has no such log, or
  /// that still holds something, is reset (ACS-3, NCQ feature set).
  /// - Parameter wasQueued: the error is that of a queued command.
  public func recover(wasQueued: Bool) throws(DriverError) {
    lastErrorLog = nil
    try stop()
    clearEvents()
    let busy = AHCITaskFile.busy | AHCITaskFile.dataRequest
    let isHolding = read(AHCIPortRegister.issue) | read(AHCIPortRegister.active) != 0
    let isReset = isHolding || read(AHCIPortRegister.taskFile) & busy != 0 || wasQueued && errorLog == 0
    if isReset {
      try resetDevice()
    }
    try start()
    if wasQueued, !isReset {
      try readErrorLog()
    }
  }

  /// Reads the queued error log (ACS-3 annex A).
  ///
  /// Slot 0's header is borrowed, with a table of its own, so that the commands of all slots can be issued again.
  private func readErrorLog() throws(DriverError) {
    let spare = AHCICommandMemory<B>.slotsMax
    let header = memory.header(0)
    let old = (bus.ramRead64(header), bus.ramRead64(header + 8))
    var command = ATACommand(ATAOpcode.readLogExt)
    command.lba = UInt64(ATAErrorLog.page)
    command.count = 1
    memory.writeFIS(slot: spare, command)
    let count = memory.writeDescriptors(
      slot: spare, AHCIBuffer(address: errorLog, byteCount: UInt32(ATAErrorLog.byteCount)))
    memory.writeHeader(slot: 0, flags: 0, descriptorCount: count, table: memory.table(spare))
    issue(1, queued: 0)
    let events = try wait(1, in: AHCIPortRegister.issue)
    bus.ramWrite64(header, old.0)
    bus.ramWrite64(header + 8, old.1)
    guard events & AHCIPortInterrupt.errors == 0 else {
      try recover(wasQueued: false)
      return
    }
    bus.loadBarrier()
    lastErrorLog = ATAErrorLog(bus, address: errorLog)
  }

  // MARK: Commands

  /// Shows the HBA the commands in `slots`, of which those in `queued` are queued commands (AHCI 1.3.1 §5.3.14).
  @inline(__always)
  public func issue(_ slots: UInt32, queued: UInt32) {
    // Headers and tables before the registers that tell of them.
    bus.storeBarrier()
    if queued != 0 {
      write(AHCIPortRegister.active, queued)
    }
    write(AHCIPortRegister.issue, slots)
  }

  /// Waits until `register` has none of `slots`, or an error shows.
  /// - Returns: bits of PxIS that came meanwhile; they were cleared.
  public func wait(_ slots: UInt32, in register: UInt64) throws(DriverError) -> UInt32 {
    let start = bus.ticks
    var events: UInt32 = 0
    var polls: UInt32 = 0
    while true {
      // The count before the registers: an interrupt that arrives in between ends the wait at once.
      let seen = interrupt == nil ? 0 : count()
      events |= takeEvents()
      if read(register) & slots == 0 {
        return events | takeEvents()
      }
      if events & AHCIPortInterrupt.errors != 0 {
        return events
      }
      if let interrupt {
        guard bus.waitForInterrupt(interrupt, after: seen) else {
          throw .machineStopped
        }
      } else {
        guard bus.relax() else {
          throw .machineStopped
        }
      }
      polls &+= 1
      if interrupt != nil || polls % AHCIPortEngine.pollsPerClock == 0, bus.ticks &- start >= waitTicksMax {
        throw .timedOut
      }
    }
  }

  private func count() -> UInt32 {
    guard let interrupt else {
      return 0
    }
    return bus.interruptCount(interrupt)
  }

  /// Reads PxIS, and clears what it says.
  func takeEvents() -> UInt32 {
    let events = read(AHCIPortRegister.interruptStatus)
    if events != 0 {
      acknowledge(events)
    }
    return events
  }

  /// Does one command in a slot, with nothing else in flight, and recovers the port where it fails.
  public func perform(
    _ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0
  ) throws(DriverError) -> ATAOutcome {
    guard isRunning else {
      throw .stuck
    }
    memory.prepare(slot: slot, command, buffer, packet: packet)
    return try performPrepared(slot: slot, isQueued: ATACommand.isQueued(command.opcode))
  }

  /// Does the command that a slot is prepared for.
  func performPrepared(slot: Int, isQueued: Bool) throws(DriverError) -> ATAOutcome {
    let bit: UInt32 = 1 << UInt32(slot)
    memory.clearByteCount(slot)
    _ = takeEvents()
    issue(bit, queued: isQueued ? bit : 0)
    let events = try wait(bit, in: isQueued ? AHCIPortRegister.active : AHCIPortRegister.issue)
    // The register before what the HBA wrote to memory ahead of it.
    bus.loadBarrier()
    let outcome = ATAOutcome(
      interruptStatus: events, taskFile: read(AHCIPortRegister.taskFile), byteCount: memory.byteCount(slot),
      lba: receivedLBA)
    if !outcome.isGood {
      try recover(wasQueued: isQueued)
    }
    return outcome
  }

  /// The LBA of the last device-to-host register FIS.
  public var receivedLBA: UInt64 {
    let fis = memory.receivedFIS + AHCIReceivedFIS.register
    let low = UInt64(bus.ramRead32(fis + 4) & 0xFF_FFFF)
    return low | UInt64(bus.ramRead32(fis + 8) & 0xFF_FFFF) << 24
  }
}

// One processor owns a port at a time.
extension AHCIPortEngine: @unchecked Sendable {}
