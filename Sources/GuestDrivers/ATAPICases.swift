// SPDX-License-Identifier: Apache-2.0

/// Cases about an ATAPI drive: packets by PIO and by DMA, sense data, the medium.
extension TestRun {
  /// Bytes of standard INQUIRY data (SPC-4 §6.4.2).
  static var inquiryBytes: UInt8 { 36 }
  /// The peripheral device type of a drive for optical media (SPC-4, table of types).
  static var opticalDevice: UInt8 { 5 }
  /// A drive may report so many unit attentions, and be becoming ready so often, before it is ready.
  static var readyAttemptsMax: Int { 8 }
  /// Bytes of a block of a data medium.
  static var mediumBlockBytes: UInt64 { 2048 }
  /// An operation code that no command set has given a meaning to.
  static var unknownPacket: UInt8 { 0x1F }

  func atapiCases(_ port: AHCIPort<B>, number: Int) {
    let outcome = port.identifyOutcome
    guard
      report.check(
        port.identity?.isATAPI ?? false && outcome?.byteCount == ATAIdentity.byteCount,
        "IDENTIFY PACKET DEVICE answers (ACS-3 7.13)")
    else {
      return
    }
    inquiryCase(port)
    var isReady = false
    attempt("TEST UNIT READY succeeds, or the sense data says that there is no medium (MMC-6 4.1.6)") {
      () throws(DriverError) in
      let result = try becomesReady(port)
      isReady = result.isReady
      return result.isReady || result.sense?.key == 2 && result.sense?.code == 0x3A
    }
    refusedPacketCase(
      port, "an unknown operation code gives CHECK CONDITION with sense 5/20h (SPC-4 4.5.6)",
      ATAPIPacket(TestRun.unknownPacket), code: 0x20)
    guard isReady, !isStopping else {
      report.skip("reads of the medium", "there is none")
      return
    }
    mediumCases(port, number: number)
  }

  private func inquiryCase(_ port: AHCIPort<B>) {
    attempt("INQUIRY answers, and the drive is one for optical media (SPC-4 6.4.2)") { () throws(DriverError) in
      let byteCount = UInt32(TestRun.inquiryBytes)
      clearScratchpad(byteCount: 64)
      let outcome = try port.packet(
        ATAPIPacket.inquiry(byteCount: TestRun.inquiryBytes), AHCIBuffer(address: scratchpad, byteCount: byteCount),
        usesDMA: false)
      report.comment { console in
        console.text("atapi \"")
        console.text(at: scratchpad + 8, byteCount: 28)
        console.text("\"")
      }
      return outcome.isGood && outcome.byteCount == byteCount
        && bus.ramRead8(scratchpad) & 0x1F == TestRun.opticalDevice
    }
  }

  private func clearScratchpad(byteCount: UInt64) {
    for word in 0..<(byteCount / 8) {
      bus.ramWrite64(scratchpad + 8 * word, 0)
    }
  }

  /// Asks until the drive is ready, or says something other than that it will be.
  private func becomesReady(_ port: AHCIPort<B>) throws(DriverError) -> (isReady: Bool, sense: ATAPISense?) {
    var sense: ATAPISense?
    for _ in 0..<TestRun.readyAttemptsMax {
      if try port.packet(ATAPIPacket.testUnitReady, usesDMA: false).isGood {
        return (true, nil)
      }
      sense = try port.requestSense()
      // Unit attentions pass by being reported; 2/04h is "becoming ready".
      guard let sense, sense.key == 6 || sense.key == 2 && sense.code == 0x04 else {
        break
      }
    }
    return (false, sense)
  }

  /// CHECK CONDITION: the error byte has the sense key in its upper half, and REQUEST SENSE the rest (ACS-3 §7.18).
  private func refusedPacketCase(
    _ port: AHCIPort<B>, _ name: StaticString, _ packet: ATAPIPacket, _ buffer: AHCIBuffer = .none, code: UInt8
  ) {
    attempt(name) { () throws(DriverError) in
      let outcome = try port.packet(packet, buffer, usesDMA: false)
      let sense = try port.requestSense()
      return outcome.interruptStatus & AHCIPortInterrupt.taskFileError != 0
        && outcome.taskFile & AHCITaskFile.error != 0 && outcome.taskFile >> 12 & 0xF == 5 && sense?.key == 5
        && sense?.code == code
    }
  }

