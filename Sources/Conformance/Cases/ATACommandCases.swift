// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What a disk says of itself, its settings, and commands that it refuses.
enum ATACommandCases {
  static let all: [ConformanceCase] = identity + settings + refused

  /// The words of IDENTIFY DEVICE.
  private static func identify(_ hba: HBAUnderTest) throws -> [UInt16] {
    let buffer = try hba.context.allocate(512)
    try hba.succeed(ATACommand(ATAOpcode.identify), AHCIBuffer(address: buffer, byteCount: 512))
    let bytes = hba.bus.load(buffer, count: 512)
    return (0..<256).map { UInt16(bytes[2 * $0]) | UInt16(bytes[2 * $0 + 1]) << 8 }
  }

  private static func isText(_ words: ArraySlice<UInt16>) -> Bool {
    words.allSatisfy { (0x20...0x7E).contains($0 >> 8) && (0x20...0x7E).contains($0 & 0xFF) }
  }

  private static let identity: [ConformanceCase] = [
    ConformanceCase(
      "ata/identify-kind", "IDENTIFY DEVICE names an ATA device that supports DMA and LBA",
      "ACS-3 §7.12.7 (words 0, 49)",
      .ahci, shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      try context.expect(words[0], mask: 0x8000, 0, "word 0")
      try context.expect(words[49], mask: 0x0300, 0x0300, "word 49")
    },
    ConformanceCase(
      "ata/identify-strings", "Serial number, firmware and model are printable and padded by blanks",
      "ACS-3 §7.12.7 (words 10 to 46), §3.3.10", .ahci, shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      try context.expect(isText(words[10...19]), "words 10 to 19, the serial number, are printable")
      try context.expect(isText(words[23...26]), "words 23 to 26, the firmware, are printable")
      try context.expect(isText(words[27...46]), "words 27 to 46, the model, are printable")
      try context.expect(words[10] != 0x2020, "there is a serial number, from its first byte on")
    },
    ConformanceCase(
      "ata/identify-capacity", "Words 60 and 61 and words 100 to 103 give the number of sectors",
      "ACS-3 §7.12.7 (words 60, 61, 100 to 103)", .ahci, shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      let sectors = MachineKind.diskBytes / 512
      try context.expect(UInt64(words[60]) | UInt64(words[61]) << 16, sectors, "words 60 and 61")
      let long = (100...103).reversed().reduce(UInt64(0)) { $0 << 16 | UInt64(words[$1]) }
      try context.expect(long, sectors, "words 100 to 103")
    },
    ConformanceCase(
      "ata/identify-queuing", "Words 75 and 76 offer queued commands and say how many", "ACS-3 §7.12.7 (words 75, 76)",
      .ahci, shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      try context.expect(words[76], mask: 1 << 8, 1 << 8, "word 76")
      try context.expect(words[75], mask: ~0x1F, 0, "word 75")
    },
    ConformanceCase(
      "ata/identify-command-sets", "Words 83, 84 and 87 are valid; 48-bit addresses and both flushes are there and on",
      "ACS-3 §7.12.7 (words 82 to 87)", .ahci, shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      for index in [83, 84, 87] { try context.expect(words[index] >> 14, 1, "top bits of word \(index)") }
      try context.expect(words[83], mask: 0x3400, 0x3400, "word 83: FLUSH CACHE, FLUSH CACHE EXT, 48 bits")
      try context.expect(words[86], mask: 0x3400, 0x3400, "word 86: the same")
    },
    ConformanceCase(
      "ata/identify-sector-size", "Words 106 and 117 describe logical sectors of 512 bytes",
      "ACS-3 §7.12.7 (words 106, 117)", .ahci,
      shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      if words[106] >> 14 == 1 { try context.expect(words[106], mask: 1 << 12, 0, "word 106") }
    },
    ConformanceCase(
      "ata/identify-checksum", "Where word 255 has the signature A5h, all bytes sum up to 0",
      "ACS-3 §7.12.7 (word 255)", .ahci,
      shares: true
    ) { context in
      let words = try identify(try HBAUnderTest(started: context))
      guard words[255] & 0xFF == 0xA5 else { try context.skip("word 255 has no signature") }
      let sum = words.reduce(UInt8(0)) { $0 &+ UInt8($1 & 0xFF) &+ UInt8($1 >> 8) }
      try context.expect(sum, 0, "sum of all bytes")
    },
    ConformanceCase(
      "ata/identify-is-stable", "IDENTIFY DEVICE says the same before and after COMRESET", "ACS-3 §7.12", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let before = try identify(hba)
      try hba.resetPort()
      let after = try identify(hba)
      let differing = (0..<256).filter { before[$0] != after[$0] }
      try context.expect(differing.isEmpty, "no words differ, of which \(differing) do")
    },
    ConformanceCase(
      "ata/identify-events", "IDENTIFY DEVICE moves 512 bytes by PIO", "ACS-3 §7.12; AHCI 1.3.1 §5.6.3", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      let outcome = try hba.succeed(ATACommand(ATAOpcode.identify), AHCIBuffer(address: buffer, byteCount: 512))
      try context.expect(outcome.byteCount, 512, "PRDBC")
      try context.expect(outcome.interruptStatus, 3, "PxIS")
    },
  ]

