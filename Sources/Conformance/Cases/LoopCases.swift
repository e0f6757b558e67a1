// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What a guest sees of the machine's event loop: work that was announced is done although nobody touches the machine.
enum LoopCases {
  /// How long the machine is let alone before the one look. A busy host gets further chances; a request that nobody
  /// announces to a sleeping loop has none, whatever the pause.
  private static let pausesMilliseconds: [UInt64] = [30, 300, 1500]

  /// Starts something and lets the machine alone, since each access would wake it; then it must have come.
  private static func comesAlone(_ context: CaseContext, _ what: String, _ start: () throws -> () -> Bool) throws {
    for (index, pause) in pausesMilliseconds.enumerated() {
      let hasCome = try start()
      context.pause(milliseconds: pause)
      if hasCome() { return }
      guard index + 1 < pausesMilliseconds.count else { break }
      try context.wait(until: what) { hasCome() }
    }
    try context.expect(false, "\(what) while nobody touches the machine")
  }

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "loop/ahci-command-needs-no-company",
      "An AHCI command ends although the guest makes no further access for a while",
      "Spindle's wake protocol; known failure 53 (QEMU 2ae361ef1d)", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context, waitMode: .interrupt)
      guard let interrupt = hba.controller.interrupt else { try context.skip("no MSI") }
      let buffer = try context.allocate(512)
      for _ in 0..<10 {
        try comesAlone(context, "the message comes") {
          let seen = context.bus.interruptCount(interrupt)
          hba.issue(ATACommand(ATAOpcode.readDMAExt, lba: 3, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
          return { context.bus.interruptCount(interrupt) != seen }
        }
      }
    },
    ConformanceCase(
      "loop/virtio-request-needs-no-company",
      "A virtio request ends although the guest makes no further access for a while",
      "Spindle's wake protocol; known failure 53", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let buffer = try context.allocate(512)
      let status = try device.makeStatus()
      device.writeChain([
        .init(address: try device.makeHeader(type: VirtioBlockType.read, sector: 3), byteCount: 16),
        .init(address: buffer, byteCount: 512, isWritten: true), .init(address: status, byteCount: 1, isWritten: true),
      ])
      for _ in 0..<10 {
        try comesAlone(context, "the request is used") {
          device.publish(0)
          device.kick()
          return { device.hasUsed }
        }
        _ = try device.takeUsed()
      }
    },
    ConformanceCase(
      "loop/rounds-of-queued-reads", "Round after round of queued reads ends, each issued when the last has ended",
      "Spindle's event loop", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(64 * 512)
      for round in 0..<8 {
        for slot in 0..<8 {
          hba.memory.prepare(
            slot: slot, ATACommand(ATAOpcode.readQueued, lba: UInt64(round * 8 + slot), count: 1, tag: slot),
            AHCIBuffer(address: buffer + UInt64(round * 8 + slot) * 512, byteCount: 512))
        }
        hba.start(slots: 0xFF, isQueued: true)
        try context.expect(try hba.finish(slots: 0xFF, isQueued: true).isGood, "round \(round) succeeds")
      }
      try context.expect(context.bus.load(buffer, count: 64 * 512), MachineKind.pattern(0..<32768), "the data")
    },
    ConformanceCase(
      "loop/flush-behind-writes", "A flush issued while writes are in flight ends, and so do they",
      "Spindle's event loop; virtio 1.3 §5.2.6.2", .virtio, shares: true
    ) { context in
      let device = try VirtioUnderTest(started: context)
      let bytes = context.randomBytes(512)
      let data = try context.allocate(bytes)
      var statuses: [UInt64] = []
      for index in 0..<UInt16(8) {
        let status = try device.makeStatus()
        statuses.append(status)
        let isFlush = index % 4 == 3
        let type = isFlush ? VirtioBlockType.flush : VirtioBlockType.write
        let header = try device.makeHeader(type: type, sector: isFlush ? 0 : 9100 + UInt64(index))
        let body = isFlush ? [] : [VirtioUnderTest.Segment(address: data, byteCount: 512)]
        device.writeChain(
          [.init(address: header, byteCount: 16)] + body + [.init(address: status, byteCount: 1, isWritten: true)],
          first: index * 4)
        device.publish(index * 4)
      }
      device.kick()
      var heads: Set<UInt32> = []
      for _ in 0..<8 { heads.insert(try device.takeUsed().head) }
      try context.expect(heads == Set((0..<8).map { UInt32($0 * 4) }), "each head comes back once")
      for status in statuses { try context.expect(context.bus.ramRead8(status), 0, "status byte") }
      try context.expect(try device.read(9102, byteCount: 512), bytes, "what was written")
    },
  ]
}
