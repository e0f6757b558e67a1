// SPDX-License-Identifier: Apache-2.0
import Machine

/// The debug exit port: a write of v, of any width, ends the machine with process exit status `(v << 1) | 1`.
///
/// It answers as QEMU's isa-debug-exit does with four ports at 0xf4; reads give 0. An exit status keeps 8 bits, so a guest
/// that writes 0 for success is seen as status 1.
public final class DebugExit: PortDevice {
  /// Where test guests expect the port.
  public static let standardPort: UInt16 = 0xf4
  /// So many ports end the machine.
  public static let portCount = 4

  /// Makes the device at `port`.
  public init(port: UInt16 = DebugExit.standardPort) {
    super.init(name: "debug-exit", firstPort: port, portCount: DebugExit.portCount)
  }

  public override func portRead(offset: Int, width: Int) -> UInt32 { 0 }

  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    machine?.requestShutdown(.guestExit(status: Int32(bitPattern: value << 1 | 1)))
  }
}
