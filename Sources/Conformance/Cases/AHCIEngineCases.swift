// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The port's state machine: engines, resets, signatures, interrupts.
enum AHCIEngineCases {
  private typealias Register = AHCIPortRegister

  static let all: [ConformanceCase] = engines + resets + interrupts

  private static let engines: [ConformanceCase] = [
    ConformanceCase(
      "ahci/receive-delivers-signature", "Setting FRE sets FR and delivers the device's first register FIS",
      "AHCI 1.3.1 §10.3.2, §5.3.2", .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      let received = try context.allocate(4096)
      hba.write(port: 0, Register.receivedFIS, UInt32(received))
      hba.write(port: 0, Register.command, hba.read(port: 0, Register.command) | AHCIPortCommand.receive)
      try context.wait(until: "PxCMD.FR is set") {
        hba.read(port: 0, Register.command) & AHCIPortCommand.receiveRuns != 0
      }
      try context.wait(until: "BSY and DRQ clear") { hba.read(port: 0, Register.taskFile) & 0x88 == 0 }
      try context.expect(hba.read(port: 0, Register.signature), AHCISignature.ata, "PxSIG")
      try context.expect(context.bus.ramRead8(received + 0x40), 0x34, "type of the FIS at PxFB + 40h")
      try context.expect(hba.read(port: 0, Register.interruptStatus), mask: 1, 1, "PxIS.DHRS")
    },
    ConformanceCase(
      "ahci/receive-stops", "Clearing FRE clears FR", "AHCI 1.3.1 §10.3.2", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.engine.stopAll()
      try context.expect(hba.engine.read(Register.command), mask: 0xC011, 0, "PxCMD with ST and FRE clear")
    },
    ConformanceCase(
      "ahci/start-runs", "Setting ST sets CR, and clearing it clears CR", "AHCI 1.3.1 §10.3.1", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try context.expect(hba.engine.read(Register.command), mask: 0x8001, 0x8001, "PxCMD with ST set")
      try hba.engine.stop()
      try context.expect(hba.engine.read(Register.command), mask: 0x8001, 0, "PxCMD with ST clear")
      try hba.engine.start()
      try hba.checkAlive()
    },
    ConformanceCase(
      "ahci/stop-keeps-task-file", "Clearing ST keeps PxTFD and clears PxCI and PxSACT",
      "AHCI 1.3.1 §3.3.13, §3.3.14; known failure 44", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.refuse(ATACommand(0x00))
      try context.expect(hba.engine.read(Register.issue), 1, "PxCI after the error")
      let before = hba.engine.read(Register.taskFile)
      try hba.engine.stop()
      try context.expect(hba.engine.read(Register.taskFile), before, "PxTFD after ST was cleared")
      try context.expect(hba.engine.read(Register.issue), 0, "PxCI after ST was cleared")
      try context.expect(hba.engine.read(Register.active), 0, "PxSACT after ST was cleared")
    },
    ConformanceCase(
      "ahci/error-holds-until-restart", "After an error the port does nothing until ST is cleared and set again",
      "AHCI 1.3.1 §6.2.2.1; known failure 44", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      try hba.refuse(ATACommand(0x00))
      hba.memory.prepare(
        slot: 5, ATACommand(ATAOpcode.readDMAExt, lba: 3, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
      hba.engine.write(Register.issue, 1 << 5)
      try context.expectStays("the second command stays in PxCI") { hba.engine.read(Register.issue) & 1 << 5 != 0 }
      try context.expect(context.bus.load(buffer, count: 512), [UInt8](repeating: 0, count: 512), "the data")
      try hba.restart()
      try hba.checkAlive()
    },
    ConformanceCase(
      "ahci/error-shows-until-next-command",
      "After a restart PxTFD still shows the error; the next good command clears it",
      "AHCI 1.3.1 §6.2.2.1", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.refuse(ATACommand(0x00))
      try hba.restart()
      try context.expect(hba.engine.read(Register.taskFile), mask: 0x89, 0x01, "PxTFD after the restart")
      try hba.checkAlive()
      try context.expect(hba.engine.read(Register.taskFile), mask: 0xFF01, 0, "PxTFD after a good command")
    },
    ConformanceCase(
      "ahci/slots-run-in-any-number", "All command slots work, one after the other", "AHCI 1.3.1 §3.1.1, §5.5", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      for slot in 0..<hba.engine.slotCount {
        context.bus.fill(buffer, byteCount: 512, 0)
        let outcome = try hba.succeed(
          ATACommand(ATAOpcode.readDMAExt, lba: UInt64(slot), count: 1),
          AHCIBuffer(address: buffer, byteCount: 512), slot: slot)
        try context.expect(outcome.byteCount, 512, "PRDBC of slot \(slot)")
        let start = UInt64(slot) * 512
        try context.expect(
          context.bus.load(buffer, count: 512), MachineKind.pattern(start..<(start + 512)), "data of slot \(slot)")
      }
    },
    ConformanceCase(
      "ahci/slots-issued-together", "Commands issued by one write of PxCI all end, each with its own data",
      "AHCI 1.3.1 §5.3.2, §5.5.1", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let count = hba.engine.slotCount
      let buffer = try context.allocate(UInt64(count) * 512)
      for slot in 0..<count {
        hba.memory.prepare(
          slot: slot, ATACommand(ATAOpcode.readDMAExt, lba: UInt64(slot * 2), count: 1),
          AHCIBuffer(address: buffer + UInt64(slot) * 512, byteCount: 512))
      }
      let slots = count == 32 ? UInt32.max : (1 << UInt32(count)) - 1
      hba.start(slots: slots)
      try context.expect(try hba.finish(slots: slots).isGood, "all slots succeed")
      for slot in 0..<UInt64(count) {
        try context.expect(
          context.bus.load(buffer + slot * 512, count: 512), MachineKind.pattern((slot * 1024)..<(slot * 1024 + 512)),
          "data of slot \(slot)")
      }
    },
    ConformanceCase(
      "ahci/zeroes-to-issue-are-ignored", "Writing 0 to PxCI and PxSACT leaves a command in flight alone",
      "AHCI 1.3.1 §3.3.13, §3.3.14; known failure 45", .ahciSlow
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try primeThrottle(hba)
      let buffer = try context.allocate(context.randomBytes(512))
      hba.issue(
        ATACommand(ATAOpcode.writeDMAExt, lba: 40_000, count: 1),
        AHCIBuffer(address: buffer, byteCount: 512, writes: true))
      hba.engine.write(Register.issue, 0)
      hba.engine.write(Register.active, 0)
      hba.engine.write(Register.issue, 1)
      try context.expect(try hba.finish().isGood, "the write ends well although its bit was written again")
      try context.expect(try hba.readSectors(40_000, 1), context.bus.load(buffer, count: 512), "what was written")
    },
  ]

  /// Uses up what a slow disk takes at once, so that the next write waits.
  private static func primeThrottle(_ hba: HBAUnderTest) throws {
    try hba.writeSectors(50_000, [UInt8](repeating: 1, count: 2048))
  }

  private static let resets: [ConformanceCase] = [
    ConformanceCase(
      "ahci/hba-reset-clears-registers", "An HBA reset ends and puts all registers back, twice in a row",
      "AHCI 1.3.1 §10.4.3", .ahci, shares: true
    ) { context in
      for _ in 0..<2 {
        let hba = try HBAUnderTest(started: context)
        hba.engine.write(Register.interruptEnable, 0xFF)
        hba.controller.write(AHCIRegister.globalControl, AHCIControl.ahciEnable | AHCIControl.interruptEnable)
        try hba.controller.reset()
        try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 3, 0, "GHC")
        try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 0, "IS")
        for offset: UInt64 in [0x10, 0x14, 0x2C, 0x34, 0x38] {
          try context.expect(hba.read(port: 0, offset), 0, "port register \(offset)")
        }
        try context.expect(hba.read(port: 0, Register.command), mask: 0xC011, 0, "PxCMD")
      }
    },
    ConformanceCase(
      "ahci/hba-reset-in-flight", "A write in flight at an HBA reset lands whole at its own place or not at all",
      "AHCI 1.3.1 §10.4.3; known failure 34 (CVE-2023-5088)", .ahciSlow
    ) { context in
      var hba = try HBAUnderTest(started: context)
      try primeThrottle(hba)
      let bytes = context.randomBytes(512)
      let buffer = try context.allocate(bytes)
      hba.issue(
        ATACommand(ATAOpcode.writeDMAExt, lba: 40_000, count: 1),
        AHCIBuffer(address: buffer, byteCount: 512, writes: true))
      try hba.controller.reset()
      context.bus.fill(buffer, byteCount: 512, 0xEE)
      context.pause(milliseconds: 700)
      hba = try HBAUnderTest(started: context)
      try context.expect(try hba.readSectors(0, 2), MachineKind.pattern(0..<1024), "sectors 0 and 1")
      let landed = try hba.readSectors(40_000, 1)
      let isWhole = landed == bytes || landed == [UInt8](repeating: 0, count: 512)
      try context.expect(isWhole, "sector 40000 holds all of the write or nothing of it")
    },
    ConformanceCase(
      "ahci/comreset-in-flight", "COMRESET with queued commands in flight ends them, and the port works again",
      "AHCI 1.3.1 §10.4.2; known failure 36 (CVE-2016-1568)", .ahciSlow
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try primeThrottle(hba)
      let buffer = try context.allocate(context.randomBytes(4096))
      for slot in 0..<8 {
        hba.memory.prepare(
          slot: slot, ATACommand(ATAOpcode.writeQueued, lba: 40_000 + UInt64(slot), count: 1, tag: slot),
          AHCIBuffer(address: buffer + UInt64(slot) * 512, byteCount: 512, writes: true))
      }
      hba.start(slots: 0xFF, isQueued: true)
      try hba.resetPort()
      try context.expect(hba.engine.read(Register.issue), 0, "PxCI")
      try context.expect(hba.engine.read(Register.active), 0, "PxSACT")
      try hba.checkAlive()
      try context.expect(try hba.readSectors(0, 2), MachineKind.pattern(0..<1024), "sectors 0 and 1")
    },
    ConformanceCase(
      "ahci/rapid-resets", "Forty HBA resets with writes in flight leave a controller that works",
      "AHCI 1.3.1 §10.4.3; known failure 51", .ahciSlow
    ) { context in
      let buffer = try context.allocate(context.randomBytes(512))
      for round in 0..<40 {
        let hba = try HBAUnderTest(context)
        let port = 0
        if round % 4 == 0 {
          let started = try HBAUnderTest(started: context)
          for slot in 0..<4 {
            started.memory.prepare(
              slot: slot, ATACommand(ATAOpcode.writeQueued, lba: 40_000 + UInt64(slot), count: 1, tag: slot),
              AHCIBuffer(address: buffer, byteCount: 512, writes: true))
          }
          started.start(slots: 0xF, isQueued: true)
        }
        try hba.controller.reset()
        try context.expect(hba.read(port: port, Register.active), 0, "PxSACT after reset \(round)")
      }
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "ahci/comreset-signature", "COMRESET brings the link back, sets PxSERR.DIAG.X and delivers the signature",
      "AHCI 1.3.1 §10.4.2, §3.3.12", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.engine.stop()
      hba.clearEvents()
      hba.engine.write(Register.linkControl, 1)
      context.pause(milliseconds: 2)
      hba.engine.write(Register.linkControl, 0)
      try context.wait(until: "PxSSTS.DET is 3") { hba.engine.read(Register.linkStatus) & 0xF == 3 }
      try context.expect(hba.engine.read(Register.linkError), mask: 1 << 26, 1 << 26, "PxSERR.DIAG.X")
      try context.expect(hba.engine.read(Register.interruptStatus), mask: 1 << 6, 1 << 6, "PxIS.PCS")
      hba.clearEvents()
      try context.wait(until: "BSY and DRQ clear") { hba.engine.read(Register.taskFile) & 0x88 == 0 }
      try context.expect(hba.engine.read(Register.signature), AHCISignature.ata, "PxSIG")
      try hba.engine.start()
      try hba.checkAlive()
    },
    ConformanceCase(
      "ahci/link-control-while-started",
      "PxSCTL.DET written while ST is set does no harm; a reset brings the port back",
      "AHCI 1.3.1 §3.3.11; known failure 42 (Launchpad 1878255)", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for value: UInt32 in [1, 0, 4, 0xFFFF_FFFF, 0] { hba.engine.write(Register.linkControl, value) }
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "ahci/software-reset-in-flight",
      "A software reset with queued writes in flight ends in no hang, and each write lands whole or not at all",
      "AHCI 1.3.1 §10.4.1; known failure 35 (CVE-2021-3735)", .ahciSlow
    ) { context in
      var hba = try HBAUnderTest(started: context)
      try primeThrottle(hba)
      let bytes = context.randomBytes(512)
      let buffer = try context.allocate(bytes)
      for slot in 0..<4 {
        hba.memory.prepare(
          slot: slot, ATACommand(ATAOpcode.writeQueued, lba: 40_000 + UInt64(slot), count: 1, tag: slot),
          AHCIBuffer(address: buffer, byteCount: 512, writes: true))
      }
      hba.start(slots: 0xF, isQueued: true)
      prepareSoftwareReset(hba, firstSlot: 4)
      hba.engine.issue(1 << 4, queued: 0)
      hba.engine.issue(1 << 5, queued: 0)
      context.pause(milliseconds: 20)
      hba = try HBAUnderTest(started: context)
      try hba.checkAlive()
      try context.expect(try hba.readSectors(0, 2), MachineKind.pattern(0..<1024), "sectors 0 and 1")
      for sector in UInt64(40_000)..<40_004 {
        let landed = try hba.readSectors(sector, 1)
        let isWhole = landed == bytes || landed == [UInt8](repeating: 0, count: 512)
        try context.expect(isWhole, "sector \(sector) holds all of the write or nothing of it")
      }
    },
    ConformanceCase(
      "ahci/software-reset", "A software reset by two control FISes ends with the signature",
      "AHCI 1.3.1 §10.4.1", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      prepareSoftwareReset(hba, firstSlot: 0)
      hba.start(slots: 1)
      try context.wait(until: "the first FIS is sent") { hba.engine.read(Register.issue) & 1 == 0 }
      hba.engine.issue(2, queued: 0)
      try context.wait(until: "the second FIS is sent") { hba.engine.read(Register.issue) & 2 == 0 }
      try context.wait(until: "BSY and DRQ clear") { hba.engine.read(Register.taskFile) & 0x88 == 0 }
      try context.expect(hba.engine.read(Register.signature), AHCISignature.ata, "PxSIG")
      try context.expect(context.bus.ramRead8(hba.memory.receivedFIS + 0x40), 0x34, "type of the last FIS")
      try hba.restart()
      try hba.checkAlive()
    },
  ]

