// SPDX-License-Identifier: Apache-2.0
import Machine

/// Port 0x92 (ICH9 data sheet, section 13.7.3): bit 0 resets the machine as it is set, bit 1 is the A20 gate, which is kept
/// and has no effect, as all address lines are always on.
public final class ResetPort: PortDevice {
  /// Where a PC has it.
  public static let standardPort: UInt16 = 0x92
  private static let resetNow: UInt8 = 1 << 0
  private static let addressLine20: UInt8 = 1 << 1

  private var value = addressLine20

  /// Makes the port with its gate open.
  public init() { super.init(name: "port-92", firstPort: ResetPort.standardPort, portCount: 1) }

  public override func reset() { value = Self.addressLine20 }

  public override func portRead(offset: Int, width: Int) -> UInt32 { UInt32(value) }

  public override func portWrite(offset: Int, width: Int, value new: UInt32) {
    let resets = UInt8(truncatingIfNeeded: new) & ~value & Self.resetNow != 0
    value = UInt8(truncatingIfNeeded: new) & (Self.resetNow | Self.addressLine20)
    if resets { machine?.requestReset() }
  }
}
