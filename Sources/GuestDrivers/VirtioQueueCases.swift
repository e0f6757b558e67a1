// SPDX-License-Identifier: Apache-2.0

/// Cases about virtio-blk requests: identification, framing, descriptors, many at once.
extension TestRun {
  /// The most data segments of the test's requests.
  static var segmentsMax: Int { 6 }
  /// A segment size that is neither a multiple of a sector nor of a word.
  static var oddSegmentBytes: UInt32 { 998 }
  /// So many small requests are in flight at once, where the queue takes them.
  static var smallRequestsMax: Int { 64 }

  /// The identification string, and a single read.
  func identityCases(_ disk: VirtioDisk<B>) {
    attempt("GET_ID answers (virtio 5.2.6.1)") { () throws(DriverError) in
      for word in UInt64(0)..<4 {
        bus.ramWrite64(scratchpad + 8 * word, 0)
      }
      let completion = try disk.queue.perform(
        type: VirtioBlockType.getID, sector: 0, address: scratchpad,
        byteCount: VirtioBlockDriver<B>.identificationBytes)
      report.result { console in
        console.text("disk-serial disk=")
        console.decimal(UInt64(disk.number))
        console.text(" ")
        console.text(at: scratchpad, byteCount: UInt64(VirtioBlockDriver<B>.identificationBytes))
      }
      return completion.status == VirtioBlockStatus.ok
        && completion.usedByteCount <= VirtioBlockDriver<B>.identificationBytes + 1
    }
    attempt("one sector is read, and the used length counts it and the status (virtio 2.7.8)") {
      () throws(DriverError) in
      let completion = try disk.queue.perform(
        type: VirtioBlockType.read, sector: 0, address: scratchpad, byteCount: 512)
      return completion.status == VirtioBlockStatus.ok && completion.usedByteCount == 513
    }
  }

  /// Framing, direct and indirect descriptors, and many requests at once.
  func queueCases(_ disk: VirtioDisk<B>) {
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
    attempt("direct descriptors and plain notifications work too") { () throws(DriverError) in
      try disk.driver.start(driverOptions(mask: mask))
      return try readsFirstChunk(disk)
    }
    attempt("the interrupt status tells of a used buffer once, and reading clears it (virtio 4.1.4.5)") {
      () throws(DriverError) in
      try interruptStatusClears(disk, mask: mask)
    }
    oddSegmentsCase(disk, "direct descriptors: data in segments of 998 bytes is whole")
    attempt("the handshake with all features works again") { () throws(DriverError) in
      try disk.driver.start(driverOptions())
      return try readsFirstChunk(disk)
    }
  }

  /// Without MSI-X the device sets bit 0 of the interrupt status, after it has shown the used buffer.
  private func interruptStatusClears(_ disk: VirtioDisk<B>, mask: UInt64) throws(DriverError) -> Bool {
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

  private func oddSegmentsCase(_ disk: VirtioDisk<B>, _ name: StaticString) {
    let byteCount: UInt64 = 4096
    let segmentsMax = disk.driver.configuration.segmentsMax
    guard disk.byteCount >= byteCount, segmentsMax == 0 || segmentsMax >= 5 else {
      report.skip(name, "the disk or SEG_MAX is too small")
      return
    }
    attempt(name) { () throws(DriverError) in
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
  private func manyRequestsCase(_ disk: VirtioDisk<B>) {
    let count = min(TestRun.smallRequestsMax, disk.queue.depth, Int(chunkByteCount(disk) >> 9))
    attempt("many requests are in flight at once, and each gets its own data") { () throws(DriverError) in
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
}
