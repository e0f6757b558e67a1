// SPDX-License-Identifier: Apache-2.0
import Machine
import Platform
import Testing

@Suite struct DebugExitTests {
  @Test(arguments: [
    (port: UInt16(0xf4), width: 1, value: UInt32(0), status: Int32(1)), (0xf4, 1, 3, 7), (0xf4, 2, 0x10, 0x21),
    (0xf4, 4, 0x31, 0x63), (0xf7, 1, 1, 3), (0xf4, 4, UInt32.max, -1), (0xf4, 1, 0x1ff, 0x1ff),
    (0xf4, 4, 0x8000_0000, 1),
  ])
  func writeEndsTheMachineWithItsStatus(_ row: (port: UInt16, width: Int, value: UInt32, status: Int32)) throws {
    let machine = try makeMachine()
    machine.add(DebugExit())
    machine.exitPortWrite(row.port, width: row.width, value: row.value)
    #expect(try machine.run() == .guestExit(status: row.status))
  }

  @Test func firstWriteCounts() throws {
    let machine = try makeMachine()
    machine.add(DebugExit())
    machine.exitPortWrite(0xf4, width: 1, value: 2)
    machine.exitPortWrite(0xf4, width: 1, value: 0)
    #expect(try machine.run() == .guestExit(status: 5))
  }

  @Test func readGivesZeroAndEndsNothing() throws {
    let machine = try makeMachine()
    machine.add(DebugExit())
    for width in [1, 2, 4] { #expect(machine.exitPortRead(0xf4, width: width) == 0) }
    #expect(machine.shutdownReason == nil)
  }

  @Test func accessBesideThePortsIsUnclaimed() throws {
    let machine = try makeMachine()
    machine.add(DebugExit())
    machine.exitPortWrite(0xf3, width: 1, value: 0)
    machine.exitPortWrite(0xf8, width: 1, value: 0)
    machine.exitPortWrite(0xf6, width: 4, value: 0)
    #expect(machine.shutdownReason == nil)
    #expect(machine.exitPortRead(0xf8, width: 1) == 0xff)
  }
}

@Suite struct FirmwareConfigTests {
  private func read(_ machine: Machine, _ key: UInt16, _ count: Int) -> [UInt32] {
    machine.exitPortWrite(0x510, width: 2, value: UInt32(key))
    return (0..<count).map { _ in machine.exitPortRead(0x511, width: 1) }
  }

  private func makeMachineWithFirmwareConfig() throws -> (Machine, FirmwareConfig) {
    let machine = try makeMachine()
    let firmware = FirmwareConfig(memoryBytes: 0x1_2345_6000, processorCount: 0x102)
    machine.add(firmware)
    return (machine, firmware)
  }

  @Test(
    arguments: [
      (0, [0x51, 0x45, 0x4d, 0x55]), (1, [3, 0, 0, 0]),
      (3, [0x00, 0x60, 0x45, 0x23, 0x01, 0, 0, 0]), (5, [2, 1]), (0x0f, [2, 1]), (0x19, [0, 0, 0, 0]), (0xffff, []),
    ] as [(key: UInt16, bytes: [UInt32])])
  func itemReadsByteByByteAndZeroPastItsEnd(_ row: (key: UInt16, bytes: [UInt32])) throws {
    let (machine, _) = try makeMachineWithFirmwareConfig()
    #expect(read(machine, row.key, row.bytes.count + 5) == row.bytes + [0, 0, 0, 0, 0])
    // Selecting begins again.
    #expect(read(machine, row.key, row.bytes.count) == row.bytes)
  }

  @Test func addedItemIsFound() throws {
    let (machine, firmware) = try makeMachineWithFirmwareConfig()
    firmware.add(key: 0x8000, bytes: [9, 8, 7])
    #expect(read(machine, 0x8000, 4) == [9, 8, 7, 0])
    firmware.add(key: 0x8000, bytes: [1])
    #expect(machine.exitPortRead(0x511, width: 1) == 0)
    #expect(read(machine, 0x8000, 2) == [1, 0])
  }

  @Test func otherWidthsAndWritesToDataChangeNothing() throws {
    let (machine, _) = try makeMachineWithFirmwareConfig()
    machine.exitPortWrite(0x510, width: 2, value: 5)
    machine.exitPortWrite(0x510, width: 1, value: 0)
    machine.exitPortWrite(0x511, width: 1, value: 0xaa)
    machine.exitPortWrite(0x510, width: 4, value: 0)
    #expect(machine.exitPortRead(0x510, width: 1) == 0xff)
    #expect(machine.exitPortRead(0x510, width: 2) == 0xffff)
    #expect(machine.exitPortRead(0x511, width: 1) == 2)
    #expect(machine.exitPortRead(0x511, width: 1) == 1)
  }

  @Test func signatureIsSelectedAfterPowerOnAndReset() throws {
    let (machine, firmware) = try makeMachineWithFirmwareConfig()
    #expect(machine.exitPortRead(0x511, width: 1) == 0x51)
    machine.exitPortWrite(0x510, width: 2, value: 5)
    firmware.reset()
    #expect(machine.exitPortRead(0x511, width: 1) == 0x51)
  }

  @Test func removedDeviceLeavesItsPorts() throws {
    let (machine, firmware) = try makeMachineWithFirmwareConfig()
    machine.remove(firmware)
    #expect(machine.exitPortRead(0x511, width: 1) == 0xff)
  }
}
