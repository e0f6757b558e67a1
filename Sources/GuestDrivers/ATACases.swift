// SPDX-License-Identifier: Apache-2.0

/// An ATA disk behind AHCI under test.
final class ATADisk<B: Bus>: DiskUnderTest {
  let number: Int
  let controller: AHCIController<B>
  let port: AHCIPort<B>
  let queue: AHCIQueue<B>
  /// What the disk said of itself at first.
  let identity: ATAIdentity
  var table: GUIDPartitionTable?
  var firstChunkSum: WordSum?

  init(
    number: Int, controller: AHCIController<B>, port: AHCIPort<B>, queue: AHCIQueue<B>, identity: ATAIdentity
  ) {
    self.number = number
    self.controller = controller
    self.port = port
    self.queue = queue
    self.identity = identity
  }

  var sectorCount: UInt64 { identity.sectorCount }
  /// 65535 sectors and more fit into every command; the cases never want that much.
  var requestBytesMax: UInt64 { 0xFFFF << 9 }
  var isReadOnly: Bool { false }
  var canFlush: Bool { identity.hasFlush || identity.hasFlushExt }
  func flush() throws(DriverError) -> Bool {
    try port.flush().isGood
  }
}

/// Cases about an ATA disk: what it says of itself, PIO, DMA and queued commands.
extension TestRun {
  /// Sectors of the small reads that are compared.
  static var comparedSectors: UInt16 { 8 }
  /// A PRD size so small that a sector takes 16 of them.
  static var smallPieceBytes: UInt32 { 32 }

  func ataCases(_ controller: AHCIController<B>, _ port: AHCIPort<B>, number: Int) {
    identifyCases(port, number: number)
    guard !isStopping, let identity = port.identity, let queue = port.queue else {
      return
    }
    let disk = ATADisk(number: number, controller: controller, port: port, queue: queue, identity: identity)
    nativeMaxCases(disk)
    partitionCases(disk)
    sumCases(disk)
    if disk.firstChunkSum != nil, disk.byteCount >= UInt64(TestRun.comparedSectors) << 9 {
      transferCases(disk)
      tagCases(disk)
      forcedWriteCase(disk)
    }
    scratchCases(disk)
    ataErrorCases(disk)
    ataWriteCacheCase(disk)
    ataResetCases(disk)
  }

  private func identifyCases(_ port: AHCIPort<B>, number: Int) {
    let outcome = port.identifyOutcome
    guard
      report.check(
        port.identity != nil && outcome?.byteCount == ATAIdentity.byteCount, "IDENTIFY DEVICE answers (ACS-3 7.12)"),
      let identity = port.identity
    else {
      return
    }
    report.result { console in
      console.text("disk-serial disk=")
      console.decimal(UInt64(number))
      console.text(" ")
      console.text(identity.serial)
    }
    list(identity)
    let checksumName: StaticString = "IDENTIFY: the checksum in word 255 holds (ACS-3 7.12.7)"
    if let holds = identity.checksumHolds {
      report.check(holds, checksumName)
    } else {
      report.skip(checksumName, "the data carries none")
    }
    let reach28: UInt64 = 0x0FFF_FFFF
    report.check(
      !identity.isATAPI && identity.sectorCount > 0
        && UInt64(identity.sectorCount28) == min(identity.sectorCount, reach28)
        && identity.physicalSectorBytes >= UInt64(identity.logicalSectorBytes),
      "IDENTIFY: words 60 and 61 agree with words 100 to 103 (ACS-3 7.12.7)")
    if port.queue == nil {
      report.skip("reads and writes", "the disk has no 48-bit addresses, or other sectors than of 512 bytes")
    }
  }

