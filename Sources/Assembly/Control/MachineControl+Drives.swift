// SPDX-License-Identifier: Apache-2.0
// Drives while the machine runs: what they are, their trays, what is in them.
import AHCI
import Block
import HostSystem
import Machine

extension MachineControl {
  /// The drives, as they were configured; then those that no device uses.
  public var drives: [DriveReport] { assembled.drives.attached.map(\.report) + spares.map(\.report) }

  /// How the drives that have a device were described, and where those on the PCI bus are. A device that leaves is on no bus.
  public var attachedDrives: [(configuration: DriveConfiguration, address: PCIAddress?)] {
    assembled.drives.attached.map { drive in
      let disk = assembled.disks.first { $0.name == drive.deviceID }
      return (drive.configuration, disk.flatMap { machine.pci.function(at: $0.address) === $0 ? $0.address : nil })
    }
  }

  /// Everything that is in a drive or could be put into one.
  public var nodes: [NodeReport] { allNodes.map(\.report) }

  var allNodes: [BlockNode] {
    let inDrives = assembled.drives.attached.compactMap(\.node) + spares.compactMap(\.node)
    return inDrives + namedNodes.filter { named in !inDrives.contains { $0 === named } }
  }

  private func find(_ reference: DriveReference) throws(ControlError) -> AttachedDrive {
    let found = assembled.drives.attached.first { drive in
      switch reference {
      case .device(let name): drive.name == name && !name.isEmpty
      case .id(let id): drive.deviceID == id
      }
    }
    guard let found else { throw .noDevice(reference.name) }
    return found
  }

  private func findTray(_ reference: DriveReference) throws(ControlError) -> (AttachedDrive, ATAPIDrive) {
    let drive = try find(reference)
    guard let tray = drive.tray else { throw ControlError("Device '\(reference.name)' is not removable") }
    return (drive, tray)
  }

  // MARK: Trays

  /// Opens a tray; one that is open stays so.
  public func openTray(of reference: DriveReference, force: Bool) throws(ControlError) {
    let (_, tray) = try findTray(reference)
    do throws(ATAPITrayError) { try tray.openTray(force: force) } catch {
      throw Self.error(error, reference.name)
    }
  }

  /// Closes a tray; one that is closed stays so.
  public func closeTray(of reference: DriveReference) throws(ControlError) { try findTray(reference).1.closeTray() }

  private static func error(_ error: ATAPITrayError, _ name: String) -> ControlError {
    switch error {
    case .locked: .locked(name)
    case .trayClosed: ControlError("Tray of device '\(name)' is not open")
    case .occupied: ControlError("There already is a medium in device '\(name)'")
    case .empty: ControlError("Device '\(name)' has no medium")
    case .busy: ControlError("Device '\(name)' is being read")
    }
  }

  // MARK: Media

  /// Takes what is on the open tray; an empty tray stays so. Runs the loop until no read is under way.
  public func removeMedium(of reference: DriveReference) throws(ControlError) {
    let (drive, tray) = try findTray(reference)
    guard tray.isTrayOpen else { throw Self.error(.trayClosed, reference.name) }
    guard let node = drive.node, let backend = node.backend else { return }
    // The guest finds the tray open, so nothing new comes while the loop runs.
    backend.drainBegan()
    backend.drain()
    backend.drainEnded()
    do throws(ATAPITrayError) { try tray.removeMedium() } catch { throw Self.error(error, reference.name) }
    drive.node = nil
    node.backend = nil
    node.byteCount = backend.byteCount
    assembled.drives.close(backend)
  }

  /// Puts a node on the open tray.
  public func insertMedium(node name: String, into reference: DriveReference) throws(ControlError) {
    let (drive, tray) = try findTray(reference)
    guard let node = allNodes.first(where: { $0.configuration.id == name }) else {
      throw ControlError("Node '\(name)' not found")
    }
    guard node.backend == nil else { throw ControlError("Node '\(name)' is already in use") }
    try put(node, into: drive, tray, reference.name)
  }

  /// Puts another image into a drive: opens its tray, changes the medium, closes it.
  public func changeMedium(
    of reference: DriveReference, to image: DriveConfiguration, force: Bool
  ) throws(ControlError) {
    let (drive, tray) = try findTray(reference)
    // A mistake in the image's name must not cost the medium that is there.
    var configuration = image
    configuration.id = assembled.drives.nextNodeName()
    let node = try open(configuration, isNamed: false)
    try openTray(of: reference, force: force)
    try removeMedium(of: reference)
    try put(node, into: drive, tray, reference.name)
    tray.closeTray()
  }

  private func put(
    _ node: BlockNode, into drive: AttachedDrive, _ tray: ATAPIDrive, _ name: String
  ) throws(ControlError) {
    guard tray.isTrayOpen else { throw Self.error(.trayClosed, name) }
    guard drive.node == nil else { throw Self.error(.occupied, name) }
    var configuration = node.configuration
    configuration.isReadOnly = true
    configuration.interface = .ahci
    configuration.media = .cdrom
    let backend: BlockBackend
    do {
      backend = try assembled.drives.makeBackend(configuration, loop: loop, reportedAs: drive.name)
    } catch {
      throw ControlError("Could not open '\(node.report.filename)': \(Self.reason(error))")
    }
    do throws(ATAPITrayError) { try tray.insert(backend) } catch {
      assembled.drives.close(backend)
      throw Self.error(error, name)
    }
    node.backend = backend
    drive.node = node
  }

