// SPDX-License-Identifier: Apache-2.0

/// Cases about data: sums, many requests, framing, the scratch partition.
extension TestRun {
  /// No more than this much of a disk is summed, since some processors take a second for a million instructions.
  static var summedBytesMax: UInt64 { 64 << 20 }
  /// No more than this much of the scratch partition is written.
  static var scratchBytesMax: UInt64 { 16 << 20 }
  /// The most data segments of the test's requests.
  static var segmentsMax: Int { 6 }
  /// A segment size that is neither a multiple of a sector nor of a word.
  static var oddSegmentBytes: UInt32 { 998 }
  /// So many small requests are in flight at once, where the queue takes them.
  static var smallRequestsMax: Int { 64 }

  /// Bytes of one large request to this disk.
  func chunkByteCount(_ disk: DiskUnderTest<B>) -> UInt64 {
    var bytes = min(TestRun.chunkBytes, disk.byteCount)
    let segmentBytesMax = UInt64(disk.driver.configuration.segmentBytesMax)
    if segmentBytesMax >= 512 {
      bytes = min(bytes, segmentBytesMax & ~511)
    }
    return bytes
  }

  private func stream(_ disk: DiskUnderTest<B>) -> SectorStream<B> {
    SectorStream(
      queue: disk.queue, buffers: chunks, bufferBytes: chunkByteCount(disk), bufferCount: TestRun.chunkCount)
  }

  /// Sums the whole disk in one pass, and partition 1 within it.
  func sumCases(_ disk: DiskUnderTest<B>) {
    let chunk = chunkByteCount(disk)
    guard chunk > 0 else {
      return
    }
    attempt("the beginning of the disk is read") { () throws(VirtioError) in
      var sum = WordSum()
      let isGood = try stream(disk).read(first: 0, count: chunk >> 9) { sum.add(bus, address: $0, byteCount: $1) }
      disk.firstChunkSum = sum
      return isGood
    }
    let sectors = min(disk.driver.configuration.sectorCount, TestRun.summedBytesMax >> 9)
    let partition = disk.table?.partition(1)
    attempt("all of the disk is read") { () throws(VirtioError) in
      var whole = WordSum()
      var isGood = true
      var next: UInt64 = 0
      if let partition, partition.lastBlock < sectors {
        isGood = try add(to: &whole, disk, from: 0, to: partition.firstBlock)
        var part = WordSum()
        isGood = try add(to: &part, disk, from: partition.firstBlock, to: partition.lastBlock + 1) && isGood
        report.result { console in
          console.text("partition-sum disk=")
          console.decimal(UInt64(disk.number))
          console.text(" partition=1 first=")
          console.decimal(partition.firstBlock)
          console.text(" last=")
          console.decimal(partition.lastBlock)
          TestRun.print(part, console)
        }
        whole.append(part)
        next = partition.lastBlock + 1
      }
      isGood = try add(to: &whole, disk, from: next, to: sectors) && isGood
      report.result { console in
        console.text("disk-sum disk=")
        console.decimal(UInt64(disk.number))
        TestRun.print(whole, console)
      }
      return isGood
    }
  }

  private func add(
    to sum: inout WordSum, _ disk: DiskUnderTest<B>, from first: UInt64, to end: UInt64
  ) throws(VirtioError) -> Bool {
    var part = WordSum()
    let isGood = try stream(disk).read(first: first, count: end - first) { address, byteCount in
      part.add(bus, address: address, byteCount: byteCount)
    }
    sum.append(part)
    return isGood
  }

  static func print(_ sum: WordSum, _ console: SerialConsole<B>) {
    console.text(" a=0x")
    console.hexadecimal(sum.a, digits: 16)
    console.text(" b=0x")
    console.hexadecimal(sum.b, digits: 16)
    console.text(" words=")
    console.decimal(sum.wordCount)
  }

  /// Framing, direct and indirect descriptors, and many requests at once.
  func queueCases(_ disk: DiskUnderTest<B>) {
    guard disk.firstChunkSum != nil else {
      return
    }
    oddSegmentsCase(disk, "data in segments of 998 bytes is whole (virtio 2.7.4.2)")
    manyRequestsCase(disk)
    let mask = VirtioBlockFeature.known & ~(VirtioBlockFeature.indirectDescriptors | VirtioBlockFeature.eventIndex)
    guard disk.driver.features != disk.driver.features & mask else {
      report.skip("direct descriptors and plain notifications work too", "nothing else was offered")
      return
    }
    attempt("direct descriptors and plain notifications work too") { () throws(VirtioError) in
      try disk.driver.start(driverOptions(mask: mask))
      return try readsFirstChunk(disk)
    }
    attempt("the interrupt status tells of a used buffer once, and reading clears it (virtio 4.1.4.5)") {
      () throws(VirtioError) in
      try interruptStatusClears(disk, mask: mask)
    }
    oddSegmentsCase(disk, "direct descriptors: data in segments of 998 bytes is whole")
    attempt("the handshake with all features works again") { () throws(VirtioError) in
      try disk.driver.start(driverOptions())
      return try readsFirstChunk(disk)
    }
  }

