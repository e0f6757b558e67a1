// SPDX-License-Identifier: Apache-2.0

/// A PCI function: configuration space, base address registers, capabilities and interrupts of a device.
///
/// A subclass adds BARs and capabilities in its initialiser; the machine is there after `Machine.attach`. Everything is
/// guarded by the machine lock, except `msi` and `msix`, which any thread may `notify`.
open class PCIFunction: Device {
  /// Where the function is on bus 0.
  public let address: PCIAddress
  /// What the function says it is.
  public let identity: PCIIdentity
  /// The configuration space; a subclass defines bytes of its own in it.
  public final var configuration = PCIConfigurationSpace()
  /// The MSI-X table, where the function has one.
  public private(set) final var msix: MSIX?
  /// The MSI capability, where the function has one.
  public private(set) final var msi: MSI?

  /// Whether the guest lets the function reach guest memory and send messages (PCI 3.0, section 6.2.2). Machine lock held.
  ///
  /// Messages wait for it or are lost without the device's help; memory is the device's to leave alone.
  public private(set) final var isBusMaster = false

  private(set) final var registers: [PCIBaseAddressRegister] = []
  private var msixOffset = 0
  private var msiOffset = 0
  private var lastCapability: Int?
  // Which bytes from the header's end on belong to a capability.
  private var capabilityBytes = Set<Int>()
  // The level that the device asks for; the pin follows it where the command register lets it.
  private var wantsInterrupt = false
  private var drivesPin = false

  /// Makes a function whose header shows `identity`.
  public init(name: String, address: PCIAddress, identity: PCIIdentity) {
    self.address = address
    self.identity = identity
    super.init(name: name)
    defineHeader()
  }

  private func defineHeader() {
    configuration.define(PCIRegister.vendor, UInt32(identity.device) << 16 | UInt32(identity.vendor))
    configuration.define(
      PCIRegister.command, UInt16(0),
      writeMask: PCICommand.io | PCICommand.memory | PCICommand.master | PCICommand.systemError
        | PCICommand.interruptDisable)
    configuration.defineWriteOneToClear(PCIRegister.status, PCIStatus.errors)
    configuration.define(PCIRegister.revision, identity.classCode << 8 | UInt32(identity.revision))
    configuration.define(PCIRegister.cacheLine, UInt8(0), writeMask: 0xff)
    configuration.define(PCIRegister.subsystem, UInt32(identity.subsystem) << 16 | UInt32(identity.subsystemVendor))
    configuration.define(PCIRegister.interrupt, bytes: [0, identity.interruptPin], writeMask: [0xff])
  }

  // MARK: What a subclass adds

  /// Adds a base address register that maps `block` where the guest puts it.
  /// - Parameters:
  ///   - index: 0 to 5; a 64-bit register takes the next one too.
  ///   - byteCount: a power of two; at least 4 and at most 256 for ports, at least 16 for memory.
  public final func addBAR(_ index: Int, kind: BARKind, byteCount: UInt64, block: RegisterBlock) {
    precondition(byteCount.nonzeroBitCount == 1, "a BAR's size is a power of two")
    precondition(kind.isIO ? (4...256).contains(byteCount) : byteCount >= 16, "a BAR's size is out of range")
    precondition(kind.is64Bit || byteCount <= 1 << 31, "a BAR's size is out of range")
    precondition(index >= 0 && index + (kind.is64Bit ? 1 : 0) < PCIBaseAddressRegister.registersMax, "no such BAR")
    let taken = registers.contains { other in
      (other.index...other.index + (other.kind.is64Bit ? 1 : 0)).overlaps(index...index + (kind.is64Bit ? 1 : 0))
    }
    precondition(!taken, "the BAR is taken")
    let register = PCIBaseAddressRegister(index: index, kind: kind, byteCount: byteCount, block: block)
    register.define(in: &configuration)
    registers.append(register)
  }

  /// Adds a capability at the end of the list (PCI 3.0, section 6.7), so that the first one added is the first found.
  /// - Parameters:
  ///   - bytes: what follows the two bytes of id and link.
  ///   - writeMask: the bits of `bytes` that a guest can write; missing bytes are read-only.
  ///   - offset: where the capability is to be, a multiple of 4 from 0x40 on; by default the first room for it.
  /// - Returns: the capability's offset in configuration space.
  @discardableResult
  public final func addCapability(id: UInt8, bytes: [UInt8], writeMask: [UInt8] = [], at offset: Int? = nil) -> Int {
    let byteCount = bytes.count + 2
    let candidates = stride(from: PCIRegister.headerEnd, to: PCIConfigurationSpace.byteCount - byteCount + 1, by: 4)
    let free = candidates.first { candidate in
      (offset ?? candidate) == candidate && capabilityBytes.isDisjoint(with: candidate..<candidate + byteCount)
    }
    guard let start = free else { preconditionFailure("no room for the capability") }
    capabilityBytes.formUnion(start..<start + byteCount)
    configuration.define(start, bytes: [id, 0] + bytes, writeMask: [0, 0] + writeMask)
    if let last = lastCapability {
      configuration.define(last + 1, UInt8(start))
    } else {
      configuration.define(PCIRegister.capabilities, UInt8(start))
      configuration.define(PCIRegister.status, PCIStatus.capabilities)
    }
    lastCapability = start
    return start
  }