  private static let settings: [ConformanceCase] = [
    ConformanceCase(
      "ata/native-max", "READ NATIVE MAX ADDRESS and its EXT form give the last sector",
      "ATA8-ACS §7 (READ NATIVE MAX ADDRESS)", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(ATAOpcode.readNativeMaxExt)
      command.device = ATACommand.lbaMode
      try hba.succeed(command)
      try context.expect(hba.engine.receivedLBA, hba.lastSector, "the address in the register FIS, 48 bits")
      command.opcode = ATAOpcode.readNativeMax
      try hba.succeed(command)
      try context.expect(hba.engine.receivedLBA & 0xFF_FFFF, hba.lastSector, "the address in the register FIS, 28 bits")
    },
    ConformanceCase(
      "ata/flush", "FLUSH CACHE and FLUSH CACHE EXT succeed with a register FIS alone", "ACS-3 §7.10, §7.11", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.writeSectors(23_000, context.randomBytes(512))
      for opcode in [ATAOpcode.flushCache, ATAOpcode.flushCacheExt] {
        try context.expect(try hba.succeed(ATACommand(opcode)).interruptStatus, 1, "PxIS")
      }
    },
    ConformanceCase(
      "ata/write-cache", "SET FEATURES turns the write cache off and on, and IDENTIFY shows it", "ACS-3 §7.45", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for (feature, bit) in [(ATAFeature.disableWriteCache, UInt16(0)), (ATAFeature.enableWriteCache, 1 << 5)] {
        var command = ATACommand(ATAOpcode.setFeatures)
        command.features = UInt16(feature)
        try hba.succeed(command)
        try context.expect(try identify(hba)[85], mask: 1 << 5, bit, "word 85 after subcommand \(feature)")
      }
    },
    ConformanceCase(
      "ata/cache-off-writes", "With the write cache off, written data is there", "ACS-3 §7.45", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(ATAOpcode.setFeatures)
      command.features = UInt16(ATAFeature.disableWriteCache)
      try hba.succeed(command)
      let bytes = context.randomBytes(1024)
      try hba.writeSectors(24_000, bytes)
      try context.expect(try hba.readSectors(24_000, 2), bytes, "what was written")
    },
    ConformanceCase(
      "ata/transfer-mode", "SET FEATURES takes a UDMA mode, and refuses an undefined one", "ACS-3 §7.45", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(ATAOpcode.setFeatures)
      command.features = 0x03
      command.count = 0x45
      try hba.succeed(command)
      command.count = 0xFF
      try hba.abort(command)
    },
    ConformanceCase(
      "ata/power-mode", "CHECK POWER MODE says that the disk is active", "ACS-3 §7.3", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      try hba.succeed(ATACommand(0xE5))
      try context.expect(context.bus.ramRead8(hba.memory.receivedFIS + 0x40 + 12), 0xFF, "count of the register FIS")
    },
    ConformanceCase(
      "ata/idle-and-standby", "IDLE, STANDBY and their immediate forms succeed, and the disk reads afterwards",
      "ACS-3 §7.14, §7.15, §7.49, §7.50", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for opcode: UInt8 in [0xE3, 0xE1, 0xE2, 0xE0] { try hba.succeed(ATACommand(opcode)) }
      try hba.checkAlive()
    },
    ConformanceCase(
      "ata/smart-status", "SMART RETURN STATUS keeps its signature while all is well", "ACS-3 §7.48.8", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(0xB0)
      command.lba = 0xC2_4F00
      command.features = 0xD8
      try hba.succeed(command)
      command.features = 0xDA
      try hba.succeed(command)
      try context.expect(hba.engine.receivedLBA >> 8 & 0xFFFF, 0xC24F, "LBA mid and high")
    },
    ConformanceCase(
      "ata/smart-needs-signature", "SMART without its signature is aborted", "ACS-3 §7.48", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(0xB0)
      command.features = 0xDA
      try hba.abort(command)
    },
    ConformanceCase(
      "ata/smart-offline-index", "SMART EXECUTE OFFLINE IMMEDIATE with odd numbers does no harm",
      "ACS-3 §7.48; known failure 49 (CVE-2014-2894)", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for number: UInt64 in [0x05, 0x7E, 0x80, 0xC0, 0xFE] {
        var command = ATACommand(0xB0)
        command.lba = 0xC2_4F00 | number
        command.features = 0xD4
        _ = try hba.perform(command)
        try hba.restart()
      }
      try hba.checkAlive()
    },
    ConformanceCase(
      "ata/trim", "DATA SET MANAGEMENT with TRIM succeeds, and the disk still reads", "ACS-3 §7.5", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      guard hba.port.identity?.hasTrim == true else { try context.skip("word 169 does not offer TRIM") }
      try hba.writeSectors(25_000, context.randomBytes(8 * 512))
      let ranges = try context.allocate(512)
      context.bus.ramWrite64(ranges, 25_000 | 8 << 48)
      var command = ATACommand(0x06)
      command.features = 1
      command.count = 1
      try hba.succeed(command, AHCIBuffer(address: ranges, byteCount: 512, writes: true))
      _ = try hba.readSectors(25_000, 8)
      try hba.checkAlive()
    },
    ConformanceCase(
      "ata/trim-past-end", "TRIM of sectors past the end fails", "ACS-3 §7.5; known failure 46", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      guard hba.port.identity?.hasTrim == true else { try context.skip("word 169 does not offer TRIM") }
      let ranges = try context.allocate(512)
      context.bus.ramWrite64(ranges, hba.lastSector + 100 | 8 << 48)
      var command = ATACommand(0x06)
      command.features = 1
      command.count = 1
      try hba.refuse(command, AHCIBuffer(address: ranges, byteCount: 512, writes: true))
      try hba.restart()
    },
    ConformanceCase(
      "ata/log-directory", "The general purpose log directory names log 10h", "ACS-3 annex A", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      guard hba.port.identity?.hasLogging == true else { try context.skip("word 84 does not offer logging") }
      let buffer = try context.allocate(512)
      var command = ATACommand(ATAOpcode.readLogExt)
      command.count = 1
      try hba.succeed(command, AHCIBuffer(address: buffer, byteCount: 512))
      try context.expect(context.bus.ramRead16(buffer), 1, "version")
      try context.expect(context.bus.ramRead16(buffer + 0x20), 1, "pages of log 10h")
    },
    ConformanceCase(
      "ata/diagnostic", "EXECUTE DEVICE DIAGNOSTIC reports success with the signature", "ACS-3 §7.9", .ahci,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let outcome = try hba.perform(ATACommand(0x90))
      try context.expect(outcome.error, 1, "diagnostic code")
      try context.expect(hba.engine.receivedLBA & 0xFF_FFFF, 1, "signature in the address")
    },
  ]