  /// Without MSI-X the device sets bit 0 of the interrupt status, after it has shown the used buffer.
  private func interruptStatusClears(_ disk: DiskUnderTest<B>, mask: UInt64) throws(VirtioError) -> Bool {
    var options = driverOptions(mask: mask)
    options.waitMode = .poll
    try disk.driver.start(options)
    let transport = disk.driver.transport
    let before = transport.readInterruptStatus()
    disk.queue.ring.requestInterrupt()
    let isRead = try readsFirstChunk(disk)
    let start = bus.ticks
    var status = transport.readInterruptStatus()
    while status & 1 == 0 {
      guard bus.relax() else {
        throw .machineStopped
      }
      guard bus.ticks &- start < waitTicksMax else {
        return false
      }
      status = transport.readInterruptStatus()
    }
    return isRead && before & 1 == 0 && transport.readInterruptStatus() == 0
  }

  private func oddSegmentsCase(_ disk: DiskUnderTest<B>, _ name: StaticString) {
    let byteCount: UInt64 = 4096
    let segmentsMax = disk.driver.configuration.segmentsMax
    guard disk.byteCount >= byteCount, segmentsMax == 0 || segmentsMax >= 5 else {
      report.skip(name, "the disk or SEG_MAX is too small")
      return
    }
    attempt(name) { () throws(VirtioError) in
      let other = chunks + TestRun.chunkBytes
      let whole = try disk.driver.read(sector: 0, into: chunks, byteCount: UInt32(byteCount))
      let parts = try disk.queue.perform(
        type: VirtioBlockType.read, sector: 0, address: other, byteCount: UInt32(byteCount),
        segmentBytes: TestRun.oddSegmentBytes)
      return whole == VirtioBlockStatus.ok && parts.status == VirtioBlockStatus.ok
        && parts.usedByteCount == UInt32(byteCount) + 1 && isEqual(chunks, other, byteCount: byteCount)
    }
  }

  /// One read of N sectors against N reads of one sector, submitted backwards and made visible at once.
  private func manyRequestsCase(_ disk: DiskUnderTest<B>) {
    let count = min(TestRun.smallRequestsMax, disk.queue.depth, Int(chunkByteCount(disk) >> 9))
    attempt("many requests are in flight at once, and each gets its own data") { () throws(VirtioError) in
      let byteCount = UInt64(count) << 9
      let other = chunks + TestRun.chunkBytes
      guard try disk.driver.read(sector: 0, into: chunks, byteCount: UInt32(byteCount)) == VirtioBlockStatus.ok else {
        return false
      }
      let queue = disk.queue
      for slot in (0..<count).reversed() {
        queue.prepare(slot: slot, type: VirtioBlockType.read, address: other + UInt64(slot) << 9, byteCount: 512)
        queue.submit(slot: slot, sector: UInt64(slot))
      }
      queue.kick()
      var isGood = true
      while queue.inFlightCount > 0 {
        let completion = try queue.waitForCompletion()
        isGood = completion.status == VirtioBlockStatus.ok && completion.usedByteCount == 513 && isGood
      }
      return isGood && isEqual(chunks, other, byteCount: byteCount)
    }
  }

  /// Whether two areas of RAM hold the same words.
  func isEqual(_ left: UInt64, _ right: UInt64, byteCount: UInt64) -> Bool {
    var difference: UInt64 = 0
    var offset: UInt64 = 0
    while offset < byteCount {
      difference |= bus.ramRead64(left + offset) ^ bus.ramRead64(right + offset)
      offset += 8
    }
    return difference == 0
  }

  /// Writes the pattern to the scratch partition, flushes, reads it back and compares.
  func scratchCases(_ disk: DiskUnderTest<B>) {
    let name: StaticString = "the scratch partition takes the pattern"
    guard let partition = disk.scratch else {
      report.skip(name, disk.driver.isReadOnly ? "the disk is read-only" : "no GPT partition 2 named scratch")
      return
    }
    let pattern = ScratchPattern(seed: options.seed)
    let sectors = min(partition.blockCount, TestRun.scratchBytesMax >> 9)
    attempt(name) { () throws(VirtioError) in
      var word: UInt64 = 0
      return try stream(disk).write(first: partition.firstBlock, count: sectors) { address, byteCount in
        pattern.fill(bus, address: address, firstIndex: word, wordCount: byteCount / 8)
        word += byteCount / 8
      }
    }
    if disk.driver.has(VirtioBlockFeature.flush) {
      attempt("a flush succeeds (virtio 5.2.6.2)") { () throws(VirtioError) in
        try disk.driver.flush() == VirtioBlockStatus.ok
      }
    } else {
      report.skip("a flush succeeds (virtio 5.2.6.2)", "FLUSH is not offered")
    }
    attempt("the scratch partition gives the pattern back") { () throws(VirtioError) in
      var word: UInt64 = 0
      var isSame = true
      let isGood = try stream(disk).read(first: partition.firstBlock, count: sectors) { address, byteCount in
        isSame =
          pattern.matches(bus, address: address, firstIndex: word, wordCount: byteCount / 8) && isSame
        word += byteCount / 8
      }
      return isGood && isSame
    }
    report.result { console in
      console.text("scratch disk=")
      console.decimal(UInt64(disk.number))
      console.text(" partition=2 first=")
      console.decimal(partition.firstBlock)
      console.text(" last=")
      console.decimal(partition.lastBlock)
      console.text(" seed=")
      console.decimal(options.seed)
      console.text(" words=")
      console.decimal(sectors * 64)
    }
  }
}