  private func list(_ identity: ATAIdentity) {
    report.comment { console in
      console.text("ata \"")
      console.text(identity.model)
      console.text("\" sectors ")
      console.decimal(identity.sectorCount)
      console.text(" logical ")
      console.decimal(UInt64(identity.logicalSectorBytes))
      console.text(" physical ")
      console.decimal(identity.physicalSectorBytes)
      console.text(" rotation ")
      console.decimal(UInt64(identity.rotationRate))
      if identity.hasCommandQueuing {
        console.text(" queue ")
        console.decimal(UInt64(identity.queueDepth))
      }
      console.text(identity.hasForcedUnitAccess ? " fua" : "")
      console.text(identity.hasWriteCache ? (identity.isWriteCacheOn ? " cache on" : " cache off") : "")
      console.text(identity.hasTrim ? " trim" : "")
      console.text(identity.hasLogging ? " log" : "")
    }
  }

  /// Both commands name the last sector (ATA8-ACS §7, the host protected area commands).
  private func nativeMaxCases(_ disk: ATADisk<B>) {
    let name: StaticString = "READ NATIVE MAX ADDRESS and its EXT name the last sector (ACS-2 7.32, 7.33)"
    var isKnown = true
    var agrees = false
    do {
      let short = try disk.port.perform(ATACommand(ATAOpcode.readNativeMax, lba: 0, count: 0))
      let long = try disk.port.perform(ATACommand(ATAOpcode.readNativeMaxExt, lba: 0, count: 0))
      isKnown = disk.identity.hasProtectedArea || !short.isAborted || !long.isAborted
      let last = disk.sectorCount &- 1
      // The lower 24 bits of the short one: where the others are differs between devices.
      let last28 = UInt64(disk.identity.sectorCount28) &- 1
      agrees = short.isGood && long.isGood && long.lba == last && (short.lba ^ last28) & 0xFF_FFFF == 0
    } catch {
      attempt(name) { () throws(DriverError) in throw error }
      return
    }
    if isKnown {
      report.check(agrees, name)
    } else {
      report.skip(name, "the disk has no host protected area")
    }
  }

  // MARK: Data

  /// The commands that read, in the order in which they are compared.
  private func readOpcodes(_ disk: ATADisk<B>) -> [UInt8] {
    var opcodes = [
      ATAOpcode.readSectors, ATAOpcode.readSectorsExt, ATAOpcode.readDMA, ATAOpcode.readDMAExt,
    ]
    if disk.queue.usesCommandQueuing {
      opcodes.append(ATAOpcode.readQueued)
    }
    return opcodes
  }

  /// Reads the first sectors with every read command in some way, and compares them with the first chunk.
  private func readsTheSame(
    _ disk: ATADisk<B>, pieceBytes: UInt32 = 0, extraBytes: UInt32 = 0
  ) throws(DriverError) -> Bool {
    let sectors = TestRun.comparedSectors
    let byteCount = UInt32(sectors) << 9
    guard try disk.queue.readAndWait(sector: 0, into: chunks, byteCount: byteCount) else {
      return false
    }
    let other = chunks + TestRun.chunkBytes
    var isGood = true
    var slot = 0
    for opcode in readOpcodes(disk) {
      clear(other, byteCount: UInt64(byteCount))
      slot = (slot + 7) % disk.queue.depth
      let outcome = try disk.port.transfer(
        opcode, sector: 0, count: sectors,
        AHCIBuffer(address: other, byteCount: byteCount + extraBytes, pieceBytes: pieceBytes), slot: slot)
      isGood = outcome.isGood && isEqual(chunks, other, byteCount: UInt64(byteCount)) && isGood
      // PRDBC says nothing for queued commands.
      isGood = (ATACommand.isQueued(opcode) || outcome.byteCount == byteCount) && isGood
    }
    return isGood
  }

  private func clear(_ address: UInt64, byteCount: UInt64) {
    for word in 0..<(byteCount / 8) {
      bus.ramWrite64(address + 8 * word, 0)
    }
  }

