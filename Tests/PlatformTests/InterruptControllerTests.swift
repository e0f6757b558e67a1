// SPDX-License-Identifier: Apache-2.0
// The 8259 pair (Intel 8259A data sheet), the I/O APIC (82093AA data sheet) and the board's wiring of both.
import Machine
import Testing

@testable import Platform

/// Writes down the messages of the I/O APIC and the lines that are passed on.
private final class Accelerator: InterruptController, @unchecked Sendable {
  var messages: [MSIMessage] = []
  var lines: [Int] = []
  override func send(_ message: MSIMessage) { messages.append(message) }
  override func setLine(_ line: Int, asserted: Bool) { lines.append(asserted ? line : -line) }
}

private final class BoardKit {
  let machine: Machine
  let accelerator = Accelerator()
  let board: BoardInterrupts

  init() throws {
    machine = try makeMachine()
    machine.interrupts = accelerator
    machine.lock.lock()
    board = BoardInterrupts(machine: machine)
  }
  deinit { machine.lock.unlock() }

  // MARK: 8259

  func out(_ port: UInt64, _ value: UInt64) { machine.portSpace.write(port, width: 1, value: value) }
  func inb(_ port: UInt64) -> UInt64? { machine.portSpace.read(port, width: 1) }

  /// Brings both chips to vectors 0x20 and 0x28, nothing masked.
  func initialize(icw1: UInt64 = 0x11, icw4: UInt64 = 1) {
    for (port, base, wiring) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] as [(UInt64, UInt64, UInt64)] {
      out(port, icw1)
      out(port + 1, base)
      out(port + 1, wiring)
      out(port + 1, icw4)
    }
  }

  /// An edge.
  func pulse(_ line: Int) {
    board.setLine(line, asserted: true)
    board.setLine(line, asserted: false)
  }

  // MARK: I/O APIC

  func entry(_ input: UInt64, _ lower: UInt64, _ upper: UInt64 = 0) {
    apicWrite(0x11 + 2 * input, upper)
    apicWrite(0x10 + 2 * input, lower)
  }
  func apicWrite(_ register: UInt64, _ value: UInt64) {
    machine.memorySpace.write(0xfec0_0000, width: 4, value: register)
    machine.memorySpace.write(0xfec0_0010, width: 4, value: value)
  }
  func apicRead(_ register: UInt64) -> UInt64? {
    machine.memorySpace.write(0xfec0_0000, width: 4, value: register)
    return machine.memorySpace.read(0xfec0_0010, width: 4)
  }
  func endOfInterrupt(_ vector: UInt64) { machine.memorySpace.write(0xfec0_0040, width: 4, value: vector) }
}

@Suite struct PICTests {
  @Test func edgesAreServedByTheirPriority() throws {
    let kit = try BoardKit()
    kit.initialize()
    for line in [7, 3, 12, 5] { kit.pulse(line) }
    #expect(kit.inb(0x20) == 0xac)
    var vectors: [UInt8] = []
    while kit.board.pics.isAsserted {
      let vector = kit.board.pics.acknowledge()
      vectors.append(vector)
      if vector >= 0x28 { kit.out(0xa0, 0x20) }
      kit.out(0x20, 0x20)
    }
    #expect(vectors == [0x2c, 0x23, 0x25, 0x27])
  }

