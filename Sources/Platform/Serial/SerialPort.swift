// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Machine

/// A 16550A serial port (National Semiconductor PC16550D data sheet), as a PC has it: eight ports, one interrupt line.
///
/// Bytes leave at once, so the transmitter is always empty; the divisor and the frame format are kept and change nothing.
/// Output is gathered and handed to the sink at each newline, whenever `outputBytesMax` bytes are there, from the main
/// loop soon after, and at shutdown. The interrupt follows the chip's INTR pin; OUT2 does not gate it.
public final class SerialPort: PortDevice {
  /// The first serial port of a PC.
  public static let standardPort: UInt16 = 0x3f8
  /// Its interrupt line.
  public static let standardLine = 4
  /// So many bytes of output wait at most.
  public static let outputBytesMax = 64

  // After power-on: 9600 baud, which is what QEMU shows too; the data sheet leaves it open.
  private static let divisorReset: UInt16 = 12
  private static let divisorLatchAccess: UInt8 = 1 << 7
  private static let fifoEnabledBits: UInt8 = 0xc0
  private static let newline: UInt8 = 0x0a

  private let sink: SerialSink
  private let line: Int
  private var bottomHalf: SerialBottomHalf?

  private var received = ReceiveFIFO()
  private var interruptEnable: SerialInterruptEnable = []
  private var fifoControl: SerialFIFOControl = []
  private var lineControl: UInt8 = 0
  private var modemControl: SerialModemControl = []
  private var hasOverrun = false
  private var modemStatus = SerialModemStatus.connected
  private var scratch: UInt8 = 0
  private var divisor = SerialPort.divisorReset
  // Set as the transmitter becomes empty, cleared as the guest learns of it.
  private var transmitterEmptyPending = false
  private var lineIsAsserted = false
  private var output: [UInt8] = []
  // The sink was told that there is no room, and is to be told when there is.
  private var owesInputWanted = false

  /// Makes a port whose other end is `sink`.
  public init(
    name: String = "serial0", sink: SerialSink, port: UInt16 = SerialPort.standardPort,
    line: Int = SerialPort.standardLine
  ) {
    self.sink = sink
    self.line = line
    output.reserveCapacity(SerialPort.outputBytesMax)
    super.init(name: name, firstPort: port, portCount: SerialRegister.count)
    sink.port = self
  }

  // MARK: The sink's side. Machine lock held.

  /// Takes bytes that arrive for the guest, as many as there is room for; `SerialSink.inputWanted` follows when there is
  /// room again after not all were taken. While the guest loops the port back on itself, nothing is taken.
  /// - Returns: how many were taken, from the first on.
  public func receive(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
    var taken = 0
    while taken < bytes.count, inputRoom > 0, received.append(bytes[taken], capacity: receiveCapacity) { taken += 1 }
    if taken < bytes.count { owesInputWanted = true }
    if taken > 0 { updateLine() }
    return taken
  }

  /// How many bytes `receive` takes now.
  public var inputRoom: Int {
    modemControl.contains(.loopback) ? 0 : max(0, receiveCapacity - received.count)
  }

  private var receiveCapacity: Int { fifoControl.contains(.enable) ? ReceiveFIFO.bytesMax : 1 }

  // MARK: Device

  public override func added(to machine: Machine) {
    super.added(to: machine)
    bottomHalf = SerialBottomHalf(port: self, loop: machine.mainLoop)
  }

  public override func reset() {
    flush()
    received.removeAll()
    interruptEnable = []
    fifoControl = []
    lineControl = 0
    modemControl = []
    hasOverrun = false
    modemStatus = .connected
    scratch = 0
    divisor = SerialPort.divisorReset
    transmitterEmptyPending = false
    updateLine()
    roomChanged()
  }

  public override func shutdown() {
    flush()
    sink.close()
    super.shutdown()
  }

  /// Hands the gathered output to the sink.
  public func flush() {
    guard !output.isEmpty else { return }
    output.withUnsafeBufferPointer(sink.write)
    output.removeAll(keepingCapacity: true)
  }

