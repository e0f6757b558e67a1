// SPDX-License-Identifier: Apache-2.0
// AHCI: an AHCI 1.3.1 host bus adapter and the SATA devices behind its ports. It knows nothing of vCPUs, of how requests
// reach the kernel, or of other devices.
import Block
import EventLoop
import GuestMemory
import Machine

/// An ICH9-compatible AHCI controller (8086:2922): the PCI function, its interrupt, its reset and its life cycle.
///
/// Everything is guarded by the machine lock. A doorbell (PxCI) is an ordinary exit: its vCPU's thread fetches the commands
/// and queues their requests on the main loop, which submits them; completions come on the main loop.
public final class AHCIController: PCIFunction {
  /// Ports of the controller.
  public static let portCount = 6
  /// Where it is on a q35 board.
  public static let standardAddress = PCIAddress(device: 0x1f, function: 2)

  private let memory: GuestMemory
  private let loop: EventLoop
  private let guestErrors: GuestErrorLog
  private(set) var ports: [AHCIPort] = []
  /// GHC but for AE, which is always set.
  private var control: UInt32 = 0
  /// IS: the ports that have asked for an interrupt since the guest cleared their bit.
  private(set) var interruptStatus: UInt32 = 0
  /// Ports that a reset of the controller still waits for.
  private var resettingPorts = 0
  /// Between `quiesce` and `resume`.
  private(set) var isPaused = false
  /// Disks that were told to drain; those behind the ports may have changed when they are told that it is over.
  private var draining: [BlockBackend] = []

  /// Makes a controller whose requests run on `loop`, the machine's main loop.
  public init(
    name: String, address: PCIAddress = AHCIController.standardAddress, memory: GuestMemory, loop: EventLoop
  ) {
    self.memory = memory
    self.loop = loop
    guestErrors = GuestErrorLog(device: name, linesMax: Limit.guestErrorLinesMax)
    super.init(name: name, address: address, identity: ConfigurationLayout.identity)
    let errors = guestErrors
    ports = (0..<Self.portCount).map {
      AHCIPort(number: $0, controller: self, memory: memory, loop: loop, guestErrors: errors)
    }
    defineConfiguration()
  }

  private func defineConfiguration() {
    let registers = HBARegisterBlock(controller: self)
    addMSI(at: ConfigurationLayout.msiOffset)
    addBAR(
      ConfigurationLayout.indexDataBAR, kind: .io, byteCount: ConfigurationLayout.indexDataBytes,
      block: IndexDataPair(registers: registers))
    addBAR(ConfigurationLayout.registersBAR, kind: .memory32, byteCount: Limit.registerBytes, block: registers)
    addCapability(
      id: PCICapability.sata, bytes: ConfigurationLayout.sataCapability, at: ConfigurationLayout.sataOffset)
    configuration.define(ConfigurationLayout.map, UInt8(ConfigurationLayout.mapAHCI))
    configuration.define(
      ConfigurationLayout.portControl, UInt8(0), writeMask: ConfigurationLayout.portControlMask)
  }

  // MARK: Devices behind the ports

  /// Connects a device to a port, 0 to 5, that has none: while the machine is assembled, or later (hot plug, AHCI 1.3.1
  /// §7.3). Machine lock held. The controller keeps the device until it is disconnected and its last request is back.
  public func connect(_ device: SATADevice, to port: Int) {
    precondition(ports.indices.contains(port) && ports[port].device == nil, "the port does not exist or is taken")
    if machine == nil { ports[port].plug(device) } else { ports[port].hotPlug(device) }
  }

  /// Takes the device from a port (hot removal, §7.3). Machine lock held. Its requests are drained; none of them reaches
  /// the guest any more.
  public func disconnect(port: Int) {
    precondition(ports.indices.contains(port), "no such port")
    ports[port].hotUnplug()
  }

  /// Whether the port, 0 to 5, has a device. Machine lock held.
  public func hasDevice(port: Int) -> Bool { ports[port].device != nil }

  /// Requests of all ports that are with the block layer. Machine lock held.
  public var inFlight: Int { ports.reduce(0) { $0 + $1.lentCount } }

  // MARK: Registers of the controller (§3.1)

  /// Reads the word at `offset`; reserved words are 0.
  func readWord(_ offset: UInt64) -> UInt32 {
    switch offset {
    case HBARegister.capabilities: return HBAValue.capabilities
    case HBARegister.control: return control | HBAControl.ahciEnable
    case HBARegister.interruptStatus: return interruptStatus
    case HBARegister.portsImplemented: return 1 << UInt32(Self.portCount) - 1
    case HBARegister.version: return HBAValue.version
    default:
      guard let (port, register) = portRegister(offset) else { return 0 }
      return port.readRegister(register)
    }
  }

  /// Writes those bits of the word at `offset` that are set in `mask` (whole bytes), where a guest may.
  func writeWord(_ offset: UInt64, _ value: UInt32, mask: UInt32) {
    switch offset {
    case HBARegister.control: writeControl(control & ~mask | value & mask)
    case HBARegister.interruptStatus: acknowledge(value & mask)
    default:
      guard let (port, register) = portRegister(offset) else { return }
      port.writeRegister(register, value, mask: mask)
    }
  }

