// SPDX-License-Identifier: Apache-2.0
// The registers of the AHCI controller after a reset and while its engines start.
import Testing

@Suite struct AHCIRegisterTests {
  private static func machine(_ folder: Folder) throws -> Machine {
    let image = try folder.image()
    return try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(image),cache=writeback,format=raw -device ide-hd,drive=drive0",
      folder: folder)
  }

  private static func checkController(_ hba: HBA) throws {
    let capabilities = try hba.register(0x00)
    #expect(capabilities & 1 << 19 == 0, "reserved")
    #expect(capabilities & 0x1f == 5, "six ports")
    #expect(capabilities >> 8 & 0x1f == 31, "32 command slots")
    #expect(capabilities & 1 << 30 != 0, "NCQ")
    #expect(capabilities & 1 << 31 != 0, "64-bit")
    let control = try hba.register(0x04)
    #expect(control == (capabilities & 1 << 18 != 0 ? 0x8000_0000 : 0))
    #expect(try hba.register(0x08) == 0, "IS")
    #expect(try hba.register(0x0c) == 0x3f, "PI")
    #expect([0x905, 0x1_0000, 0x1_0100, 0x1_0200, 0x1_0300].contains(try hba.register(0x10)), "VS")
    if capabilities & 1 << 7 == 0 {
      #expect(try hba.register(0x14) == 0)
      #expect(try hba.register(0x18) == 0)
    }
    if capabilities & 1 << 6 == 0 {
      #expect(try hba.register(0x1c) == 0)
      #expect(try hba.register(0x20) == 0)
    }
    #expect(try hba.register(0x24) & ~7 == 0, "CAP2")
    #expect(try hba.register(0x28) == 0, "BOHC")
    for offset in stride(from: UInt64(0x2c), to: 0x100, by: 4) { #expect(try hba.register(offset) == 0, "\(offset)") }
    for number in 0..<6 { try checkPort(Port(hba, number), hasDrive: number == 5) }
    let rest = try hba.machine.bytes(HBA.registers + 0x400, 0xc00)
    #expect(rest.allSatisfy { $0 == 0 }, "ports that there are not")
    #expect(try hba.register(0xffc) == 0)
  }

  private static func checkPort(_ port: Port, hasDrive: Bool) throws {
    for (offset, name) in [
      (Port.Offset.interruptStatus, "IS"), (Port.Offset.interruptEnable, "IE"), (Port.Offset.control, "SCTL"),
      (Port.Offset.error, "SERR"), (Port.Offset.active, "SACT"), (Port.Offset.issue, "CI"), (0x3c, "SNTF"),
      (0x40, "FBS"), (0x1c, "reserved"), (0x04, "CLBU"), (0x0c, "FBU"),
    ] { #expect(try port.register(offset) == 0, "\(name) of port \(port.number)") }
    for offset in stride(from: UInt64(0x44), to: 0x70, by: 4) { #expect(try port.register(offset) == 0) }
    #expect(try port.register(Port.Offset.commandList) & 0x1ff == 0)
    #expect(try port.register(Port.Offset.received) & 0xff == 0)
    #expect(try port.register(Port.Offset.command) == 6, "CMD of port \(port.number)")
    #expect(try port.register(Port.Offset.taskFile) == 0x7f, "TFD of port \(port.number)")
    #expect(try port.register(Port.Offset.signature) == 0xffff_ffff, "SIG of port \(port.number)")
    #expect(try port.register(Port.Offset.status) == (hasDrive ? 0x113 : 0), "SSTS of port \(port.number)")
  }

  @Test func resetValuesAreThoseOfTheContract() throws {
    let hba = try HBA(try Self.machine(try Folder()))
    try Self.checkController(hba)
  }

  @Test func controllerResetIsOverAtOnceEachTime() throws {
    let hba = try HBA(try Self.machine(try Folder()))
    for _ in 0..<2 {
      let port = try hba.prepared(5)
      try port.run(.readDMA(sector: 0, count: 8), reading: 4096).expectSuccess()
      try hba.reset()
      #expect(try hba.register(0x04) & 1 == 0)
      try Self.checkController(hba)
    }
  }

  @Test func addressesReadBackAndInterruptEnablesAreMasked() throws {
    let hba = try HBA(try Self.machine(try Folder()))
    let port = Port(hba, 5)
    try port.set(Port.Offset.commandList, 0xffff_ffff)
    #expect(try port.register(Port.Offset.commandList) == 0xffff_fc00)
    try port.set(Port.Offset.received, 0xffff_ffff)
    #expect(try port.register(Port.Offset.received) == 0xffff_ff00)
    try port.set(Port.Offset.commandListUpper, 0x1234_5678)
    #expect(try port.register(Port.Offset.commandListUpper) == 0x1234_5678)
    try port.set(Port.Offset.interruptEnable, 0xffff_ffff)
    #expect(try port.register(Port.Offset.interruptEnable) == 0xfdc0_00ff)
  }

  @Test func signatureIsThereWhenTheReplyComes() throws {
    let machine = try Self.machine(try Folder())
    let hba = try HBA(machine)
    try hba.enable()
    let port = Port(hba, 5)
    try port.set(Port.Offset.commandList, UInt32(port.list))
    try port.set(Port.Offset.received, UInt32(port.received))
    try port.set(Port.Offset.command, 0x16)
    #expect(try port.register(Port.Offset.command) & 0x4000 != 0, "FR")
    #expect(try port.register(Port.Offset.interruptStatus) & 1 == 1, "DHRS")
    let taskFile = try port.register(Port.Offset.taskFile)
    #expect(taskFile & 0x89 == 0 && taskFile >> 8 == 1, "not busy; the diagnostics have passed")
    #expect(try port.register(Port.Offset.signature) == 0x101)
    let fis = try machine.bytes(port.received + 0x40, 8)
    #expect(fis[0] == 0x34)
    #expect(fis[2...] == [UInt8(taskFile & 0xff), 1, 1, 0, 0, 0])
    try port.set(Port.Offset.interruptStatus, 1)
    #expect(try port.register(Port.Offset.interruptStatus) == 0)
    try port.set(Port.Offset.command, 0x17)
    #expect(try port.register(Port.Offset.command) & 0x8000 != 0, "CR")
    try port.stop()
    #expect(try port.register(Port.Offset.taskFile) == taskFile, "stays")
  }

  @Test func globalStatusAndMessageFollowAPortsInterrupt() throws {
    let machine = try Self.machine(try Folder())
    let hba = try HBA(machine)
    try hba.enable()
    let message = machine.allocate(64)
    try machine.setConfig(.ahci, 0x84, UInt32(message))
    try machine.setConfig(.ahci, 0x88, 0)
    try machine.setConfig(.ahci, 0x8c, 0x4321, .word)
    try machine.setConfig(.ahci, 0x82, 1, .word)
    let port = try hba.startedPort(5)
    try port.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
    #expect(try hba.register(0x08) == 1 << 5)
    #expect(try machine.load(message, .long) == 0x4321)
    try port.set(Port.Offset.interruptStatus, 1)
    try hba.set(0x08, 1 << 5)
    #expect(try hba.register(0x08) == 0)
  }

  @Test func everyPortTakesItsMemoryAndOnlyTheDrivesPortStarts() throws {
    let machine = try Self.machine(try Folder())
    let hba = try HBA(machine)
    try hba.set(0x04, 0x8000_0000)
    #expect(try hba.register(0x04) & 0x8000_0000 != 0)
    for number in 0..<6 {
      let port = Port(hba, number)
      #expect(try port.register(Port.Offset.command) & 0xc011 == 0, "idle")
      try port.set(Port.Offset.commandList, UInt32(port.list))
      #expect(try port.register(Port.Offset.commandList) == UInt32(port.list))
      try port.set(Port.Offset.received, UInt32(port.received))
      #expect(try port.register(Port.Offset.received) == UInt32(port.received))
      try port.clearStatus()
      #expect(try port.register(Port.Offset.error) == 0)
      #expect(try port.register(Port.Offset.interruptStatus) == 0)
      #expect(try hba.register(0x08) & 1 << UInt32(number) == 0)
      try port.set(Port.Offset.interruptEnable, 0xffff_ffff)
      #expect(try port.register(Port.Offset.interruptEnable) == 0xfdc0_00ff)
      try port.set(Port.Offset.command, try port.register(Port.Offset.command) | 0x10)
      #expect(try port.register(Port.Offset.command) & 0x4000 != 0, "FR of port \(number)")
      // How a client finds a drive.
      let isIdle = try port.register(Port.Offset.taskFile) & 0x88 == 0
      let detection = try port.register(Port.Offset.status) & 15
      #expect(isIdle == (number == 5))
      #expect(detection == (number == 5 ? 3 : 0))
    }
    let port = Port(hba, 5)
    try port.set(Port.Offset.command, try port.register(Port.Offset.command) | 1)
    #expect(try port.register(Port.Offset.command) & 0x8000 != 0)
    try hba.set(0x04, 0x8000_0002)
    #expect(try hba.register(0x04) == 0x8000_0002)
  }

  @Test func interceptedInterruptIsToldBetweenReplies() throws {
    let machine = try Self.machine(try Folder())
    #expect(try machine.ask("irq_intercept_in ioapic") == "OK")
    let port = try HBA(machine).prepared(5)
    try port.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
    _ = try machine.ask("endianness")
    try port.set(Port.Offset.interruptStatus, 1)
    try port.hba.set(0x08, 1 << 5)
    _ = try machine.ask("endianness")
    let raised = try #require(machine.interrupts.last { $0.hasPrefix("IRQ raise ") })
    let number = try #require(UInt8(raised.dropFirst("IRQ raise ".count)))
    #expect(machine.interrupts.last == "IRQ lower \(number)")
  }
}