  private func transferCases(_ disk: ATADisk<B>) {
    attempt("PIO, DMA and queued reads give the same bytes and count them (AHCI 5.5.1, 4.2.2)") {
      () throws(DriverError) in
      try readsTheSame(disk)
    }
    attempt("data in PRDs of 32 bytes is whole (AHCI 4.2.3.3)") { () throws(DriverError) in
      try readsTheSame(disk, pieceBytes: TestRun.smallPieceBytes)
    }
    attempt("PRDs that hold more than the command moves do no harm (AHCI 4.2.2)") { () throws(DriverError) in
      try readsTheSame(disk, extraBytes: 4096)
    }
    let name: StaticString = "a command without data moves none and leaves PRDBC 0 (AHCI 4.2.2)"
    guard disk.canFlush else {
      report.skip(name, "the disk has no flush")
      return
    }
    attempt(name) { () throws(DriverError) in
      let outcome = try disk.port.flush()
      return outcome.isGood && outcome.byteCount == 0
    }
  }

  // MARK: Many at once

  /// One read of N sectors against N reads of one sector, submitted backwards and shown at once.
  private func tagCases(_ disk: ATADisk<B>) {
    attempt("every slot is in flight at once, and each gets its own data (AHCI 5.6.4, 5.6.5)") {
      () throws(DriverError) in
      try fillsEverySlot(disk, disk.queue)
    }
    let name: StaticString = "every slot holds a DMA command at once, and each gets its own data (AHCI 5.6.1)"
    guard disk.queue.usesCommandQueuing else {
      report.skip(name, "the disk has no queued commands, so they were DMA commands already")
      return
    }
    attempt(name) { () throws(DriverError) in
      let queue = AHCIQueue(
        engine: disk.port.engine, depth: disk.port.engine.slotCount, usesCommandQueuing: false)
      return try fillsEverySlot(disk, queue)
    }
  }

  private func fillsEverySlot(_ disk: ATADisk<B>, _ queue: AHCIQueue<B>) throws(DriverError) -> Bool {
    let count = min(queue.depth, Int(chunkByteCount(disk) >> 9))
    let byteCount = UInt64(count) << 9
    let other = chunks + TestRun.chunkBytes
    guard try queue.readAndWait(sector: 0, into: chunks, byteCount: UInt32(byteCount)) else {
      return false
    }
    clear(other, byteCount: byteCount)
    for slot in (0..<count).reversed() {
      queue.prepare(slot: slot, writes: false, address: other + UInt64(slot) << 9, byteCount: 512)
      queue.submit(slot: slot, sector: UInt64(slot))
    }
    queue.kick()
    var isGood = true
    while queue.inFlightCount > 0 {
      isGood = queue.hasSucceeded(try queue.waitForSlot()) && isGood
    }
    return isGood && isEqual(chunks, other, byteCount: byteCount)
  }

  /// A write with FUA to the scratch partition reads back.
  private func forcedWriteCase(_ disk: ATADisk<B>) {
    let name: StaticString = "a write with FUA reads back (ACS-3 7.62.3)"
    guard let partition = disk.scratch, partition.blockCount >= UInt64(TestRun.comparedSectors) else {
      report.skip(name, "no GPT partition 2 named scratch")
      return
    }
    guard disk.queue.usesCommandQueuing || disk.identity.hasForcedUnitAccess else {
      report.skip(name, "the disk has no such command")
      return
    }
    attempt(name) { () throws(DriverError) in
      let byteCount = UInt64(TestRun.comparedSectors) << 9
      let pattern = ScratchPattern(seed: ~options.seed)
      pattern.fill(bus, address: chunks, firstIndex: 0, wordCount: byteCount / 8)
      disk.queue.forcesUnitAccess = true
      let isWritten = try disk.queue.writeAndWait(
        sector: partition.firstBlock, from: chunks, byteCount: UInt32(byteCount))
      disk.queue.forcesUnitAccess = false
      clear(chunks, byteCount: byteCount)
      let isRead = try disk.queue.readAndWait(
        sector: partition.firstBlock, into: chunks, byteCount: UInt32(byteCount))
      return isWritten && isRead
        && pattern.matches(bus, address: chunks, firstIndex: 0, wordCount: byteCount / 8)
    }
    disk.queue.forcesUnitAccess = false
  }
}
