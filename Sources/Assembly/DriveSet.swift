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
  /// PCI slot of the first virtio disk that names none.
  var firstDiskSlot: Int { configuration.firstDiskSlot }
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
  /// Each drive and what is in it, as they were configured.
  var attached: [AttachedDrive] = []
  /// The loops of the I/O threads.
  var ioLoops: [EventLoop] { ioThreads.map(\.loop) }
  private var nodeCount = 0
  private let maker: BackendMaker
  private var ioThreads: [IOThread] = []
  // Places on the PCI bus that drives name or have.
  private var takenAddresses: Set<PCIAddress>
  private var loopNotes: [String] = []

  /// Opens every image and puts the drives into `machine`.
  /// - Throws: `UsageError` and `SetupError` before anything is opened; errors of images and of the host.
  init(_ configuration: MachineConfiguration, in machine: Machine) throws {
    self.machine = machine
    self.configuration = configuration
    maker = BackendMaker(memory: machine.memory)
    takenAddresses = try Self.addresses(of: configuration.drives)
    ahci = AHCIController(name: configuration.controllerName, memory: machine.memory, loop: machine.mainLoop)
    let ports = try AHCIPorts.assign(configuration.drives)
    let virtioCount = configuration.drives.count { $0.interface == .virtio && !$0.isOnBoard }
    let slotCount = Self.chipsetSlot - configuration.firstDiskSlot
    guard virtioCount <= slotCount else {
      throw SetupError("--drive: \(virtioCount) virtio drives do not fit on the PCI bus; \(slotCount) do")
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
    machine.events.observe { [weak self] event in
      if event == .resumed { self?.resume() }
    }
  }

  private func addVirtioDisk(_ drive: DriveConfiguration) throws {
    let onBoard = disks.count { $0.options.mmioSlot != nil }
    if drive.isOnBoard {
      // Its PCI address says nothing.
      let disk = try makeVirtioDisk(
        drive, at: PCIAddress(device: 0), mmioSlot: onBoard, startsThread: false)
      return machine.add(disk)
    }
    let address = try drive.pciAddress ?? freeAddress()
    machine.attach(try makeVirtioDisk(drive, at: address, startsThread: false))
  }

  /// Opens a drive and makes its function, which is not on the bus yet.
  /// - Parameter startsThread: the I/O thread starts now, rather than with `start`.
  func makeVirtioDisk(
    _ drive: DriveConfiguration, at address: PCIAddress, mmioSlot: Int? = nil, startsThread: Bool
  ) throws -> VirtioBlockDevice {
    var thread: IOThread?
    if drive.usesIOThread ?? configuration.usesIOThreads {
      thread = try IOThread(name: "io-\(drive.id)", monitor: configuration.monitor, pollNsMax: configuration.pollNsMax)
    }
    let backend = try makeBackend(drive, loop: thread?.loop ?? machine.mainLoop)
    var options = VirtioBlockOptions()
    options.queueCount = drive.queueCount
    options.queueEntries = drive.queueEntries
    options.interface = drive.virtioInterface
    options.mmioSlot = mmioSlot
    options.geometry = drive.geometry.map {
      VirtioBlockGeometry(
        cylinders: UInt16(clamping: $0.cylinders), heads: UInt8(clamping: $0.heads),
        sectors: UInt8(clamping: $0.sectors))
    }
    let disk = try VirtioBlockDevice(
      name: drive.deviceID ?? drive.id, address: address, backend: backend, memory: machine.memory, options: options)
    if startsThread { try thread?.start() }
    if let thread { ioThreads.append(thread) }
    disks.append(disk)
    owned[ObjectIdentifier(disk)] = Owned(backend: backend, thread: thread)
    note(drive, backend)
    return disk
  }

  /// What served a disk that has left is closed by its own way.
  func forget(_ served: Owned) {
    backends.removeAll { $0 === served.backend }
    ioThreads.removeAll { $0 === served.thread }
  }

  /// The first slot that nothing is in, and that no drive names.
  private func freeAddress() throws -> PCIAddress {
    let free = (firstDiskSlot..<Self.chipsetSlot).first { slot in
      !takenAddresses.contains { $0.device == slot }
    }
    guard let free else { throw SetupError("--drive: every slot of the PCI bus is taken; use if=ahci for some drives") }
    let address = PCIAddress(device: UInt8(free), function: 0)
    takenAddresses.insert(address)
    return address
  }

  /// Takes the places that drives name.
  private static func addresses(of drives: [DriveConfiguration]) throws(UsageError) -> Set<PCIAddress> {
    var taken: Set<PCIAddress> = []
    for drive in drives {
      guard let address = drive.pciAddress else { continue }
      guard address.device > 0, address.device < chipsetSlot, taken.insert(address).inserted else {
        throw UsageError("--drive: addr=\(address) of drive \(drive.id) is taken; choose another slot from 1 to 1e")
      }
    }
    return taken
  }

  /// A controller's registers belong to the machine lock and serve all of its ports, so its drives stay on the main loop.
  private func connect(_ drive: DriveConfiguration, to port: Int, _ configuration: MachineConfiguration) throws {
    if configuration.usesIOThreads {
      loopNotes.append("drive \(drive.id): on the main loop, as every drive with if=ahci; --iothread is for if=virtio")
    }
    switch drive.media {
    case .disk:
      var options = ATADriveOptions()
      options.geometry = drive.geometry
      if let version = drive.firmwareVersion { options.firmware = version }
      let backend = try makeBackend(drive, loop: machine.mainLoop)
      ahci.connect(ATADrive(backend: backend, options: options), to: port)
      note(drive, backend)
    case .cdrom:
      var options = ATAPIDriveOptions()
      if let version = drive.firmwareVersion { options.firmware = version }
      options.serial = drive.serial.isEmpty ? "SPINDLE-DVD-\(port)" : drive.serial
      let backend = drive.source == .empty ? nil : try makeBackend(drive, loop: machine.mainLoop)
      let tray = ATAPIDrive(backend: backend, options: options)
      ahci.connect(tray, to: port)
      tray.onTrayMoved = { [machine, id = drive.deviceID ?? drive.id] isOpen in Self.tellTrayMoved(id, isOpen, machine)
      }
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
      configuration.id = drive.nodeName ?? nextNodeName()
      return BlockNode(configuration, isNamed: drive.nodeName != nil, byteCount: backend.byteCount, backend: backend)
    }
    attached.append(AttachedDrive(drive, tray: tray, node: node))
  }

  /// A disk came while the machine runs.
  /// - Parameter node: what it serves, which stays when the disk goes; nil for what goes with it.
  func plugged(_ deviceID: String, serving node: BlockNode?) {
    guard let drive = attached.last(where: { $0.deviceID == deviceID }) else { return }
    drive.isHotPlugged = true
    guard let node else { return }
    node.backend = drive.node?.backend
    drive.node = node
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
    DriveErrors.watch(backend, drive: name ?? drive.id, of: machine, announcesStops: configuration.announcesStops)
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
