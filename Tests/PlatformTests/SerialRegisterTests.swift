// SPDX-License-Identifier: Apache-2.0
import Machine
import Platform
import Testing

/// A machine with a serial port; its accesses are the guest's.
struct Board {
  let machine: Machine
  let port: SerialPort
  let sink: SerialSink
  let lines = LineRecorder()

  init(sink: SerialSink = MemorySink()) throws {
    machine = try makeMachine()
    machine.interrupts = lines
    self.sink = sink
    port = SerialPort(sink: sink)
    machine.add(port)
  }

  func read(_ register: UInt16) -> UInt32 { machine.exitPortRead(0x3f8 + register, width: 1) }
  func write(_ register: UInt16, _ value: UInt32) { machine.exitPortWrite(0x3f8 + register, width: 1, value: value) }

  @discardableResult
  func receive(_ bytes: [UInt8]) -> Int {
    machine.lock.withLock { bytes.withUnsafeBufferPointer { port.receive($0) } }
  }
}

// Registers by their names in the data sheet.
let rbr: UInt16 = 0
let thr: UInt16 = 0
let ier: UInt16 = 1
let iir: UInt16 = 2
let fcr: UInt16 = 2
let lcr: UInt16 = 3
let mcr: UInt16 = 4
let lsr: UInt16 = 5
let msr: UInt16 = 6
let scr: UInt16 = 7

@Suite struct SerialRegisterTests {
  @Test(
    arguments: [
      (rbr, 0), (ier, 0), (iir, 0x01), (lcr, 0), (mcr, 0), (lsr, 0x60), (msr, 0xb0), (scr, 0),
    ] as [(register: UInt16, value: UInt32)])
  func registerHasItsValueAfterPowerOnAndReset(_ row: (register: UInt16, value: UInt32)) throws {
    let board = try Board()
    #expect(board.read(row.register) == row.value)
    board.write(fcr, 0xc1)
    board.write(ier, 0x0f)
    board.write(mcr, 0x1f)
    board.write(lcr, 0x1f)
    board.write(scr, 0x55)
    for byte in UInt32(0)..<20 { board.write(thr, byte) }
    board.port.reset()
    #expect(board.read(row.register) == row.value)
    #expect(!board.lines.isAsserted)
  }

  @Test(
    arguments: [
      (ier, 0x0f), (lcr, 0xff), (mcr, 0x1f), (scr, 0xff),
    ] as [(register: UInt16, mask: UInt32)])
  func registerKeepsItsWritableBits(_ row: (register: UInt16, mask: UInt32)) throws {
    for value in [UInt32(0xff), 0x55, 0xaa, 0x00] {
      let board = try Board()
      board.write(row.register, value)
      #expect(board.read(row.register) == value & row.mask)
    }
  }

  @Test func statusRegistersAreReadOnly() throws {
    let board = try Board()
    board.write(lsr, 0xff)
    board.write(msr, 0x00)
    #expect(board.read(lsr) == 0x60)
    #expect(board.read(msr) == 0xb0)
  }

  @Test func divisorLatchIsReachedOnlyWhileDLABIsSet() throws {
    let board = try Board()
    board.write(ier, 0x05)
    board.write(lcr, 0x83)
    #expect(board.read(0) == 12)
    #expect(board.read(1) == 0)
    board.write(0, 0x34)
    board.write(1, 0x12)
    #expect(board.read(0) == 0x34)
    #expect(board.read(1) == 0x12)
    board.write(lcr, 0x03)
    #expect(board.read(ier) == 0x05)
    #expect((board.sink as? MemorySink)?.bytes == [])
    board.write(lcr, 0x80)
    #expect(board.machine.exitPortRead(0x3f8, width: 2) == 0x1234)
  }

