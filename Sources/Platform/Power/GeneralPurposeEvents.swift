// SPDX-License-Identifier: Apache-2.0

/// A block of general purpose events: a status bit for each, which the guest clears by writing one, and an enable bit
/// (ACPI 6.5, section 4.8.4.1). Machine lock held for everything.
struct GeneralPurposeEvents {
  /// Bytes of the status registers; the enable registers follow, as many.
  static let statusBytes = 8

  private(set) var status: UInt64 = 0
  private(set) var enabled: UInt64 = 0

  /// Whether some event wants the interrupt.
  var isPending: Bool { status & enabled != 0 }

  /// Event `number`, 0 to 63, has happened.
  mutating func raise(_ number: UInt64) { status |= 1 << number }

  /// Reads a byte of the status or, from `statusBytes` on, of the enable registers.
  func byte(_ index: Int) -> UInt8 {
    let register = index < Self.statusBytes ? status : enabled
    return UInt8(truncatingIfNeeded: register >> UInt64(8 * (index % Self.statusBytes)))
  }

  /// Writes a byte of the same registers.
  mutating func write(_ index: Int, _ value: UInt8) {
    let shift = UInt64(8 * (index % Self.statusBytes))
    if index < Self.statusBytes {
      status &= ~(UInt64(value) << shift)
    } else {
      enabled = enabled & ~(0xff << shift) | UInt64(value) << shift
    }
  }
}
