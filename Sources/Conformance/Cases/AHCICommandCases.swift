// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Commands as the HBA carries them: FISes, PRDs, queued commands, and structures that are wrong.
enum AHCICommandCases {
  private typealias Register = AHCIPortRegister

  static let all: [ConformanceCase] = structures + queued + hostile + faults

  private static let structures: [ConformanceCase] = [
    ConformanceCase(
      "ahci/register-fis-matches-task-file",
      "A command ends with a register FIS whose status and error are those of PxTFD",
      "AHCI 1.3.1 §5.3.8, §4.2.1", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      context.bus.fill(hba.memory.receivedFIS, byteCount: 0x100, 0)
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readSectors, lba: 0, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
      let fis = context.bus.ramRead32(hba.memory.receivedFIS + 0x40)
      try context.expect(fis, mask: 0xFF, 0x34, "type of the FIS at PxFB + 40h")
      try context.expect(fis >> 16, outcome.taskFile, "its status and error against PxTFD")
    },
    ConformanceCase(
      "ahci/pio-setup-fis", "A PIO read leaves a PIO setup FIS with the byte count of its last block",
      "AHCI 1.3.1 §5.3.9; SATA 3.x §10.5.11; known failure 44", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(2048)
      context.bus.fill(hba.memory.receivedFIS, byteCount: 0x100, 0)
      try hba.succeed(
        ATACommand(ATAOpcode.readSectors, lba: 0, count: 4), AHCIBuffer(address: buffer, byteCount: 2048))
      try context.expect(context.bus.ramRead8(hba.memory.receivedFIS + 0x20), 0x5F, "type of the FIS at PxFB + 20h")
      try context.expect(context.bus.ramRead16(hba.memory.receivedFIS + 0x30), 512, "its transfer count")
    },
    ConformanceCase(
      "ahci/byte-count-of-no-data", "PRDBC stays 0 for a command without data", "AHCI 1.3.1 §4.2.2", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try context.expect(try hba.succeed(ATACommand(ATAOpcode.flushCache)).byteCount, 0, "PRDBC")
    },
    ConformanceCase(
      "ahci/many-small-regions", "A read into 128 regions of 32 bytes is whole", "AHCI 1.3.1 §4.2.3.3", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(4096)
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readDMAExt, lba: 8, count: 8),
        AHCIBuffer(address: buffer, byteCount: 4096, pieceBytes: 32))
      try context.expect(outcome.byteCount, 4096, "PRDBC")
      try context.expect(context.bus.load(buffer, count: 4096), MachineKind.pattern(4096..<8192), "the data")
    },
    ConformanceCase(
      "ahci/regions-need-no-sector", "A write from regions of 2, 510 and 512 bytes is whole", "AHCI 1.3.1 §4.2.3.3",
      .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let bytes = context.randomBytes(1024)
      let buffer = try context.allocate(bytes)
      hba.memory.prepare(
        slot: 0, ATACommand(ATAOpcode.writeDMAExt, lba: 20_000, count: 2),
        AHCIBuffer(address: buffer, byteCount: 1024, writes: true, pieceBytes: 512))
      for (index, part) in [(0, 2), (2, 510), (512, 512)].enumerated() {
        hba.memory.writeDescriptor(
          slot: 0, index: index, address: buffer + UInt64(part.0), byteCount: UInt32(part.1))
      }
      hba.memory.writeHeader(
        slot: 0, flags: AHCICommandMemory<RemoteBus>.HeaderFlags.write, descriptorCount: 3)
      hba.start(slots: 1)
      try context.expect(try hba.finish().isGood, "the write succeeds")
      try context.expect(try hba.readSectors(20_000, 2), bytes, "what was written")
    },
    ConformanceCase(
      "ahci/regions-longer-than-data", "Regions longer than the data are left alone past it, and PRDBC counts the data",
      "AHCI 1.3.1 §4.2.2, §5.4.1; known failure 39", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(65536)
      context.bus.fill(buffer, byteCount: 65536, 0xA5)
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 1), AHCIBuffer(address: buffer, byteCount: 65536))
      try context.expect(outcome.byteCount, 512, "PRDBC")
      let bytes = context.bus.load(buffer, count: 65536)
      try context.expect(Array(bytes[..<512]), MachineKind.pattern(0..<512), "the data")
      try context.expect(bytes[512...].allSatisfy { $0 == 0xA5 }, "the bytes past the data are untouched")
    },
    ConformanceCase(
      "ahci/long-transfer", "A read of 512 sectors in one region is whole", "AHCI 1.3.1 §4.2.3.3; ACS-3 §7.22", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try context.expect(try hba.readSectors(1000, 512), MachineKind.pattern(512_000..<774_144), "the data")
    },
    ConformanceCase(
      "ahci/link-errors-stay-clear", "Good commands leave PxSERR 0", "AHCI 1.3.1 §3.3.12", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.checkAlive()
      try context.expect(hba.engine.read(Register.linkError), 0, "PxSERR")
    },
  ]

  private static let queued: [ConformanceCase] = [
    ConformanceCase(
      "ahci/queued-uses-active",
      "A queued command ends with a set device bits FIS: PxSACT clears and PxIS is SDBS alone",
      "AHCI 1.3.1 §5.3.13, §5.6.4", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      let outcome = try hba.succeed(
        ATACommand(ATAOpcode.readQueued, lba: 3, count: 1, tag: 7), AHCIBuffer(address: buffer, byteCount: 512), slot: 7
      )
      try context.expect(outcome.interruptStatus, AHCIPortInterrupt.deviceBits, "PxIS")
      try context.expect(hba.engine.read(Register.issue), 0, "PxCI")
      try context.expect(context.bus.ramRead8(hba.memory.receivedFIS + 0x58), 0xA1, "type of the FIS at PxFB + 58h")
      try context.expect(context.bus.ramRead32(hba.memory.receivedFIS + 0x5C), 1 << 7, "the tags that it ends")
      try context.expect(context.bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "the data")
    },
    ConformanceCase(
      "ahci/queued-all-tags", "All tags in flight at once end, each with its own data",
      "AHCI 1.3.1 §5.6.4; ACS-3 §7.23",
      .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let depth = min(hba.engine.slotCount, hba.port.identity?.queueDepth ?? 1)
      let buffer = try context.allocate(UInt64(depth) * 1024)
      for slot in 0..<depth {
        hba.memory.prepare(
          slot: slot, ATACommand(ATAOpcode.readQueued, lba: UInt64(slot * 3), count: 2, tag: slot),
          AHCIBuffer(address: buffer + UInt64(slot) * 1024, byteCount: 1024))
      }
      let slots = depth == 32 ? UInt32.max : (1 << UInt32(depth)) - 1
      hba.start(slots: slots, isQueued: true)
      try context.expect(try hba.finish(slots: slots, isQueued: true).isGood, "all tags succeed")
      for slot in 0..<UInt64(depth) {
        try context.expect(
          context.bus.load(buffer + slot * 1024, count: 1024),
          MachineKind.pattern((slot * 1536)..<(slot * 1536 + 1024)), "data of tag \(slot)")
      }
    },
    ConformanceCase(
      "ahci/queued-random-load", "Random queued reads and writes on sectors of their own leave what was written",
      "ACS-3 §7.23, §7.61; SATA 3.x §13.6", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var model = [UInt8](repeating: 0, count: 64 * 512)
      let area: UInt64 = 70_000
      try hba.writeSectors(area, model)
      for _ in 0..<20 {
        let first = Int.random(in: 0..<56, using: &context.random)
        let bytes = context.randomBytes(8 * 512)
        let buffer = try context.allocate(bytes)
        for slot in 0..<8 {
          hba.memory.prepare(
            slot: slot, ATACommand(ATAOpcode.writeQueued, lba: area + UInt64(first + slot), count: 1, tag: slot),
            AHCIBuffer(address: buffer + UInt64(slot) * 512, byteCount: 512, writes: true))
        }
        hba.start(slots: 0xFF, isQueued: true)
        try context.expect(try hba.finish(slots: 0xFF, isQueued: true).isGood, "eight writes succeed")
        model.replaceSubrange((first * 512)..<((first + 8) * 512), with: bytes)
      }
      try context.expect(try hba.readSectors(area, 64), model, "the sectors after all writes")
    },
    ConformanceCase(
      "ahci/queued-error-holds-tag",
      "A queued command that fails sets TFES, and its bit of PxSACT stays until ST is cleared",
      "AHCI 1.3.1 §6.2.2.2; known failure 37", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      let outcome = try hba.refuse(
        ATACommand(ATAOpcode.readQueued, lba: hba.lastSector + 1, count: 1, tag: 4),
        AHCIBuffer(address: buffer, byteCount: 512), slot: 4)
      try context.expect(outcome.status, mask: 0x89, 0x01, "status")
      try context.expect(hba.engine.read(Register.active), mask: 1 << 4, 1 << 4, "PxSACT")
      try hba.restart()
      try context.expect(hba.engine.read(Register.active), 0, "PxSACT after the restart")
    },
    ConformanceCase(
      "ahci/queued-error-log", "After a queued error, log 10h names the tag and releases the queue",
      "ACS-3 annex A; SATA 3.x §13.7; known failure 37", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      try hba.refuse(
        ATACommand(ATAOpcode.readQueued, lba: hba.lastSector + 1, count: 1, tag: 9),
        AHCIBuffer(address: buffer, byteCount: 512), slot: 9)
      try hba.restart()
      var command = ATACommand(ATAOpcode.readLogExt)
      command.lba = 0x10
      command.count = 1
      try hba.succeed(command, AHCIBuffer(address: buffer, byteCount: 512))
      try context.expect(context.bus.ramRead8(buffer), 9, "NQ and tag of the log")
      try context.expect(context.bus.load(buffer, count: 512).reduce(0, &+), 0, "sum of the log's bytes")
      try hba.checkAlive()
    },
    ConformanceCase(
      "ahci/queued-tag-not-slot",
      "A queued command whose tag is not its slot ends in no hang: a reset brings the port back",
      "AHCI 1.3.1 §5.6.4; known failure 37", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      hba.issue(
        ATACommand(ATAOpcode.readQueued, lba: 3, count: 1, tag: 30), AHCIBuffer(address: buffer, byteCount: 512),
        slot: 2)
      context.pause(milliseconds: 20)
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "ahci/queued-twice", "A tag issued again while it is in flight does no harm",
      "AHCI 1.3.1 §5.6.4; known failures 37, 45",
      .ahciSlow
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(context.randomBytes(4096))
      try hba.writeSectors(50_000, [UInt8](repeating: 1, count: 2048))
      hba.issue(
        ATACommand(ATAOpcode.writeQueued, lba: 40_000, count: 1, tag: 3),
        AHCIBuffer(address: buffer, byteCount: 512, writes: true), slot: 3)
      hba.engine.write(Register.active, 1 << 3)
      hba.engine.write(Register.issue, 1 << 3)
      try HBAUnderTest(started: context).checkAlive()
    },
  ]
}