  @Test func wideAccessReachesConsecutiveRegisters() throws {
    let board = try Board()
    board.machine.exitPortWrite(0x3fc, width: 4, value: 0xa500_0003)
    #expect(board.read(scr) == 0xa5)
    #expect(board.machine.exitPortRead(0x3fc, width: 4) == 0xa5b0_6003)
    #expect(board.machine.exitPortRead(0x3fe, width: 2) == 0xa5b0)
    // Over the last register: nothing answers.
    #expect(board.machine.exitPortRead(0x3ff, width: 2) == 0xffff)
  }

  @Test(arguments: [
    // MCR in loopback, and the MSR inputs that it makes: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
    (mcr: UInt32(0x10), inputs: UInt32(0x00)), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1f, 0xf0),
  ])
  func loopbackWiresOutputsToInputs(_ row: (mcr: UInt32, inputs: UInt32)) throws {
    let board = try Board()
    board.write(mcr, row.mcr)
    #expect(board.read(msr) & 0xf0 == row.inputs)
    board.write(mcr, 0)
    #expect(board.read(msr) & 0xf0 == 0xb0)
  }

  @Test func modemStatusNotesChangesUntilItIsRead() throws {
    let board = try Board()
    board.write(mcr, 0x10)
    // CTS, DSR and DCD fell; RI was not there.
    #expect(board.read(msr) == 0x0b)
    #expect(board.read(msr) == 0x00)
    board.write(mcr, 0x14)
    // The ring indicator's bit notes only its end.
    #expect(board.read(msr) == 0x40)
    board.write(mcr, 0x10)
    #expect(board.read(msr) == 0x04)
    board.write(mcr, 0x12)
    board.write(mcr, 0x10)
    #expect(board.read(msr) == 0x01)
  }

  @Test func loopedBytesComeBackAndDoNotLeave() throws {
    let board = try Board()
    board.write(mcr, 0x10)
    board.write(fcr, 0x01)
    for byte in UInt32(1)...3 { board.write(thr, byte) }
    #expect(board.read(lsr) == 0x61)
    #expect((1...3).map { _ in board.read(rbr) } == [1, 2, 3])
    #expect(board.read(lsr) == 0x60)
    board.port.flush()
    #expect((board.sink as? MemorySink)?.bytes == [])
    // The outside is cut off meanwhile.
    #expect(board.receive([9]) == 0)
    #expect(board.read(lsr) & 1 == 0)
  }

  @Test func overrunWithFIFOLosesTheNewByte() throws {
    let board = try Board()
    board.write(fcr, 0x01)
    board.write(mcr, 0x10)
    for byte in UInt32(0)..<17 { board.write(thr, byte) }
    #expect(board.read(lsr) == 0x63)
    #expect(board.read(lsr) == 0x61)
    #expect((0..<17).map { _ in board.read(rbr) } == Array(0..<16) + [0])
  }

  @Test func overrunWithoutFIFODestroysTheOldByte() throws {
    let board = try Board()
    board.write(mcr, 0x10)
    board.write(thr, 1)
    #expect(board.read(lsr) == 0x61)
    board.write(thr, 2)
    #expect(board.read(lsr) == 0x63)
    #expect(board.read(rbr) == 2)
    #expect(board.read(lsr) == 0x60)
  }

  @Test func fifoControlEnablesAndClears() throws {
    let board = try Board()
    board.write(fcr, 0x01)
    #expect(board.read(iir) == 0xc1)
    board.receive([1, 2, 3])
    board.write(fcr, 0x01)
    #expect(board.read(rbr) == 1)
    board.write(fcr, 0x03)
    #expect(board.read(lsr) == 0x60)
    board.receive([4, 5])
    // Turning FIFOs off clears them; without the enable bit the others do nothing.
    board.write(fcr, 0x00)
    #expect(board.read(lsr) == 0x60)
    #expect(board.read(iir) == 0x01)
    board.receive([6])
    board.write(fcr, 0x02)
    #expect(board.read(rbr) == 6)
  }
}