  private func mediumCases(_ port: AHCIPort<B>, number: Int) {
    var blockCount: UInt64 = 0
    attempt("READ CAPACITY names a medium with blocks of 2048 bytes (MMC-6 6.22)") { () throws(DriverError) in
      clearScratchpad(byteCount: 8)
      let outcome = try port.packet(
        ATAPIPacket.readCapacity, AHCIBuffer(address: scratchpad, byteCount: 8), usesDMA: false)
      let blockBytes = bus.ramRead32(scratchpad + 4).byteSwapped
      guard outcome.isGood, UInt64(blockBytes) == TestRun.mediumBlockBytes else {
        return false
      }
      blockCount = UInt64(bus.ramRead32(scratchpad).byteSwapped) + 1
      return true
    }
    guard blockCount > 0 else {
      return
    }
    attempt("READ(10) gives the same bytes by PIO and by DMA (MMC-6 6.15)") { () throws(DriverError) in
      try readsMediumTheSame(port, blockCount: min(blockCount, 4))
    }
    attempt("all of the medium is read") { () throws(DriverError) in
      try sumsMedium(port, number: number, blockCount: blockCount)
    }
    if blockCount < UInt64(UInt32.max) {
      refusedPacketCase(
        port, "READ(10) past the end gives CHECK CONDITION with sense 5/21h (MMC-6 6.15)",
        ATAPIPacket.read10(block: UInt32(blockCount), count: 1),
        AHCIBuffer(address: scratchpad, byteCount: UInt32(TestRun.mediumBlockBytes)), code: 0x21)
    }
    attempt("the drive works on after COMRESET (AHCI 10.4.2)") { () throws(DriverError) in
      try port.reset()
      guard try becomesReady(port).isReady else {
        return false
      }
      return try readsMediumTheSame(port, blockCount: 1)
    }
  }

  /// DMA, and PIO in transfers of everything, of a block, and of a quarter of a block.
  private func readsMediumTheSame(_ port: AHCIPort<B>, blockCount: UInt64) throws(DriverError) -> Bool {
    let byteCount = blockCount * TestRun.mediumBlockBytes
    let packet = ATAPIPacket.read10(block: 0, count: UInt16(blockCount))
    let other = chunks + TestRun.chunkBytes
    let whole = try port.packet(
      packet, AHCIBuffer(address: chunks, byteCount: UInt32(byteCount)), usesDMA: true)
    var isGood = whole.isGood && UInt64(whole.byteCount) == byteCount
    let limits: [UInt16] = [0xFFFE, 2048, 512]
    for limit in limits {
      for word in 0..<(byteCount / 8) {
        bus.ramWrite64(other + 8 * word, ~bus.ramRead64(chunks + 8 * word))
      }
      let outcome = try port.packet(
        packet, AHCIBuffer(address: other, byteCount: UInt32(byteCount)), usesDMA: false, byteCountLimit: limit)
      isGood =
        outcome.isGood && UInt64(outcome.byteCount) == byteCount && isEqual(chunks, other, byteCount: byteCount)
        && isGood
    }
    return isGood
  }

  /// Sums the medium by DMA, as far as disks are summed.
  private func sumsMedium(
    _ port: AHCIPort<B>, number: Int, blockCount: UInt64
  ) throws(DriverError) -> Bool {
    var sum = WordSum()
    let blocks = min(blockCount, TestRun.summedBytesMax / TestRun.mediumBlockBytes)
    let blocksPerRead = TestRun.chunkBytes / TestRun.mediumBlockBytes
    var block: UInt64 = 0
    while block < blocks {
      let count = min(blocksPerRead, blocks - block)
      let byteCount = count * TestRun.mediumBlockBytes
      let outcome = try port.packet(
        ATAPIPacket.read10(block: UInt32(block), count: UInt16(count)),
        AHCIBuffer(address: chunks, byteCount: UInt32(byteCount)), usesDMA: true)
      guard outcome.isGood, UInt64(outcome.byteCount) == byteCount else {
        return false
      }
      sum.add(bus, address: chunks, byteCount: byteCount)
      block += count
    }
    report.result { console in
      console.text("cd-sum disk=")
      console.decimal(UInt64(number))
      TestRun.print(sum, console)
    }
    return true
  }
}
