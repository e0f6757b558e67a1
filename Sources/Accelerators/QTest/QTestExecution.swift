// SPDX-License-Identifier: Apache-2.0
import Machine

/// What requests do to the machine. Main loop's thread, machine lock held.
extension QTestServer {
  /// Does what a request says, and answers it.
  /// - Parameter line: the line that the command was read from.
  func execute(
    _ command: QTestCommand, _ line: UnsafeBufferPointer<UInt8>, on machine: Machine
  ) throws(QTestFailure) {
    let memory = QTestMemory(machine)
    switch command {
    case .endianness: reply { $0 += "OK little".utf8 }
    case .portRead(let port, let width):
      let value = machine.portSpace.read(UInt64(port), width: width) ?? AddressSpace.truncate(.max, width: width)
      replyNumber(value, digits: 4)
    case .portWrite(let port, let width, let value):
      _ = machine.portSpace.write(UInt64(port), width: width, value: UInt64(value))
      replyDone()
    case .memoryRead(let address, let width): replyNumber(memory.load(address, width: width), digits: 16)
    case .memoryWrite(let address, let width, let value):
      memory.store(value, at: address, width: width)
      replyDone()
    case .blockRead(let address, let byteCount, let encoding): read(memory, address, byteCount, encoding)
    case .blockWrite(let address, let byteCount, let text, let encoding):
      try write(memory, address, byteCount, line[text], encoding)
    case .fill(let address, let byteCount, let value): try fill(memory, address, byteCount, value)
    case .clockStep(let step): try moveClock(machine) { $0.advance(by: step) }
    case .clockSet(let time): try moveClock(machine) { $0.set(nanoseconds: time) }
    case .interceptInputs(let device): try intercept(.inputs(try inputCount(line[device])))
    case .interceptOutputs(let device): try interceptOutputs(line[device], machine)
    case .setInput(let device, let number, let asserted):
      guard number < (try inputCount(line[device])) else { throw QTestFailure("there is no input \(number)") }
      interrupts.setLine(number, asserted: asserted)
      replyDone()
    }
  }

  private func replyDone() { reply { $0 += "OK".utf8 } }

  private func replyNumber(_ value: UInt64, digits: Int) {
    reply { output in
      output += "OK ".utf8
      QTestText.append(value, digits: digits, to: &output)
    }
  }

  // MARK: Blocks

  private func read(_ memory: QTestMemory, _ address: UInt64, _ byteCount: Int, _ encoding: QTestEncoding) {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    bytes.withUnsafeMutableBytes { memory.read(address, into: $0) }
    reply { output in
      output += "OK ".utf8
      switch encoding {
      case .hexadecimal:
        output += "0x".utf8
        QTestText.append(hexadecimal: bytes, to: &output)
      case .base64: QTestText.append(base64: bytes, to: &output)
      }
    }
  }

  private func write(
    _ memory: QTestMemory, _ address: UInt64, _ byteCount: Int, _ text: Slice<UnsafeBufferPointer<UInt8>>,
    _ encoding: QTestEncoding
  ) throws(QTestFailure) {
    var bytes: [UInt8]
    switch encoding {
    case .hexadecimal:
      guard let decoded = QTestText.decode(hexadecimal: text, byteCountMax: byteCount) else {
        throw QTestFailure("the data are not 0x and two hexadecimal digits for each byte")
      }
      // Data that are too short go on with zeroes, as the protocol has it.
      bytes = decoded + [UInt8](repeating: 0, count: byteCount - decoded.count)
    case .base64:
      guard let decoded = QTestText.decode(base64: text) else { throw QTestFailure("the data are not padded base64") }
      guard decoded.count == byteCount else {
        throw QTestFailure("the data are \(decoded.count) bytes, not \(byteCount)")
      }
      bytes = decoded
    }
    bytes.withUnsafeBytes { memory.write($0, at: address) }
    replyDone()
  }

  private func fill(
    _ memory: QTestMemory, _ address: UInt64, _ byteCount: UInt64, _ value: UInt8
  ) throws(QTestFailure) {
    let outside = memory.deviceBytes(address, byteCount)
    guard outside <= QTestLimit.transferBytesMax else {
      throw QTestFailure(
        "\(outside) bytes of the range are not RAM; \(QTestLimit.transferBytesMax) are the most that a request fills")
    }
    memory.fill(address, byteCount: byteCount, with: value)
    replyDone()
  }

  // MARK: Time and interrupts

  private func moveClock(_ machine: Machine, _ move: (MachineClock) -> UInt64) throws(QTestFailure) {
    guard machine.clock.source == .told else { throw QTestFailure("the clock of this machine runs by itself") }
    let time = move(machine.clock)
    reply { output in
      output += "OK ".utf8
      output += String(time).utf8
    }
  }

  /// A device by the last part of its path (`ioapic`, `/machine/q35/ioapic`).
  private func deviceName(_ path: Slice<UnsafeBufferPointer<UInt8>>) -> String {
    let name = path.split(separator: UInt8(ascii: "/")).last
    return name.map { String(decoding: $0, as: UTF8.self) } ?? ""
  }

  /// How many inputs an interrupt controller has.
  private func inputCount(_ path: Slice<UnsafeBufferPointer<UInt8>>) throws(QTestFailure) -> Int {
    switch deviceName(path) {
    case "ioapic": return QTestInterrupts.linesMax
    case "pic", "i8259": return QTestInterrupts.oldLinesMax
    default: throw QTestFailure("Unknown device")
    }
  }

  private func interceptOutputs(
    _ path: Slice<UnsafeBufferPointer<UInt8>>, _ machine: Machine
  ) throws(QTestFailure) {
    guard let function = machine.device(named: deviceName(path)) as? PCIFunction else {
      // The I/O APIC has no outputs but messages, which a machine without processors has no use for.
      _ = try inputCount(path)
      return replyDone()
    }
    try intercept(.pin(function.address))
  }

  private func intercept(_ wanted: QTestInterrupts.Interception) throws(QTestFailure) {
    guard interrupts.intercept(wanted) else { throw QTestFailure("IRQ intercept already enabled") }
    replyDone()
  }
}
