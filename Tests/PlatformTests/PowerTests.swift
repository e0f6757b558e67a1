// SPDX-License-Identifier: Apache-2.0
// Power management ports (ICH9 data sheet, section 13.8; ACPI 6.5, section 4.8).
import Machine
import Platform
import Testing

/// A machine whose clock is told, with its power block at 0x600.
private final class PowerKit {
  static let base: UInt64 = 0x600
  let machine: Machine
  let power: PowerManagement
  let lines = LineRecorder()

  init() throws {
    machine = try makeMachine()
    machine.clock.source = .told
    machine.interrupts = lines
    power = PowerManagement(bridge: machine.pci.isaBridge)
    machine.add(power)
    machine.add(APMPorts(power: power))
    machine.lock.lock()
    let bridge = machine.pci.isaBridge
    bridge.configurationWrite(offset: 0x40, width: 4, value: UInt32(Self.base))
    bridge.configurationWrite(offset: 0x44, width: 1, value: 0x80)
  }
  deinit { machine.lock.unlock() }

  func read(_ offset: UInt64, _ width: Int) -> UInt64? { machine.portSpace.read(Self.base + offset, width: width) }
  func write(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    machine.portSpace.write(Self.base + offset, width: width, value: value)
  }
}

@Suite struct PowerTests {
  @Test func blockAnswersOnlyWhereItIsEnabled() throws {
    let kit = try PowerKit()
    #expect(kit.read(4, 4) == 0)
    kit.machine.pci.isaBridge.configurationWrite(offset: 0x44, width: 1, value: 0)
    #expect(kit.read(4, 4) == nil)
    kit.machine.pci.isaBridge.configurationWrite(offset: 0x44, width: 1, value: 0x80)
    kit.machine.pci.isaBridge.configurationWrite(offset: 0x40, width: 4, value: 0x700)
    #expect(kit.read(4, 4) == nil)
    #expect(kit.machine.portSpace.read(0x704, width: 4) == 0)
  }

  @Test func timerCountsAt3579545HzIn24Bits() throws {
    let kit = try PowerKit()
    #expect(kit.read(8, 4) == 0)
    kit.machine.clock.advance(by: 1_000_000_000)
    #expect(kit.read(8, 4) == 3_579_545)
    kit.machine.clock.advance(by: 99_000_000_000)
    #expect(kit.read(8, 4) == 357_954_500 & 0xff_ffff)
    kit.machine.clock.set(nanoseconds: .max)
    #expect(try #require(kit.read(8, 4)) < 1 << 24)
  }

  @Test func timerStatusFollowsTheHighestBit() throws {
    // ACPI 6.5, section 4.8.3.3: TMR_STS is set whenever bit 23 changes.
    let kit = try PowerKit()
    kit.write(2, 2, 1)
    kit.write(4, 2, 1)
    let deadline = try #require(kit.machine.clock.nextDeadline)
    kit.machine.clock.set(nanoseconds: deadline - 1)
    #expect(kit.read(0, 2) == 0)
    #expect(kit.lines.edges == [])
    kit.machine.clock.advance(by: 1)
    #expect(kit.read(8, 4) == 1 << 23)
    #expect(kit.read(0, 2) == 1)
    #expect(kit.lines.edges == ["+9"])
    kit.write(0, 2, 1)
    #expect(kit.read(0, 2) == 0)
    #expect(kit.lines.edges == ["+9", "-9"])
    kit.machine.clock.advance(by: nil)
    #expect(kit.read(8, 4) == 0)
    #expect(kit.lines.edges == ["+9", "-9", "+9"])
  }

  @Test func timerThatNobodyAskedForArmsNothing() throws {
    let kit = try PowerKit()
    #expect(kit.machine.clock.nextDeadline == nil)
    kit.write(2, 2, 1)
    #expect(kit.machine.clock.nextDeadline != nil)
    kit.write(2, 2, 0)
    #expect(kit.machine.clock.nextDeadline == nil)
  }

