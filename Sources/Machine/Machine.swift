// SPDX-License-Identifier: Apache-2.0
// Machine: address spaces and dispatch, PCI, interrupts, the machine lock, reset and shutdown. It does not know which
// devices exist.
import EventLoop
import GuestMemory
import HostSystem

/// A machine: memory, address spaces, devices, and the loop that runs them.
public final class Machine: @unchecked Sendable {
  /// Guest RAM.
  public let memory: GuestMemory
  /// The main loop; it holds `lock` except while it sleeps.
  public let mainLoop: EventLoop
  /// Guards everything below.
  public let lock = MachineLock()
  /// Device memory.
  public let memorySpace = AddressSpace()
  /// I/O ports.
  public let portSpace = AddressSpace()
  /// Doorbells mapped now.
  public let doorbells = DoorbellTable()
  /// The accelerator's interrupt side; set while the machine is assembled.
  public var interrupts = InterruptController()

  /// Assembles a machine without devices.
  public init(memory: GuestMemory, mainLoop: EventLoop) {
    self.memory = memory
    self.mainLoop = mainLoop
  }

  // MARK: Exits. Any vCPU thread, machine lock not held: each takes it for the access.

  /// Reads a port; unclaimed ports read as all ones.
  public func exitPortRead(_ port: UInt16, width: Int) -> UInt32 {
    lock.withLock { UInt32(truncatingIfNeeded: portSpace.read(UInt64(port), width: width) ?? UInt64.max) }
  }

  /// Writes a port; writes to unclaimed ports are lost.
  public func exitPortWrite(_ port: UInt16, width: Int, value: UInt32) {
    lock.withLock { _ = portSpace.write(UInt64(port), width: width, value: UInt64(value)) }
  }

  /// Reads device memory; unclaimed addresses read as 0.
  public func exitMemoryRead(_ address: UInt64, width: Int) -> UInt64 {
    lock.withLock { memorySpace.read(address, width: width) ?? 0 }
  }

  /// Writes device memory; writes to unclaimed addresses are lost.
  public func exitMemoryWrite(_ address: UInt64, width: Int, value: UInt64) {
    lock.withLock { _ = memorySpace.write(address, width: width, value: value) }
  }
}
