// SPDX-License-Identifier: Apache-2.0
// The interval timer (Intel 8254 data sheet), ports 0x61 and 0x92 (ICH9 data sheet, section 13.7), and the keyboard
// controller.
import Machine
import Platform
import Testing

private final class PortKit {
  let machine: Machine
  let lines = LineRecorder()
  let timer = IntervalTimer()

  init() throws {
    machine = try makeMachine()
    machine.clock.source = .told
    machine.interrupts = lines
    machine.add(timer)
    machine.add(ResetPort())
    machine.add(KeyboardController())
    machine.lock.lock()
  }
  deinit { machine.lock.unlock() }

  func out(_ port: UInt64, _ value: UInt64) { machine.portSpace.write(port, width: 1, value: value) }
  func inb(_ port: UInt64) -> UInt64 { machine.portSpace.read(port, width: 1) ?? 0x1ff }

  /// Programs a counter, low byte first.
  func program(_ counter: UInt64, mode: UInt64, count: UInt64) {
    out(0x43, counter << 6 | 0x30 | mode << 1)
    out(0x40 + counter, count & 0xff)
    out(0x40 + counter, count >> 8)
  }
  func read(_ counter: UInt64) -> UInt64 {
    out(0x43, counter << 6)
    return inb(0x40 + counter) | inb(0x40 + counter) << 8
  }
  /// Lets so many ticks of 1193182 Hz pass, from the start of time.
  func setTicks(_ ticks: UInt64) { machine.clock.set(nanoseconds: (ticks * 1_000_000_000 + 1_193_181) / 1_193_182) }
}

@Suite struct IntervalTimerTests {
  @Test func counterCountsDownAt1193182Hz() throws {
    let kit = try PortKit()
    kit.program(1, mode: 2, count: 0)
    #expect(kit.read(1) == 0)
    kit.setTicks(1000)
    #expect(kit.read(1) == 64536)
    kit.machine.clock.set(nanoseconds: 1_000_000_000)
    #expect(kit.read(1) == 0x1_0000 - 1_193_182 % 0x1_0000)
  }

  @Test(arguments: [(UInt64(2), UInt64(990)), (3, 980), (0, 990), (4, 990)])
  func modesCountInTheirWays(mode: UInt64, value: UInt64) throws {
    let kit = try PortKit()
    kit.program(1, mode: mode, count: 1000)
    kit.setTicks(10)
    #expect(kit.read(1) == value)
  }

  @Test func latchKeepsTheCount() throws {
    let kit = try PortKit()
    kit.program(1, mode: 2, count: 0x1234)
    kit.out(0x43, 0x40)
    kit.setTicks(500)
    #expect(kit.inb(0x41) == 0x34)
    #expect(kit.inb(0x41) == 0x12)
    #expect(kit.inb(0x41) == 0x40)
  }

  @Test func readBackTellsTheStatus() throws {
    let kit = try PortKit()
    kit.out(0x43, 0xb4)
    // A counter without a count says so.
    kit.out(0x43, 0xe8)
    #expect(kit.inb(0x42) & 0x7f == 0x74)
    kit.program(2, mode: 2, count: 100)
    kit.out(0x43, 0xe8)
    #expect(kit.inb(0x42) == 0xb4)
    #expect(kit.inb(0x42) == 100)
  }

  @Test func singleBytesAreTakenAsTheControlWordSays() throws {
    let kit = try PortKit()
    kit.out(0x43, 0x54)
    kit.out(0x41, 0x80)
    #expect(kit.inb(0x41) == 0x80)
    kit.out(0x43, 0x64)
    kit.out(0x41, 0x80)
    #expect(kit.inb(0x41) == 0x80)
    kit.out(0x43, 0xd4)
    #expect(kit.inb(0x41) == 0x80)
  }

  @Test func counter0PulsesItsLine() throws {
    let kit = try PortKit()
    kit.program(0, mode: 2, count: 11931)
    let period = try #require(kit.machine.clock.nextDeadline)
    #expect((9_999_000...10_000_000).contains(period))
    kit.machine.clock.set(nanoseconds: period - 1)
    #expect(kit.lines.edges == [])
    kit.machine.clock.advance(by: 1)
    #expect(kit.lines.edges == ["+0", "-0"])
    kit.machine.clock.set(nanoseconds: 1_000_000_000)
    #expect(kit.lines.rises == 100)
    // A one-shot rises once.
    kit.program(0, mode: 0, count: 1000)
    kit.machine.clock.advance(by: 1_000_000_000)
    #expect(kit.lines.rises == 101)
    #expect(kit.machine.clock.nextDeadline == nil)
  }

  @Test func shortestPeriodsDoNotFloodTheLoop() throws {
    let kit = try PortKit()
    kit.program(0, mode: 2, count: 1)
    #expect(try #require(kit.machine.clock.nextDeadline) >= 20_000)
    kit.machine.clock.advance(by: 1_000_000)
    #expect((1...50).contains(kit.lines.rises))
  }

