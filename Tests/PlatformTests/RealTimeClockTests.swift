// SPDX-License-Identifier: Apache-2.0
// The real-time clock (Motorola MC146818A data sheet).
import GuestMemory
import Machine
import Testing

@testable import Platform

/// A machine whose clock is told, with a real-time clock that begins on Saturday, 21 November 2026, 23:59:58.
private final class ClockKit {
  static let second: UInt64 = 1_000_000_000
  let machine: Machine
  let lines = LineRecorder()
  let clock: RealTimeClock

  init(_ base: String = "2026-11-21T23:59:58") throws {
    machine = try makeMachine()
    machine.clock.source = .told
    machine.interrupts = lines
    clock = RealTimeClock(base: try #require(ClockBase(base)), memory: machine.memory, processorCount: 3)
    machine.add(clock)
    machine.lock.lock()
  }
  deinit { machine.lock.unlock() }

  subscript(_ register: UInt64) -> UInt64 {
    get {
      machine.portSpace.write(0x70, width: 1, value: register)
      return machine.portSpace.read(0x71, width: 1) ?? 0x1ff
    }
    set {
      machine.portSpace.write(0x70, width: 1, value: register)
      machine.portSpace.write(0x71, width: 1, value: newValue)
    }
  }

  /// Hours, minutes and seconds as they are read.
  var time: [UInt64] { [self[4], self[2], self[0]] }
  func advance(_ seconds: UInt64) { machine.clock.advance(by: seconds * Self.second) }
}

@Suite struct RealTimeClockTests {
  @Test func timeRunsWithTheMachineInBCD() throws {
    let kit = try ClockKit()
    #expect(kit.time == [0x23, 0x59, 0x58])
    #expect([kit[9], kit[8], kit[7], kit[6], kit[0x32]] == [0x26, 0x11, 0x21, 7, 0x20])
    kit.advance(3)
    #expect(kit.time == [0, 0, 1])
    #expect([kit[7], kit[6]] == [0x22, 1])
    #expect(kit[0x0d] == 0x80)
    #expect(kit[0x0a] == 0x26)
  }

  @Test(arguments: [
    (UInt64(0x02), UInt64(0x23)), (0x06, 23), (0x00, 0x91), (0x04, 0x8b),
  ])
  func hoursHaveFourForms(control: UInt64, hour: UInt64) throws {
    let kit = try ClockKit()
    kit[0x0b] = control
    #expect(kit[4] == hour)
    // The same form is taken back.
    kit[4] = hour
    kit[0x0b] = 6
    #expect(kit[4] == 23)
  }

  @Test(arguments: [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)] as [(Int, UInt8)])
  func hoursOfTwelveHaveNoZero(hour: Int, register: UInt8) {
    let format = ClockFormat(registerB: 0)
    #expect(format.encodeHour(hour) == register)
    #expect(format.decodeHour(register) == hour)
  }

  @Test func setHoldsTheRegistersUntilItIsCleared() throws {
    let kit = try ClockKit()
    kit[0x0b] = 0x86
    kit.advance(10)
    #expect(kit.time == [23, 59, 58])
    for (register, value) in [(0, 30), (2, 15), (4, 8), (7, 1), (8, 3), (9, 27), (0x32, 21)] as [(UInt64, UInt64)] {
      kit[register] = value
    }
    kit[0x0b] = 0x06
    #expect(kit.time == [8, 15, 30])
    #expect([kit[7], kit[8], kit[9], kit[0x32]] == [1, 3, 27, 21])
    kit.advance(31)
    #expect(kit.time == [8, 16, 1])
  }

  @Test func updateIsAnnouncedBeforeIt() throws {
    let kit = try ClockKit()
    kit.machine.clock.advance(by: ClockKit.second - 244_141)
    #expect(kit[0x0a] & 0x80 == 0)
    kit.machine.clock.advance(by: 1)
    #expect(kit[0x0a] & 0x80 != 0)
    kit[0x0b] = 0x82
    #expect(kit[0x0a] & 0x80 == 0)
  }

  @Test func flagsTellWhatHappenedAndClearAsTheyAreRead() throws {
    let kit = try ClockKit()
    #expect(kit[0x0c] == 0)
    kit.advance(1)
    // An update and periods, no interrupt.
    #expect(kit[0x0c] == 0x50)
    #expect(kit[0x0c] == 0)
    #expect(kit.lines.edges == [])
    #expect(kit.machine.clock.nextDeadline == nil)
  }

  @Test func updateInterruptComesEachSecondUntilItIsTaken() throws {
    let kit = try ClockKit()
    kit[0x0b] = 0x12
    #expect(kit.machine.clock.nextDeadline == ClockKit.second)
    kit.advance(1)
    #expect(kit.lines.edges == ["+8"])
    // Nothing more to wait for until the guest has looked.
    #expect(kit.machine.clock.nextDeadline == nil)
    #expect(kit[0x0c] & 0x90 == 0x90)
    #expect(kit.lines.edges == ["+8", "-8"])
    kit.advance(1)
    #expect(kit.lines.edges == ["+8", "-8", "+8"])
    // SET turns it off.
    kit[0x0b] = 0x92
    #expect(kit[0x0b] == 0x82)
    #expect(kit.lines.edges.last == "-8")
  }

