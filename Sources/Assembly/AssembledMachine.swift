// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Block
import EventLoop
import Glibc
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
  /// The disks, as they were configured.
  public private(set) var disks: [VirtioBlockDevice] = []
  /// The disks' backends, in the same order.
  public private(set) var backends: [BlockBackend] = []
  /// The first serial port.
  public let serial: SerialPort
  /// What was chosen for each disk that is a file, and why; a line for each.
  public var notes: [String] { maker.notes }
  private var ioThreads: [IOThread] = []
  private let maker: BackendMaker

  /// PCI slot of the first disk; slots below are the host bridge's and left free as on QEMU's q35.
  private static let firstDiskSlot = 3
  /// Slot of the ISA bridge; disks stay below it.
  private static let ISABridgeSlot = 0x1f
  /// Where PCIEXBAR is put for a guest that is started without firmware, QEMU's address.
  private static let ecamBase: UInt64 = 0xb000_0000

  /// Puts a machine together and opens its images.
  public init(_ configuration: MachineConfiguration, serial sink: SerialSink) throws {
    memory = try MachineMemory.make(byteCount: configuration.memoryBytes)
    let mainLoop = try EventLoop(name: "main", monitor: configuration.monitor)
    machine = Machine(memory: memory, mainLoop: mainLoop)
    maker = BackendMaker(memory: memory)
    serial = SerialPort(sink: sink)
    machine.lock.lock()
    defer { machine.lock.unlock() }
    machine.add(serial)
    machine.add(DebugExit())
    machine.add(
      FirmwareConfig(memoryBytes: configuration.memoryBytes, processorCount: configuration.processorCount))
    guard configuration.drives.count <= Self.ISABridgeSlot - Self.firstDiskSlot else {
      throw SetupError("--drive: \(configuration.drives.count) drives do not fit on the PCI bus; 28 do")
    }
    for (index, drive) in configuration.drives.enumerated() {
      try addDisk(drive, slot: UInt8(Self.firstDiskSlot + index), configuration)
    }
  }

  private func addDisk(_ drive: DriveConfiguration, slot: UInt8, _ configuration: MachineConfiguration) throws {
    var loop = machine.mainLoop
    if configuration.usesIOThreads {
      let thread = try IOThread(
        name: "io-\(drive.id)", monitor: configuration.monitor, pollNsMax: configuration.pollNsMax)
      ioThreads.append(thread)
      loop = thread.loop
    }
    let backend = try maker.make(drive, loop: loop)
    var options = VirtioBlockOptions()
    options.queueCount = drive.queueCount
    options.queueEntries = drive.queueEntries
    let disk = try VirtioBlockDevice(
      name: drive.id, address: PCIAddress(device: slot, function: 0), backend: backend, memory: memory,
      options: options)
    machine.attach(disk)
    disks.append(disk)
    backends.append(backend)
    let identifier = drive.id
    backend.onStop = { operation, code in
      StandardError.print(
        "spindle: drive \(identifier): \(operation) failed: \(SystemError.text(of: code)); its requests wait, "
          + "and SIGCONT (kill -CONT \(getpid())) tries them again")
    }
  }

  /// Tries the requests again that failed under the policy `stop`, on every disk. Any thread.
  public func resumeDisks() {
    for backend in backends {
      // Used on its own loop only.
      nonisolated(unsafe) let backend = backend
      backend.loop.execute { backend.resume() }
    }
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

  // MARK: Running

  /// Runs until the guest, a signal or an error ends the machine; then drains, and closes everything.
  /// - Returns: why it ended.
  public func run() throws -> ShutdownReason {
    for thread in ioThreads { try thread.start() }
    defer { closeDisks() }
    try machine.vcpus?.start()
    // The program of a hosted processor may hold the machine, which holds its processors: without this neither would
    // go, and the images would stay open and locked.
    defer { machine.vcpus = nil }
    return machine.run()
  }

  /// Engines and images are closed on their loops, by the threads that they belong to.
  private func closeDisks() {
    for backend in backends {
      // Nobody else uses the backend any more.
      nonisolated(unsafe) let backend = backend
      if backend.loop === machine.mainLoop { backend.close() } else { backend.loop.execute { backend.close() } }
    }
    ioThreads.forEach { $0.stop() }
  }
}
