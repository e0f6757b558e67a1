// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Machine

@Suite struct PCIConfigurationTests {
  @Test(arguments: [
    (offset: 0x00, width: 4, value: UInt32(0x1042_1af4)), (0x00, 2, 0x1af4), (0x02, 2, 0x1042), (0x04, 4, 0),
    (0x08, 4, 0x0180_0001), (0x0b, 1, 0x01), (0x0c, 4, 0), (0x2c, 4, 0x0002_1af4), (0x34, 4, 0), (0x3c, 4, 0x0100),
    (0x10, 4, 0), (0xfe, 4, 0), (0x100, 4, 0), (0xffc, 4, 0),
  ])
  func headerShowsTheIdentity(_ row: (offset: Int, width: Int, value: UInt32)) {
    #expect(TestFunction().configurationRead(offset: row.offset, width: row.width) == row.value)
  }

  @Test(arguments: [
    (offset: 0x00, written: UInt32(0)), (0x04, 0x0000_0507), (0x08, 0), (0x0c, 0x0000_00ff), (0x10, 0), (0x24, 0),
    (0x28, 0), (0x2c, 0), (0x30, 0), (0x34, 0), (0x38, 0), (0x3c, 0x0000_00ff), (0x40, 0), (0xfc, 0), (0x100, 0),
  ])
  func guestChangesOnlyTheBitsThatItMay(_ row: (offset: Int, written: UInt32)) throws {
    let machine = try makeMachine()
    let function = TestFunction()
    machine.attach(function)
    let before = function.configurationRead(offset: row.offset, width: 4)
    function.configurationWrite(offset: row.offset, width: 4, value: UInt32.max)
    #expect(function.configurationRead(offset: row.offset, width: 4) == before | row.written)
    function.configurationWrite(offset: row.offset, width: 4, value: 0)
    #expect(function.configurationRead(offset: row.offset, width: 4) == before & ~row.written)
  }

  @Test func eachWidthWritesOnlyItsBytes() {
    let function = TestFunction()
    function.configuration.define(0x40, UInt64(0), writeMask: UInt64.max)
    function.configurationWrite(offset: 0x41, width: 1, value: 0xaabb)
    function.configurationWrite(offset: 0x43, width: 2, value: 0xccdd)
    #expect(function.configuration.load(UInt64.self, at: 0x40) == 0xcc_dd00_bb00)
    function.configurationWrite(offset: 0x42, width: 4, value: 0x1122_3344)
    #expect(function.configuration.load(UInt64.self, at: 0x40) == 0x1122_3344_bb00)
  }

  @Test func accessOverTheEndOfTheSpaceKeepsTheBytesInside() {
    let function = TestFunction()
    function.configuration.define(0xfc, UInt32(0), writeMask: UInt32.max)
    function.configurationWrite(offset: 0xfe, width: 4, value: 0x4433_2211)
    #expect(function.configurationRead(offset: 0xfc, width: 4) == 0x2211_0000)
    #expect(function.configurationRead(offset: 0xff, width: 4) == 0x22)
  }

  @Test func writingOnesClearsTheBitsThatAreDefinedSo() {
    var space = PCIConfigurationSpace()
    space.defineWriteOneToClear(0x06, UInt16(0xf900))
    space.store(UInt16(0xf910), at: 0x06)
    space.write(offset: 0x06, width: 2, value: 0x8010)
    #expect(space.load(UInt16.self, at: 0x06) == 0x7910)
    space.write(offset: 0x04, width: 4, value: 0xffff_0000)
    #expect(space.load(UInt16.self, at: 0x06) == 0x0010)
  }

  @Test func capabilitiesAreFoundInTheOrderInWhichTheyWereAdded() {
    let function = TestFunction()
    let first = function.addCapability(id: PCICapability.msi, bytes: [0x80, 0], writeMask: [0x71], at: 0x80)
    let second = function.addCapability(id: PCICapability.vendor, bytes: [UInt8](repeating: 7, count: 70))
    let third = function.addCapability(id: PCICapability.sata, bytes: [1, 2, 3, 4, 5, 6])
    #expect(first == 0x80)
    #expect(function.configurationRead(offset: 0x06, width: 2) & 0x10 != 0)
    var found: [UInt32] = []
    var offset = Int(function.configurationRead(offset: 0x34, width: 1))
    while offset != 0 {
      found.append(function.configurationRead(offset: offset, width: 1))
      offset = Int(function.configurationRead(offset: offset + 1, width: 1))
    }
    #expect(found == [5, 9, 0x12])
    // The second one is too long for the room before the first.
    #expect(second == 0x84)
    #expect(third == 0x40)
    #expect(function.configurationRead(offset: third + 4, width: 4) == 0x0605_0403)
    function.configurationWrite(offset: first, width: 4, value: 0)
    #expect(function.configurationRead(offset: first, width: 4) == 0x0080_0005 | UInt32(second) << 8)
  }

  @Test func resetBringsBackTheDefinedBytes() throws {
    let machine = try makeMachine()
    let function = TestFunction()
    machine.attach(function)
    function.addBAR(0, kind: .memory32, byteCount: 4096, block: RecordingBlock())
    let before = (0..<64).map { function.configurationRead(offset: 4 * $0, width: 4) }
    for offset in stride(from: 0, to: 256, by: 4) {
      function.configurationWrite(offset: offset, width: 4, value: 0xa5a5_a5a7)
    }
    #expect((0..<64).map { function.configurationRead(offset: 4 * $0, width: 4) } != before)
    function.reset()
    #expect((0..<64).map { function.configurationRead(offset: 4 * $0, width: 4) } == before)
  }
}
