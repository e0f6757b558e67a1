// SPDX-License-Identifier: Apache-2.0

/// What an application processor does in the test, and where it leaves the result.
struct ProcessorShare<B: Bus>: Sendable {
  /// Values of the mailbox's first word.
  enum State {
    static var running: UInt64 { 1 }
    static var succeeded: UInt64 { 2 }
    static var failed: UInt64 { 3 }
  }

  static var mailboxBytes: UInt64 { 64 }
  /// Words that are summed where there is no queue for the processor.
  static var computedWords: UInt64 { 8192 }

  /// The queue that the processor takes over; nil where it only computes.
  let queue: VirtioBlockQueue<B>?
  /// Memory for the data.
  let buffers: UInt64
  let bufferBytes: UInt64
  let bufferCount: Int
  /// The sectors to sum, from the disk's beginning.
  let sectorCount: UInt64
  /// State, a, b: eight bytes each.
  let mailbox: UInt64

  /// Runs on the application processor.
  func run(on bus: B) {
    bus.ramWrite64(mailbox, State.running)
    var sum = WordSum()
    var isGood = true
    if let queue {
      let own = VirtioBlockQueue(takingOver: queue, on: bus)
      do {
        isGood = try add(to: &sum, through: own, on: bus)
      } catch {
        isGood = false
      }
    } else {
      compute(&sum)
    }
    bus.ramWrite64(mailbox + 8, sum.a)
    bus.ramWrite64(mailbox + 16, sum.b)
    // The sums before the word that says they are there; pairs with the load barrier in `result`.
    bus.storeBarrier()
    bus.ramWrite64(mailbox, isGood ? State.succeeded : State.failed)
  }

  /// Sums the share's sectors through a queue.
  func add(to sum: inout WordSum, through queue: VirtioBlockQueue<B>, on bus: B) throws(DriverError) -> Bool {
    let stream = SectorStream(queue: queue, buffers: buffers, bufferBytes: bufferBytes, bufferCount: bufferCount)
    var part = WordSum()
    let isGood = try stream.read(first: 0, count: sectorCount) { address, byteCount in
      part.add(bus, address: address, byteCount: byteCount)
    }
    sum.append(part)
    return isGood
  }

  /// Sums pattern words, without any device.
  func compute(_ sum: inout WordSum) {
    let pattern = ScratchPattern(seed: mailbox)
    for index in 0..<ProcessorShare.computedWords {
      sum.add(pattern.word(index))
    }
  }

  /// Waits on the boot processor until the share is done.
  /// - Returns: a and b; nil where the processor has failed.
  func result(_ bus: B) throws(DriverError) -> (a: UInt64, b: UInt64)? {
    let start = bus.ticks
    var state = bus.ramRead64(mailbox)
    while state != State.succeeded, state != State.failed {
      guard bus.relax() else {
        throw .machineStopped
      }
      guard bus.ticks &- start < waitTicksMax else {
        throw .timedOut
      }
      state = bus.ramRead64(mailbox)
    }
    // Pairs with the store barrier in `run`.
    bus.loadBarrier()
    return state == State.succeeded ? (bus.ramRead64(mailbox + 8), bus.ramRead64(mailbox + 16)) : nil
  }
}

/// Cases about application processors.
extension TestRun {
  /// Each processor reads this much of the disk.
  static var shareBytesMax: UInt64 { 256 << 10 }
  /// An application processor has this many chunks of memory.
  static var shareChunks: Int { 2 }
  /// At most this many processors are started.
  static var processorsMax: Int { 16 }

  /// Every application processor starts and reads through its own queue with interrupts of its own, all at once.
  func processorCases(_ disks: [VirtioDisk<B>]) {
    let name: StaticString = "processors: each reads the same through its own queue and interrupt"
    guard bus.processorCount > 1 else {
      report.skip(name, "there is one processor")
      return
    }
    guard !isStopping else {
      return
    }
    let disk = disks.first { $0.driver.configuration.queueCount > 1 && $0.byteCount > 0 }
    if let disk {
      report.comment { console in
        console.text("processors use disk ")
        console.decimal(UInt64(disk.number))
      }
    }
    attempt(name) { () throws(DriverError) in
      let shares = try makeShares(disk)
      guard !shares.isEmpty else {
        return false
      }
      for (index, share) in shares.enumerated() where index > 0 {
        guard bus.startProcessor(index, { share.run(on: $0) }) else {
          report.comment { console in
            console.text("did not start: processor ")
            console.decimal(UInt64(index))
          }
          return false
        }
      }
      return try sharesAgree(shares, disk)
    }
  }

  private func makeShares(_ disk: VirtioDisk<B>?) throws(DriverError) -> [ProcessorShare<B>] {
    let count = min(bus.processorCount, TestRun.processorsMax)
    if let disk {
      var options = driverOptions()
      options.queuesMax = count
      options.processorCount = count
      try disk.driver.start(options)
    }
    let bufferBytes = disk.map { chunkByteCount($0) } ?? TestRun.chunkBytes
    var shares: [ProcessorShare<B>] = []
    for index in 0..<count {
      var queue: VirtioBlockQueue<B>?
      if let disk, index < disk.driver.queues.count {
        queue = disk.driver.queues[index]
      }
      guard
        let buffers = index == 0
          ? chunks : bus.allocate(byteCount: bufferBytes * UInt64(TestRun.shareChunks), alignment: 4096),
        let mailbox = bus.allocate(byteCount: ProcessorShare<B>.mailboxBytes, alignment: ProcessorShare<B>.mailboxBytes)
      else {
        throw .outOfResources
      }
      shares.append(
        ProcessorShare(
          queue: queue, buffers: buffers, bufferBytes: bufferBytes, bufferCount: TestRun.shareChunks,
          sectorCount: min(disk?.byteCount ?? 0, TestRun.shareBytesMax) >> 9, mailbox: mailbox))
    }
    return shares
  }

  /// The boot processor does its share meanwhile, and then compares what the others leave.
  private func sharesAgree(_ shares: [ProcessorShare<B>], _ disk: VirtioDisk<B>?) throws(DriverError) -> Bool {
    var isGood = true
    var read = WordSum()
    if let queue = shares[0].queue {
      isGood = try shares[0].add(to: &read, through: queue, on: bus)
    }
    for share in shares.dropFirst() {
      var expected = read
      if share.queue == nil {
        expected = WordSum()
        share.compute(&expected)
      }
      let result = try share.result(bus)
      isGood = result?.a == expected.a && result?.b == expected.b && isGood
    }
    return isGood
  }
}
