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
  private static let firstDiskSlot = 3
  /// Slot of the ISA bridge and of the AHCI controller; virtio disks stay below it.
  private static let chipsetSlot = 0x1f

  /// The virtio disks, as they were configured.
  private(set) var disks: [VirtioBlockDevice] = []
  /// The AHCI controller, which every machine has, as every q35 board.
  let ahci: AHCIController
  /// The backends of all drives that have one, as they were configured.
  private(set) var backends: [BlockBackend] = []
  /// What was chosen for each drive, where there was a choice.
  var notes: [String] { maker.notes + loopNotes }

  /// Each drive and what is in it, as they were configured.
  private(set) var attached: [AttachedDrive] = []
  /// The loops of the I/O threads.
  var ioLoops: [EventLoop] { ioThreads.map(\.loop) }

  private let machine: Machine
  private var nodeCount = 0
  private let maker: BackendMaker
  private var ioThreads: [IOThread] = []
  private var loopNotes: [String] = []

  /// Opens every image and puts the drives into `machine`.
  /// - Throws: `UsageError` and `SetupError` before anything is opened; errors of images and of the host.
  init(_ configuration: MachineConfiguration, in machine: Machine) throws {
    self.machine = machine
    maker = BackendMaker(memory: machine.memory)
    ahci = AHCIController(name: "ahci", memory: machine.memory, loop: machine.mainLoop)
    let ports = try AHCIPorts.assign(configuration.drives)
    let virtioCount = configuration.drives.count { $0.interface == .virtio }
    guard virtioCount <= Self.chipsetSlot - Self.firstDiskSlot else {
      throw SetupError("--drive: \(virtioCount) virtio drives do not fit on the PCI bus; 28 do")
    }
    for (drive, port) in zip(configuration.drives, ports) {
      if let port {
        try connect(drive, to: port, configuration)
      } else {
        try addVirtioDisk(drive, configuration)
      }
    }
    // After its drives: what is connected later counts as hot plug.
    machine.attach(ahci)
  }

  private func addVirtioDisk(_ drive: DriveConfiguration, _ configuration: MachineConfiguration) throws {
    var loop = machine.mainLoop
    if configuration.usesIOThreads {
      let thread = try IOThread(
        name: "io-\(drive.id)", monitor: configuration.monitor, pollNsMax: configuration.pollNsMax)
      ioThreads.append(thread)
      loop = thread.loop
    }
    let backend = try makeBackend(drive, loop: loop)
    var options = VirtioBlockOptions()
    options.queueCount = drive.queueCount
    options.queueEntries = drive.queueEntries
    let slot = UInt8(Self.firstDiskSlot + disks.count)
    let disk = try VirtioBlockDevice(
      name: drive.id, address: PCIAddress(device: slot, function: 0), backend: backend, memory: machine.memory,
      options: options)
    machine.attach(disk)
    disks.append(disk)
    note(drive, backend)
  }

  /// A controller's registers belong to the machine lock and serve all of its ports, so its drives stay on the main loop.
  private func connect(_ drive: DriveConfiguration, to port: Int, _ configuration: MachineConfiguration) throws {
    if configuration.usesIOThreads {
      loopNotes.append("drive \(drive.id): on the main loop, as every drive with if=ahci; --iothread is for if=virtio")
    }
    switch drive.media {
    case .disk:
      let backend = try makeBackend(drive, loop: machine.mainLoop)
      ahci.connect(ATADrive(backend: backend), to: port)
      note(drive, backend)
    case .cdrom:
      var options = ATAPIDriveOptions()
      options.serial = drive.serial.isEmpty ? "SPINDLE-DVD-\(port)" : drive.serial
      let backend = drive.source == .empty ? nil : try makeBackend(drive, loop: machine.mainLoop)
      let tray = ATAPIDrive(backend: backend, options: options)
      ahci.connect(tray, to: port)
      tray.onTrayMoved = { [machine, id = drive.id] isOpen in Self.tellTrayMoved(id, isOpen, machine) }
      note(drive, backend, tray: tray)
    }
  }

  /// The guest moves trays on vCPU threads, and events are the main loop's.
  private static func tellTrayMoved(_ id: String, _ isOpen: Bool, _ machine: Machine) {
    let event = MachineEvent.trayMoved(device: id, isOpen: isOpen)
    if machine.mainLoop.isOnLoop {
      machine.events.post(event)
    } else {
      machine.mainLoop.execute { machine.events.post(event) }
    }
  }

  private func note(_ drive: DriveConfiguration, _ backend: BlockBackend?, tray: ATAPIDrive? = nil) {
    let node = backend.map { backend in
      var configuration = drive
      configuration.id = nextNodeName()
      return BlockNode(configuration, isNamed: false, byteCount: backend.byteCount, backend: backend)
    }
    attached.append(AttachedDrive(drive, tray: tray, node: node))
  }

  /// A name for a node that its user has given none.
  func nextNodeName() -> String {
    defer { nodeCount += 1 }
    let digits = String(nodeCount)
    return "#block" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
  }

  /// Makes what serves a drive; `close`, or the machine's end, closes it.
  func makeBackend(
    _ drive: DriveConfiguration, loop: EventLoop, reportedAs name: String? = nil
  ) throws -> BlockBackend {
    let backend = try maker.make(drive, loop: loop)
    backends.append(backend)
    let identifier = name ?? drive.id
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

  /// Closes what serves no drive any more. Main loop's thread, on which it is.
  func close(_ backend: BlockBackend) {
    backends.removeAll { $0 === backend }
    backend.close()
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
