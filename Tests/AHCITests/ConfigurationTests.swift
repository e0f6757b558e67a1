// SPDX-License-Identifier: Apache-2.0
// The PCI function of the controller (AHCI 1.3.1 §2; ICH9 data sheet §14.1).
import Machine
import Testing

@testable import AHCI

@Suite struct ConfigurationTests {
  let kit: HBAKit
  init() throws { kit = try HBAKit() }

  private func read(_ offset: Int, _ width: Int = 4) -> UInt32 {
    kit.controller.configurationRead(offset: offset, width: width)
  }

  @Test func headerIsThatOfAnICH9Controller() {
    #expect(kit.controller.address.description == "1f.2")
    #expect(read(0x00) == 0x2922_8086)
    // Class 01, subclass 06, programming interface 01 (§2.1.5).
    #expect(read(0x08) >> 8 == 0x01_0601)
    #expect(read(0x06, 2) == 0x0010)
    #expect(read(0x0e, 1) & 0x7f == 0)
    #expect(read(0x3c, 2) == 0x0100)
  }

  @Test func capabilitiesAreMSIAndThenTheIndexDataPair() {
    #expect(read(0x34) == 0x80)
    #expect(read(0x38) == 0)
    #expect(read(0x80, 1) == 0x05)
    // One vector, 64-bit addresses, no masks, off (PCI 3.0 §6.8.1.3).
    #expect(read(0x82, 2) == 0x0080)
    #expect(read(0x81, 1) == 0xa8)
    #expect(read(0xa8) == 0x0010_0012)
    // BAR 4, offset 16 (§2.4).
    #expect(read(0xac) == 0x48)
  }

  @Test func registersAreFourKibibytesOfMemoryIn32BitSpace() {
    kit.controller.configurationWrite(offset: 4, width: 2, value: 0)
    kit.controller.configurationWrite(offset: 0x24, width: 4, value: 0xffff_ffff)
    #expect(read(0x24) == 0xffff_f000)
    kit.controller.configurationWrite(offset: 0x20, width: 4, value: 0xffff_ffff)
    #expect(read(0x20) & 0xffff == 0xffe1)
    for bar in [0x10, 0x14, 0x18, 0x1c] {
      kit.controller.configurationWrite(offset: bar, width: 4, value: 0xffff_ffff)
      #expect(read(bar) == 0)
    }
  }

  @Test func portEnablesKeepWhatFirmwareWrites() {
    #expect(read(0x92, 1) == 0)
    kit.controller.configurationWrite(offset: 0x92, width: 1, value: 0xff)
    #expect(read(0x92, 1) == 0x3f)
    #expect(read(0x90, 1) == 0x40)
  }

  @Test func indexDataPairReachesTheRegisters() {
    func out(_ offset: UInt64, _ value: UInt64) {
      kit.machine.portSpace.write(HBAKit.ports + offset, width: 4, value: value)
    }
    func input(_ offset: UInt64, _ width: Int = 4) -> UInt64 {
      kit.machine.portSpace.read(HBAKit.ports + offset, width: width) ?? 0xbad
    }
    out(0x10, 0)
    #expect(input(0x14) == UInt64(HBAValue.capabilities))
    // The index keeps a double word's offset within the registers (§2.4.1.1).
    out(0x10, 0xffff_f013)
    #expect(input(0x10) == 0x010)
    #expect(input(0x14) == UInt64(HBAValue.version))
    #expect(input(0x16, 2) == UInt64(HBAValue.version >> 16))
    out(0x10, 0x100 + PortRegister.interruptEnable)
    out(0x14, 0xffff_ffff)
    #expect(kit.port(PortRegister.interruptEnable) == PortInterrupt.enableMask)
    // The ports below the pair belong to nothing.
    #expect(input(0) == 0)
    out(0, 0x1234_5678)
    #expect(input(0x18) == 0)
  }

  @Test func nothingAnswersWhileMemoryDecodingIsOff() {
    kit.controller.configurationWrite(offset: 4, width: 2, value: 0)
    #expect(kit.machine.memorySpace.read(HBAKit.abar, width: 4) == nil)
  }

  /// A client moves the BAR while decoding is on.
  @Test func registersMoveWithTheirBAR() {
    kit.controller.configurationWrite(offset: 0x24, width: 4, value: 0xe100_0000)
    #expect(kit.machine.memorySpace.read(0xe100_0010, width: 4) == UInt64(HBAValue.version))
    #expect(kit.machine.memorySpace.read(HBAKit.abar, width: 4) == nil)
  }
}
