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
      case .id(let id): drive.deviceID == id || drive.deviceID == QEMUIdentifier.device(ofPath: id)
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
    guard !isInUse(node) else { throw ControlError("Node '\(name)' is already in use") }
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
    // Limits are the drive's, whatever is in it.
    configuration.limits = drive.limits
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
    try addNode(configuration, locks: true)
  }

  /// - Parameter locks: whether others who write the image are in the way.
  func addNode(_ configuration: DriveConfiguration, locks: Bool) throws(ControlError) {
    try checkNew(configuration.id)
    namedNodes.append(try open(configuration, isNamed: true, locks: locks))
  }

  /// Makes a node that stands on another one, whose bytes it has.
  public func addNode(named name: String, over lower: String, isReadOnly: Bool) throws(ControlError) {
    try checkNew(name)
    guard let node = namedNodes.first(where: { $0.configuration.id == lower }) else {
      throw ControlError("Cannot find device='\(lower)' nor node-name='\(lower)'")
    }
    guard !isInUse(node) else { throw ControlError("Node '\(lower)' is already in use") }
    var configuration = node.configuration
    configuration.id = name
    configuration.isReadOnly = configuration.isReadOnly || isReadOnly
    let upper = BlockNode(configuration, isNamed: true, byteCount: node.byteCount)
    upper.lower = node
    namedNodes.append(upper)
  }

  /// Whether a drive has a node, or another node stands on it.
  func isInUse(_ node: BlockNode) -> Bool {
    node.backend != nil || namedNodes.contains { $0.lower === node } || spares.contains { $0.node === node }
  }

  private func checkNew(_ name: String) throws(ControlError) {
    guard !allNodes.contains(where: { $0.configuration.id == name }) else {
      throw ControlError("Duplicate nodes with node-name='\(name)'")
    }
    guard !drives.contains(where: { $0.name == name }) else {
      throw ControlError("node-name=\(name) is conflicting with a device id")
    }
  }

  /// Takes a node away that is in no drive.
  public func removeNode(named name: String) throws(ControlError) {
    guard let node = allNodes.first(where: { $0.configuration.id == name }) else {
      throw ControlError("Failed to find node with node-name='\(name)'")
    }
    guard !isInUse(node) else { throw ControlError("Node \(name) is in use") }
    namedNodes.removeAll { $0 === node }
  }

  func open(
    _ configuration: DriveConfiguration, isNamed: Bool, locks: Bool = true
  ) throws(ControlError) -> BlockNode {
    let byteCount: UInt64
    switch configuration.source {
    case .null(let size, _), .memory(let size): byteCount = size
    case .empty: throw ControlError("A node needs a file")
    case .file(let path):
      // Read-only: other users of the image are told of a writer when it is put to use, not before.
      do throws(ImageError) {
        byteCount = try ImageFile.open(
          path: path, cache: configuration.cache, readOnly: true, locks: locks && configuration.locksImage
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
    let found: BlockBackend
    do throws(ControlError) { found = try backend(toResize: drive, node, byteCount) } catch { return done(error) }
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

  private func backend(
    toResize drive: String?, _ node: String?, _ byteCount: UInt64
  ) throws(ControlError) -> BlockBackend {
    guard let found = backend(drive: drive, node: node) else {
      if let drive, attachedDrive(drive) != nil { throw ControlError("Device '\(drive)' has no medium") }
      if let node, allNodes.contains(where: { $0.configuration.id == node }) {
        throw ControlError("Node '\(node)' is in no drive; change the length of its image beside the machine")
      }
      throw ControlError("Cannot find device='\(drive ?? "")' nor node-name='\(node ?? "")'")
    }
    guard byteCount >= BlockBackend.sectorBytes, byteCount % BlockBackend.sectorBytes == 0 else {
      throw ControlError("Could not resize: \(byteCount) bytes are not whole sectors of 512, at least one")
    }
    return found
  }

  /// Limits the speed of a drive, whatever is in it; it has its limits when `done` is called.
  public func setLimits(
    of reference: DriveReference, to limits: ThrottleLimits, done: @escaping () -> Void
  ) throws(ControlError) {
    let drive = try find(reference)
    guard let backend = drive.node?.backend else { throw ControlError("Device '\(reference.name)' has no medium") }
    drive.limits = limits
    if backend.loop === loop {
      backend.setLimits(limits)
      return done()
    }
    let (mainLoop, distant) = (loop, DistantBackend(backend: backend))
    // Made and called on the main loop.
    nonisolated(unsafe) let answer = done
    backend.loop.execute {
      distant.backend.setLimits(limits)
      mainLoop.execute { answer() }
    }
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

  /// Makes requests of all drives that wait for time go on.
  public func letWaitingGo() {
    for backend in assembled.drives.attached.compactMap({ $0.node?.backend }) {
      let distant = DistantBackend(backend: backend)
      if backend.loop === loop {
        backend.letWaitingGo()
      } else {
        backend.loop.execute { distant.backend.letWaitingGo() }
      }
    }
  }

  func backend(drive: String?, node: String?) -> BlockBackend? {
    if let backend = drive.flatMap({ attachedDrive($0) })?.node?.backend { return backend }
    return allNodes.first { $0.configuration.id == node }?.backend
  }

  private func attachedDrive(_ name: String) -> AttachedDrive? {
    assembled.drives.attached.first {
      ($0.name == name && name != "") || $0.deviceID == QEMUIdentifier.device(ofPath: name)
    }
  }
}