  @Test(arguments: [
    (UInt64(3), UInt64(122_071)), (6, 976_563), (1, 3_906_250), (2, 7_812_500), (15, 500_000_000),
  ])
  func periodsHaveTheirRate(rate: UInt64, ns: UInt64) throws {
    // Table 5: of 32768 Hz, 1 and 2 are as 8 and 9.
    let kit = try ClockKit()
    kit[0x0a] = 0x20 | rate
    kit[0x0b] = 0x42
    #expect(kit.machine.clock.nextDeadline == ns)
    kit.machine.clock.advance(by: ns)
    #expect(kit.lines.edges == ["+8"])
    #expect(kit[0x0c] == 0xc0)
  }

  @Test func periodOfAnotherLengthBeginsWhereTheLastEnded() throws {
    let kit = try ClockKit()
    (kit[0x0a], kit[0x0b]) = (0x2d, 0x42)
    let (eighth, half) = (ClockKit.second / 8, ClockKit.second / 2)
    kit.machine.clock.advance(by: eighth)
    #expect(kit[0x0c] == 0xc0)
    kit[0x0a] = 0x2f
    #expect(kit.machine.clock.nextDeadline == eighth + half)
    kit.machine.clock.advance(by: half)
    #expect(kit[0x0c] & 0x40 != 0)
    // One that would have ended already ends at once.
    kit.machine.clock.advance(by: half / 2)
    kit[0x0a] = 0x2d
    #expect(kit[0x0c] & 0xc0 == 0xc0)
  }

  @Test(arguments: [UInt64(0x66), 0x76]) func dividerHoldsTheTimeAndLetsItGoForHalfASecond(held: UInt64) throws {
    let kit = try ClockKit()
    kit.machine.clock.advance(by: 300_000_000)
    kit[0x0b] = 2
    kit[0x0a] = held
    #expect(kit[0x0a] == held)
    (kit[4], kit[2], kit[0]) = (2, 4, 0x58)
    kit.advance(7)
    #expect(kit.time == [2, 4, 0x58])
    #expect(kit[0x0a] & 0x80 == 0)
    kit[0x0a] = 0x26
    kit.machine.clock.advance(by: 500_000_000 - 244_141)
    #expect(kit.time == [2, 4, 0x58])
    #expect(kit[0x0a] & 0x80 == 0)
    kit.machine.clock.advance(by: 1)
    #expect(kit[0x0a] & 0x80 != 0)
    kit.machine.clock.advance(by: 244_140)
    #expect(kit[0x0a] & 0x80 == 0)
    #expect(kit.time == [2, 4, 0x59])
    kit[0x0b] = 0x12
    _ = kit[0x0c]
    #expect(kit.machine.clock.nextDeadline == 8_800_000_000)
    kit.advance(1)
    #expect(kit.time == [2, 5, 0])
    #expect(kit[0x0c] & 0x90 == 0x90)
  }

  @Test func timeIsHeldUntilBothLetItGo() throws {
    let kit = try ClockKit()
    kit[0x0b] = 0x82
    kit[0x0a] = 0x76
    kit[0] = 0x30
    kit[0x0b] = 2
    kit.advance(5)
    #expect(kit[0] == 0x30)
    kit[0x0a] = 0x26
    kit.advance(1)
    #expect(kit[0] == 0x31)
  }

  @Test func firmwaresBytesAreKeptWhereTheTimeIsNot() throws {
    let kit = try ClockKit()
    kit.clock.keep([1, 2, 3], at: 0x0d)
    kit.clock.keep([0x55, 0x66], at: 0x7f)
    kit.clock.keep([0x19], at: 0x32)
    #expect([kit[0x0d], kit[0x0e], kit[0x0f], kit[0x7f]] == [0x80, 2, 3, 0x55])
    #expect(kit[0x32] == 0x20)
    kit.clock.reset()
    #expect(kit[0x0e] == 2)
  }

  @Test func rateZeroHasNoPeriods() throws {
    let kit = try ClockKit()
    kit[0x0a] = 0x20
    kit[0x0b] = 0x42
    #expect(kit.machine.clock.nextDeadline == nil)
    kit.advance(5)
    #expect(kit[0x0c] & 0x40 == 0)
  }

