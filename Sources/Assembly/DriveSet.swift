// SPDX-License-Identifier: Apache-2.0
import AHCI
import Block
import EventLoop
import Glibc
import GuestMemory
import HostSystem
import Machine
import VirtioBlock

/// The drives of a machine: a virtio-blk function for each, or a port of the AHCI controller, and what serves them.
///
/// Made on the main thread with the machine lock held; used on the main thread afterwards.
final class DriveSet {
  /// PCI slot of the first virtio disk; slots below are the host bridge's and left free as on QEMU's q35.
  static let firstDiskSlot = 3
  /// Slot of the ISA bridge and of the AHCI controller; virtio disks stay below it.
  static let chipsetSlot = 0x1f

  /// The virtio disks, as they were configured.
  var disks: [VirtioBlockDevice] = []
  /// The AHCI controller, which every machine has, as every q35 board.
  let ahci: AHCIController
  /// The backends of all drives that have one, as they were configured.
  private(set) var backends: [BlockBackend] = []
  /// What was chosen for each drive, where there was a choice.
  var notes: [String] { maker.notes + loopNotes }

  /// What was opened for a disk, and goes with it.
  struct Owned {
    var backend: BlockBackend
    var thread: IOThread?
  }
  /// By the disk.
  var owned: [ObjectIdentifier: Owned] = [:]

  let machine: Machine
  private let configuration: MachineConfiguration
  private let maker: BackendMaker
  private var ioThreads: [IOThread] = []
  private var loopNotes: [String] = []

  /// Opens every image and puts the drives into `machine`.
  /// - Throws: `UsageError` and `SetupError` before anything is opened; errors of images and of the host.
  init(_ configuration: MachineConfiguration, in machine: Machine) throws {
    self.machine = machine
    self.configuration = configuration
    maker = BackendMaker(memory: machine.memory)
    ahci = AHCIController(name: "ahci", memory: machine.memory, loop: machine.mainLoop)
    let ports = try AHCIPorts.assign(configuration.drives)
    let virtioCount = configuration.drives.count { $0.interface == .virtio && !$0.isOnBoard }
    guard virtioCount <= Self.chipsetSlot - Self.firstDiskSlot else {
      throw SetupError("--drive: \(virtioCount) virtio drives do not fit on the PCI bus; 28 do")
    }
    let boardCount = configuration.drives.count { $0.isOnBoard }
    guard boardCount <= VirtioMMIO.lines.count else {
      throw SetupError("--drive: \(boardCount) drives with if=virtio-mmio; there are \(VirtioMMIO.lines.count) places")
    }
    for (drive, port) in zip(configuration.drives, ports) {
      if let port {
        try connect(drive, to: port, configuration)
      } else {
        try addVirtioDisk(drive)
      }
    }
    // After its drives: what is connected later counts as hot plug.
    machine.attach(ahci)
  }

  private func addVirtioDisk(_ drive: DriveConfiguration) throws {
    let onBoard = disks.count { $0.options.mmioSlot != nil }
    if drive.isOnBoard {
      // Its PCI address says nothing.
      let disk = try makeVirtioDisk(
        drive, at: PCIAddress(device: 0), mmioSlot: onBoard, startsThread: false)
      return machine.add(disk)
    }
    let slot = UInt8(Self.firstDiskSlot + disks.count - onBoard)
    machine.attach(try makeVirtioDisk(drive, at: PCIAddress(device: slot), startsThread: false))
  }

  /// Opens a drive and makes its function, which is not on the bus yet.
  /// - Parameter startsThread: the I/O thread starts now, rather than with `start`.
  func makeVirtioDisk(
    _ drive: DriveConfiguration, at address: PCIAddress, mmioSlot: Int? = nil, startsThread: Bool
  ) throws -> VirtioBlockDevice {
    var thread: IOThread?
    if configuration.usesIOThreads {
      thread = try IOThread(name: "io-\(drive.id)", monitor: configuration.monitor, pollNsMax: configuration.pollNsMax)
    }
    let backend = try makeBackend(drive, loop: thread?.loop ?? machine.mainLoop)
    var options = VirtioBlockOptions()
    options.queueCount = drive.queueCount
    options.queueEntries = drive.queueEntries
    options.interface = drive.virtioInterface
    options.mmioSlot = mmioSlot
    let disk = try VirtioBlockDevice(
      name: drive.id, address: address, backend: backend, memory: machine.memory, options: options)
    if startsThread { try thread?.start() }
    if let thread { ioThreads.append(thread) }
    disks.append(disk)
    owned[ObjectIdentifier(disk)] = Owned(backend: backend, thread: thread)
    return disk
  }

  /// What served a disk that has left is closed by its own way.
  func forget(_ served: Owned) {
    backends.removeAll { $0 === served.backend }
    ioThreads.removeAll { $0 === served.thread }
  }

  /// A controller's registers belong to the machine lock and serve all of its ports, so its drives stay on the main loop.
  private func connect(_ drive: DriveConfiguration, to port: Int, _ configuration: MachineConfiguration) throws {
    if configuration.usesIOThreads {
      loopNotes.append("drive \(drive.id): on the main loop, as every drive with if=ahci; --iothread is for if=virtio")
    }
    switch drive.media {
    case .disk:
      ahci.connect(ATADrive(backend: try makeBackend(drive, loop: machine.mainLoop)), to: port)
    case .cdrom:
      var options = ATAPIDriveOptions()
      options.serial = drive.serial.isEmpty ? "SPINDLE-DVD-\(port)" : drive.serial
      let backend = drive.source == .empty ? nil : try makeBackend(drive, loop: machine.mainLoop)
      ahci.connect(ATAPIDrive(backend: backend, options: options), to: port)
    }
  }

  private func makeBackend(_ drive: DriveConfiguration, loop: EventLoop) throws -> BlockBackend {
    let backend = try maker.make(drive, loop: loop)
    backends.append(backend)
    let identifier = drive.id
    backend.onStop = { operation, code in
      StandardError.print(
        "spindle: drive \(identifier): \(operation) failed: \(SystemError.text(of: code)); its requests wait, "
          + "and SIGCONT (kill -CONT \(getpid())) tries them again")
    }
    return backend
  }

  // MARK: Running

  /// Starts the I/O threads.
  func start() throws { for thread in ioThreads { try thread.start() } }

  /// Tries the requests again that failed under the policy `stop`, on every disk. Any thread.
  func resume() {
    for backend in backends {
      // Used on its own loop only.
      nonisolated(unsafe) let backend = backend
      backend.loop.execute { backend.resume() }
    }
  }

  /// Engines and images are closed on their loops, by the threads that they belong to.
  func close() {
    for backend in backends {
      // Nobody else uses the backend any more.
      nonisolated(unsafe) let backend = backend
      if backend.loop === machine.mainLoop { backend.close() } else { backend.loop.execute { backend.close() } }
    }
    ioThreads.forEach { $0.stop() }
  }
}
