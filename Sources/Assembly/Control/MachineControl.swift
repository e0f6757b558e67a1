// SPDX-License-Identifier: Apache-2.0
import Accelerators
import EventLoop
import Glibc
import Machine

/// A machine in the hands of its user while it runs.
///
/// Made before the machine runs, after which everything is called on the main loop's thread with the machine lock held.
public final class MachineControl: MonitorTarget {
  /// The user's name for the machine.
  public let machineName: String?
  /// What the machine is.
  public let shape: MachineShape
  let assembled: AssembledMachine
  /// What its user has made, and what came out of drives and is kept.
  var namedNodes: [BlockNode] = []
  /// Drives that no device uses yet.
  var spares: [SpareDrive] = []
  private var observers: [(MachineEvent) -> Void] = []
  /// Who waits for a reset, and for the end.
  private var resetWaiters: [() -> Void] = []
  private var endWaiters: [() -> Void] = []

  /// Takes control of a machine. Main thread, machine lock not held.
  public init(_ assembled: AssembledMachine, name: String? = nil, shape: MachineShape = .q35) {
    self.assembled = assembled
    machineName = name
    self.shape = shape
    machine.lock.withLock { machine.events.observe { [weak self] in self?.happened($0) } }
  }

  var machine: Machine { assembled.machine }

  /// The main loop.
  public var loop: EventLoop { machine.mainLoop }
  /// Whether the guest runs on KVM.
  public var usesKVM: Bool { machine.vcpus is KVMAccelerator }
  /// Whether the guest runs, and why not.
  public var runState: RunState { machine.runState }
  /// Why the machine ends; nil while nothing has asked for it.
  public var shutdownReason: ShutdownReason? { machine.shutdownReason }

  // MARK: Events

  /// Tells `observer` of every event from here on.
  public func observe(_ observer: @escaping (MachineEvent) -> Void) { observers.append(observer) }

  /// Observers hear of an event before whoever asked for it gets an answer.
  private func happened(_ event: MachineEvent) {
    noteStatus(event)
    for observer in observers { observer(event) }
    switch event {
    case .reset: answer(&resetWaiters)
    case .shutdown:
      // A reset that was asked for does not come any more.
      answer(&resetWaiters)
      answer(&endWaiters)
    default: break
    }
  }

  private func answer(_ waiters: inout [() -> Void]) {
    let all = waiters
    waiters = []
    for waiter in all { waiter() }
  }

  private func noteStatus(_ event: MachineEvent) {
    switch event {
    case .blockError(let name, _, .stop, let code):
      for drive in assembled.drives.attached where drive.name == name {
        drive.status = code == ENOSPC ? .noSpace : .failed
      }
    case .resumed: for drive in assembled.drives.attached { drive.status = .ok }
    default: break
    }
  }

  // MARK: Running

  /// Stops the guest.
  public func stop() { machine.pause() }

  /// Lets the guest run on; requests that failed and wait are tried again.
  public func cont() throws(ControlError) {
    machine.resume()
  }

  /// Resets the machine, and tells when that is done. A machine that ends where a guest asks for a reset ends.
  public func reset(done: @escaping () -> Void) throws(ControlError) {
    guard machine.resetPolicy == .resetDevices else { return quit(done: done) }
    resetWaiters.append(done)
    machine.requestHostReset()
  }

  /// Asks the guest to power down.
  public func powerDown() throws(ControlError) {
    assembled.pressPowerButton()
  }

  /// Ends the machine, and tells when its end has begun.
  public func quit(done: @escaping () -> Void) {
    endWaiters.append(done)
    machine.requestShutdown(.hostRequest)
  }

  // MARK: Devices

  /// Asks the guest to let a device go.
  public func removeDevice(id: String) throws(ControlError) {
    guard id == assembled.ahci.name || devices.contains(where: { $0.id == id }) else { throw .noDevice(id) }
    do throws(SetupError) { try assembled.unplug(id) } catch { throw ControlError(error.description) }
  }

  /// The functions on the PCI bus.
  public var pciFunctions: [PCIFunction] { machine.pci.allFunctions }

  /// The drives' devices.
  public var devices: [DeviceReport] {
    assembled.drives.attached.map { drive in
      let bus = drive.configuration.interface == .virtio ? "pcie.0" : "ide"
      return DeviceReport(id: drive.deviceID, model: drive.model, bus: bus)
    }
  }

  // MARK: Spindle's own

  /// What was chosen for each drive, and why.
  public var engineNotes: [String] { assembled.notes }

  /// The main loop, and those of the I/O threads.
  public var loops: [LoopReport] {
    ([loop] + assembled.drives.ioLoops).map {
      LoopReport(name: $0.name, policy: $0.wakePolicy, monitor: $0.monitorInUse, wakes: $0.wakeStatistics)
    }
  }
}
