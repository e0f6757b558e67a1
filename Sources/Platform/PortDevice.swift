// SPDX-License-Identifier: Apache-2.0
//
// Platform: the devices of a PC that are not on the PCI bus, and what boots a kernel on it. Disks do not live here, nor
// anything that knows an accelerator.
import Machine

/// A device with registers at fixed I/O ports: maps them when it joins the machine and unmaps them when it leaves.
open class PortDevice: Device {
  /// The device's first port.
  public let firstPort: UInt16
  private let portCount: UInt64
  private lazy var registers = PortRegisters(device: self)

  /// Makes a device with `portCount` ports from `firstPort` on.
  public init(name: String, firstPort: UInt16, portCount: Int) {
    precondition(portCount > 0 && Int(firstPort) + portCount <= 0x1_0000, "no such ports")
    self.firstPort = firstPort
    self.portCount = UInt64(portCount)
    super.init(name: name)
  }

  /// Reads `width` bytes (1, 2 or 4) at `offset` from the first port; the access is inside the ports. Machine lock held.
  open func portRead(offset: Int, width: Int) -> UInt32 { UInt32.max }

  /// Writes `width` bytes at `offset` from the first port; `value` has zeroes above them. Machine lock held.
  open func portWrite(offset: Int, width: Int, value: UInt32) {}

  /// Maps the ports. A subclass that overrides it calls super.
  open override func added(to machine: Machine) {
    machine.portSpace.map(registers, at: UInt64(firstPort), byteCount: portCount)
  }

  /// Unmaps the ports. A subclass that overrides it calls super.
  open override func shutdown() { machine?.portSpace.unmap(registers) }

  private final class PortRegisters: RegisterBlock {
    // The device owns this block.
    private unowned let device: PortDevice
    init(device: PortDevice) { self.device = device }

    override func read(offset: UInt64, width: Int) -> UInt64 {
      UInt64(device.portRead(offset: Int(offset), width: width))
    }

    override func write(offset: UInt64, width: Int, value: UInt64) {
      device.portWrite(offset: Int(offset), width: width, value: UInt32(truncatingIfNeeded: value))
    }
  }
}