  // MARK: Nodes

  /// Makes a node; its image is opened for a moment, to see that it is there.
  public func addNode(_ configuration: DriveConfiguration) throws(ControlError) {
    let name = configuration.id
    guard !allNodes.contains(where: { $0.configuration.id == name }) else {
      throw ControlError("Duplicate nodes with node-name='\(name)'")
    }
    guard !drives.contains(where: { $0.name == name }) else {
      throw ControlError("node-name=\(name) is conflicting with a device id")
    }
    namedNodes.append(try open(configuration, isNamed: true))
  }

  /// Takes a node away that is in no drive.
  public func removeNode(named name: String) throws(ControlError) {
    guard let node = allNodes.first(where: { $0.configuration.id == name }) else {
      throw ControlError("Failed to find node with node-name='\(name)'")
    }
    guard node.backend == nil, !spares.contains(where: { $0.node === node }) else {
      throw ControlError("Node \(name) is in use")
    }
    namedNodes.removeAll { $0 === node }
  }

  func open(_ configuration: DriveConfiguration, isNamed: Bool) throws(ControlError) -> BlockNode {
    let byteCount: UInt64
    switch configuration.source {
    case .null(let size, _), .memory(let size): byteCount = size
    case .empty: throw ControlError("A node needs a file")
    case .file(let path):
      // Read-only: other users of the image are told of a writer when it is put to use, not before.
      do throws(ImageError) {
        byteCount = try ImageFile.open(
          path: path, cache: configuration.cache, readOnly: true, locks: configuration.locksImage
        ).byteCount
      } catch {
        throw ControlError("Could not open '\(path)': \(Self.reason(error))")
      }
    }
    return BlockNode(configuration, isNamed: isNamed, byteCount: byteCount)
  }

  private static func reason(_ error: any Error) -> String {
    switch error {
    case ImageError.cannotOpen(_, let cause): SystemError.text(of: cause.code)
    default: "\(error)"
    }
  }

  // MARK: Sizes and speeds

  /// Changes the size of what is in a drive, or of a node.
  public func resize(
    drive: String?, node: String?, to byteCount: UInt64, done: @escaping (ControlError?) -> Void
  ) {
    guard let found = backend(drive: drive, node: node) else {
      return done(ControlError("Cannot find device='\(drive ?? "")' nor node-name='\(node ?? "")'"))
    }
    let mainLoop = loop
    // Each is used on its own loop only.
    nonisolated(unsafe) let backend = found
    nonisolated(unsafe) let answer = done
    backend.loop.execute {
      var failure: ControlError?
      do throws(SystemError) { try backend.resize(to: byteCount) } catch {
        failure = ControlError("Could not resize: \(SystemError.text(of: error.code))")
      }
      let told = failure
      mainLoop.execute { answer(told) }
    }
  }

  /// Limits the speed of a drive.
  public func setThrottle(of reference: DriveReference, to limits: DriveThrottle) throws(ControlError) {
    guard try find(reference).node != nil else { throw ControlError("Device '\(reference.name)' has no medium") }
    if limits != DriveThrottle() { throw ControlError("Drives have no throttle that could be changed") }
  }

  // MARK: Counts and transfers

  /// Gives the counts of every drive; each comes from the loop that the drive is on.
  public func statistics(_ answer: @escaping ([DriveStatistics]) -> Void) {
    let drives = assembled.drives.attached
    let spares = spares.map {
      DriveStatistics(name: $0.configuration.id, deviceID: "", counts: BlockStatistics())
    }
    let collector = StatisticsCollector(drives: drives) { answer($0 + spares) }
    for (index, drive) in drives.enumerated() {
      guard let backend = drive.node?.backend, backend.loop !== loop else {
        collector.take(index, drive.node?.backend?.statistics ?? BlockStatistics())
        continue
      }
      let (mainLoop, distant) = (loop, DistantBackend(backend: backend))
      backend.loop.execute {
        let counts = distant.backend.statistics
        mainLoop.execute { collector.take(index, counts) }
      }
    }
    collector.finishIfComplete()
  }

  /// Reads or writes beside the guest.
  public func transfer(
    _ transfer: HostTransfer, drive: String, done: @escaping (Result<[UInt8], ControlError>) -> Void
  ) {
    guard let backend = backend(drive: drive, node: drive) else {
      return done(.failure(ControlError("Cannot find device='' nor node-name='\(drive)'")))
    }
    HostTransferRun(transfer, backend: backend, mainLoop: loop, done: done).start()
  }

  func backend(drive: String?, node: String?) -> BlockBackend? {
    let found = assembled.drives.attached.first { ($0.name == drive && drive != "") || $0.deviceID == drive }
    return found?.node?.backend ?? allNodes.first { $0.configuration.id == node }?.backend
  }
}
