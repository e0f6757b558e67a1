// SPDX-License-Identifier: Apache-2.0
import Machine
import Platform
import Testing

@Suite struct SerialInterruptTests {
  @Test func enablingTheTransmitterInterruptRaisesItOnce() throws {
    let board = try Board()
    board.write(ier, 0x02)
    #expect(board.lines.edges == ["+4"])
    #expect(board.read(iir) == 0x02)
    // Reading said so; it is gone.
    #expect(board.lines.edges == ["+4", "-4"])
    #expect(board.read(iir) == 0x01)
    // Enabled before, so enabling again is no reason.
    board.write(ier, 0x02)
    #expect(board.read(iir) == 0x01)
    board.write(ier, 0x00)
    board.write(ier, 0x02)
    #expect(board.read(iir) == 0x02)
  }

  @Test func eachByteSentMakesAnEdge() throws {
    let board = try Board()
    board.write(ier, 0x02)
    for byte in UInt32(0x41)...0x43 { board.write(thr, byte) }
    // The interrupt was never acknowledged, and an edge-triggered input still sees each one.
    #expect(board.lines.edges == ["+4", "-4", "+4", "-4", "+4", "-4", "+4"])
    #expect(board.read(iir) == 0x02)
    #expect(!board.lines.isAsserted)
  }

  @Test func disabledTransmitterInterruptIsNotSeen() throws {
    let board = try Board()
    board.write(thr, 0x41)
    #expect(board.read(iir) == 0x01)
    #expect(board.lines.edges.isEmpty)
  }

  @Test func receivedDataInterruptsUntilItIsRead() throws {
    let board = try Board()
    board.write(ier, 0x01)
    board.receive([7])
    #expect(board.read(iir) == 0x04)
    #expect(board.lines.edges == ["+4"])
    #expect(board.read(rbr) == 7)
    #expect(board.lines.edges == ["+4", "-4"])
    #expect(board.read(iir) == 0x01)
  }

  @Test(arguments: [(fcr: UInt32(0x01), trigger: 1), (0x41, 4), (0x81, 8), (0xc1, 14)])
  func bytesBelowTheTriggerLevelShowAsTimeout(_ row: (fcr: UInt32, trigger: Int)) throws {
    let board = try Board()
    board.write(fcr, row.fcr)
    board.write(ier, 0x01)
    for count in 1...16 {
      board.receive([UInt8(count)])
      #expect(board.read(iir) == (count >= row.trigger ? 0xc4 : 0xcc))
    }
    for left in (0..<16).reversed() {
      _ = board.read(rbr)
      #expect(board.read(iir) == (left == 0 ? 0xc1 : left >= row.trigger ? 0xc4 : 0xcc))
    }
    #expect(board.lines.edges == ["+4", "-4"])
  }

  @Test func interruptsAreReportedByPriorityAndClearedOneByOne() throws {
    let board = try Board()
    board.write(mcr, 0x10)
    board.write(ier, 0x0f)
    // An overrun, data, an empty transmitter, and changed modem inputs, all at once.
    board.write(thr, 1)
    board.write(thr, 2)
    let rises = board.lines.rises
    #expect(board.read(iir) == 0x06)
    #expect(board.read(iir) == 0x06)
    #expect(board.read(lsr) & 0x02 != 0)
    #expect(board.read(iir) == 0x04)
    #expect(board.read(rbr) == 2)
    #expect(board.read(iir) == 0x02)
    #expect(board.read(iir) == 0x00)
    #expect(board.read(msr) == 0x0b)
    #expect(board.read(iir) == 0x01)
    #expect(!board.lines.isAsserted)
    // The line stayed up as long as anything was left.
    #expect(board.lines.rises == rises)
  }

  @Test(arguments: [
    // Enable bit, and what IIR says when everything is pending and only that is enabled.
    (ier: UInt32(0x01), iir: UInt32(0x04)), (0x02, 0x02), (0x04, 0x06), (0x08, 0x00), (0x00, 0x01),
  ])
  func onlyEnabledInterruptsAreSeen(_ row: (ier: UInt32, iir: UInt32)) throws {
    let board = try Board()
    board.write(mcr, 0x10)
    board.write(thr, 1)
    board.write(thr, 2)
    board.write(ier, row.ier)
    #expect(board.lines.isAsserted == (row.ier != 0))
    #expect(board.read(iir) == row.iir)
    board.write(ier, 0)
    #expect(!board.lines.isAsserted)
    #expect(board.read(iir) == 0x01)
  }

  @Test func otherPortAndLineCanBeChosen() throws {
    let machine = try makeMachine()
    let lines = LineRecorder()
    machine.interrupts = lines
    machine.add(SerialPort(name: "serial1", sink: MemorySink(), port: 0x2f8, line: 3))
    machine.exitPortWrite(0x2f9, width: 1, value: 2)
    #expect(lines.edges == ["+3"])
    #expect(machine.exitPortRead(0x3f8, width: 1) == 0xff)
  }
}
