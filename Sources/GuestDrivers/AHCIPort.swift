// SPDX-License-Identifier: Apache-2.0

/// What is attached to a port.
public enum AHCIDeviceKind: Sendable {
  /// Nothing, or nothing that answers.
  case none
  /// An ATA disk.
  case ata
  /// An ATAPI device.
  case atapi
  /// Something with another signature.
  case other
}

/// The sense data of an ATAPI device (SPC-4 §4.5.3), in the fixed format.
public struct ATAPISense: Equatable, Sendable {
  /// Bytes of it that are asked for.
  public static var byteCount: UInt8 { 18 }

  /// Sense key: 2 not ready, 5 illegal request, 6 unit attention.
  public var key: UInt8
  /// Additional sense code.
  public var code: UInt8
  /// Its qualifier.
  public var qualifier: UInt8

  /// Describes sense data.
  public init(key: UInt8, code: UInt8, qualifier: UInt8 = 0) {
    self.key = key
    self.code = code
    self.qualifier = qualifier
  }
}

/// A port and its device: what it is, synchronous commands, and a queue for reads and writes. Belongs to one processor.
public final class AHCIPort<B: Bus> {
  /// The port's number.
  public let number: Int
  /// Registers, memory and engines.
  public let engine: AHCIPortEngine<B>
  /// What is attached, by its signature.
  public private(set) var kind = AHCIDeviceKind.none
  /// What it says of itself; nil where nothing has answered.
  public private(set) var identity: ATAIdentity?
  /// How the last IDENTIFY ended.
  public private(set) var identifyOutcome: ATAOutcome?
  /// Reads and writes, where the device is an ATA disk of 512-byte logical sectors: queued commands where HBA and disk
  /// have them. The object stays the same through resets for as long as the disk does.
  public private(set) var queue: AHCIQueue<B>?

  let bus: B
  private let hasCommandQueuing: Bool
  /// A page of RAM: IDENTIFY data, the error log, sense data.
  private let page: UInt64

  private static var errorLogOffset: UInt64 { 512 }
  private static var senseOffset: UInt64 { 1024 }
  private static var pageBytes: UInt64 { 4096 }

  /// Takes the memory of a port; the device is not asked anything yet.
  init(bus: B, globalRegisters: UInt64, capabilities: UInt32, number: Int) throws(DriverError) {
    guard let page = bus.allocate(byteCount: AHCIPort.pageBytes, alignment: AHCIPort.pageBytes) else {
      throw .outOfResources
    }
    self.bus = bus
    self.page = page
    self.number = number
    hasCommandQueuing = capabilities & AHCIControl.commandQueuing != 0
    engine = try AHCIPortEngine(
      bus: bus, globalRegisters: globalRegisters, capabilities: capabilities, number: number)
  }

  /// Brings the device up as far as IDENTIFY: ready, known by its signature, commands processed (AHCI 1.3.1 §10.1.2).
  ///
  /// A port without a device, or with one that nobody knows, is left without `identity`; links have come up since `since`.
  func bringUp(interrupt: MessageInterrupt?, since: UInt64) throws(DriverError) {
    engine.interrupt = interrupt
    engine.errorLog = 0
    queue?.clear()
    kind = .none
    identity = nil
    identifyOutcome = nil
    try engine.configure()
    guard try engine.detect(since: since) else {
      return
    }
    try engine.awaitDevice()
    switch engine.read(AHCIPortRegister.signature) {
    case AHCISignature.ata: kind = .ata
    case AHCISignature.atapi: kind = .atapi
    default: kind = .other
    }
    engine.clearEvents()
    guard kind != .other else {
      return
    }
    try engine.start()
    if interrupt != nil {
      engine.write(AHCIPortRegister.interruptEnable, AHCIPortInterrupt.wanted)
    }
    try identify()
    setUpQueue()
  }

  private func setUpQueue() {
    guard kind == .ata, let identity, identity.has48BitAddresses, identity.logicalSectorBytes == 512 else {
      queue = nil
      return
    }
    let usesQueuing = hasCommandQueuing && identity.hasCommandQueuing
    let depth = min(engine.slotCount, usesQueuing ? identity.queueDepth : engine.slotCount)
    if queue?.usesCommandQueuing != usesQueuing || queue?.depth != depth {
      queue = AHCIQueue(engine: engine, depth: depth, usesCommandQueuing: usesQueuing)
    }
    engine.errorLog = usesQueuing && identity.hasLogging ? page + AHCIPort.errorLogOffset : 0
  }

  /// Resets the device by COMRESET, ends everything in flight, and lets the port work again (AHCI 1.3.1 §10.4.2).
  public func reset() throws(DriverError) {
    try engine.resetDevice()
    queue?.clear()
    try engine.start()
  }

