// SPDX-License-Identifier: Apache-2.0
import Machine

/// The APM control and status ports, 0xb2 and 0xb3 (ICH9 data sheet, section 13.7): two bytes that a guest keeps there. A
/// guest writes 2 to the first to take power management over, 3 to give it back; firmware's answer is given at once.
public final class APMPorts: PortDevice {
  /// The control port.
  public static let standardPort: UInt16 = 0xb2
  private static let acpiEnable: UInt8 = 2
  private static let acpiDisable: UInt8 = 3

  private let power: PowerManagement
  private var bytes: [UInt8] = [0, 0]

  /// Makes the ports of a machine whose power management is `power`.
  public init(power: PowerManagement) {
    self.power = power
    super.init(name: "apm", firstPort: APMPorts.standardPort, portCount: 2)
  }

  public override func reset() { bytes = [0, 0] }

  public override func portRead(offset: Int, width: Int) -> UInt32 {
    (0..<min(width, bytes.count - offset)).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    for index in 0..<min(width, bytes.count - offset) {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
    }
    guard offset == 0 else { return }
    if bytes[0] == APMPorts.acpiEnable { power.setACPI(enabled: true) }
    if bytes[0] == APMPorts.acpiDisable { power.setACPI(enabled: false) }
  }
}
