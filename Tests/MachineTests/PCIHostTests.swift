// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Machine

@Suite struct PCIHostTests {
  private static let ecam: UInt64 = 0xb000_0000

  /// Writes the address register and reads the data port at `port`.
  private func read(_ machine: Machine, _ address: UInt32, port: UInt16 = 0xcfc, width: Int = 4) -> UInt32 {
    machine.exitPortWrite(0xcf8, width: 4, value: address)
    return machine.exitPortRead(port, width: width)
  }

  @Test(arguments: [
    (address: UInt32(0x8000_0000), value: UInt32(0x29c0_8086)), (0x8000_0008, 0x0600_0000), (0x8000_002c, 0x1100_1af4),
    (0x8000_f800, 0x2918_8086), (0x8000_f808, 0x0601_0002), (0x8000_f80c, 0x0080_0000),
  ])
  func bridgesAreThere(_ row: (address: UInt32, value: UInt32)) throws {
    #expect(read(try makeMachine(), row.address) == row.value)
  }

  @Test(arguments: [
    // Function, device, bus that do not exist; the enable bit is clear.
    UInt32(0x8000_0100), 0x8000_2000, 0x8001_0000, 0x80ff_f800, 0x0000_0000, 0x7fff_fffc,
  ])
  func absentFunctionReadsAllOnesAndTakesWrites(_ address: UInt32) throws {
    let machine = try makeMachine()
    #expect(read(machine, address) == UInt32.max)
    #expect(read(machine, address, width: 2) == 0xffff)
    machine.exitPortWrite(0xcfc, width: 4, value: 0x1234_5678)
    #expect(read(machine, 0x8000_0000) == 0x29c0_8086)
  }

  @Test(arguments: [
    // The offset is (CF8 & 0xff) | (port & 3).
    (address: UInt32(0x8000_2000), port: UInt16(0xcfc), width: 4, value: UInt32(0x1042_1af4)),
    (0x8000_2000, 0xcfc, 2, 0x1af4), (0x8000_2000, 0xcfe, 2, 0x1042), (0x8000_2000, 0xcfd, 1, 0x1a),
    (0x8000_2002, 0xcfc, 2, 0x1042), (0x8000_2003, 0xcfc, 1, 0x10), (0x8000_2002, 0xcfd, 1, 0x10),
    (0x8000_2001, 0xcfc, 4, 0x0010_421a), (0x8000_20fe, 0xcfc, 4, 0), (0x8000_20ff, 0xcff, 1, 0),
    // Reserved bits of the address register change nothing.
    (0xff00_2000, 0xcfc, 4, 0x1042_1af4),
  ])
  func dataPortReachesTheOffsetOfBothRegisters(
    _ row: (address: UInt32, port: UInt16, width: Int, value: UInt32)
  ) throws {
    let machine = try makeMachine()
    machine.attach(TestFunction())
    #expect(read(machine, row.address, port: row.port, width: row.width) == row.value)
  }

  @Test func addressRegisterAnswersOnlyWholeAccesses() throws {
    let machine = try makeMachine()
    machine.exitPortWrite(0xcf8, width: 4, value: 0x8000_1234)
    #expect(machine.exitPortRead(0xcf8, width: 4) == 0x8000_1234)
    machine.exitPortWrite(0xcf8, width: 1, value: 0)
    machine.exitPortWrite(0xcf8, width: 2, value: 0)
    machine.exitPortWrite(0xcfa, width: 2, value: 0)
    #expect(machine.exitPortRead(0xcf8, width: 4) == 0x8000_1234)
    #expect(machine.exitPortRead(0xcf8, width: 1) == 0xff)
    #expect(machine.exitPortRead(0xcfa, width: 2) == 0xffff)
    // An access over the boundary of the two registers, and one over the end.
    #expect(machine.exitPortRead(0xcfa, width: 4) == UInt32.max)
    #expect(machine.exitPortRead(0xcfe, width: 4) == UInt32.max)
  }