  @Test func port61GatesAndShowsTheThirdCounter() throws {
    // How guests measure their time stamp counter: gate, one-shot, and a look at bit 5.
    let kit = try PortKit()
    kit.out(0x61, 1)
    kit.program(2, mode: 0, count: 59659)
    #expect(kit.inb(0x61) & 0x2f == 1)
    kit.setTicks(59658)
    #expect(kit.inb(0x61) & 0x20 == 0)
    kit.setTicks(59659)
    #expect(kit.inb(0x61) & 0x20 == 0x20)
    let before = kit.inb(0x61) & 0x10
    kit.machine.clock.advance(by: 15_085)
    #expect(kit.inb(0x61) & 0x10 != before)
    kit.out(0x61, 0xff)
    #expect(kit.inb(0x61) & 0x0f == 0x0f)
  }

  @Test func gateStopsTheCounterAndStartsIt() throws {
    let kit = try PortKit()
    kit.program(2, mode: 0, count: 1000)
    kit.setTicks(100)
    #expect(kit.read(2) == 1000)
    kit.out(0x61, 1)
    kit.setTicks(150)
    #expect(kit.read(2) == 950)
    kit.out(0x61, 0)
    kit.setTicks(400)
    #expect(kit.read(2) == 950)
    kit.out(0x61, 1)
    kit.setTicks(410)
    #expect(kit.read(2) == 940)
    // The one-shot waits for an edge of the gate.
    kit.program(2, mode: 1, count: 1000)
    kit.setTicks(500)
    #expect(kit.read(2) == 1000)
    #expect(kit.inb(0x61) & 0x20 == 0x20)
    kit.out(0x61, 0)
    kit.out(0x61, 1)
    kit.setTicks(700)
    #expect(kit.read(2) == 800)
    #expect(kit.inb(0x61) & 0x20 == 0)
  }

  @Test func anyAccessIsHarmless() throws {
    let kit = try PortKit()
    for value in 0..<256 as Range<UInt64> {
      kit.out(0x43, value)
      for port in [0x40, 0x41, 0x42, 0x61] as [UInt64] {
        kit.out(port, value)
        #expect(kit.inb(port) <= 0xff)
      }
      kit.machine.clock.advance(by: 1_000_003)
    }
    kit.machine.clock.set(nanoseconds: .max)
    #expect(kit.inb(0x40) <= 0xff)
    kit.timer.reset()
    #expect(kit.machine.clock.nextDeadline == nil)
  }
}

@Suite struct ResetPortTests {
  @Test func settingBit0Resets() throws {
    let kit = try PortKit()
    #expect(kit.inb(0x92) == 2)
    kit.out(0x92, 0xfc)
    #expect(kit.inb(0x92) == 0)
    #expect(kit.machine.shutdownReason == nil)
    kit.out(0x92, 3)
    #expect(kit.machine.shutdownReason == .reset)
  }
}

@Suite struct KeyboardControllerTests {
  @Test func selfTestPasses() throws {
    let kit = try PortKit()
    #expect(kit.inb(0x64) == 0x10)
    kit.out(0x64, 0xaa)
    #expect(kit.inb(0x64) == 0x1d)
    #expect(kit.inb(0x60) == 0x55)
    #expect(kit.inb(0x64) == 0x1c)
    kit.out(0x64, 0xab)
    #expect(kit.inb(0x60) == 0)
  }

  @Test func configurationIsKept() throws {
    let kit = try PortKit()
    kit.out(0x64, 0x60)
    kit.out(0x60, 0x47)
    kit.out(0x64, 0xad)
    kit.out(0x64, 0x20)
    #expect(kit.inb(0x60) == 0x57)
    kit.out(0x64, 0xae)
    kit.out(0x64, 0x20)
    #expect(kit.inb(0x60) == 0x47)
  }

  @Test(arguments: [[(0x64, 0xfe)], [(0x64, 0xd1), (0x60, 0xfe)], [(0x64, 0xf0)]] as [[(UInt64, UInt64)]])
  func processorIsResetThroughTheOutputPort(writes: [(UInt64, UInt64)]) throws {
    let kit = try PortKit()
    for (port, value) in writes { kit.out(port, value) }
    #expect(kit.machine.shutdownReason == .reset)
  }

  @Test func nothingElseAnswersOrResets() throws {
    let kit = try PortKit()
    for value in 0..<256 as Range<UInt64> where value < 0xf0 || value % 2 == 1 {
      if value == 0xd1 { continue }
      kit.out(0x64, value)
      kit.out(0x60, value)
      _ = kit.inb(0x60)
      #expect(kit.inb(0x64) & 1 == 0)
    }
    #expect(kit.machine.shutdownReason == nil)
  }
}
