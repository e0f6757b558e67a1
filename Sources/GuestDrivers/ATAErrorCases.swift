// SPDX-License-Identifier: Apache-2.0

/// Cases about commands that an ATA disk must refuse, about resets, and that it goes on after both.
extension TestRun {
  /// A command code that no version of ATA gives a meaning to (ACS-3, table of command codes).
  static var unknownOpcode: UInt8 { 0x02 }

  func ataErrorCases(_ disk: ATADisk<B>) {
    let end = disk.sectorCount
    refusalCase(disk, "a DMA read past the end fails (AHCI 5.5.3)", ATAOpcode.readDMAExt, sector: end, count: 1)
    refusalCase(disk, "a DMA read across the end fails", ATAOpcode.readDMAExt, sector: end &- 1, count: 2)
    refusalCase(disk, "a PIO read past the end fails (AHCI 5.5.3)", ATAOpcode.readSectorsExt, sector: end, count: 1)
    refusalCase(disk, "a DMA write past the end fails", ATAOpcode.writeDMAExt, sector: end, count: 1)
    attempt("an unknown command is aborted (ACS-3 6.2)") { () throws(DriverError) in
      try disk.port.perform(ATACommand(TestRun.unknownOpcode)).isAborted
    }
    if disk.queue.usesCommandQueuing {
      refusalCase(disk, "a queued read past the end fails (AHCI 5.5.3)", ATAOpcode.readQueued, sector: end, count: 1)
      queuedErrorCase(disk)
      errorLogCase(disk)
    }
    attempt("the last sector is read") { () throws(DriverError) in
      try disk.queue.readAndWait(sector: end &- 1, into: scratchpad, byteCount: 512)
    }
    attempt("the port works on after all refusals (AHCI 6.2.2)") { () throws(DriverError) in
      try readsFirstChunk(disk)
    }
  }

  /// The command fails with TFES and ERR, which `perform` recovers from.
  private func refusalCase(
    _ disk: ATADisk<B>, _ name: StaticString, _ opcode: UInt8, sector: UInt64, count: UInt16
  ) {
    attempt(name) { () throws(DriverError) in
      let isWrite = opcode == ATAOpcode.writeDMAExt
      let outcome = try disk.port.transfer(
        opcode, sector: sector, count: count,
        AHCIBuffer(address: scratchpad, byteCount: UInt32(count) << 9, writes: isWrite))
      return outcome.interruptStatus & AHCIPortInterrupt.taskFileError != 0
        && outcome.taskFile & AHCITaskFile.error != 0
        && outcome.taskFile & (AHCITaskFile.aborted | AHCITaskFile.notFound) != 0
    }
  }

  /// One of several queued reads is past the end; it alone fails, and the others bring their data.
  private func queuedErrorCase(_ disk: ATADisk<B>) {
    let count = min(disk.queue.depth, 8, Int(chunkByteCount(disk) >> 9))
    let name: StaticString = "a queued command that fails among others fails alone (AHCI 6.2.2.2)"
    guard count > 1 else {
      report.skip(name, "the disk takes one queued command at a time")
      return
    }
    attempt(name) { () throws(DriverError) in
      let queue = disk.queue
      let bad = count / 2
      let other = chunks + TestRun.chunkBytes
      guard try queue.readAndWait(sector: 0, into: chunks, byteCount: UInt32(count) << 9) else {
        return false
      }
      for slot in 0..<count {
        let address = other + UInt64(slot) << 9
        bus.ramWrite64(address, ~bus.ramRead64(chunks + UInt64(slot) << 9))
        queue.prepare(slot: slot, writes: false, address: address, byteCount: 512)
        queue.submit(slot: slot, sector: slot == bad ? disk.sectorCount : UInt64(slot))
      }
      queue.kick()
      var isGood = true
      while queue.inFlightCount > 0 {
        let slot = try queue.waitForSlot()
        let address = UInt64(slot) << 9
        let isRead = queue.hasSucceeded(slot) && isEqual(chunks + address, other + address, byteCount: 512)
        isGood = isRead == (slot != bad) && isGood
      }
      return isGood
    }
  }