  @Test func bothWaysToConfigurationSpaceAgree() throws {
    let machine = try makeMachine()
    let function = TestFunction(0x1f, 2)
    function.addBAR(0, kind: .memory64, byteCount: 4096, block: RecordingBlock())
    function.addMSIX(vectorCount: 3, bar: 2, tableOffset: 0, pendingOffset: 0x800)
    machine.attach(function)
    machine.pci.enableECAM(at: PCIHostTests.ecam)
    #expect(machine.pci.ecamBase == PCIHostTests.ecam)
    for index in 0..<256 {
      for offset in stride(from: 0, to: 256, by: 4) {
        let through = read(machine, 0x8000_0000 | UInt32(index) << 8 | UInt32(offset))
        let address = PCIHostTests.ecam + UInt64(index) << 12 + UInt64(offset)
        #expect(machine.exitMemoryRead(address, width: 4) == UInt64(through))
      }
    }
    let base = PCIHostTests.ecam + 0x1f << 15 + 2 << 12
    machine.exitMemoryWrite(base + 0x3c, width: 1, value: 0x5b)
    #expect(read(machine, 0x8000_fa3c, width: 1) == 0x5b)
    #expect(machine.exitMemoryRead(base + 2, width: 2) == 0x1042)
    // The MSI-X capability follows the header.
    #expect(machine.exitMemoryRead(base + 0x3c, width: 8) == 0x0002_0011_0000_015b)
    machine.exitMemoryWrite(base + 0x38, width: 8, value: 0x66 << 32)
    #expect(machine.exitMemoryRead(base + 0x3c, width: 1) == 0x66)
  }

  @Test func extendedSpaceReadsZeroAndOtherBusesReadAllOnes() throws {
    let machine = try makeMachine()
    machine.pci.enableECAM(at: PCIHostTests.ecam)
    for offset in [UInt64(0x100), 0x104, 0xfff] {
      machine.exitMemoryWrite(PCIHostTests.ecam + offset, width: 1, value: 0xff)
      #expect(machine.exitMemoryRead(PCIHostTests.ecam + offset, width: 1) == 0)
    }
    #expect(machine.exitMemoryRead(PCIHostTests.ecam + 0xffe, width: 4) == 0)
    #expect(machine.exitMemoryRead(PCIHostTests.ecam + 0x1000, width: 2) == 0xffff)
    #expect(machine.exitMemoryRead(PCIHostTests.ecam + 1 << 20, width: 4) == 0xffff_ffff)
    #expect(machine.exitMemoryRead(PCIHostTests.ecam + 255 << 20, width: 4) == 0xffff_ffff)
    #expect(machine.exitMemoryRead(PCIHostTests.ecam + 256 << 20, width: 4) == 0)
  }