  /// Adds an MSI-X capability (PCI 3.0, section 6.8.2) whose table and pending bits lie over a memory BAR.
  ///
  /// Where the BAR does not exist, a 32-bit one of its own is made, large enough, in which all else reads as 0.
  /// - Parameters:
  ///   - vectorCount: 1 to 2048.
  ///   - tableOffset: where the table begins in the BAR, a multiple of 8.
  ///   - pendingOffset: where the pending bits begin in the BAR, a multiple of 8.
  public final func addMSIX(vectorCount: Int, bar: Int, tableOffset: UInt64, pendingOffset: UInt64) {
    precondition(msix == nil, "a function has one MSI-X capability")
    precondition((tableOffset | pendingOffset) % 8 == 0, "the table is aligned")
    let table = MSIX(vectorCount: vectorCount)
    let end = max(tableOffset + table.tableBytes, pendingOffset + table.pendingBytes)
    if !registers.contains(where: { $0.index == bar }) {
      let byteCount = max(UInt64(4096), 1 << UInt64(UInt64.bitWidth - (end - 1).leadingZeroBitCount))
      addBAR(bar, kind: .memory32, byteCount: byteCount, block: ZeroBlock())
    }
    guard let register = registers.first(where: { $0.index == bar }), !register.kind.isIO, end <= register.byteCount
    else { preconditionFailure("the MSI-X table does not fit its BAR") }
    register.overlays += [
      BAROverlay(offset: tableOffset, byteCount: table.tableBytes, block: MSIXTableBlock(table, function: self)),
      BAROverlay(offset: pendingOffset, byteCount: table.pendingBytes, block: MSIXPendingBlock(table)),
    ]
    let links = [tableOffset, pendingOffset].flatMap { (UInt32($0) | UInt32(bar)).littleEndianBytes }
    msixOffset = addCapability(
      id: PCICapability.msix, bytes: UInt16(vectorCount - 1).littleEndianBytes + links,
      writeMask: [0, UInt8(MSIX.Control.writable >> 8)])
    msix = table
  }

  /// Adds an MSI capability for one vector, 64-bit addresses and no mask bits (PCI 3.0, section 6.8.1).
  /// - Parameter offset: where the capability is to be, a multiple of 4 from 0x40 on; by default the first room for it.
  public final func addMSI(at offset: Int? = nil) {
    precondition(msi == nil, "a function has one MSI capability")
    let control = MSI.Control.is64Bit.littleEndianBytes
    let writable =
      MSI.Control.enable.littleEndianBytes + MSI.addressMask.littleEndianBytes + UInt32.max.littleEndianBytes
      + UInt16.max.littleEndianBytes
    let zeroes = [UInt8](repeating: 0, count: MSI.Register.byteCount - MSI.Register.address)
    msiOffset = addCapability(id: PCICapability.msi, bytes: control + zeroes, writeMask: writable, at: offset)
    msi = MSI()
  }

  // MARK: The guest's accesses

  /// Reads `width` bytes (1, 2 or 4) of configuration space; 0 beyond its end. Machine lock held.
  open func configurationRead(offset: Int, width: Int) -> UInt32 { configuration.read(offset: offset, width: width) }

  /// Writes `width` bytes (1, 2 or 4) of configuration space, where the guest may, and does what follows from it: maps
  /// and unmaps BARs, follows MSI and MSI-X, changes the interrupt pin. Machine lock held.
  open func configurationWrite(offset: Int, width: Int, value: UInt32) {
    guard offset >= 0, offset < PCIConfigurationSpace.byteCount else { return }
    configuration.write(offset: offset, width: width, value: value)
    let touched = offset..<offset + width
    let bars = PCIBaseAddressRegister.firstOffset..<PCIBaseAddressRegister.firstOffset + 24
    if touched.overlaps(PCIRegister.command..<PCIRegister.command + 2) || touched.overlaps(bars) { updateMappings() }
    if touched.overlaps(PCIRegister.command..<PCIRegister.command + 2) {
      updatePin()
      updateBusMaster()
    }
    if msix != nil, touched.overlaps(msixOffset + 2..<msixOffset + 4) { updateMSIX() }
    if msi != nil, touched.overlaps(msiOffset + MSI.Register.control..<msiOffset + MSI.Register.byteCount) {
      updateMSI()
    }
  }

