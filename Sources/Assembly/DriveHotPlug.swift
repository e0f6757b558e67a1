// SPDX-License-Identifier: Apache-2.0
// Virtio disks that come and go while the machine runs.
import Block
import EventLoop
import Machine
import VirtioBlock

extension AssembledMachine {
  /// Opens a drive and puts it behind a virtio-blk function of its own, which the guest finds at once.
  ///
  /// Main loop's thread with the machine lock held, as every call here; or before the machine runs.
  /// - Parameter address: where; nil for the first slot that is free.
  /// - Throws: `SetupError` where name or address is taken or the drive is not one for virtio; errors of the image.
  @discardableResult
  public func plugVirtioDisk(_ drive: DriveConfiguration, at address: PCIAddress? = nil) throws -> VirtioBlockDevice {
    try drives.plug(drive, at: address, into: hotPlug)
  }

  /// Puts a virtio-blk function in front of a backend that its caller made and closes, after `deviceDeleted` has told that
  /// the function is gone.
  /// - Throws: `SetupError` where name or address is taken; errors of the host.
  @discardableResult
  public func plugVirtioDisk(
    named name: String, serving backend: BlockBackend, options: VirtioBlockOptions = VirtioBlockOptions(),
    at address: PCIAddress? = nil
  ) throws -> VirtioBlockDevice {
    try drives.plug(named: name, serving: backend, options: options, at: address, into: hotPlug)
  }

  /// Asks the guest to let a virtio disk go, or an AHCI controller that may leave. It leaves the machine when the guest has
  /// ejected its slot (or begins anew) and its requests are done; `MachineEvent.deviceDeleted` tells that.
  /// - Throws: `SetupError` where there is no such device, it cannot leave, or it leaves already.
  public func unplug(_ name: String) throws(SetupError) {
    if name == ahci.name {
      if hotPlug.isUnplugRequested(ahci) { throw SetupError("controller \(name) is being unplugged already") }
      if !hotPlug.requestUnplug(ahci) { throw SetupError("controller \(name) belongs to the board, and stays") }
      return
    }
    guard let disk = disks.first(where: { $0.name == name }) else { throw SetupError("there is no disk named \(name)") }
    if disk.options.mmioSlot != nil { throw SetupError("disk \(name) is not on the PCI bus and cannot be unplugged") }
    if hotPlug.isUnplugRequested(disk) || !hotPlug.requestUnplug(disk) {
      throw SetupError("disk \(name) is being unplugged already")
    }
  }
}

extension DriveSet {
  func plug(_ drive: DriveConfiguration, at address: PCIAddress?, into hotPlug: PCIHotPlug) throws -> VirtioBlockDevice
  {
    guard drive.interface == .virtio, !drive.isOnBoard else {
      throw SetupError("drive \(drive.id): only if=virtio can be plugged into a running machine")
    }
    let address = try freeAddress(address, name: drive.id)
    let disk = try makeVirtioDisk(drive, at: address, startsThread: true)
    hotPlug.plug(disk)
    return disk
  }

  func plug(
    named name: String, serving backend: BlockBackend, options: VirtioBlockOptions, at address: PCIAddress?,
    into hotPlug: PCIHotPlug
  ) throws -> VirtioBlockDevice {
    let disk = try VirtioBlockDevice(
      name: name, address: try freeAddress(address, name: name), backend: backend, memory: machine.memory,
      options: options)
    disks.append(disk)
    hotPlug.plug(disk)
    return disk
  }

  private func freeAddress(_ wanted: PCIAddress?, name: String) throws(SetupError) -> PCIAddress {
    if machine.device(named: name) != nil { throw SetupError("there is a device named \(name) already") }
    if let wanted {
      if machine.pci.function(at: wanted) != nil { throw SetupError("PCI address \(wanted) is taken") }
      // A slot is plugged and ejected as a whole.
      if wanted.function != 0 { throw SetupError("PCI address \(wanted): a disk is plugged as function 0 of its slot") }
      return wanted
    }
    for slot in firstDiskSlot..<Self.chipsetSlot {
      let address = PCIAddress(device: UInt8(slot))
      if machine.pci.function(at: address) == nil { return address }
    }
    throw SetupError("the PCI bus is full")
  }

  /// A disk, or the AHCI controller, has left the machine: closes what served it, where that was opened here. Main loop,
  /// machine lock held.
  func left(_ function: PCIFunction) {
    if function === ahci { return controllerLeft() }
    guard let disk = disks.first(where: { $0 === function }) else { return }
    disks.removeAll { $0 === disk }
    // A node that its user has made is free for another device.
    for drive in attached where drive.deviceID == disk.name {
      if let node = drive.node { node.byteCount = node.backend?.byteCount ?? node.byteCount }
      drive.node?.backend = nil
    }
    attached.removeAll { $0.deviceID == disk.name }
    guard let served = owned.removeValue(forKey: ObjectIdentifier(disk)) else { return }
    forget(served)
    // Nobody else uses the backend any more; the queues stay until it has closed.
    nonisolated(unsafe) let backend = served.backend
    guard let thread = served.thread else { return backend.close() }
    backend.loop.execute { withExtendedLifetime(disk) { backend.close() } }
    thread.stop()
  }

  private func controllerLeft() {
    // The controller stays ours; its drives, and what they hold open, go.
    for port in AHCIPorts.all where ahci.hasDevice(port: port) { ahci.disconnect(port: port) }
    let gone = attached.filter { $0.configuration.interface == .ahci }
    attached.removeAll { $0.configuration.interface == .ahci }
    for drive in gone {
      guard let node = drive.node, let backend = node.backend else { continue }
      node.backend = nil
      close(backend)
    }
  }
}