  /// The queued error log names the tag that has failed (ACS-3 annex A).
  private func errorLogCase(_ disk: ATADisk<B>) {
    let name: StaticString = "READ LOG EXT page 10h names the queued command that failed (ACS-3 9.12)"
    guard disk.identity.hasLogging, disk.queue.depth >= 4 else {
      report.skip(name, "the disk has no general purpose logging")
      return
    }
    attempt(name) { () throws(DriverError) in
      let engine = disk.port.engine
      let bad = 2
      var slots: UInt32 = 0
      for slot in 1...3 {
        let sector = slot == bad ? disk.sectorCount : UInt64(slot)
        engine.memory.prepare(
          slot: slot, ATACommand(ATAOpcode.readQueued, lba: sector, count: 1, tag: slot),
          AHCIBuffer(address: scratchpad + UInt64(slot) << 9, byteCount: 512))
        slots |= 1 << UInt32(slot)
      }
      engine.issue(slots, queued: slots)
      let events = try engine.wait(slots, in: AHCIPortRegister.active)
      let holds = engine.read(AHCIPortRegister.active) >> UInt32(bad) & 1 != 0
      try engine.recover(wasQueued: true)
      guard let log = engine.lastErrorLog else {
        return false
      }
      return events & AHCIPortInterrupt.taskFileError != 0 && holds && !log.isNotQueued && log.tag == bad
        && UInt32(log.status) & AHCITaskFile.error != 0 && log.checksumHolds
    }
  }

  /// SET FEATURES turns the cache off and on, and IDENTIFY shows it (ACS-3 §7.45; word 85).
  func ataWriteCacheCase(_ disk: ATADisk<B>) {
    let name: StaticString = "the write cache goes off and on (ACS-3 7.45.5)"
    guard disk.identity.hasWriteCache else {
      report.skip(name, "the disk has none")
      return
    }
    attempt(name) { () throws(DriverError) in
      let port = disk.port
      let isOffTaken = try port.setFeatures(ATAFeature.disableWriteCache).isGood
      try port.identify()
      let isOff = port.identity?.isWriteCacheOn == false
      let works = try readsFirstChunk(disk)
      let isOnTaken = try port.setFeatures(ATAFeature.enableWriteCache).isGood
      try port.identify()
      let isOn = port.identity?.isWriteCacheOn == true
      if !disk.identity.isWriteCacheOn {
        _ = try port.setFeatures(ATAFeature.disableWriteCache)
      }
      return isOffTaken && isOff && works && isOnTaken && isOn
    }
  }

  // MARK: Resets

  /// Resets of the device and of the HBA with requests in flight end them all, and everything works again.
  func ataResetCases(_ disk: ATADisk<B>) {
    guard chunkByteCount(disk) > 0 else {
      return
    }
    let engine = disk.port.engine
    attempt("COMRESET with requests in flight ends them (AHCI 10.4.2)") { () throws(DriverError) in
      try fillQueue(disk)
      try disk.port.reset()
      return engine.read(AHCIPortRegister.issue) | engine.read(AHCIPortRegister.active) == 0
    }
    markChunks()
    worksCases(
      disk, untouched: "nothing that was in flight is written after COMRESET", works: "data is right after COMRESET")
    attempt("an HBA reset with requests in flight ends them (AHCI 10.4.3)") { () throws(DriverError) in
      try fillQueue(disk)
      try disk.controller.reset()
      return engine.read(AHCIPortRegister.issue) | engine.read(AHCIPortRegister.active) == 0
    }
    markChunks()
    attempt("the HBA starts again after that reset") { () throws(DriverError) in
      try disk.controller.start(waitMode: options.waitMode)
      return disk.port.kind == .ata && disk.port.identity?.sectorCount == disk.sectorCount
    }
    worksCases(
      disk, untouched: "nothing that was in flight is written after the HBA reset",
      works: "data is right after the HBA reset")
  }

  private func fillQueue(_ disk: ATADisk<B>) throws(DriverError) {
    let queue = disk.queue
    try queue.checkIdle()
    for slot in 0..<min(TestRun.chunkCount, queue.depth) {
      queue.prepare(
        slot: slot, writes: false, address: chunks + UInt64(slot) * TestRun.chunkBytes,
        byteCount: UInt32(chunkByteCount(disk)))
      queue.submit(slot: slot, sector: 0)
    }
    queue.kick()
  }

  private func worksCases(_ disk: ATADisk<B>, untouched: StaticString, works: StaticString) {
    attempt(untouched) { () throws(DriverError) in
      try disk.port.identify()
      return disk.port.identity != nil && areChunksMarked()
    }
    attempt(works) { () throws(DriverError) in
      try readsFirstChunk(disk)
    }
  }
}