  /// A BAR answers at `address` from now on: a subclass maps its doorbells. Machine lock held.
  open func barMapped(_ index: Int, at address: UInt64) {}

  /// A BAR does not answer any more: a subclass unmaps its doorbells. Machine lock held.
  open func barUnmapped(_ index: Int) {}

  /// Where a BAR answers now; nil where it does not. Machine lock held.
  public final func barAddress(_ index: Int) -> UInt64? { registers.first { $0.index == index }?.mappedAddress }

  /// Sets the command register's bus master bit for a driver that does not. Machine lock held.
  public final func becomeBusMaster() {
    let command = configuration.load(UInt16.self, at: PCIRegister.command) | PCICommand.master
    configurationWrite(offset: PCIRegister.command, width: 2, value: UInt32(command))
  }

  /// `isBusMaster` has changed: a subclass goes on, or takes nothing new from guest memory. Machine lock held.
  open func busMasterChanged() {}

  /// Sets the level of the function's interrupt pin (INTx). Machine lock held.
  ///
  /// While MSI is enabled the pin is released, and asserted again when it is disabled (PCI 3.0, section 6.8.1.3: a
  /// function that uses MSI must not use INTx#). Otherwise the status bit follows always, and the line unless the
  /// command register's bit 10 disables it.
  public final func setInterruptLine(asserted: Bool) {
    wantsInterrupt = asserted
    updatePin()
  }

  // MARK: Life cycle

  /// Brings the configuration to its value after power-on: BARs unmapped, MSI and MSI-X off, pin released.
  /// A subclass calls it from its own `reset`.
  open override func reset() {
    configuration.reset()
    wantsInterrupt = false
    updateMappings()
    updatePin()
    msi?.reset()
    msix?.reset()
    updateBusMaster()
  }

  /// Unmaps the BARs and gives up the interrupt routes. A subclass calls it from its own `shutdown`.
  open override func shutdown() {
    wantsInterrupt = false
    updatePin()
    for register in registers { unmap(register) }
    msi?.close()
    msix?.close()
  }

  /// Maps, moves and unmaps BARs as the registers say now.
  private func updateMappings() {
    guard let machine else { return }
    for register in registers {
      let wanted = register.wantedAddress(configuration, memory: machine.memory)
      if wanted == register.mappedAddress { continue }
      unmap(register)
      guard let wanted else { continue }
      register.map(at: wanted, in: register.kind.isIO ? machine.portSpace : machine.memorySpace)
      barMapped(register.index, at: wanted)
    }
  }

  private func unmap(_ register: PCIBaseAddressRegister) {
    guard let machine, register.mappedAddress != nil else { return }
    // The device lets go of its doorbells first, while they still belong to mapped registers.
    barUnmapped(register.index)
    register.unmap(from: register.kind.isIO ? machine.portSpace : machine.memorySpace)
  }

  private func updatePin() {
    let usesPin = !(msi?.isEnabled ?? false)
    let asserts = wantsInterrupt && usesPin
    let status = configuration.load(UInt16.self, at: PCIRegister.status)
    configuration.store(asserts ? status | PCIStatus.interrupt : status & ~PCIStatus.interrupt, at: PCIRegister.status)
    let command = configuration.load(UInt16.self, at: PCIRegister.command)
    let drives = asserts && command & PCICommand.interruptDisable == 0 && identity.interruptPin != 0
    if drives == drivesPin { return }
    drivesPin = drives
    machine?.pci.setPin(of: address, pin: identity.interruptPin, asserted: drives)
  }

  /// Takes MSI's registers as they are now, and lets go of the pin while MSI is enabled.
  private func updateMSI() {
    guard let machine, let msi else { return }
    let control = configuration.load(UInt16.self, at: msiOffset + MSI.Register.control)
    let message = MSIMessage(
      address: configuration.load(UInt64.self, at: msiOffset + MSI.Register.address),
      data: UInt32(configuration.load(UInt16.self, at: msiOffset + MSI.Register.data)))
    msi.set(
      isEnabled: control & MSI.Control.enable != 0, maySend: isBusMaster, message: message,
      interrupts: machine.interrupts)
    updatePin()
  }

  private func updateMSIX() {
    guard let machine else { return }
    msix?.setControl(
      configuration.load(UInt16.self, at: msixOffset + 2), maySend: isBusMaster, interrupts: machine.interrupts)
  }

  /// Follows the command register's bus master bit.
  private func updateBusMaster() {
    let isMaster = configuration.load(UInt16.self, at: PCIRegister.command) & PCICommand.master != 0
    if isMaster == isBusMaster { return }
    isBusMaster = isMaster
    updateMSI()
    updateMSIX()
    busMasterChanged()
  }
}

/// Registers that read as 0 and forget what is written.
final class ZeroBlock: RegisterBlock {
  override func read(offset: UInt64, width: Int) -> UInt64 { 0 }
}
