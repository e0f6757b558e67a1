// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Structures that no driver would write, and disks that fail: the port says so, or a reset brings it back.
extension AHCICommandCases {
  static let hostile: [ConformanceCase] = [
    ConformanceCase(
      "ahci/no-regions", "A read without any region ends in no hang; the port works after a reset",
      "AHCI 1.3.1 §6.1.5; known failure 38 (CVE-2014-9718)", .ahci
    ) { context in
      try survives(context) { hba in
        hba.memory.writeFIS(slot: 0, ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 8))
        hba.memory.writeHeader(slot: 0, flags: 0, descriptorCount: 0)
      }
    },
    ConformanceCase(
      "ahci/two-byte-regions",
      "Regions of 2 bytes that hold no whole sector end in no hang; the port works after a reset",
      "AHCI 1.3.1 §4.2.3.3; known failure 38 (CVE-2014-9718)", .ahci
    ) { context in
      try survives(context) { hba in
        let buffer = context.bus.allocate(byteCount: 4096, alignment: 4096) ?? 0
        hba.memory.prepare(
          slot: 0, ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 8),
          AHCIBuffer(address: buffer, byteCount: 200, pieceBytes: 2))
      }
    },
    ConformanceCase(
      "ahci/regions-too-short",
      "Regions shorter than the data get no byte more than they hold; the port works after a reset",
      "AHCI 1.3.1 §6.1.5; known failure 39 (CVE-2019-20175)", .ahci
    ) { context in
      let buffer = try context.allocate(8192)
      context.bus.fill(buffer, byteCount: 8192, 0xA5)
      try survives(context) { hba in
        hba.memory.prepare(
          slot: 0, ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 8), AHCIBuffer(address: buffer, byteCount: 1024))
      }
      try context.expect(
        context.bus.load(buffer + 1024, count: 7168), [UInt8](repeating: 0xA5, count: 7168),
        "the bytes past the regions")
    },
    ConformanceCase(
      "ahci/region-count-too-large", "A header that claims 65535 regions does no harm",
      "AHCI 1.3.1 §4.2.2; known failure 41",
      .ahci
    ) { context in
      try survives(context) { hba in
        let buffer = context.bus.allocate(byteCount: 4096, alignment: 4096) ?? 0
        hba.memory.prepare(
          slot: 0, ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
        hba.memory.writeHeader(slot: 0, flags: 0, descriptorCount: 0xFFFF)
      }
    },
    ConformanceCase(
      "ahci/table-outside-memory", "A command table outside RAM does no harm; the port works after a reset",
      "AHCI 1.3.1 §6.1.1; known failure 41", .ahci
    ) { context in
      for table: UInt64 in [0x7FFF_FF80, 0xFFFF_FFFF_FFFF_FF80, 0xFFFF_FF80, MachineKind.memoryBytes - 128] {
        try survives(context) { hba in
          hba.memory.writeHeader(slot: 0, flags: 0, descriptorCount: 1, table: table)
        }
      }
    },
    ConformanceCase(
      "ahci/data-outside-memory", "A region outside RAM does no harm; the port works after a reset",
      "AHCI 1.3.1 §6.1.1; known failure 41", .ahci
    ) { context in
      for address: UInt64 in [0x7FFF_F000, 0xFFFF_FFFF_FFFF_FE00, MachineKind.memoryBytes - 256] {
        try survives(context) { hba in
          hba.memory.prepare(
            slot: 0, ATACommand(ATAOpcode.readDMAExt, lba: 0, count: 1), AHCIBuffer(address: address, byteCount: 512))
        }
      }
    },
    ConformanceCase(
      "ahci/data-onto-own-registers",
      "A region on the HBA's own registers does not re-enter it; it works after a reset",
      "AHCI 1.3.1 §6.1.1; known failure 19 (CVE-2021-3929)", .ahci
    ) { context in
      let entry = try context.entry(device: 31, function: 2)
      guard let registers = entry.baseAddresses.first(where: { $0.index == 5 }) else {
        throw ConformanceFailure("expected registers in BAR 5; saw none")
      }
      for opcode in [ATAOpcode.readDMAExt, ATAOpcode.identify] {
        try survives(context) { hba in
          hba.memory.prepare(
            slot: 0, ATACommand(opcode, lba: 0, count: 1), AHCIBuffer(address: registers.address, byteCount: 512))
        }
      }
    },
    ConformanceCase(
      "ahci/list-outside-memory",
      "Starting with a command list outside RAM does no harm; proper addresses bring the port back",
      "AHCI 1.3.1 §6.1.1; known failure 40 (CVE-2016-2197)", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.engine.stopAll()
      hba.engine.write(AHCIPortRegister.commandList, 0x7FFF_FC00)
      hba.engine.write(AHCIPortRegister.receivedFIS, 0x7FFF_FF00)
      let command = hba.engine.read(AHCIPortRegister.command)
      hba.engine.write(AHCIPortRegister.command, command | AHCIPortCommand.receive)
      hba.engine.write(AHCIPortRegister.command, command | AHCIPortCommand.receive | AHCIPortCommand.start)
      hba.engine.write(AHCIPortRegister.issue, .max)
      hba.engine.write(AHCIPortRegister.command, command & ~AHCIPortCommand.start)
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "ahci/odd-fis-types", "FISes of other types and lengths do no harm; the port works after a reset",
      "AHCI 1.3.1 §4.2.2 (CFL), §4.2.3.1; known failure 41", .ahci
    ) { context in
      for (type, words) in [(UInt8(0x34), UInt32(5)), (0x27, 0), (0x27, 1), (0x27, 31), (0xFF, 5), (0x46, 5)] {
        try survives(context) { hba in
          hba.memory.writeFIS(slot: 0, ATACommand(ATAOpcode.flushCache))
          context.bus.ramWrite8(hba.memory.table(0), type)
          hba.memory.writeHeader(slot: 0, flags: 0, descriptorCount: 0, fisWords: words)
        }
      }
    },
    ConformanceCase(
      "ahci/random-headers", "Command headers of random bytes do no harm; the port works after a reset",
      "AHCI 1.3.1 §4.2.2; known failures 38 to 41", .ahci
    ) { context in
      for _ in 0..<24 {
        let header = context.randomBytes(32)
        let fis = context.randomBytes(0x100)
        try survives(context) { hba in
          context.bus.store(hba.memory.table(0), fis)
          context.bus.ramWrite8(hba.memory.table(0), 0x27)
          context.bus.ramWrite8(hba.memory.table(0) + 1, 0x80)
          // Commands that only read the disk, so that the pattern stays.
          context.bus.ramWrite8(hba.memory.table(0) + 2, ATAOpcode.readDMAExt)
          context.bus.store(hba.memory.header(0), Array(header[..<8]))
          context.bus.ramWrite64(hba.memory.header(0) + 8, hba.memory.table(0))
        }
      }
    },
    ConformanceCase(
      "ahci/issue-on-empty-port", "Commands issued on a port without a device do no harm",
      "AHCI 1.3.1 §10.3.1; known failure 43 (CVE-2020-25743)", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let list = try context.allocate(4096)
      hba.write(port: 1, AHCIPortRegister.commandList, UInt32(list))
      hba.write(port: 1, AHCIPortRegister.receivedFIS, UInt32(list) + 1024)
      hba.write(port: 1, AHCIPortRegister.command, AHCIPortCommand.receive)
      hba.write(port: 1, AHCIPortRegister.command, AHCIPortCommand.receive | AHCIPortCommand.start)
      hba.write(port: 1, AHCIPortRegister.issue, .max)
      hba.write(port: 1, AHCIPortRegister.linkControl, 1)
      hba.write(port: 1, AHCIPortRegister.linkControl, 0)
      hba.write(port: 1, AHCIPortRegister.command, 0)
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "ahci/odd-register-accesses", "Accesses of other widths and places do no harm", "AHCI 1.3.1 §3", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let entry = try context.entry(device: 31, function: 2)
      guard let registers = entry.baseAddresses.first(where: { $0.index == 5 }) else {
        throw ConformanceFailure("expected registers in BAR 5; saw none")
      }
      for offset: UInt64 in [1, 2, 3, 7, 0x101, 0x11E, registers.byteCount - 1, registers.byteCount - 3] {
        _ = context.bus.mmioRead8(registers.address + offset)
        _ = context.bus.mmioRead16(registers.address + offset)
        _ = context.bus.mmioRead64(registers.address + offset)
      }
      try hba.checkAlive()
    },
  ]

  /// Issues slot 0 as `write` leaves it, gives it a moment, resets the controller, and asks it to work.
  private static func survives(_ context: CaseContext, _ write: (HBAUnderTest) throws -> Void) throws {
    let hba = try HBAUnderTest(started: context)
    try write(hba)
    hba.start(slots: 1)
    // Long enough to fail, and to show whether the machine spins; there is nothing that must come.
    let start = context.bus.ticks
    while context.bus.ticks &- start < 4 * 10_000_000, hba.engine.read(AHCIPortRegister.issue) != 0 {
      try context.checkTransport()
    }
    try HBAUnderTest(started: context).checkAlive()
  }

  static let faults: [ConformanceCase] = [
    ConformanceCase(
      "ahci/host-write-error", "A write that fails on the host ends with ERR and TFES, and the next one works",
      "AHCI 1.3.1 §6.2.2; ACS-3 §7.59", .ahciFaults
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let bytes = context.randomBytes(512)
      let buffer = try context.allocate(bytes)
      let command = ATACommand(ATAOpcode.writeDMAExt, lba: 30_000, count: 1)
      let source = AHCIBuffer(address: buffer, byteCount: 512, writes: true)
      try hba.refuse(command, source)
      try context.expect(hba.engine.read(AHCIPortRegister.issue), 1, "PxCI after the error")
      try hba.restart()
      try hba.succeed(command, source)
      try context.expect(try hba.readSectors(30_000, 1), bytes, "what was written by the second try")
    },
    ConformanceCase(
      "ahci/host-queued-write-error", "A queued write that fails on the host sets TFES and holds its tag in PxSACT",
      "AHCI 1.3.1 §6.2.2.2", .ahciFaults
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      try hba.refuse(
        ATACommand(ATAOpcode.writeQueued, lba: 30_000, count: 1, tag: 6),
        AHCIBuffer(address: buffer, byteCount: 512, writes: true), slot: 6)
      try context.expect(hba.engine.read(AHCIPortRegister.active), mask: 1 << 6, 1 << 6, "PxSACT after the error")
      try hba.restart()
      try hba.checkAlive()
    },
    ConformanceCase(
      "ahci/host-flush-error", "A flush that fails on the host ends with ERR and TFES, and the next one works",
      "ACS-3 §7.10; AHCI 1.3.1 §6.2.2", .ahciFaults
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      let source = AHCIBuffer(address: buffer, byteCount: 512, writes: true)
      _ = try hba.perform(ATACommand(ATAOpcode.writeDMAExt, lba: 30_000, count: 1), source)
      try hba.restart()
      try hba.succeed(ATACommand(ATAOpcode.writeDMAExt, lba: 30_000, count: 1), source)
      try hba.refuse(ATACommand(ATAOpcode.flushCacheExt))
      try hba.restart()
      try hba.succeed(ATACommand(ATAOpcode.flushCacheExt))
    },
    ConformanceCase(
      "ahci/stopped-write-is-retried",
      "With werror=stop a failing write stays issued, and ends well when the machine is continued",
      "QEMU's error policies; AHCI 1.3.1 §5.5", .ahciStop
    ) { context in
      guard let monitor = context.monitor else { try context.skip("the target has no monitor") }
      let hba = try HBAUnderTest(started: context)
      let bytes = context.randomBytes(512)
      let buffer = try context.allocate(bytes)
      hba.issue(
        ATACommand(ATAOpcode.writeDMAExt, lba: 30_000, count: 1),
        AHCIBuffer(address: buffer, byteCount: 512, writes: true))
      try monitor.waitForEvent("STOP")
      try context.expect(hba.engine.read(AHCIPortRegister.issue), 1, "PxCI while the machine is stopped")
      try monitor.execute("cont")
      try monitor.waitForEvent("RESUME")
      try context.expect(try hba.finish().isGood, "the write ends well")
      try context.expect(try hba.readSectors(30_000, 1), bytes, "what was written")
    },
  ]
}
