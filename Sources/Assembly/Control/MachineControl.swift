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
    namedNodes = assembled.drives.attached.compactMap(\.node).filter(\.isNamed)
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
      // A reset that was asked for does not come any more. Where the machine stays, its stop is told of before the answer.
      guard shutdownReason != nil else { return answerLater(&resetWaiters) }
      answer(&resetWaiters)
      answer(&endWaiters)
    default: break
    }
  }

  private func answerLater(_ waiters: inout [() -> Void]) {
    // Made and called on the loop.
    nonisolated(unsafe) let all = waiters
    waiters = []
    loop.execute { for waiter in all { waiter() } }
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
    guard runState != .shutdown else { throw ControlError("Resetting the Virtual Machine is required") }
    machine.resume()
  }

  /// Says what becomes of the process when the guest asks for a reset or ends the machine; nil leaves it as it is.
  public func setPolicies(reset: ResetPolicy?, shutdown: ShutdownPolicy?) throws(ControlError) {
    if reset == .resetDevices, machine.resetPolicy != .resetDevices, machine.vcpus != nil {
      throw ControlError("A kernel that was started without firmware cannot be reset; restart the machine's process")
    }
    if let reset { machine.resetPolicy = reset }
    if let shutdown { machine.shutdownPolicy = shutdown }
  }

  /// Virtual processors.
  public var processorCount: Int { assembled.processorCount }

  /// Resets the machine, and tells when that is done. A machine that ends where a guest asks for a reset ends.
  public func reset(done: @escaping () -> Void) throws(ControlError) {
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

  /// Names of the PCI bus: of a q35 board, and of an older one.
  static let buses = ["pcie.0", "pci.0"]

  /// Asks the guest to let a device go.
  public func removeDevice(id: String) throws(ControlError) {
    if id != assembled.ahci.name {
      guard let device = devices.first(where: { $0.id == id }) else { throw .noDevice(id) }
      guard Self.buses.contains(device.bus) else {
        throw ControlError("Bus '\(device.bus)' does not support hotplugging")
      }
    }
    do throws(SetupError) { try assembled.unplug(id) } catch { throw ControlError(error.description) }
  }

  /// The functions on the PCI bus.
  public var pciFunctions: [PCIFunction] { machine.pci.allFunctions }

  /// The drives' devices.
  public var devices: [DeviceReport] {
    assembled.drives.attached.map { drive in
      let configuration = drive.configuration
      let port = configuration.port.map { "ide.\($0)" } ?? "ide"
      let bus = configuration.interface == .ahci ? port : configuration.isOnBoard ? "virtio-mmio" : "pcie.0"
      return DeviceReport(id: drive.deviceID, model: drive.model, bus: bus, isHotPlugged: drive.isHotPlugged)
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