  @Test func serviceHoldsBackWhatIsNotAbove() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.pulse(5)
    #expect(kit.board.pics.acknowledge() == 0x25)
    kit.pulse(6)
    #expect(!kit.board.pics.isAsserted)
    kit.pulse(1)
    #expect(kit.board.pics.acknowledge() == 0x21)
    kit.out(0x20, 0x0b)
    #expect(kit.inb(0x20) == 0x22)
    // A specific end of 5, then of 1.
    kit.out(0x20, 0x65)
    #expect(!kit.board.pics.isAsserted)
    kit.out(0x20, 0x61)
    #expect(kit.board.pics.acknowledge() == 0x26)
  }

  @Test func maskKeepsARequestForLater() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.out(0x21, 0xff)
    kit.pulse(4)
    #expect(!kit.board.pics.isAsserted)
    #expect(kit.inb(0x21) == 0xff)
    kit.out(0x21, 0xef)
    #expect(kit.board.pics.acknowledge() == 0x24)
  }

  @Test func levelStaysUntilItsLineFalls() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.out(0x4d1, 0x08)
    kit.board.setLine(11, asserted: true)
    #expect(kit.board.pics.acknowledge() == 0x2b)
    kit.out(0xa0, 0x20)
    kit.out(0x20, 0x20)
    #expect(kit.board.pics.isAsserted)
    kit.board.setLine(11, asserted: false)
    #expect(!kit.board.pics.isAsserted)
  }

  @Test func reasonThatIsGoneIsSpurious() throws {
    let kit = try BoardKit()
    kit.initialize()
    #expect(kit.board.pics.acknowledge() == 0x27)
    kit.out(0x20, 0x0b)
    #expect(kit.inb(0x20) == 0)
  }

  @Test func onlySomeInputsFollowLevels() throws {
    let kit = try BoardKit()
    kit.out(0x4d0, 0xff)
    kit.out(0x4d1, 0xff)
    #expect([kit.inb(0x4d0), kit.inb(0x4d1)] == [0xf8, 0xde])
  }

  @Test func automaticEndNeedsNoCommand() throws {
    let kit = try BoardKit()
    kit.initialize(icw4: 3)
    kit.pulse(3)
    #expect(kit.board.pics.acknowledge() == 0x23)
    kit.out(0x20, 0x0b)
    #expect(kit.inb(0x20) == 0)
  }

  @Test func rotationMakesTheServedInputTheLast() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.pulse(4)
    #expect(kit.board.pics.acknowledge() == 0x24)
    // Rotate on non-specific end of interrupt: 5 is first now.
    kit.out(0x20, 0xa0)
    kit.pulse(0)
    kit.pulse(6)
    #expect(kit.board.pics.acknowledge() == 0x26)
    // Set priority: 7 is last, as after power-on.
    kit.out(0x20, 0x20)
    kit.out(0x20, 0xc7)
    kit.pulse(6)
    #expect(kit.board.pics.acknowledge() == 0x20)
  }

  @Test func specialMaskLetsLowerOnesThrough() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.pulse(3)
    #expect(kit.board.pics.acknowledge() == 0x23)
    kit.pulse(5)
    kit.out(0x21, 0x08)
    #expect(!kit.board.pics.isAsserted)
    kit.out(0x20, 0x68)
    #expect(kit.board.pics.acknowledge() == 0x25)
  }

  @Test func pollTakesTheInterrupt() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.pulse(6)
    kit.out(0x20, 0x0c)
    #expect(kit.inb(0x20) == 0x86)
    kit.out(0x20, 0x0c)
    #expect(kit.inb(0x20) == 0)
    kit.out(0x20, 0x0b)
    #expect(kit.inb(0x20) == 0x40)
  }

  @Test func outputIsTold() throws {
    let kit = try BoardKit()
    var outputs: [Bool] = []
    kit.board.pics.onOutput = { outputs.append($0) }
    kit.initialize()
    kit.pulse(9)
    _ = kit.board.pics.acknowledge()
    #expect(outputs == [true, false])
  }

  @Test func anyCommandIsHarmless() throws {
    let kit = try BoardKit()
    for value in 0..<256 as Range<UInt64> {
      for port in [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1] as [UInt64] {
        kit.out(port, value)
        #expect(kit.inb(port) != nil)
      }
      kit.pulse(Int(value) % 24)
      _ = kit.board.pics.acknowledge()
    }
    kit.machine.portSpace.write(0x20, width: 2, value: 0x1111)
  }
}

@Suite struct IOAPICTests {
  @Test func registersTellWhatItIs() throws {
    let kit = try BoardKit()
    #expect(kit.apicRead(1) == 0x0017_0020)
    kit.apicWrite(0, 0xffff_ffff)
    #expect(kit.apicRead(0) == 0x0f00_0000)
    #expect(kit.apicRead(0x10) == 0x1_0000)
    kit.apicWrite(0x10, 0xffff_ffff)
    kit.apicWrite(0x11, 0xffff_ffff)
    // Delivery status and remote IRR are not written.
    #expect(kit.apicRead(0x10) == 0x1_afff)
    #expect(kit.apicRead(0x11) == 0xff00_0000)
    kit.apicWrite(0x40, 0xffff_ffff)
    #expect(kit.apicRead(0x40) == 0)
    #expect(kit.machine.memorySpace.read(0xfec0_0010, width: 8) == 0)
  }

