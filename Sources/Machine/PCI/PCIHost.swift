// SPDX-License-Identifier: Apache-2.0

/// The PCI bus 0 of a machine: which function is where, the two ways to its configuration space, and the interrupt pins.
///
/// Guarded by the machine lock. The way through ports (configuration mechanism 1, PCI 3.0, section 3.2.2.3.2) is always
/// there; the one through memory (ECAM, PCI Express 3.0, section 7.2.2) is where the host bridge's PCIEXBAR says.
public final class PCIHost {
  // By `PCIAddress.index`.
  private var functions = [PCIFunction?](repeating: nil, count: 256)
  private var pins = PCIInterruptPins()
  // The machine owns the bus; set by `connect` as the machine is made, so it is there for every access.
  private unowned var machine: Machine!
  private let hostBridge = HostBridge()
  /// The bridge to the board's own devices, 00:1f.0.
  public let isaBridge = ISABridge()
  private lazy var ports = PCIConfigurationPorts(host: self)
  private lazy var ecam = ECAMBlock(host: self)
  private var mappedECAM: UInt64?
  // What the firmware's part sets again after a reset; nil where a guest's firmware does it.
  private var firmwareECAM: UInt64?

  /// Makes the bus with its two bridges; `connect` puts them into the machine.
  init() {}

  /// Puts the configuration ports and the bridges into the machine.
  func connect(to machine: Machine) {
    self.machine = machine
    hostBridge.host = self
    machine.portSpace.map(ports, at: PCIConfigurationPorts.firstPort, byteCount: PCIConfigurationPorts.portCount)
    machine.attach(hostBridge)
    machine.attach(isaBridge)
  }

  // MARK: Functions

  /// The function at an address; nil where there is none.
  public func function(at address: PCIAddress) -> PCIFunction? { functions[address.index] }

  /// The lowest device number at which no function is; nil where the bus is full.
  public var freeDevice: UInt8? {
    (0..<PCIAddress.devicesMax).first { device in functions[device * 8..<device * 8 + 8].allSatisfy { $0 == nil } }
      .map { UInt8($0) }
  }

  func attach(_ function: PCIFunction) {
    precondition(functions[function.address.index] == nil, "PCI address \(function.address) is taken")
    functions[function.address.index] = function
    markMultifunction(device: Int(function.address.device))
  }

  /// Takes a function off the bus; its address may have another one by now where it has left before.
  func detach(_ function: PCIFunction) {
    guard functions[function.address.index] === function else { return }
    functions[function.address.index] = nil
  }

  /// A guest looks for functions 1 to 7 only where function 0 says that there may be some (PCI 3.0, section 6.2.1).
  private func markMultifunction(device: Int) {
    guard let first = functions[device * 8], functions[device * 8 + 1..<device * 8 + 8].contains(where: { $0 != nil })
    else { return }
    first.configuration.define(PCIRegister.headerType, UInt8(0x80))
  }

  // MARK: Configuration accesses

  /// Reads configuration space; all ones where no function is. `width` is 1, 2 or 4, `offset` below 4096.
  public func configurationRead(index: Int, offset: Int, width: Int) -> UInt32 {
    let value = functions[index & 0xff]?.configurationRead(offset: offset, width: width) ?? UInt32.max
    return width == 4 ? value : value & (1 << UInt32(8 * width) - 1)
  }

  /// Writes configuration space; nothing happens where no function is.
  public func configurationWrite(index: Int, offset: Int, width: Int, value: UInt32) {
    functions[index & 0xff]?.configurationWrite(offset: offset, width: width, value: value)
  }

  // MARK: ECAM

  /// Programs the host bridge's PCIEXBAR as firmware does, now and after every reset, for a kernel that is booted
  /// without firmware. `base` is a multiple of 256 MiB above RAM.
  public func enableECAM(at base: UInt64) {
    precondition(base % ECAMBlock.byteCount == 0, "ECAM is aligned")
    firmwareECAM = base
    hostBridge.programECAM(base)
  }

  /// Where ECAM answers now; nil where it is off, or would cover RAM.
  public var ecamBase: UInt64? { mappedECAM }

  /// Brings what belongs to the bus itself to its value after power-on, then plays the firmware's part.
  func machineWasReset() {
    ports.reset()
    if let firmwareECAM { hostBridge.programECAM(firmwareECAM) }
  }

  /// Follows the host bridge's PCIEXBAR.
  func ecamChanged(base: UInt64?, byteCount: UInt64) {
    if mappedECAM != nil { machine.memorySpace.unmap(ecam) }
    mappedECAM = nil
    guard let base, base != 0 else { return }
    let (last, wraps) = base.addingReportingOverflow(byteCount - 1)
    let coversRAM = machine.memory.regions.contains { $0.start <= last && base <= $0.end - 1 }
    guard !wraps, !coversRAM else { return }
    machine.memorySpace.map(ecam, at: base, byteCount: byteCount)
    mappedECAM = base
  }

  // MARK: Interrupt pins

  func setPin(of address: PCIAddress, pin: UInt8, asserted: Bool) {
    if let (line, level) = pins.set(address, pin: pin, asserted: asserted) {
      machine.interrupts.setLine(line, asserted: level)
    }
    machine.interrupts.pinChanged(of: address, pin: pin, asserted: asserted)
  }

  func requestReset() { machine.requestReset() }
}
