// SPDX-License-Identifier: Apache-2.0
// Machine: address spaces and dispatch, PCI, interrupts, the machine lock, reset and shutdown. It does not know which
// devices exist.
import EventLoop
import GuestMemory
import HostSystem
import Tracing

/// A machine: memory, address spaces, devices, and the loop that runs them.
///
/// It is assembled on the main thread (`add`, `attach`, `interrupts`, `vcpus`), then `run` there until something asks for
/// its end.
public final class Machine: @unchecked Sendable {
  /// Guest RAM.
  public let memory: GuestMemory
  /// The main loop; it holds `lock` except while it sleeps.
  public let mainLoop: EventLoop
  /// Guards everything below, except where a declaration says otherwise.
  public let lock = MachineLock()
  /// Device memory.
  public let memorySpace = AddressSpace()
  /// I/O ports.
  public let portSpace = AddressSpace()
  /// Doorbells mapped now.
  public let doorbells = DoorbellTable()
  /// The PCI bus, with its host bridge and ISA bridge.
  public let pci = PCIHost()
  /// The accelerator's interrupt side; set while the machine is assembled, before the guest runs.
  public var interrupts = InterruptController()
  /// The vCPU threads; set while the machine is assembled. `run` starts and stops them.
  public var vcpus: (any VCPUGroup)?
  /// What a guest's request for a reset does; set while the machine is assembled.
  public var resetPolicy = ResetPolicy.shutdown
  /// The machine's own time.
  public let clock: MachineClock
  /// Tells what happens to the machine.
  public let events = MachineEvents()
  /// Where the vCPUs stand while the machine is paused.
  public let gate = VCPUGate()
  /// Whether the guest runs; `pause` and `resume` change it.
  public internal(set) var runState = RunState.prelaunch
  /// Called on the main loop, machine lock held, after a device has settled (`Device.isSettling`); set while the machine is
  /// assembled, by a server that waits for it.
  public var settled: () -> Void = {}
  /// Everything added, oldest first; the PCI bridges are the first two.
  public private(set) var devices: [Device] = []

  /// Functions that have left the bus and stay until they are quiet, and what is done then.
  var leaving: [(function: PCIFunction, done: () -> Void)] = []

  /// What other threads ask of the main loop.
  let requests: MachineRequests

  /// Assembles a machine without devices but the bridges of its PCI bus.
  public init(memory: GuestMemory, mainLoop: EventLoop) {
    self.memory = memory
    self.mainLoop = mainLoop
    clock = MachineClock(loop: mainLoop)
    requests = MachineRequests(loop: mainLoop)
    pci.connect(to: self)
    requests.settled.action = { [unowned self] in settled() }
  }

  // MARK: Assembly. Main thread, with or without the machine lock.

  /// Takes a device into the machine, which owns it from now on.
  public func add(_ device: Device) {
    withLockIfNeeded {
      precondition(device.machine == nil, "the device is part of a machine already")
      devices.append(device)
      device.machine = self
      device.added(to: self)
    }
  }

  /// Takes a PCI function into the machine and puts it on the bus at its address, which must be free.
  public func attach(_ function: PCIFunction) {
    withLockIfNeeded {
      pci.attach(function)
      add(function)
    }
  }

  /// Shuts a device down and takes it out of the machine; a PCI function leaves the bus. It must be quiet.
  public func remove(_ device: Device) {
    withLockIfNeeded {
      precondition(device.isQuiet && device.machine === self, "only a quiet device of this machine can leave")
      device.shutdown()
      if let function = device as? PCIFunction { pci.detach(function) }
      devices.removeAll { $0 === device }
      device.machine = nil
    }
  }

  /// The device of this name; nil where there is none.
  public func device(named name: String) -> Device? { devices.first { $0.name == name } }

  private func withLockIfNeeded(_ body: () -> Void) {
    if lock.isHeld { body() } else { lock.withLock(body) }
  }

  // MARK: Exits. Any vCPU thread, machine lock not held: each takes it for the access, and a trace shows the wait for it as
  // a part of the exit. Where the machine is paused, the access waits until it runs again; where it ends meanwhile, reads
  // are answered as if nobody were there, and writes are lost.

  /// Reads a port, 1, 2 or 4 bytes wide; unclaimed ports read as all ones of that width.
  public func exitPortRead(_ port: UInt16, width: Int) -> UInt32 {
    Tracing.record(.exit, value: TraceExit.portRead.rawValue)
    defer { Tracing.record(.exit, value: TraceExit.end.rawValue) }
    let value = withExitLock { portSpace.read(UInt64(port), width: width) } ?? UInt64.max
    return UInt32(truncatingIfNeeded: AddressSpace.truncate(value, width: width))
  }

  /// Writes a port; writes to unclaimed ports are lost.
  public func exitPortWrite(_ port: UInt16, width: Int, value: UInt32) {
    Tracing.record(.exit, value: TraceExit.portWrite.rawValue)
    defer { Tracing.record(.exit, value: TraceExit.end.rawValue) }
    _ = withExitLock { portSpace.write(UInt64(port), width: width, value: UInt64(value)) }
  }

  /// Reads device memory, 1, 2, 4 or 8 bytes wide; unclaimed addresses read as 0.
  public func exitMemoryRead(_ address: UInt64, width: Int) -> UInt64 {
    Tracing.record(.exit, value: TraceExit.memoryRead.rawValue)
    defer { Tracing.record(.exit, value: TraceExit.end.rawValue) }
    return withExitLock { memorySpace.read(address, width: width) } ?? 0
  }

  /// Writes device memory; writes to unclaimed addresses are lost.
  public func exitMemoryWrite(_ address: UInt64, width: Int, value: UInt64) {
    Tracing.record(.exit, value: TraceExit.memoryWrite.rawValue)
    defer { Tracing.record(.exit, value: TraceExit.end.rawValue) }
    _ = withExitLock { memorySpace.write(address, width: width, value: value) }
  }

  /// Takes the lock for an access. `pause` closes the gate under the lock and then lets go of it, so that whoever waits for
  /// it here finds the gate closed, and stands there without the lock.
  /// - Returns: nil as well where the machine has ended at the gate.
  @inline(__always)
  private func withExitLock<Value>(_ access: () -> Value?) -> Value? {
    lock.lock()
    if gate.isClosed && !passGate() {
      lock.unlock()
      return nil
    }
    defer { lock.unlock() }
    return access()
  }

  /// Called with the lock, and returns with it.
  @inline(never)
  private func passGate() -> Bool {
    while gate.isClosed {
      lock.unlock()
      let mayGoOn = gate.pass()
      lock.lock()
      if !mayGoOn { return false }
    }
    return true
  }
}