  // MARK: Synchronous commands, with nothing else in flight

  /// Throws unless nothing is in flight in `queue`.
  private func checkIdle() throws(DriverError) {
    guard queue?.inFlightCount ?? 0 == 0 else {
      throw .deviceBroken
    }
  }

  /// Does any command and waits for it; where it fails, the port has been recovered.
  public func perform(
    _ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0
  ) throws(DriverError) -> ATAOutcome {
    try checkIdle()
    return try engine.perform(command, buffer, packet: packet, slot: slot)
  }

  /// Asks the device what it is; `identity` is what it has answered, nil where it has not.
  public func identify() throws(DriverError) {
    identity = nil
    for word in 0..<UInt64(ATAIdentity.byteCount) / 8 {
      bus.ramWrite64(page + 8 * word, 0)
    }
    let outcome = try perform(
      ATACommand(kind == .atapi ? ATAOpcode.identifyPacket : ATAOpcode.identify),
      AHCIBuffer(address: page, byteCount: ATAIdentity.byteCount))
    identifyOutcome = outcome
    if outcome.isGood {
      identity = ATAIdentity(bus, address: page)
    }
  }

  /// Reads or writes sectors with a given command code, PIO, DMA or queued.
  ///
  /// - Parameters:
  ///   - opcode: a read or a write of `ATAOpcode`.
  ///   - sector: the first logical sector.
  ///   - count: how many logical sectors; what the command is told, whatever the buffer holds.
  ///   - buffer: where the data is or goes.
  public func transfer(
    _ opcode: UInt8, sector: UInt64, count: UInt16, _ buffer: AHCIBuffer, slot: Int = 0
  ) throws(DriverError) -> ATAOutcome {
    try perform(ATACommand(opcode, lba: sector, count: count, tag: slot), buffer, slot: slot)
  }

  /// Makes all completed writes durable, with FLUSH CACHE EXT where the disk has it.
  public func flush() throws(DriverError) -> ATAOutcome {
    let opcode = identity?.hasFlushExt ?? false ? ATAOpcode.flushCacheExt : ATAOpcode.flushCache
    return try perform(ATACommand(opcode))
  }

  /// Reads one page of a log (ACS-3 §7.24) into 512 bytes of RAM at `address`.
  public func readLog(_ log: UInt8, into address: UInt64) throws(DriverError) -> ATAOutcome {
    var command = ATACommand(ATAOpcode.readLogExt)
    command.lba = UInt64(log)
    command.count = 1
    return try perform(command, AHCIBuffer(address: address, byteCount: 512))
  }

  /// SET FEATURES with a subcommand of `ATAFeature` and its value in the count.
  public func setFeatures(_ subcommand: UInt8, count: UInt16 = 0) throws(DriverError) -> ATAOutcome {
    var command = ATACommand(ATAOpcode.setFeatures)
    command.features = UInt16(subcommand)
    command.count = count
    return try perform(command)
  }

  // MARK: Packets

  /// Does a packet command.
  ///
  /// - Parameters:
  ///   - packet: the command.
  ///   - buffer: its data.
  ///   - usesDMA: whether the data moves by DMA, else by PIO.
  ///   - byteCountLimit: the most bytes of one PIO transfer (ACS-3 §7.18), even; not used with DMA.
  public func packet(
    _ packet: ATAPIPacket, _ buffer: AHCIBuffer = .none, usesDMA: Bool, byteCountLimit: UInt16 = 0xFFFE
  ) throws(DriverError) -> ATAOutcome {
    var command = ATACommand(ATAOpcode.packet)
    command.features = usesDMA ? 1 : 0
    command.lba = usesDMA ? 0 : UInt64(byteCountLimit) << 8
    return try perform(command, buffer, packet: packet)
  }

  /// Asks an ATAPI device what went wrong last.
  /// - Returns: nil where it does not answer.
  public func requestSense() throws(DriverError) -> ATAPISense? {
    let address = page + AHCIPort.senseOffset
    bus.ramWrite64(address, 0)
    bus.ramWrite64(address + 8, 0)
    let outcome = try packet(
      ATAPIPacket.requestSense(byteCount: ATAPISense.byteCount),
      AHCIBuffer(address: address, byteCount: UInt32(ATAPISense.byteCount)), usesDMA: false)
    guard outcome.isGood else {
      return nil
    }
    return ATAPISense(
      key: bus.ramRead8(address + 2) & 0xF, code: bus.ramRead8(address + 12), qualifier: bus.ramRead8(address + 13))
  }
}