  @inline(__always)
  private func portRegister(_ offset: UInt64) -> (AHCIPort, UInt64)? {
    guard offset >= HBARegister.firstPort else { return nil }
    let index = Int((offset - HBARegister.firstPort) / HBARegister.portStride)
    guard index < ports.count else { return nil }
    return (ports[index], (offset - HBARegister.firstPort) % HBARegister.portStride)
  }

  private func writeControl(_ value: UInt32) {
    let enables = value & HBAControl.interruptEnable != 0
    let isNews = enables && control & HBAControl.interruptEnable == 0
    control = control & HBAControl.reset | (enables ? HBAControl.interruptEnable : 0)
    updateInterrupt(isNews: isNews)
    if value & HBAControl.reset != 0 && control & HBAControl.reset == 0 { resetController() }
  }

  /// GHC.HR (§10.4.3): reads as 1 until no request is out and every port is as after power-on.
  private func resetController() {
    control = HBAControl.reset
    interruptStatus = 0
    updateInterrupt(isNews: false)
    resettingPorts = ports.count
    for port in ports { port.beginControllerReset() }
  }

  /// A port has come to rest and has been reset.
  func portWasReset() {
    resettingPorts -= 1
    if resettingPorts == 0 { control &= ~HBAControl.reset }
  }

  // MARK: The interrupt (§10.7)

  /// A port's PxIS has gained a bit that the guest wants to hear of.
  func portInterrupts(_ port: AHCIPort) {
    interruptStatus |= 1 << UInt32(port.number)
    updateInterrupt(isNews: true)
  }

  /// A port may want an interrupt now for what it did not want before.
  func portChanged(_ port: AHCIPort) {
    let bit = UInt32(1) << UInt32(port.number)
    if port.wantsInterrupt && interruptStatus & bit == 0 { portInterrupts(port) }
  }

  /// The guest writes IS: bits of ports that still have something pending stay, and count as new.
  private func acknowledge(_ bits: UInt32) {
    let cleared = interruptStatus & bits
    interruptStatus &= ~bits
    for port in ports where cleared & 1 << UInt32(port.number) != 0 && port.wantsInterrupt {
      interruptStatus |= 1 << UInt32(port.number)
    }
    updateInterrupt(isNews: interruptStatus & cleared != 0)
  }

  /// The message is an edge, sent for each piece of news; the pin is a level that follows IS.
  private func updateInterrupt(isNews: Bool) {
    let asserted = interruptStatus != 0 && control & HBAControl.interruptEnable != 0
    if let msi, msi.isEnabled {
      if asserted && isNews { msi.notify() }
    } else {
      setInterruptLine(asserted: asserted)
    }
  }

  // MARK: Device

  public override func configurationWrite(offset: Int, width: Int, value: UInt32) {
    super.configurationWrite(offset: offset, width: width, value: value)
    // MSI may have been turned on or off, and with it the pin's part.
    updateInterrupt(isNews: false)
  }

  /// The engines start, and what was issued or reported while they could not is made up for.
  public override func busMasterChanged() {
    guard isBusMaster else { return }
    for port in ports { port.updateEngines() }
    updateInterrupt(isNews: interruptStatus != 0)
  }

  public override func reset() {
    super.reset()
    control = 0
    interruptStatus = 0
    setInterruptLine(asserted: false)
    for port in ports { port.resetRegisters() }
    // The signatures' interrupts of a time in which nobody listens.
    interruptStatus = 0
  }

  public override func quiesce() {
    guard !isPaused else { return }
    isPaused = true
    draining = ports.compactMap { $0.device?.backend }
    for backend in draining { backend.drainBegan() }
  }

  public override var isQuiet: Bool { ports.allSatisfy { $0.lentCount == 0 && $0.finished == 0 } }

  /// A reset, or a command list that stops, waits for requests that are out.
  public override var isSettling: Bool { ports.contains { $0.isSettling } }

  /// What a port has waited for is over.
  func portSettled() { if !isSettling { machine?.deviceSettled() } }

  public override func resume() {
    guard isPaused else { return }
    isPaused = false
    for backend in draining { backend.drainEnded() }
    draining = []
    for port in ports { port.takeCommands() }
  }

  public override func shutdown() {
    isPaused = true
    // They are closed by whoever made them, and may go before the controller does.
    draining = []
    super.shutdown()
  }
}

/// Configuration space beyond the header, as ICH9 has it (ICH9 data sheet §14.1).
private enum ConfigurationLayout {
  static let identity = PCIIdentity(
    vendor: 0x8086, device: 0x2922, classCode: 0x010601, revision: 2, subsystemVendor: 0x1af4, subsystem: 0x1100,
    interruptPin: 1)
  static let msiOffset = 0x80
  static let sataOffset = 0xa8
  /// BAR 4: 32 ports, of which the last 16 bytes begin with the index/data pair.
  static let indexDataBAR = 4
  static let indexDataBytes: UInt64 = 32
  static let registersBAR = 5
  /// Revision 1.0; the pair is in BAR 4 (code 8) at its fourth double word (AHCI 1.3.1 §2.4).
  static let sataCapability: [UInt8] = [0x10, 0x00, 0x48, 0x00, 0x00, 0x00]
  /// Address map register: the ports are AHCI's.
  static let map = 0x90
  static let mapAHCI: UInt8 = 0x40
  /// Port control and status register: which ports are enabled; firmware writes it.
  static let portControl = 0x92
  static let portControlMask: UInt8 = 0x3f
}
