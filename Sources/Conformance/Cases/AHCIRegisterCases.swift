// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The HBA's and the ports' registers: values after power on, which bits can be written, what a 1 clears.
enum AHCIRegisterCases {
  private typealias Register = AHCIPortRegister

  static let all: [ConformanceCase] = globalCases + portCases

  private static let globalCases: [ConformanceCase] = [
    ConformanceCase(
      "ahci/cap-reserved-bit", "Bit 19 of CAP is reserved and 0, and CAP does not change when written",
      "AHCI 1.3.1 §3.1.1", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let before = hba.controller.read(AHCIRegister.capabilities)
      try context.expect(before, mask: 1 << 19, 0, "CAP")
      hba.controller.write(AHCIRegister.capabilities, ~before)
      try context.expect(hba.controller.read(AHCIRegister.capabilities), before, "CAP after a write")
    },
    ConformanceCase(
      "ahci/ahci-only-means-enabled", "An HBA that is AHCI only (CAP.SAM) has GHC.AE set, and keeps it",
      "AHCI 1.3.1 §3.1.2", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      guard hba.controller.read(AHCIRegister.capabilities) & AHCIControl.ahciOnly != 0 else {
        try context.skip("CAP.SAM is clear")
      }
      try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 1 << 31, 1 << 31, "GHC")
      hba.controller.write(AHCIRegister.globalControl, 0)
      try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 1 << 31, 1 << 31, "GHC after a 0")
    },
    ConformanceCase(
      "ahci/ghc-at-power-on", "GHC has HR, IE and all reserved bits clear at power on", "AHCI 1.3.1 §3.1.2", .bare
    ) { context in
      let hba = try HBAUnderTest(context)
      try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 0x7FFF_FFFF, 0, "GHC")
      try context.expect(hba.controller.read(AHCIRegister.interruptStatus), 0, "IS")
    },
    ConformanceCase(
      "ahci/ghc-interrupt-enable-is-kept", "GHC.IE can be set and cleared", "AHCI 1.3.1 §3.1.2", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      hba.controller.write(AHCIRegister.globalControl, AHCIControl.ahciEnable | AHCIControl.interruptEnable)
      try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 3, 2, "GHC with IE set")
      hba.controller.write(AHCIRegister.globalControl, AHCIControl.ahciEnable)
      try context.expect(hba.controller.read(AHCIRegister.globalControl), mask: 3, 0, "GHC with IE clear")
    },
    ConformanceCase(
      "ahci/ports-implemented", "There are ports, no more than CAP.NP says, and PI does not change when written",
      "AHCI 1.3.1 §3.1.1, §3.1.4", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let implemented = hba.controller.read(AHCIRegister.portsImplemented)
      let most = Int(hba.controller.read(AHCIRegister.capabilities) & AHCIControl.portCountMask) + 1
      try context.expect(implemented != 0, "PI is not 0")
      try context.expect(implemented.nonzeroBitCount <= most, "PI names at most \(most) ports")
      hba.controller.write(AHCIRegister.portsImplemented, ~implemented)
      try context.expect(hba.controller.read(AHCIRegister.portsImplemented), implemented, "PI after a write")
    },
    ConformanceCase(
      "ahci/version", "VS is a version that there is, and does not change when written", "AHCI 1.3.1 §3.1.5", .bare,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let version = hba.controller.read(AHCIRegister.version)
      let known: [UInt32] = [0x0_0905, 0x1_0000, 0x1_0100, 0x1_0200, 0x1_0300, 0x1_0301]
      try context.expect(known.contains(version), "VS \(CaseContext.hexadecimal(version)) is known")
      hba.controller.write(AHCIRegister.version, ~version)
      try context.expect(hba.controller.read(AHCIRegister.version), version, "VS after a write")
    },
    ConformanceCase(
      "ahci/coalescing-and-enclosure-absent-read-zero",
      "Without command coalescing and enclosure management their registers read 0", "AHCI 1.3.1 §3.1.6 to §3.1.9",
      .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let capabilities = hba.controller.read(AHCIRegister.capabilities)
      guard capabilities & (1 << 6 | 1 << 7) == 0 else { try context.skip("CAP.EMS or CAP.CCCS is set") }
      for offset: UInt64 in [0x14, 0x18, 0x1C, 0x20] {
        try context.expect(hba.controller.read(offset), 0, "register \(CaseContext.hexadecimal(offset))")
      }
    },
    ConformanceCase(
      "ahci/cap2-reserved-bits", "The reserved bits of CAP2 are 0; without CAP2.BOH the hand-off register reads 0",
      "AHCI 1.3.1 §3.1.10, §3.1.11", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let more = hba.controller.read(AHCIRegister.capabilities2)
      try context.expect(more, mask: ~0x3F, 0, "CAP2")
      if more & 1 == 0 { try context.expect(hba.controller.read(AHCIRegister.handOff), 0, "BOHC") }
    },
    ConformanceCase(
      "ahci/reserved-globals-read-zero", "Reserved global registers read 0, written or not", "AHCI 1.3.1 §3", .bare,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      for offset in stride(from: UInt64(0x2C), to: 0xA0, by: 4) {
        hba.controller.write(offset, 0xFFFF_FFFF)
        try context.expect(hba.controller.read(offset), 0, "register \(CaseContext.hexadecimal(offset))")
      }
    },
    ConformanceCase(
      "ahci/unimplemented-ports-read-zero", "Every register of a port that PI does not name reads 0",
      "AHCI 1.3.1 §3.1.4", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let implemented = hba.implementedPorts
      for number in 0..<30 where !implemented.contains(number) {
        for offset in stride(from: UInt64(0), to: 0x80, by: 4) {
          hba.write(port: number, offset, 0xFFFF_FFFF)
          try context.expect(hba.read(port: number, offset), 0, "port \(number) register \(offset)")
        }
      }
    },
    ConformanceCase(
      "ahci/index-data-pair", "The index/data pair of the I/O base address register reaches the same registers",
      "AHCI 1.3.1 §2.4, §10.14", .bare, shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let entry = try context.entry(device: 31, function: 2)
      let configuration = context.topology.configuration
      guard let sata = PCICases.capabilities(context, entry.function.address).first(where: { $0.identifier == 0x12 })
      else { try context.skip("no SATA capability") }
      let place = configuration.read32(entry.function.address, sata.offset + 4)
      guard (4...9).contains(place & 0xF),
        let register = entry.baseAddresses.first(where: { $0.index == Int(place & 0xF) - 4 }), !register.isMemory
      else { try context.skip("the pair is not in an I/O base address register") }
      configuration.write16(entry.function.address, 4, 7)
      let pair = UInt16(register.address) + UInt16(place >> 4 & 0xFFFFF) * 4
      context.bus.out32(pair, UInt32(AHCIRegister.version))
      try context.expect(context.bus.in32(pair + 4), hba.controller.read(AHCIRegister.version), "VS by the pair")
      context.bus.out32(pair, UInt32(AHCIRegister.portsImplemented))
      try context.expect(
        context.bus.in32(pair + 4), hba.controller.read(AHCIRegister.portsImplemented), "PI by the pair")
    },
  ]

  private static let portCases: [ConformanceCase] = [
    ConformanceCase(
      "ahci/port-registers-at-power-on", "PxIS, PxIE, PxSCTL, PxSERR, PxSACT, PxCI and PxSNTF are 0 at power on",
      "AHCI 1.3.1 §3.3", .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        for offset: UInt64 in [0x10, 0x14, 0x2C, 0x30, 0x34, 0x38, 0x3C] {
          try context.expect(hba.read(port: number, offset), 0, "port \(number) register \(offset)")
        }
      }
    },
    ConformanceCase(
      "ahci/port-idle-at-power-on", "Every port's engines are off at power on: ST, CLO, FRE, CCS, FR and CR are 0",
      "AHCI 1.3.1 §3.3.7", .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        let command = hba.read(port: number, Register.command)
        try context.expect(command, mask: 0xDF19, 0, "PxCMD of port \(number)")
      }
    },
    ConformanceCase(
      "ahci/task-file-at-power-on", "PxTFD is 7Fh until the device has sent its first FIS", "AHCI 1.3.1 §3.3.8", .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        try context.expect(hba.read(port: number, Register.taskFile), 0x7F, "PxTFD of port \(number)")
      }
    },
    ConformanceCase(
      "ahci/signature-at-power-on", "PxSIG is all ones until the device has sent its first FIS", "AHCI 1.3.1 §3.3.9",
      .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        try context.expect(hba.read(port: number, Register.signature), 0xFFFF_FFFF, "PxSIG of port \(number)")
      }
    },
    ConformanceCase(
      "ahci/link-status", "PxSSTS shows an active link where there is a device, and nothing where there is none",
      "AHCI 1.3.1 §3.3.10", .ahci
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        let link = hba.read(port: number, Register.linkStatus)
        guard number == 0 else {
          try context.expect(link, mask: 0xFFF, 0, "PxSSTS of port \(number), which is empty")
          continue
        }
        try context.expect(link, mask: 0xF0F, 0x103, "PxSSTS of port 0")
        try context.expect((1...3).contains(link >> 4 & 0xF), "the link has a generation of 1 to 3")
      }
    },
    ConformanceCase(
      "ahci/read-only-port-registers", "PxTFD, PxSIG and PxSSTS do not change when written",
      "AHCI 1.3.1 §3.3.8 to §3.3.10", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      for register in [Register.taskFile, Register.signature, Register.linkStatus] {
        let before = hba.engine.read(register)
        hba.engine.write(register, ~before)
        try context.expect(hba.engine.read(register), before, "register \(register) after a write")
      }
    },
    ConformanceCase(
      "ahci/list-address-is-kept", "PxCLB and PxFB keep aligned 64-bit addresses", "AHCI 1.3.1 §3.3.1 to §3.3.4", .bare
    ) { context in
      let hba = try HBAUnderTest(context)
      let has64Bits = hba.controller.read(AHCIRegister.capabilities) & AHCIControl.addresses64 != 0
      for number in hba.implementedPorts {
        hba.write(port: number, Register.commandList, 0x1234_5400)
        hba.write(port: number, Register.receivedFIS, 0x0765_4300)
        hba.write(port: number, Register.commandListUpper, 0x0000_00A5)
        hba.write(port: number, Register.receivedFISUpper, 0x0000_005A)
        try context.expect(hba.read(port: number, Register.commandList), 0x1234_5400, "PxCLB")
        try context.expect(hba.read(port: number, Register.receivedFIS), 0x0765_4300, "PxFB")
        try context.expect(hba.read(port: number, Register.commandListUpper), has64Bits ? 0xA5 : 0, "PxCLBU")
        try context.expect(hba.read(port: number, Register.receivedFISUpper), has64Bits ? 0x5A : 0, "PxFBU")
      }
    },
    ConformanceCase(
      "ahci/list-address-low-bits", "The low bits of PxCLB (9:0) and PxFB (7:0) are reserved and read 0",
      "AHCI 1.3.1 §3.3.1, §3.3.3", .bare
    ) { context in
      let hba = try HBAUnderTest(context)
      hba.write(port: 0, Register.commandList, 0xFFFF_FFFF)
      hba.write(port: 0, Register.receivedFIS, 0xFFFF_FFFF)
      try context.expect(hba.read(port: 0, Register.commandList), 0xFFFF_FC00, "PxCLB after all ones")
      try context.expect(hba.read(port: 0, Register.receivedFIS), 0xFFFF_FF00, "PxFB after all ones")
    },
    ConformanceCase(
      "ahci/interrupt-enable-mask", "PxIE keeps exactly the bits that have a meaning", "AHCI 1.3.1 §3.3.6", .bare,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      for number in hba.implementedPorts {
        hba.write(port: number, Register.interruptEnable, 0xFFFF_FFFF)
        try context.expect(hba.read(port: number, Register.interruptEnable), 0xFDC0_00FF, "PxIE after all ones")
        hba.write(port: number, Register.interruptEnable, 0)
        try context.expect(hba.read(port: number, Register.interruptEnable), 0, "PxIE after 0")
      }
    },
    ConformanceCase(
      "ahci/running-bits-are-read-only", "PxCMD.CR, FR and CCS cannot be written", "AHCI 1.3.1 §3.3.7", .bare,
      shares: true
    ) { context in
      let hba = try HBAUnderTest(context)
      let before = hba.read(port: 0, Register.command)
      hba.write(port: 0, Register.command, before | 0xDF00)
      try context.expect(hba.read(port: 0, Register.command), mask: 0xDF00, 0, "PxCMD")
      hba.write(port: 0, Register.command, before)
    },
    ConformanceCase(
      "ahci/interrupt-status-needs-ones", "Writing 0 leaves PxIS as it is; writing 1 clears just those bits",
      "AHCI 1.3.1 §3.3.5; known failure 44", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let buffer = try context.allocate(512)
      try hba.succeed(ATACommand(ATAOpcode.identify), AHCIBuffer(address: buffer, byteCount: 512))
      let both = AHCIPortInterrupt.registerFIS | AHCIPortInterrupt.pioSetup
      hba.engine.write(Register.interruptStatus, 0)
      try context.expect(hba.engine.read(Register.interruptStatus), mask: both, both, "PxIS after a 0")
      hba.engine.write(Register.interruptStatus, AHCIPortInterrupt.registerFIS)
      try context.expect(
        hba.engine.read(Register.interruptStatus), mask: both, AHCIPortInterrupt.pioSetup, "PxIS after a 1 for DHRS")
      hba.engine.write(Register.interruptStatus, .max)
      try context.expect(hba.engine.read(Register.interruptStatus), 0, "PxIS after all ones")
    },
    ConformanceCase(
      "ahci/link-errors-need-ones", "Writing 1 clears PxSERR, and the register cannot be set by a write",
      "AHCI 1.3.1 §3.3.12; known failure 44", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      hba.engine.write(Register.linkError, .max)
      try context.expect(hba.engine.read(Register.linkError), 0, "PxSERR after all ones")
    },
    ConformanceCase(
      "ahci/command-list-override", "PxCMD.CLO clears BSY and DRQ and then reads 0, where CAP.SCLO offers it",
      "AHCI 1.3.1 §3.3.7", .ahci, shares: true
    ) { context in
      let hba = try HBAUnderTest(started: context)
      guard hba.controller.capabilities & AHCIControl.commandListOverride != 0 else {
        try context.skip("CAP.SCLO is clear")
      }
      try hba.engine.stop()
      let command = hba.engine.read(Register.command)
      hba.engine.write(Register.command, command | AHCIPortCommand.listOverride)
      try context.wait(until: "PxCMD.CLO clears") {
        hba.engine.read(Register.command) & AHCIPortCommand.listOverride == 0
      }
      try context.expect(hba.engine.read(Register.taskFile), mask: 0x88, 0, "PxTFD")
      try hba.engine.start()
      try hba.checkAlive()
    },
  ]
}