  /// What a software reset sends: two control FISes, the first with SRST set (AHCI 1.3.1 §10.4.1).
  private static func prepareSoftwareReset(_ hba: HBAUnderTest, firstSlot: Int) {
    let flags = AHCICommandMemory<RemoteBus>.HeaderFlags.self
    for (slot, control) in [(firstSlot, UInt8(4)), (firstSlot + 1, 0)] {
      var fis = ATACommand(0)
      fis.updatesCommand = false
      fis.control = control
      hba.memory.writeFIS(slot: slot, fis)
      hba.memory.writeHeader(slot: slot, flags: control == 4 ? flags.reset | flags.clearBusy : 0, descriptorCount: 0)
    }
  }

  private static let interrupts: [ConformanceCase] = [
    ConformanceCase(
      "ahci/message-per-command",
      "With PxIE, GHC.IE and MSI on, a command sends a message and sets the port's bit of IS",
      "AHCI 1.3.1 §10.7, §3.1.3", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context, waitMode: .interrupt)
      guard let interrupt = hba.controller.interrupt else { try context.skip("no MSI") }
      let buffer = try context.allocate(512)
      hba.clearEvents()
      let seen = context.bus.interruptCount(interrupt)
      hba.issue(ATACommand(ATAOpcode.readDMAExt, lba: 3, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
      try context.wait(until: "the message comes") { context.bus.interruptCount(interrupt) != seen }
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 1, "IS")
      try context.expect(hba.engine.read(Register.issue), 0, "PxCI when the message has come")
    },
    ConformanceCase(
      "ahci/port-mask-holds-back", "An event that PxIE does not name sends no message and sets no bit of IS",
      "AHCI 1.3.1 §3.3.6, §10.7", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context, waitMode: .interrupt)
      guard let interrupt = hba.controller.interrupt else { try context.skip("no MSI") }
      hba.engine.write(Register.interruptEnable, AHCIPortInterrupt.errors)
      hba.clearEvents()
      let seen = context.bus.interruptCount(interrupt)
      try hba.checkAlive()
      try context.expect(hba.engine.read(Register.interruptStatus), mask: 1, 1, "PxIS.DHRS")
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 0, "IS")
      try context.expect(context.bus.interruptCount(interrupt), seen, "messages")
    },
    ConformanceCase(
      "ahci/global-mask-holds-back", "Without GHC.IE no message is sent, though IS shows the port",
      "AHCI 1.3.1 §3.1.2, §10.7", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context, waitMode: .interrupt)
      guard let interrupt = hba.controller.interrupt else { try context.skip("no MSI") }
      hba.controller.write(AHCIRegister.globalControl, AHCIControl.ahciEnable)
      let seen = context.bus.interruptCount(interrupt)
      try hba.checkAlive()
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 1, "IS")
      try context.expect(context.bus.interruptCount(interrupt), seen, "messages")
    },
    ConformanceCase(
      "ahci/ports-report-apart", "IS shows the port whose command ended and no other; writing 1 clears it",
      "AHCI 1.3.1 §3.1.3, §10.7.2", .ahciTwoDisks, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context, port: 3, waitMode: .interrupt)
      guard hba.controller.interrupt != nil else { try context.skip("no MSI") }
      hba.controller.write(AHCIRegister.interruptStatus, .max)
      try hba.checkAlive()
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 1 << 3, "IS")
      hba.engine.write(Register.interruptStatus, .max)
      hba.controller.write(AHCIRegister.interruptStatus, 1 << 3)
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 0, "IS after a 1")
    },
    ConformanceCase(
      "ahci/disks-are-apart", "What is written on one port is not seen on another", "AHCI 1.3.1 §3.3", .ahciTwoDisks,
      shares: true
    ) { context in
      let third = try HBAUnderTest(started: context, port: 3)
      try third.writeSectors(60_000, context.randomBytes(1024))
      let first = try HBAUnderTest(started: context, port: 0)
      try context.expect(
        try first.readSectors(60_000, 2), [UInt8](repeating: 0, count: 1024), "the same sectors of port 0")
    },
    ConformanceCase(
      "ahci/error-stays-on-its-port", "A port that has met an error does not hold up another", "AHCI 1.3.1 §6.2.2",
      .ahciTwoDisks, shares: true
    ) { context in
      let broken = try HBAUnderTest(started: context, port: 0)
      try broken.refuse(ATACommand(0x00))
      guard let other = broken.controller.ports.first(where: { $0.number == 3 }) else {
        throw ConformanceFailure("expected a device on port 3; saw none")
      }
      let buffer = try context.allocate(512)
      let outcome = try other.transfer(
        ATAOpcode.readDMAExt, sector: 3, count: 1, AHCIBuffer(address: buffer, byteCount: 512))
      try context.expect(outcome.isGood, "port 3 reads while port 0 holds its error")
      try context.expect(broken.engine.read(Register.issue), 1, "PxCI of port 0")
    },
  ]
}