  @Test(arguments: [
    (UInt64(0x00), UInt64(0x00), UInt64(0x05), UInt64(5 * 3600 + 2)), (0x30, 0xff, 0xff, 32), (0xff, 0x01, 0xff, 62),
    (0x59, 0x59, 0x23, 1), (0x58, 0x59, 0x23, 86400), (0xc0, 0xc0, 0xc0, 1), (0x00, 0x30, 0xff, 1802),
  ])
  func alarmMatchesItsThreeParts(second: UInt64, minute: UInt64, hour: UInt64, delay: UInt64) throws {
    let kit = try ClockKit()
    (kit[1], kit[3], kit[5]) = (second, minute, hour)
    kit[0x0b] = 0x22
    #expect(kit.machine.clock.nextDeadline == delay * ClockKit.second)
    kit.advance(delay)
    #expect(kit.lines.edges == ["+8"])
    #expect(kit[0x0c] & 0xa0 == 0xa0)
  }

  @Test(arguments: [(UInt64(0x60), UInt64(0), UInt64(0)), (0, 0x7f, 0), (0, 0, 0x24), (0xaa, 0xbb, 0x99)])
  func alarmThatNeverMatchesNeverRings(second: UInt64, minute: UInt64, hour: UInt64) throws {
    let kit = try ClockKit()
    (kit[1], kit[3], kit[5]) = (second, minute, hour)
    kit[0x0b] = 0x22
    #expect(kit.machine.clock.nextDeadline == nil)
    kit.advance(3 * 86400)
    #expect(kit[0x0c] & 0x20 == 0)
  }

  @Test func memoryTellsTheMachineAndKeepsBytes() throws {
    let kit = try ClockKit()
    #expect([kit[0x15], kit[0x16]] == [0x80, 0x02])
    #expect([kit[0x17], kit[0x18], kit[0x34], kit[0x35], kit[0x5b], kit[0x5f]] == [0, 0, 0, 0, 0, 2])
    kit[0x40] = 0xa5
    kit[0x7f] = 0x5a
    kit.clock.reset()
    #expect([kit[0x40], kit[0xff]] == [0xa5, 0x5a])
  }

  @Test func memorySizesStandWhereFirmwareLooks() throws {
    let memory = GuestMemory()
    try memory.add(try GuestRegion(start: 0, byteCount: 64 << 20))
    try memory.add(try GuestRegion(start: 1 << 32, byteCount: 3 << 16))
    let machine = try makeMachine()
    machine.add(RealTimeClock(base: .utc, memory: memory, processorCount: 1))
    func read(_ register: UInt32) -> UInt32 {
      machine.exitPortWrite(0x70, width: 1, value: register)
      return machine.exitPortRead(0x71, width: 1)
    }
    #expect(read(0x17) | read(0x18) << 8 == 63 << 10)
    #expect(read(0x30) | read(0x31) << 8 == 63 << 10)
    #expect(read(0x34) | read(0x35) << 8 == 48 << 4)
    #expect(read(0x5b) | read(0x5c) << 8 | read(0x5d) << 16 == 3)
  }

  @Test func resetKeepsTheTimeAndStopsInterrupts() throws {
    let kit = try ClockKit()
    kit[0x0b] = 0x7e
    kit.advance(1)
    #expect(kit.lines.edges == ["+8"])
    kit.clock.reset()
    #expect(kit.lines.edges == ["+8", "-8"])
    #expect(kit[0x0b] == 0x06)
    #expect(kit.time == [23, 59, 59])
    #expect(kit.machine.clock.nextDeadline == nil)
  }

  @Test func guestMayWriteAnythingAnywhere() throws {
    let kit = try ClockKit()
    for value in [0, 0x7f, 0x99, 0xff] as [UInt64] {
      for register in 0..<0x100 as Range<UInt64> {
        kit[register] = value
        #expect(kit[register] <= 0xff)
      }
      kit.machine.clock.advance(by: 100_000_000_000)
    }
    kit.machine.clock.set(nanoseconds: .max)
    #expect(kit[0x00] <= 0xff)
    #expect(kit.machine.portSpace.read(0x70, width: 2) == 0xffff)
  }
}

@Suite struct ClockBaseTests {
  @Test(
    arguments: [
      ("1970-01-01", 0), ("1970-01-01T00:00:01", 1), ("2006-06-17T16:01:21", 1_150_560_081),
      ("2000-02-29", 951_782_400),
    ] as [(String, Int64)])
  func dateIsReadInSeconds(text: String, seconds: Int64) {
    #expect(ClockBase(text) == .date(secondsSinceEpoch: seconds))
  }

  @Test(arguments: [
    "", "UTC", "2006-6-17", "2006-06-31", "2001-02-29", "2006-13-01", "2006-06-17T", "2006-06-17T24:00:00",
    "2006-06-17T16:01", "2006-06-17T16:01:21Z", "2006-06-17T16:01:21T", "-006-06-17", "２００６-06-17",
  ])
  func otherTextIsNoDate(text: String) { #expect(ClockBase(text) == nil) }

  @Test func hostsTimesAreNamed() {
    #expect(ClockBase("utc") == .utc)
    #expect(ClockBase("localtime") == .localtime)
  }
}
