// SPDX-License-Identifier: Apache-2.0

/// Writes text to a 16550 serial port, by polling, without building strings.
///
/// Text is put together from literals and numbers byte by byte: a String on a bare machine costs thousands of
/// instructions, and its library is larger than the whole test program.
public struct SerialConsole<B: Bus> {
  /// Registers, relative to the port's base (16550 data sheet, table of registers).
  enum Register {
    static var data: UInt16 { 0 }
    static var interruptEnable: UInt16 { 1 }
    static var interruptIdentification: UInt16 { 2 }
    static var fifoControl: UInt16 { 2 }
    static var lineControl: UInt16 { 3 }
    static var modemControl: UInt16 { 4 }
    static var lineStatus: UInt16 { 5 }
    static var scratch: UInt16 { 7 }
  }

  /// The first serial port of a PC.
  public static var com1: UInt16 { 0x3F8 }
  /// LSR bit 5: the transmitter takes another byte.
  static var transmitterEmpty: UInt8 { 0x20 }
  /// How often the line status is read before a byte is written all the same.
  static var statusReadsMax: Int { 100_000 }

  let bus: B
  let base: UInt16

  /// Speaks to the serial port at `base`, and sets it to 115200 baud, 8 bits, no parity, no interrupts.
  public init(bus: B, base: UInt16 = SerialConsole.com1) {
    self.bus = bus
    self.base = base
    bus.out8(base + Register.interruptEnable, 0)
    bus.out8(base + Register.lineControl, 0x80)  // divisor latch access
    bus.out8(base + Register.data, 1)
    bus.out8(base + Register.interruptEnable, 0)
    bus.out8(base + Register.lineControl, 0x03)
    bus.out8(base + Register.fifoControl, 0x07)  // enable both FIFOs and clear them
    bus.out8(base + Register.modemControl, 0x03)
  }

  /// Writes one byte as soon as the transmitter is empty.
  public func byte(_ value: UInt8) {
    var reads = 0
    while bus.in8(base + Register.lineStatus) & SerialConsole.transmitterEmpty == 0,
      reads < SerialConsole.statusReadsMax
    {
      reads += 1
    }
    bus.out8(base + Register.data, value)
  }

  /// Writes a literal.
  public func text(_ text: StaticString) {
    let bytes = text.utf8Start
    for index in 0..<text.utf8CodeUnitCount {
      byte(bytes[index])
    }
  }

  /// Ends a line.
  public func endLine() {
    byte(UInt8(ascii: "\n"))
  }

  /// Writes a number in decimal.
  public func decimal(_ value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 {
      divisor &*= 10
    }
    while divisor > 0 {
      byte(UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: (value / divisor) % 10))
      divisor /= 10
    }
  }

  /// Writes a number in hexadecimal, with at least `digits` digits and without a prefix.
  public func hexadecimal(_ value: UInt64, digits: Int = 1) {
    var count = digits
    while count < 16, value >> UInt64(4 * count) != 0 {
      count += 1
    }
    while count > 0 {
      count -= 1
      let nibble = UInt8(truncatingIfNeeded: value >> UInt64(4 * count)) & 0xF
      byte(nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10)
    }
  }

  /// Writes up to `byteCount` bytes of RAM until a zero, with anything that is not printable ASCII as a dot.
  public func text(at address: UInt64, byteCount: UInt64) {
    for offset in 0..<byteCount {
      let value = bus.ramRead8(address &+ offset)
      if value == 0 {
        return
      }
      printable(value)
    }
  }

  /// Writes bytes, with anything that is not printable ASCII as a dot.
  public func text(_ bytes: [UInt8]) {
    for value in bytes {
      printable(value)
    }
  }

  private func printable(_ value: UInt8) {
    byte(value >= 0x20 && value < 0x7F ? value : UInt8(ascii: "."))
  }
}
