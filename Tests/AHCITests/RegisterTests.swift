// SPDX-License-Identifier: Apache-2.0
// Registers of the controller and of its ports: reset values, what can be written, widths (AHCI 1.3.1 §3).
import Testing

@testable import AHCI

@Suite struct RegisterTests {
  let kit: HBAKit
  init() throws { kit = try HBAKit() }

  // MARK: The controller (§3.1)

  /// CAP: AHCI only, 64 bits, NCQ, 32 slots, six ports, CLO; the reserved bit 19 is 0 (§3.1.1).
  @Test func capabilitiesSayWhatTheControllerDoes() {
    let value = kit.hba(0x00)
    #expect(value & 0x1f == 5)
    #expect(value >> 8 & 0x1f == 31)
    #expect(value >> 18 & 1 == 1)
    #expect(value >> 19 & 1 == 0)
    #expect(value >> 24 & 1 == 1)
    #expect(value >> 30 == 3)
    // No port multipliers, no staggered spin-up, no enclosure services, no command coalescing.
    #expect(value & (1 << 17 | 1 << 27 | 1 << 6 | 1 << 7) == 0)
  }

  static let controllerRows: [(offset: UInt64, reset: UInt64, afterOnes: UInt64, section: String)] = [
    (0x00, 0xc114_1f05, 0xc114_1f05, "3.1.1 CAP"), (0x08, 0, 0, "3.1.3 IS"), (0x0c, 0x3f, 0x3f, "3.1.4 PI"),
    (0x10, 0x0001_0300, 0x0001_0300, "3.1.5 VS"), (0x14, 0, 0, "3.1.6 CCC_CTL"), (0x18, 0, 0, "3.1.7 CCC_PORTS"),
    (0x1c, 0, 0, "3.1.8 EM_LOC"), (0x20, 0, 0, "3.1.9 EM_CTL"), (0x24, 0, 0, "3.1.10 CAP2"),
    (0x28, 0, 0, "3.1.11 BOHC"),
    (0x2c, 0, 0, "3.1 reserved"), (0xa0, 0, 0, "3.2 vendor"), (0xfc, 0, 0, "3.2 vendor"),
  ]
  @Test(arguments: controllerRows)
  func controllerRegisterHasItsResetValueAndKeepsReadOnlyBits(
    _ row: (offset: UInt64, reset: UInt64, afterOnes: UInt64, section: String)
  ) {
    #expect(kit.hba(row.offset) == row.reset, "§\(row.section)")
    kit.setHBA(row.offset, 0xffff_ffff)
    #expect(kit.hba(row.offset) == row.afterOnes, "§\(row.section)")
  }

  /// AE is always set where CAP.SAM is; MRSM and the reserved bits are 0; HR clears itself (§3.1.2).
  @Test func globalControlKeepsOnlyTheInterruptEnable() {
    #expect(kit.hba(0x04) == 0x8000_0000)
    kit.setHBA(0x04, 0x7fff_fffe)
    #expect(kit.hba(0x04) == 0x8000_0002)
    kit.setHBA(0x04, 0)
    #expect(kit.hba(0x04) == 0x8000_0000)
    kit.setHBA(0x04, 0x8000_0003)
    #expect(kit.hba(0x04) == 0x8000_0000)
  }

  @Test func registersOfPortsThatAreNotThereAreZero() {
    for offset in stride(from: UInt64(0x400), to: 0x1000, by: 4) {
      kit.setHBA(offset, 0xffff_ffff)
      #expect(kit.hba(offset) == 0)
    }
  }

  // MARK: A port (§3.3)

