// SPDX-License-Identifier: Apache-2.0
// Drives and nodes that no device uses yet, and devices that take them.
import Block
import Machine

/// A drive that no device uses yet, and what is in it. Main loop's thread.
struct SpareDrive {
  let configuration: DriveConfiguration
  /// nil for an empty drive.
  let node: BlockNode?

  var report: DriveReport {
    DriveReport(name: configuration.id, deviceID: "", model: "", medium: node?.report)
  }
}

extension MachineControl {
  /// Takes a drive or node that was described before the machine ran and that no device uses. Before the machine runs.
  /// - Parameter isLower: another node stands on it, which may have its image open for writing.
  /// - Throws: why its image cannot be used.
  public func addSource(_ source: DriveConfiguration, isLower: Bool) throws(ControlError) {
    if source.nodeName == source.id { return try addNode(source, locks: !isLower) }
    try addDrive(source, locks: false)
  }

  /// Says which node stands on which, by their names. Before the machine runs.
  public func connectNodes(_ lowers: [String: String]) {
    for node in namedNodes {
      guard let name = lowers[node.configuration.id] else { continue }
      node.lower = namedNodes.first { $0.configuration.id == name }
    }
  }

  /// Makes a drive that a device may be given; its image is opened for a moment, to see that it is there.
  public func addDrive(_ drive: DriveConfiguration) throws(ControlError) { try addDrive(drive, locks: true) }

  private func addDrive(_ drive: DriveConfiguration, locks: Bool) throws(ControlError) {
    guard !drives.contains(where: { $0.name == drive.id }) else {
      throw ControlError("Duplicate ID '\(drive.id)' for drive")
    }
    guard !allNodes.contains(where: { $0.configuration.id == drive.id }) else {
      throw ControlError("Device name '\(drive.id)' conflicts with an existing node name")
    }
    var node: BlockNode?
    if drive.source != .empty {
      var configuration = drive
      configuration.id = drive.nodeName ?? assembled.drives.nextNodeName()
      node = try open(configuration, isNamed: drive.nodeName != nil, locks: locks)
    }
    spares.append(SpareDrive(configuration: drive, node: node))
  }

  /// Takes a drive away that no device uses.
  public func removeDrive(named name: String) throws(ControlError) {
    if let drive = assembled.drives.attached.first(where: { $0.name == name && !name.isEmpty }) {
      throw ControlError("Device '\(name)' is in use by '\(drive.deviceID)'; unplug that, and the drive goes with it")
    }
    guard spares.contains(where: { $0.configuration.id == name }) else { throw .noDevice(name) }
    spares.removeAll { $0.configuration.id == name }
  }

  // MARK: Devices that take them

  /// Plugs a device in.
  public func addDevice(model: String, options: [String: String]) throws(ControlError) {
    let models = ["virtio-blk-pci", "virtio-blk-pci-non-transitional", "virtio-blk-pci-transitional"]
    guard models.contains(model) else { throw ControlError("'\(model)' is not a device that can be plugged in") }
    var options = options
    guard let source = options.removeValue(forKey: "drive") else { throw ControlError("drive property not set") }
    var drive = try takeSource(source)
    drive.interface = .virtio
    drive.deviceID = options.removeValue(forKey: "id")
    if let id = drive.deviceID, !QEMUIdentifier.isWellFormed(id) {
      throw ControlError("Parameter 'id' expects an identifier")
    }
    drive.virtioInterface = model == "virtio-blk-pci-non-transitional" ? .modern : .transitional
    drive.serial = options.removeValue(forKey: "serial") ?? drive.serial
    if let text = options.removeValue(forKey: "addr") {
      guard let address = DriveConfiguration.address(text) else {
        throw ControlError("Property 'addr' doesn't take value '\(text)'")
      }
      drive.pciAddress = address
    }
    if let bus = options.removeValue(forKey: "bus"), !Self.buses.contains(bus) {
      throw ControlError("Bus '\(bus)' not found")
    }
    if let other = options.keys.sorted().first { throw ControlError("Property '\(model).\(other)' not found") }
    let node = namedNodes.first { $0.configuration.id == source }
    if node != nil {
      drive.nodeName = source
      drive.hasName = false
    }
    do {
      try assembled.plugVirtioDisk(drive, at: drive.pciAddress)
    } catch {
      throw ControlError("\(error)")
    }
    assembled.drives.plugged(drive.deviceID ?? drive.id, serving: node)
    spares.removeAll { $0.configuration.id == source }
  }

  /// What a device that is plugged in is to have: a drive that no device uses, or a node.
  private func takeSource(_ name: String) throws(ControlError) -> DriveConfiguration {
    if let spare = spares.first(where: { $0.configuration.id == name }) {
      if spare.node == nil { throw ControlError("Device needs media, but drive is empty") }
      return spare.configuration
    }
    if assembled.drives.attached.contains(where: { $0.name == name && !name.isEmpty }) {
      throw ControlError("Drive '\(name)' is already in use by another device")
    }
    guard let node = allNodes.first(where: { $0.configuration.id == name }) else {
      throw ControlError("Property 'virtio-blk-device.drive' can't find value '\(name)'")
    }
    guard !isInUse(node) else { throw ControlError("Drive '\(name)' is already in use by another device") }
    var configuration = node.configuration
    // That was the place of the device that had it before.
    configuration.pciAddress = nil
    return configuration
  }
}