  @Test(arguments: [
    // PCIEXBAR, where ECAM then is, and a bus that the length still covers.
    (register: UInt64(0xb000_0000), base: UInt64?.none), (0xb000_0001, 0xb000_0000), (0x10_0000_0001, nil),
    (0x8_0000_0001, 0x8_0000_0000), (0xb800_0003, 0xb800_0000), (0xb400_0005, 0xb400_0000), (0xb000_0007, nil),
    (0x0000_0001, nil), (0xb400_0003, 0xb000_0000), (0xf000_0001, 0xf000_0000),
  ])
  func guestMovesECAMWithTheHostBridge(_ row: (register: UInt64, base: UInt64?)) throws {
    let machine = try makeMachine()
    let bridge = try #require(machine.pci.function(at: PCIAddress(device: 0)))
    #expect(machine.pci.ecamBase == nil)
    bridge.configurationWrite(offset: 0x64, width: 4, value: UInt32(row.register >> 32))
    bridge.configurationWrite(offset: 0x60, width: 4, value: UInt32(truncatingIfNeeded: row.register))
    #expect(machine.pci.ecamBase == row.base)
    if let base = row.base { #expect(machine.exitMemoryRead(base, width: 4) == 0x29c0_8086) }
    bridge.configurationWrite(offset: 0x60, width: 1, value: 0)
    #expect(machine.pci.ecamBase == nil)
    if let base = row.base { #expect(machine.exitMemoryRead(base, width: 4) == 0) }
  }

  @Test func ecamThatMovesItselfFinishesTheWrite() throws {
    let machine = try makeMachine()
    machine.pci.enableECAM(at: PCIHostTests.ecam)
    machine.exitMemoryWrite(PCIHostTests.ecam + 0x60, width: 4, value: 0xc000_0001)
    #expect(machine.pci.ecamBase == 0xc000_0000)
    #expect(machine.exitMemoryRead(0xc000_0060, width: 4) == 0xc000_0001)
  }

  @Test func ecamOverRAMIsNotMapped() throws {
    let machine = try makeMachine()
    try machine.memory.add(.init(start: 0xb000_0000, byteCount: 0x1000))
    machine.pci.enableECAM(at: PCIHostTests.ecam)
    #expect(machine.pci.ecamBase == nil)
  }

  @Test func resetTakesECAMAwayUnlessFirmwareIsPlayed() throws {
    let machine = try makeMachine()
    let bridge = try #require(machine.pci.function(at: PCIAddress(device: 0)))
    bridge.configurationWrite(offset: 0x60, width: 4, value: 0xc000_0001)
    bridge.reset()
    #expect(machine.pci.ecamBase == nil)
    machine.pci.enableECAM(at: PCIHostTests.ecam)
    bridge.configurationWrite(offset: 0x60, width: 4, value: 0xc000_0001)
    bridge.reset()
    #expect(machine.pci.ecamBase == PCIHostTests.ecam)
  }

  @Test func firstFunctionSaysWhetherThereAreMore() throws {
    let machine = try makeMachine()
    let (first, second, alone) = (TestFunction(6, 0), TestFunction(6, 3), TestFunction(7, 0))
    machine.attach(second)
    machine.attach(first)
    machine.attach(alone)
    #expect(first.configurationRead(offset: 0x0e, width: 1) == 0x80)
    #expect(second.configurationRead(offset: 0x0e, width: 1) == 0)
    #expect(alone.configurationRead(offset: 0x0e, width: 1) == 0)
    first.reset()
    #expect(first.configurationRead(offset: 0x0e, width: 1) == 0x80)
    #expect(machine.pci.freeDevice == 1)
  }

  @Test(arguments: [
    (value: UInt32(0x02), isReset: false), (0x06, true), (0x0e, true), (0x04, true), (0x00, false),
  ])
  func resetControlPortAsksForAReset(_ row: (value: UInt32, isReset: Bool)) throws {
    let machine = try makeMachine()
    machine.exitPortWrite(0xcf9, width: 1, value: row.value)
    #expect(machine.shutdownReason == (row.isReset ? .reset : nil))
    // The reset bit never reads back.
    #expect(machine.exitPortRead(0xcf9, width: 1) == row.value & 0x0a)
  }
}

@Suite struct PCIInterruptPinTests {
  @Test(arguments: [
    (device: UInt8(1), function: UInt8(0), pin: UInt8(1), line: 21), (4, 0, 1, 20), (4, 0, 2, 21), (5, 0, 4, 20),
    (24, 0, 1, 20), (25, 0, 1, 16), (0x1f, 2, 1, 16), (0x1f, 3, 2, 17), (0x1d, 0, 4, 19), (30, 0, 1, 20),
  ])
  func pinReachesItsLineOfTheIOAPIC(_ row: (device: UInt8, function: UInt8, pin: UInt8, line: Int)) throws {
    let machine = try makeMachine()
    let interrupts = RecordingController()
    machine.interrupts = interrupts
    let function = TestFunction(row.device, row.function, pin: row.pin)
    machine.attach(function)
    function.setInterruptLine(asserted: true)
    function.setInterruptLine(asserted: true)
    function.setInterruptLine(asserted: false)
    #expect(
      interrupts.levels == [.init(line: row.line, asserted: true), .init(line: row.line, asserted: false)])
  }

  @Test func statusBitFollowsWhileTheCommandBitHoldsTheLine() throws {
    let machine = try makeMachine()
    let interrupts = RecordingController()
    machine.interrupts = interrupts
    let function = TestFunction()
    machine.attach(function)
    function.command = PCICommand.interruptDisable
    function.setInterruptLine(asserted: true)
    #expect(function.configurationRead(offset: 0x06, width: 2) & 0x08 != 0)
    #expect(interrupts.levels.isEmpty)
    function.command = 0
    #expect(interrupts.levels == [.init(line: 20, asserted: true)])
    function.command = PCICommand.interruptDisable
    #expect(interrupts.levels.last == .init(line: 20, asserted: false))
    function.setInterruptLine(asserted: false)
    #expect(function.configurationRead(offset: 0x06, width: 2) & 0x08 == 0)
    #expect(interrupts.levels.count == 2)
  }

  @Test func sharedLineStaysUntilTheLastFunctionReleasesIt() throws {
    let machine = try makeMachine()
    let interrupts = RecordingController()
    machine.interrupts = interrupts
    let functions = [TestFunction(4, name: "a"), TestFunction(8, name: "b"), TestFunction(9, pin: 0, name: "c")]
    functions.forEach(machine.attach)
    functions.forEach { $0.setInterruptLine(asserted: true) }
    #expect(interrupts.levels == [.init(line: 20, asserted: true)])
    functions[0].setInterruptLine(asserted: false)
    #expect(interrupts.levels.count == 1)
    functions[1].reset()
    #expect(interrupts.levels == [.init(line: 20, asserted: true), .init(line: 20, asserted: false)])
  }
}