  struct PortRow: Sendable, CustomTestStringConvertible {
    let offset: UInt64
    let section: String
    /// With a disk behind it, and without.
    let reset: UInt32
    let empty: UInt32
    /// After all ones were written, the engines standing still.
    let afterOnes: UInt32
    var testDescription: String { section }
    init(_ offset: UInt64, _ section: String, _ reset: UInt32, empty: UInt32? = nil, afterOnes: UInt32) {
      self.offset = offset
      self.section = section
      self.reset = reset
      self.empty = empty ?? reset
      self.afterOnes = afterOnes
    }
  }
  static let portRows: [PortRow] = [
    PortRow(0x00, "3.3.1 PxCLB", 0, afterOnes: 0xffff_fc00), PortRow(0x04, "3.3.2 PxCLBU", 0, afterOnes: 0xffff_ffff),
    PortRow(0x08, "3.3.3 PxFB", 0, afterOnes: 0xffff_ff00), PortRow(0x0c, "3.3.4 PxFBU", 0, afterOnes: 0xffff_ffff),
    PortRow(0x10, "3.3.5 PxIS", 0, afterOnes: 0), PortRow(0x14, "3.3.6 PxIE", 0, afterOnes: 0xfdc0_00ff),
    PortRow(0x1c, "3.3 reserved", 0, afterOnes: 0), PortRow(0x20, "3.3.8 PxTFD", 0x7f, afterOnes: 0x7f),
    PortRow(0x24, "3.3.9 PxSIG", 0xffff_ffff, afterOnes: 0xffff_ffff),
    PortRow(0x28, "3.3.10 PxSSTS", 0x113, empty: 0, afterOnes: 0x113), PortRow(0x30, "3.3.12 PxSERR", 0, afterOnes: 0),
    PortRow(0x34, "3.3.13 PxSACT", 0, afterOnes: 0), PortRow(0x38, "3.3.14 PxCI", 0, afterOnes: 0),
    PortRow(0x3c, "3.3.15 PxSNTF", 0, afterOnes: 0), PortRow(0x40, "3.3.16 PxFBS", 0, afterOnes: 0),
    PortRow(0x44, "3.3.17 PxDEVSLP", 0, afterOnes: 0), PortRow(0x48, "3.3 reserved", 0, afterOnes: 0),
    PortRow(0x6c, "3.3 reserved", 0, afterOnes: 0), PortRow(0x70, "3.3.18 PxVS", 0, afterOnes: 0),
    PortRow(0x7c, "3.3.18 PxVS", 0, afterOnes: 0),
  ]
  @Test(arguments: portRows)
  func portRegisterHasItsResetValueAndItsWritableBits(_ row: PortRow) {
    #expect(kit.port(row.offset) == row.reset, "§\(row.section)")
    #expect(kit.port(row.offset, 1) == row.empty, "§\(row.section), no device")
    kit.setPort(row.offset, 0xffff_ffff)
    #expect(kit.port(row.offset) == row.afterOnes, "§\(row.section)")
    kit.setHBA(0x04, 1)
    #expect(kit.port(row.offset) == row.reset, "§\(row.section), after a reset")
  }

  /// SUD and POD are read-only ones; ICC, CLO and the power bits read as 0 (§3.3.7).
  @Test func commandRegisterShowsWhatRuns() {
    #expect(kit.port(0x18) == 0x6)
    #expect(kit.port(0x18, 1) == 0x6)
    kit.setPort(0x18, 0xffff_ffee)
    #expect(kit.port(0x18) == 0x0300_0006)
    kit.setPort(0x18, 0)
    #expect(kit.port(0x18) == 0x6)
  }

  /// PxSCTL keeps its fields, and its reserved bits are 0 (§3.3.11).
  @Test func sataControlKeepsItsFields() {
    kit.setPort(0x2c, 0xffff_fff0)
    #expect(kit.port(0x2c) == 0x000f_fff0)
    kit.setPort(0x2c, 0x0000_0300)
    #expect(kit.port(0x2c) == 0x300)
  }

  // MARK: Widths (§3)

  @Test(arguments: [1, 2, 4, 8])
  func registersAreReadInAnyWidth(_ width: Int) {
    var whole: [UInt8] = []
    for offset in stride(from: UInt64(0), to: 0x200, by: 4) {
      whole += withUnsafeBytes(of: UInt32(truncatingIfNeeded: kit.hba(offset)).littleEndian) { Array($0) }
    }
    for offset in stride(from: 0, to: whole.count, by: width) {
      var expected: UInt64 = 0
      for index in (0..<width).reversed() { expected = expected << 8 | UInt64(whole[offset + index]) }
      #expect(kit.hba(UInt64(offset), width: width) == expected)
    }
  }

  @Test func registersAreWrittenInAnyWidth() {
    let list: UInt64 = 0x100
    kit.setHBA(list, 0x1122_3344_5566_7788, width: 8)
    #expect(kit.hba(list, width: 8) == 0x1122_3344_5566_7400)
    kit.setHBA(list + 3, 0xaa, width: 1)
    kit.setHBA(list + 6, 0xbbcc, width: 2)
    #expect(kit.hba(list, width: 8) == 0xbbcc_3344_aa66_7400)
    // An access across two words is one to each.
    kit.setHBA(list + 2, 0x0102_0304, width: 4)
    #expect(kit.hba(list, width: 8) == 0xbbcc_0102_0304_7400)
  }

  /// A byte that is not written clears nothing: PxSERR's and PxIS's ones are cleared one by one.
  @Test func narrowWritesClearOnlyWhatTheyTouch() {
    kit.setPort(PortRegister.sataControl, 1)
    kit.setPort(PortRegister.sataControl, 0)
    #expect(kit.port(PortRegister.sataError) == PortError.phyReadyChange | PortError.exchanged)
    kit.setHBA(0x100 + PortRegister.sataError + 2, 0xff, width: 1)
    #expect(kit.port(PortRegister.sataError) == PortError.exchanged)
    kit.setHBA(0x100 + PortRegister.sataError + 3, 0xff, width: 1)
    #expect(kit.port(PortRegister.sataError) == 0)
  }
}