  @Test func edgeSendsItsMessageOnce() throws {
    let kit = try BoardKit()
    kit.entry(4, 0x0934, 0x0300_0000)
    kit.pulse(4)
    #expect(kit.accelerator.messages == [MSIMessage(address: 0xfee0_3004, data: 0x134)])
    kit.board.setLine(4, asserted: true)
    kit.board.setLine(4, asserted: true)
    #expect(kit.accelerator.messages.count == 2)
  }

  @Test func maskedEdgeIsLostAndMaskedLevelIsNot() throws {
    let kit = try BoardKit()
    kit.entry(4, 0x1_0034)
    kit.pulse(4)
    kit.entry(4, 0x34)
    #expect(kit.accelerator.messages.isEmpty)
    kit.entry(17, 0x1_8040)
    kit.board.setLine(17, asserted: true)
    #expect(kit.accelerator.messages.isEmpty)
    kit.entry(17, 0x8040)
    #expect(kit.accelerator.messages == [MSIMessage(address: 0xfee0_0000, data: 0xc040)])
  }

  @Test func levelWaitsForItsEnd() throws {
    let kit = try BoardKit()
    kit.entry(20, 0x8051)
    kit.board.setLine(20, asserted: true)
    #expect(kit.apicRead(0x38) == 0xc051)
    kit.board.setLine(20, asserted: false)
    kit.board.setLine(20, asserted: true)
    #expect(kit.accelerator.messages.count == 1)
    kit.endOfInterrupt(0x50)
    #expect(kit.accelerator.messages.count == 1)
    kit.endOfInterrupt(0x51)
    #expect(kit.accelerator.messages.count == 2)
    kit.board.setLine(20, asserted: false)
    kit.endOfInterrupt(0x51)
    #expect(kit.accelerator.messages.count == 2)
    #expect(kit.apicRead(0x38) == 0x8051)
  }

  @Test func switchingToEdgesForgetsAnEnd() throws {
    let kit = try BoardKit()
    kit.entry(20, 0x8051)
    kit.board.setLine(20, asserted: true)
    kit.entry(20, 0x1_0051)
    #expect(kit.apicRead(0x38) == 0x1_0051)
    kit.entry(20, 0x8051)
    #expect(kit.accelerator.messages.count == 2)
  }

  @Test func resetMasksEverything() throws {
    let kit = try BoardKit()
    kit.entry(4, 0x34)
    kit.board.ioapic.reset()
    kit.pulse(4)
    #expect(kit.accelerator.messages.isEmpty)
  }
}

@Suite struct BoardInterruptTests {
  @Test func timerIsOnInput2OfTheIOAPIC() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.entry(0, 0x30)
    kit.entry(2, 0x32)
    kit.pulse(0)
    #expect(kit.accelerator.messages.map(\.data) == [0x32])
    #expect(kit.board.pics.acknowledge() == 0x20)
  }

  @Test func pciLinesReachThe8259sAsTheirRoutesSay() throws {
    let kit = try BoardKit()
    kit.initialize()
    kit.out(0x4d1, 0x0e)
    let bridge = kit.machine.pci.isaBridge
    kit.board.setLine(16, asserted: true)
    #expect(!kit.board.pics.isAsserted)
    bridge.configurationWrite(offset: 0x60, width: 1, value: 10)
    #expect(kit.board.pics.isAsserted)
    // Two lines share an input, which is asserted while either is.
    bridge.configurationWrite(offset: 0x69, width: 1, value: 10)
    kit.board.setLine(21, asserted: true)
    kit.board.setLine(16, asserted: false)
    #expect(kit.board.pics.acknowledge() == 0x2a)
    bridge.configurationWrite(offset: 0x69, width: 1, value: 0x80)
    kit.out(0xa0, 0x20)
    kit.out(0x20, 0x20)
    #expect(!kit.board.pics.isAsserted)
  }

  @Test func changesAreToldAndPassedOn() throws {
    let kit = try BoardKit()
    var told: [Int] = []
    kit.board.onInputChange = { told.append($1 ? $0 : -$0) }
    kit.board.setLine(4, asserted: true)
    kit.board.setLine(4, asserted: true)
    kit.board.setLine(23, asserted: true)
    kit.board.setLine(4, asserted: false)
    kit.board.setLine(24, asserted: true)
    kit.board.setLine(-1, asserted: true)
    #expect(told == [4, 23, -4])
    #expect(kit.accelerator.lines == told)
    kit.board.send(MSIMessage(address: 0xfee0_0000, data: 1))
    #expect(kit.accelerator.messages.count == 1)
  }
}
