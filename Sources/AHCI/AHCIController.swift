// SPDX-License-Identifier: Apache-2.0
// AHCI: an AHCI 1.3.1 host bus adapter and the SATA devices behind its ports. It knows nothing of vCPUs, of how requests
// reach the kernel, or of other devices.
import EventLoop
import GuestMemory
import Machine

/// An ICH9-compatible AHCI controller (8086:2922).
public final class AHCIController: PCIFunction {
  /// Ports of the controller.
  public static let portCount = 6
  /// Where it is on a q35 board.
  public static let standardAddress = PCIAddress(device: 0x1f, function: 2)

  /// Makes a controller whose requests run on `loop`, the machine's main loop.
  public init(
    name: String, address: PCIAddress = AHCIController.standardAddress, memory: GuestMemory, loop: EventLoop
  ) {
    super.init(
      name: name, address: address,
      identity: PCIIdentity(vendor: 0x8086, device: 0x2922, classCode: 0x010601, interruptPin: 1))
  }

  /// Connects a device to a port, 0 to 5, that has none: while the machine is assembled, or later (hot plug). Machine lock held.
  public func connect(_ device: SATADevice, to port: Int) {}

  /// Takes the device from a port (hot removal). Machine lock held.
  public func disconnect(port: Int) {}
}
