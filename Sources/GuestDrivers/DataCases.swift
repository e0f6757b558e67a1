// SPDX-License-Identifier: Apache-2.0

/// Cases about data, on any kind of disk: sums and the scratch partition.
extension TestRun {
  /// No more than this much of a disk is summed, since some processors take a second for a million instructions.
  static var summedBytesMax: UInt64 { 64 << 20 }
  /// No more than this much of the scratch partition is written.
  static var scratchBytesMax: UInt64 { 16 << 20 }

  /// Bytes of one large request to this disk.
  func chunkByteCount<Disk: DiskUnderTest>(_ disk: Disk) -> UInt64 {
    min(TestRun.chunkBytes, disk.byteCount, disk.requestBytesMax)
  }

  private func stream<Disk: DiskUnderTest>(_ disk: Disk) -> SectorStream<Disk.Queue> where Disk.Queue.B == B {
    SectorStream(
      queue: disk.queue, buffers: chunks, bufferBytes: chunkByteCount(disk), bufferCount: TestRun.chunkCount)
  }

  /// Sums the whole disk in one pass, and partition 1 within it.
  func sumCases<Disk: DiskUnderTest>(_ disk: Disk) where Disk.Queue.B == B {
    let chunk = chunkByteCount(disk)
    guard chunk > 0 else {
      return
    }
    attempt("the beginning of the disk is read") { () throws(DriverError) in
      var sum = WordSum()
      let isGood = try stream(disk).read(first: 0, count: chunk >> 9) { sum.add(bus, address: $0, byteCount: $1) }
      disk.firstChunkSum = sum
      return isGood
    }
    let sectors = min(disk.sectorCount, TestRun.summedBytesMax >> 9)
    let partition = disk.table?.partition(1)
    attempt("all of the disk is read") { () throws(DriverError) in
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

  private func add<Disk: DiskUnderTest>(
    to sum: inout WordSum, _ disk: Disk, from first: UInt64, to end: UInt64
  ) throws(DriverError) -> Bool where Disk.Queue.B == B {
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
  func scratchCases<Disk: DiskUnderTest>(_ disk: Disk) where Disk.Queue.B == B {
    let name: StaticString = "the scratch partition takes the pattern"
    guard let partition = disk.scratch else {
      report.skip(name, disk.isReadOnly ? "the disk is read-only" : "no GPT partition 2 named scratch")
      return
    }
    let pattern = ScratchPattern(seed: options.seed)
    let sectors = min(partition.blockCount, TestRun.scratchBytesMax >> 9)
    attempt(name) { () throws(DriverError) in
      var word: UInt64 = 0
      return try stream(disk).write(first: partition.firstBlock, count: sectors) { address, byteCount in
        pattern.fill(bus, address: address, firstIndex: word, wordCount: byteCount / 8)
        word += byteCount / 8
      }
    }
    if disk.canFlush {
      attempt("a flush succeeds") { () throws(DriverError) in
        try disk.flush()
      }
    } else {
      report.skip("a flush succeeds", "the device has no such command")
    }
    attempt("the scratch partition gives the pattern back") { () throws(DriverError) in
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

  /// Reads the first chunk again and compares its sum with what it was before.
  func readsFirstChunk<Disk: DiskUnderTest>(_ disk: Disk) throws(DriverError) -> Bool where Disk.Queue.B == B {
    let chunk = chunkByteCount(disk)
    guard chunk > 0, let expected = disk.firstChunkSum else {
      return false
    }
    guard try disk.queue.readAndWait(sector: 0, into: chunks, byteCount: UInt32(chunk)) else {
      return false
    }
    var sum = WordSum()
    sum.add(bus, address: chunks, byteCount: chunk)
    return sum == expected
  }

  /// What `markChunks` writes.
  private static var mark: UInt64 { 0x5350_494E_444C_4521 }

  /// Puts a mark into every sector of the data buffers, to see later whether a device has written there.
  func markChunks() {
    forEachSector { bus.ramWrite64($0, TestRun.mark) }
  }

  /// Whether every mark is still there.
  func areChunksMarked() -> Bool {
    var isUntouched = true
    forEachSector { isUntouched = isUntouched && bus.ramRead64($0) == TestRun.mark }
    return isUntouched
  }

  /// Visits one word of every sector of the data buffers.
  private func forEachSector(_ body: (UInt64) -> Void) {
    let end = chunks + TestRun.chunkBytes * UInt64(TestRun.chunkCount)
    var address = chunks
    while address < end {
      body(address)
      address += 512
    }
  }
}
