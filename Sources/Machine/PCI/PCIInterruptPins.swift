// SPDX-License-Identifier: Apache-2.0

/// How interrupt pins of functions are wired to inputs of the I/O APIC on a q35 board, and which inputs are asserted.
///
/// The ICH9 has eight PIRQ lines, A to H, on inputs 16 to 23. Pins of devices 0 to 24 go to E to H in turn, rotated by the
/// device number; the chip set's own devices go to A to D as its route registers say after power-on (ICH9 data sheet,
/// section 10.1.33 and on), and device 30 to E to H. Several functions may share a line, which is asserted while any is.
struct PCIInterruptPins {
  /// PIRQ A is on this input of the I/O APIC.
  static let firstLine = 16
  /// PIRQ lines A to H.
  static let lineCount = 8
  /// Devices from this number on are the chip set's own.
  static let firstChipSetDevice: UInt8 = 25

  private var assertions = [Int](repeating: 0, count: lineCount)

  /// The I/O APIC input of a pin (1 to 4 for INTA# to INTD#).
  static func line(of address: PCIAddress, pin: UInt8) -> Int {
    let pinIndex = Int(pin) - 1
    let lineE = 4
    if address.device < firstChipSetDevice { return firstLine + lineE + (Int(address.device) + pinIndex) % 4 }
    return firstLine + pinIndex + (address.device == 30 ? lineE : 0)
  }

  /// Notes that a function's pin changed its level.
  /// - Returns: the input and its new level where that changed.
  mutating func set(_ address: PCIAddress, pin: UInt8, asserted: Bool) -> (line: Int, asserted: Bool)? {
    let line = PCIInterruptPins.line(of: address, pin: pin)
    let index = line - PCIInterruptPins.firstLine
    let before = assertions[index]
    assertions[index] += asserted ? 1 : -1
    precondition(assertions[index] >= 0, "a pin was released that was not asserted")
    return (before == 0) == (assertions[index] == 0) ? nil : (line, asserted)
  }
}
