// SPDX-License-Identifier: Apache-2.0

/// Cases about the virtio transport: handshake, features, configuration, the write cache, reset.
extension TestRun {
  /// Options of most cases: the features in `mask`, one queue.
  func driverOptions(mask: UInt64 = VirtioBlockFeature.known) -> VirtioBlockDriver<B>.Options {
    var options = VirtioBlockDriver<B>.Options()
    options.featureMask = mask
    options.waitMode = self.options.waitMode
    options.segmentsMax = TestRun.segmentsMax
    return options
  }

  /// The handshake, and the configuration by both of its ways.
  func transportCases(_ disk: VirtioDisk<B>) {
    let driver = disk.driver
    attempt("the handshake ends with DRIVER_OK (virtio 3.1.1)") { () throws(DriverError) in
      try driver.start(driverOptions())
      let expected =
        VirtioStatus.acknowledge | VirtioStatus.driver | VirtioStatus.featuresOK | VirtioStatus.driverOK
      return driver.transport.status == expected
    }
    guard !driver.queues.isEmpty else {
      return
    }
    let configuration = driver.configuration
    report.comment { console in
      console.text("features offered 0x")
      console.hexadecimal(driver.offeredFeatures)
      console.text(" taken 0x")
      console.hexadecimal(driver.features)
      console.text(" sectors ")
      console.decimal(configuration.sectorCount)
      console.text(" block ")
      console.decimal(UInt64(configuration.blockBytes))
      console.text(" queues ")
      console.decimal(UInt64(configuration.queueCount))
      console.text(" size ")
      console.decimal(UInt64(driver.queues[0].ring.size))
      console.text(driver.queues[0].interrupt == nil ? " polled" : " by MSI-X")
      if driver.isReadOnly {
        console.text(" read-only")
      }
    }
    report.check(
      configuration.sectorCount > 0 && configuration.blockBytes >= 512
        && configuration.blockBytes & (configuration.blockBytes - 1) == 0,
      "the configuration has a capacity and a block size")
    configurationAccessCase(driver)
    if let interrupt = driver.queues[0].interrupt, let msix = driver.transport.msix {
      report.check(msix.holds(0, interrupt), "the MSI-X table reads back what was written to it")
    } else {
      report.skip("the MSI-X table reads back what was written to it", "polled")
    }
  }

  private func configurationAccessCase(_ driver: VirtioBlockDriver<B>) {
    let name: StaticString = "PCI configuration access shows the same capacity (virtio 4.1.4.9)"
    guard let low = driver.transport.device32ByConfigurationAccess(0) else {
      report.skip(name, "the device has no such capability")
      return
    }
    report.check(low == driver.transport.device32(0), name)
  }

  /// CONFIG_WCE reads back what was written, and flushes work either way (virtio 1.3 §5.2.5, §5.2.6.2).
  func writeCacheCases(_ disk: VirtioDisk<B>) {
    let driver = disk.driver
    let name: StaticString = "the write cache goes off and on (virtio 5.2.5)"
    guard driver.has(VirtioBlockFeature.configWriteCache) else {
      report.skip(name, "CONFIG_WCE is not offered")
      return
    }
    attempt(name) { () throws(DriverError) in
      let before = driver.isWriteCacheOn
      driver.isWriteCacheOn = false
      let off = !driver.isWriteCacheOn
      var works = try readsFirstChunk(disk)
      driver.isWriteCacheOn = true
      let on = driver.isWriteCacheOn
      if driver.has(VirtioBlockFeature.flush) {
        works = try driver.flush() == VirtioBlockStatus.ok && works
      }
      driver.isWriteCacheOn = before
      return off && on && works
    }
  }

  /// A reset with requests in flight ends them all, and the device starts again (virtio 1.3 §2.1.2, §2.4).
  func resetCases(_ disk: VirtioDisk<B>) {
    let driver = disk.driver
    let chunk = chunkByteCount(disk)
    guard chunk > 0 else {
      return
    }
    attempt("a reset with requests in flight is acknowledged") { () throws(DriverError) in
      let queue = disk.queue
      try queue.checkIdle()
      let count = min(TestRun.chunkCount, queue.depth)
      for slot in 0..<count {
        queue.prepare(
          slot: slot, type: VirtioBlockType.read, address: chunks + UInt64(slot) * TestRun.chunkBytes,
          byteCount: UInt32(chunk))
        queue.submit(slot: slot, sector: 0)
      }
      queue.kick()
      try driver.transport.reset()
      return driver.transport.status == 0
    }
    // What the device writes from here on it writes after it has said that it is reset.
    markChunks()
    attempt("the device starts again after that reset") { () throws(DriverError) in
      try driver.start(driverOptions())
      return try driver.getID(into: scratchpad) == VirtioBlockStatus.ok
    }
    report.check(areChunksMarked(), "nothing that was in flight is written after the reset")
    attempt("data is right after the reset") { () throws(DriverError) in
      try readsFirstChunk(disk)
    }
  }
}