  /// On the main loop, soon after output was gathered or room appeared.
  fileprivate func catchUp() {
    flush()
    guard owesInputWanted, inputRoom > 0 else { return }
    owesInputWanted = false
    sink.inputWanted()
  }

  private func roomChanged() {
    if owesInputWanted, inputRoom > 0 { bottomHalf?.schedule() }
  }

  // MARK: The guest's side

  /// Reads registers; a wide access reads consecutive ones.
  public override func portRead(offset: Int, width: Int) -> UInt32 {
    (0..<width).reduce(0) { $0 | UInt32(readRegister(offset + $1)) << UInt32(8 * $1) }
  }

  /// Writes registers; a wide access writes consecutive ones.
  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    for index in 0..<width { writeRegister(offset + index, UInt8(truncatingIfNeeded: value >> UInt32(8 * index))) }
  }

  private var divisorLatchIsOpen: Bool { lineControl & SerialPort.divisorLatchAccess != 0 }

  private func readRegister(_ register: Int) -> UInt8 {
    switch register {
    case SerialRegister.data: return divisorLatchIsOpen ? UInt8(truncatingIfNeeded: divisor) : readData()
    case SerialRegister.interruptEnable: return divisorLatchIsOpen ? UInt8(divisor >> 8) : interruptEnable.rawValue
    case SerialRegister.interruptIdentification: return readInterruptIdentification()
    case SerialRegister.lineControl: return lineControl
    case SerialRegister.modemControl: return modemControl.rawValue
    case SerialRegister.lineStatus: return readLineStatus()
    case SerialRegister.modemStatus: return readModemStatus()
    default: return scratch
    }
  }

  private func writeRegister(_ register: Int, _ value: UInt8) {
    switch register {
    case SerialRegister.data:
      if divisorLatchIsOpen { divisor = divisor & 0xff00 | UInt16(value) } else { transmit(value) }
    case SerialRegister.interruptEnable:
      if divisorLatchIsOpen { divisor = divisor & 0xff | UInt16(value) << 8 } else { writeInterruptEnable(value) }
    case SerialRegister.interruptIdentification: writeFIFOControl(SerialFIFOControl(rawValue: value))
    case SerialRegister.lineControl: lineControl = value
    case SerialRegister.modemControl: writeModemControl(SerialModemControl(rawValue: value).intersection(.all))
    case SerialRegister.scratch: scratch = value
    default: break  // The status registers are read-only (sections 8.6.2 and 8.6.7: written by factory tests only).
    }
  }

  // MARK: Data

  private func readData() -> UInt8 {
    let byte = received.removeFirst() ?? 0
    updateLine()
    roomChanged()
    return byte
  }

  private func transmit(_ byte: UInt8) {
    // The write empties the interrupt's reason, the byte leaves at once and makes it again. The line drops in between,
    // because an edge-triggered interrupt input would not see the second one otherwise.
    transmitterEmptyPending = false
    updateLine()
    if modemControl.contains(.loopback) { loopBack(byte) } else { send(byte) }
    transmitterEmptyPending = true
    updateLine()
  }

  private func send(_ byte: UInt8) {
    output.append(byte)
    if byte == SerialPort.newline || output.count >= SerialPort.outputBytesMax {
      flush()
    } else if output.count == 1 {
      // A prompt has no newline; the main loop shows it.
      bottomHalf?.schedule()
    }
  }

  private func loopBack(_ byte: UInt8) {
    if received.append(byte, capacity: receiveCapacity) { return }
    hasOverrun = true
    // Without a FIFO the new byte destroys the old one; with one the new byte is lost (section 8.6.2, bit 1).
    if !fifoControl.contains(.enable) { received.replaceLast(byte) }
  }

  private func writeFIFOControl(_ value: SerialFIFOControl) {
    let toggles = value.contains(.enable) != fifoControl.contains(.enable)
    if toggles || value.contains([.enable, .clearReceiver]) { received.removeAll() }
    // The other bits count only together with the enable bit (section 8.6.3); the clear bits clear themselves.
    fifoControl = value.contains(.enable) ? value.subtracting([.clearReceiver, .clearTransmitter]) : []
    updateLine()
    roomChanged()
  }

  // MARK: Status and interrupts

  private func readLineStatus() -> UInt8 {
    var status: SerialLineStatus = [.transmitterHoldingEmpty, .transmitterEmpty]
    if !received.isEmpty { status.insert(.dataReady) }
    if hasOverrun { status.insert(.overrun) }
    // Reading clears the error bits and with them the line status interrupt.
    hasOverrun = false
    updateLine()
    return status.rawValue
  }

  private func readModemStatus() -> UInt8 {
    defer {
      modemStatus.subtract(.deltas)
      updateLine()
    }
    return modemStatus.rawValue
  }

  private func writeModemControl(_ value: SerialModemControl) {
    modemControl = value
    let inputs = value.contains(.loopback) ? SerialPort.loopedInputs(value) : .connected
    setModemInputs(inputs)
    roomChanged()
  }

  /// In loopback the four outputs are wired to the four inputs (section 8.6.6, bit 4).
  private static func loopedInputs(_ control: SerialModemControl) -> SerialModemStatus {
    var inputs: SerialModemStatus = []
    if control.contains(.requestToSend) { inputs.insert(.clearToSend) }
    if control.contains(.dataTerminalReady) { inputs.insert(.dataSetReady) }
    if control.contains(.out1) { inputs.insert(.ringIndicator) }
    if control.contains(.out2) { inputs.insert(.carrierDetect) }
    return inputs
  }

  private func setModemInputs(_ inputs: SerialModemStatus) {
    let before = modemStatus.subtracting(.deltas)
    let changed = before.symmetricDifference(inputs)
    // Each input's change bit is four places below it; that of the ring indicator notes its falling edge only.
    var deltas = SerialModemStatus(rawValue: changed.rawValue >> 4)
    if !before.contains(.ringIndicator) { deltas.remove(.ringTrailingEdge) }
    modemStatus = inputs.union(modemStatus.intersection(.deltas)).union(deltas)
    updateLine()
  }

  private func writeInterruptEnable(_ value: UInt8) {
    let new = SerialInterruptEnable(rawValue: value).intersection(.all)
    // Enabling the transmitter interrupt while the transmitter is empty raises it.
    if new.contains(.transmitterEmpty), !interruptEnable.contains(.transmitterEmpty) { transmitterEmptyPending = true }
    interruptEnable = new
    updateLine()
  }

  private func readInterruptIdentification() -> UInt8 {
    let interrupt = currentInterrupt
    // Reading says that the transmitter is empty only once (section 8.6.4, table IV).
    if interrupt == .transmitterEmpty { transmitterEmptyPending = false }
    updateLine()
    return interrupt.rawValue | (fifoControl.contains(.enable) ? SerialPort.fifoEnabledBits : 0)
  }

  /// The most urgent interrupt that is enabled and pending.
  private var currentInterrupt: SerialInterrupt {
    if interruptEnable.contains(.lineStatus), hasOverrun { return .lineStatus }
    if interruptEnable.contains(.received), !received.isEmpty {
      // Host bytes have no bit times, so bytes below the trigger level count as timed out as soon as they are there.
      return received.count >= triggerCount ? .received : .receiveTimeout
    }
    if interruptEnable.contains(.transmitterEmpty), transmitterEmptyPending { return .transmitterEmpty }
    if interruptEnable.contains(.modemStatus), !modemStatus.isDisjoint(with: .deltas) { return .modemStatus }
    return .none
  }

  private var triggerCount: Int { fifoControl.contains(.enable) ? fifoControl.triggerCount : 1 }

  private func updateLine() {
    let asserted = currentInterrupt != .none
    if asserted == lineIsAsserted { return }
    lineIsAsserted = asserted
    machine?.interrupts.setLine(line, asserted: asserted)
  }
}

/// Runs a port's `catchUp` on the main loop, which holds the machine lock then.
private final class SerialBottomHalf: BottomHalf, @unchecked Sendable {
  private weak var port: SerialPort?

  init(port: SerialPort, loop: EventLoop) {
    self.port = port
    super.init(loop: loop)
  }

  override func run() { port?.catchUp() }
}