  @Test func powerButtonInterruptsAGuestThatAskedForIt() throws {
    let kit = try PowerKit()
    kit.power.pressPowerButton()
    #expect(kit.read(0, 2) == 0x100)
    #expect(kit.lines.edges == [])
    kit.write(2, 2, 0x100)
    #expect(kit.lines.edges == [])
    // Without SCI_EN events go to the firmware.
    kit.write(4, 2, 1)
    #expect(kit.lines.edges == ["+9"])
    kit.write(1, 1, 1)
    #expect(kit.read(0, 2) == 0)
    #expect(kit.lines.edges == ["+9", "-9"])
  }

  @Test func interruptMovesWithItsInput() throws {
    let kit = try PowerKit()
    kit.write(4, 2, 1)
    kit.write(2, 2, 0x100)
    kit.power.pressPowerButton()
    kit.machine.pci.isaBridge.configurationWrite(offset: 0x44, width: 1, value: 0x81)
    kit.write(2, 2, 0x100)
    #expect(kit.lines.edges == ["+9", "-9", "+10"])
  }

  @Test(
    arguments: [(0x2000, true), (0x3c00, true), (0x1c00, false), (0x2400, false), (0x3400, false)] as [(UInt64, Bool)])
  func onlySleepStateS5SwitchesOff(value: UInt64, ends: Bool) throws {
    let kit = try PowerKit()
    kit.write(4, 2, value)
    #expect(kit.machine.shutdownReason == (ends ? .powerOff : nil))
    #expect(kit.read(4, 2) == value & 0x1c00)
  }

  @Test func generalPurposeEventsAnswerInBothPlaces() throws {
    let kit = try PowerKit()
    kit.write(4, 2, 1)
    kit.power.raiseGeneralEvent(1)
    #expect(kit.read(0x20, 4) == 2)
    #expect(kit.machine.portSpace.read(0xafe0, width: 1) == 2)
    kit.machine.portSpace.write(0xafe2, width: 1, value: 2)
    #expect(kit.read(0x28, 4) == 2)
    #expect(kit.lines.edges == ["+9"])
    kit.machine.portSpace.write(0xafe0, width: 1, value: 2)
    #expect(kit.read(0x20, 4) == 0)
    #expect(kit.lines.edges == ["+9", "-9"])
    kit.power.raiseGeneralEvent(63)
    #expect(kit.read(0x24, 4) == 0x8000_0000)
    kit.write(0x2f, 1, 0x80)
    #expect(kit.lines.edges == ["+9", "-9", "+9"])
  }

  @Test func apmPortTakesPowerManagementOver() throws {
    let kit = try PowerKit()
    kit.machine.portSpace.write(0xb2, width: 1, value: 2)
    #expect(kit.read(4, 2) == 1)
    kit.machine.portSpace.write(0xb2, width: 1, value: 3)
    #expect(kit.read(4, 2) == 0)
    kit.machine.portSpace.write(0xb2, width: 2, value: 0xabcd)
    #expect(kit.machine.portSpace.read(0xb2, width: 2) == 0xabcd)
    #expect(kit.machine.portSpace.read(0xb3, width: 1) == 0xab)
  }

  @Test func resetReleasesTheInterrupt() throws {
    let kit = try PowerKit()
    kit.write(4, 2, 1)
    kit.write(2, 2, 0x100)
    kit.power.pressPowerButton()
    kit.power.reset()
    #expect(kit.lines.edges == ["+9", "-9"])
    #expect(kit.read(0, 4) == 0)
    #expect(kit.read(4, 4) == 0)
  }

  @Test func anyAccessIsHarmless() throws {
    let kit = try PowerKit()
    for offset in 0..<128 as Range<UInt64> {
      for width in [1, 2, 4] where offset + UInt64(width) <= 128 && !(2...5).contains(offset) {
        kit.write(offset, width, 0xffff_ffff & (1 << UInt64(8 * width) - 1) & ~0x2000)
        #expect(kit.read(offset, width) != nil)
      }
    }
    #expect(kit.read(0x30, 4) != nil)
  }
}