  private static let refused: [ConformanceCase] = [
    ConformanceCase(
      "ata/unknown-commands", "Commands that a disk does not have are aborted at once",
      "ACS-3 §6.2, §7.1; known failure 50", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for opcode: UInt8 in [0x01, 0x0F, 0x1F, 0x50, 0x80, 0x9F, 0xFF] { try hba.abort(ATACommand(opcode)) }
      try hba.checkAlive()
    },
    ConformanceCase(
      "ata/nop", "NOP is always aborted", "ACS-3 §7.17", .ahci, shares: true
    ) { context in
      try HBAUnderTest(started: context).abort(ATACommand(0x00))
    },
    ConformanceCase(
      "ata/packet-commands-are-refused", "A disk aborts PACKET, IDENTIFY PACKET DEVICE and DEVICE RESET",
      "ACS-3 §7.6, §7.13, §7.18; known failure 50", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      for opcode: UInt8 in [0xA0, 0xA1, 0x08] {
        try hba.abort(ATACommand(opcode), AHCIBuffer(address: buffer, byteCount: 512))
      }
    },
    ConformanceCase(
      "ata/unknown-feature", "SET FEATURES with an undefined subcommand is aborted", "ACS-3 §7.45", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(ATAOpcode.setFeatures)
      command.features = 0x1F
      try hba.abort(command)
    },
    ConformanceCase(
      "ata/absent-log", "READ LOG EXT of a log that is not there is aborted", "ACS-3 §7.24", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      var command = ATACommand(ATAOpcode.readLogExt)
      command.lba = 0x9E
      command.count = 1
      try hba.abort(command, AHCIBuffer(address: buffer, byteCount: 512))
    },
    ConformanceCase(
      "ata/multiple-needs-mode", "SET MULTIPLE MODE refuses a number of sectors that is no power of two", "ACS-3 §7.46",
      .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      var command = ATACommand(0xC6)
      command.count = 3
      try hba.abort(command)
    },
  ]
}
