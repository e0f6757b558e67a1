// SPDX-License-Identifier: Apache-2.0
import AHCI
import Accelerators
import Block
import EventLoop
import GuestMemory
import HostSystem
import Machine
import Platform
import VirtioBlock

/// A machine with its disks and devices, ready for an accelerator.
///
/// Made and run on the main thread. Nothing is written to an image before every option has been checked and every
/// image is open and locked.
public final class AssembledMachine {
  /// The machine itself.
  public let machine: Machine
  /// Guest RAM.
  public let memory: GuestMemory
  /// The virtio disks, as they were configured.
  public var disks: [VirtioBlockDevice] { drives.disks }
  /// The AHCI controller at 00:1f.2, with or without drives.
  public var ahci: AHCIController { drives.ahci }
  /// The backends of all drives that have a medium, as they were configured.
  public var backends: [BlockBackend] { drives.backends }
  /// The first serial port.
  public let serial: SerialPort
  /// What was chosen for each drive, and why, where there was a choice; a line for each choice.
  public var notes: [String] { drives.notes }
  let drives: DriveSet
  /// Virtual processors, as they were configured.
  public let processorCount: Int
  /// Through which the guest hears of disks that come and go.
  public let hotPlug = PCIHotPlug()
  /// The power management ports: the power button, and the switch that the guest has.
  public let power: PowerManagement
  /// The real-time clock, with the memory in which firmware looks for settings.
  public let clock: RealTimeClock
  /// What the guest may read of its configuration; files are added before it runs.
  public let firmware: FirmwareConfig

  private static let nsPerSecond: UInt64 = 1_000_000_000
  /// Where PCIEXBAR is put for a guest that is started without firmware, QEMU's address.
  private static let ecamBase: UInt64 = 0xb000_0000

  /// Puts a machine together and opens its images.
  public init(_ configuration: MachineConfiguration, serial sink: SerialSink) throws {
    memory = try MachineMemory.make(byteCount: configuration.memoryBytes)
    let mainLoop = try EventLoop(
      name: "main", wakePolicy: configuration.wakePolicy, monitor: configuration.monitor,
      submission: configuration.submission)
    processorCount = configuration.processorCount
    let machine = Machine(memory: memory, mainLoop: mainLoop)
    self.machine = machine
    serial = SerialPort(sink: sink)
    power = PowerManagement(bridge: machine.pci.isaBridge)
    firmware = FirmwareConfig(memoryBytes: configuration.memoryBytes, processorCount: configuration.processorCount)
    clock = RealTimeClock(
      base: configuration.clockBase, memory: memory, processorCount: configuration.processorCount)
    machine.lock.lock()
    defer { machine.lock.unlock() }
    machine.add(serial)
    if let port = configuration.debugExitPort { machine.add(DebugExit(port: port)) }
    try firmware.addMemoryMap(memory.regions)
    machine.add(firmware)
    machine.add(power)
    machine.add(APMPorts(power: power))
    machine.add(hotPlug)
    machine.add(IntervalTimer())
    machine.add(ResetPort())
    machine.add(KeyboardController())
    machine.add(clock)
    machine.add(Heartbeat(name: "heartbeat", periodNs: configuration.heartbeatNs))
    if configuration.hasDisplay { machine.add(Heartbeat(name: "display", periodNs: Heartbeat.displayRefreshNs)) }
    if configuration.activityHz > 0 {
      machine.add(Heartbeat(name: "activity", periodNs: max(1, Self.nsPerSecond / configuration.activityHz)))
    }
    drives = try DriveSet(configuration, in: machine)
    for disk in drives.disks where disk.options.mmioSlot == nil { hotPlug.allowRemoval(of: disk) }
    if configuration.hasRemovableController { hotPlug.allowRemoval(of: drives.ahci) }
    hotPlug.onEvent = { [power] in power.raiseGeneralEvent(PowerManagement.hotPlugEvent) }
    hotPlug.onRemoved = { [weak drives] function in drives?.left(function) }
  }

  /// Gives the machine interrupt controllers of its own, for accelerators that have none (hosted processors, qtest), after
  /// such an accelerator was chosen and before the guest runs. Main thread, machine lock held.
  @discardableResult
  public func addBoardInterrupts() -> BoardInterrupts { BoardInterrupts(machine: machine) }

  /// Asks the guest to power down, as its power button does. Main loop's thread, machine lock held.
  public func pressPowerButton() {
    power.pressPowerButton()
    machine.events.post(.powerdown)
  }

  // MARK: Accelerators

  /// Puts the machine on KVM, with a PVH kernel in its memory.
  ///
  /// `fault` is told, on a vCPU's thread, why a guest cannot go on; the machine ends then.
  public func useKVM(
    kernel: [UInt8], commandLine: String, processorCount: Int, fault: @escaping @Sendable (String) -> Void
  ) throws {
    let boot = try PVHLoader.load(image: try ELFImage(kernel), into: memory, commandLine: commandLine)
    machine.lock.lock()
    defer { machine.lock.unlock() }
    machine.pci.enableECAM(at: Self.ecamBase)
    let accelerator = try KVMAccelerator(machine: machine, processorCount: processorCount)
    try accelerator.boot(entry: boot.entry, startInfo: boot.startInfo)
    let machine = machine
    accelerator.onTripleFault = { machine.requestReset() }
    accelerator.onFault = { what in
      fault(what)
      machine.requestShutdown(.guestFault)
    }
    machine.vcpus = accelerator
  }

  /// Puts the machine on vCPU threads that run a program of this process.
  public func useHosted(processorCount: Int, program: @escaping @Sendable (HostedBus) -> Void) -> HostedAccelerator {
    machine.lock.withLock { machine.pci.enableECAM(at: Self.ecamBase) }
    let accelerator = HostedAccelerator(machine: machine, processorCount: processorCount, program: program)
    machine.vcpus = accelerator
    return accelerator
  }

  /// Puts the machine in the hands of a qtest client: it has no processors, its clock moves when it is told to, and a
  /// guest's reset resets its devices.
  ///
  /// Before anything else arms a timer of the machine's clock. The server is a device of the machine.
  @discardableResult
  public func useQTest(channel: QTestChannel, log: QTestLog? = nil) -> QTestServer {
    machine.resetPolicy = .resetDevices
    let server = QTestServer(machine: machine, channel: channel, log: log)
    machine.add(server)
    return server
  }

  // MARK: Running

  /// Runs until the guest, a signal or an error ends the machine; then drains, and closes everything.
  /// - Returns: why it ended.
  /// - Parameter startsPaused: the guest waits for `Machine.resume`.
  public func run(startsPaused: Bool = false) throws -> ShutdownReason {
    try drives.start()
    defer { drives.close() }
    // The program of a hosted processor may hold the machine, which holds its processors: without this neither would
    // go, and the images would stay open and locked.
    defer { machine.vcpus = nil }
    return try machine.run(startsPaused: startsPaused)
  }
}
