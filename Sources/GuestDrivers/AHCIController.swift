// SPDX-License-Identifier: Apache-2.0

/// A driver for one AHCI host bus adapter of any vendor (AHCI 1.3.1). Belongs to one processor.
public final class AHCIController<B: Bus> {
  /// Class "mass storage, serial ATA" and the programming interface of AHCI (AHCI 1.3.1 §2.1.5).
  static var classCode: UInt16 { 0x0106 }
  static var programmingInterface: UInt8 { 0x01 }
  /// The base address register with the registers, ABAR (AHCI 1.3.1 §2.1.11).
  static var registersIndex: Int { 5 }
  /// No HBA has more ports.
  static var portsMax: Int { 32 }

  let bus: B
  let configuration: PCIConfiguration<B>
  let registers: UInt64
  let registersByteCount: UInt64
  /// The function.
  public let function: PCIFunction
  /// Its message signalled interrupts, where it has them.
  public let msi: MSICapability<B>?
  /// The interrupt of all ports; nil where they are polled.
  public private(set) var interrupt: MessageInterrupt?
  /// CAP as it was after the last reset.
  public private(set) var capabilities: UInt32 = 0
  /// The ports that there are, in ascending order, once `start` has been called.
  public private(set) var ports: [AHCIPort<B>] = []
  /// Vectors are few, so the one that was taken is kept.
  private var takenInterrupt: (processor: Int, interrupt: MessageInterrupt)?

  /// Whether a function is an AHCI HBA.
  public static func drives(_ function: PCIFunction) -> Bool {
    function.classCode == classCode && function.programmingInterface == programmingInterface
  }

  /// Finds the registers of a function that `drives` accepts, and lets it decode and be bus master.
  public init(topology: PCITopology<B>, entry: PCITopology<B>.Entry) throws(DriverError) {
    guard let register = entry.baseAddresses.first(where: { $0.index == AHCIController.registersIndex }),
      register.isMemory, register.address != 0,
      register.byteCount >= AHCIRegister.firstPort + AHCIRegister.portBytes
    else {
      throw .missingCapability
    }
    configuration = topology.configuration
    bus = topology.configuration.bus
    function = entry.function
    registers = register.address
    registersByteCount = register.byteCount
    msi = MSICapability(configuration: topology.configuration, function: entry.function.address)
    configuration.enable(entry.function.address)
  }

  /// Reads one of `AHCIRegister`, or any other register by its offset.
  public func read(_ register: UInt64) -> UInt32 { bus.mmioRead32(registers &+ register) }

  /// Writes one of `AHCIRegister`, or any other register by its offset.
  public func write(_ register: UInt64, _ value: UInt32) { bus.mmioWrite32(registers &+ register, value) }

  /// Offset of a port's registers, for `read` and `write`.
  public static func portOffset(_ number: Int) -> UInt64 {
    AHCIRegister.firstPort + UInt64(number) * AHCIRegister.portBytes
  }

  private func settles(_ register: UInt64, _ mask: UInt32, _ value: UInt32) throws(DriverError) -> Bool {
    let start = bus.ticks
    while read(register) & mask != value {
      guard bus.relax() else {
        throw .machineStopped
      }
      guard bus.ticks &- start < waitTicksMax else {
        return false
      }
    }
    return true
  }

  // MARK: Set-up

  /// Takes the HBA from firmware and resets it; ports are idle then, and interrupts off (AHCI 1.3.1 §10.4.3, §10.6).
  public func reset() throws(DriverError) {
    if read(AHCIRegister.capabilities2) & AHCIControl.hasHandOff != 0 {
      write(AHCIRegister.handOff, read(AHCIRegister.handOff) | AHCIControl.systemOwns)
      guard try settles(AHCIRegister.handOff, AHCIControl.firmwareOwns, 0) else {
        throw .stuck
      }
    }
    write(AHCIRegister.globalControl, AHCIControl.ahciEnable)
    write(AHCIRegister.globalControl, AHCIControl.ahciEnable | AHCIControl.reset)
    guard try settles(AHCIRegister.globalControl, AHCIControl.reset, 0) else {
      throw .stuck
    }
    write(AHCIRegister.globalControl, AHCIControl.ahciEnable)
    guard read(AHCIRegister.globalControl) & AHCIControl.ahciEnable != 0 else {
      throw .stuck
    }
    capabilities = read(AHCIRegister.capabilities)
  }

  /// Resets the HBA and brings up everything that is attached to it (AHCI 1.3.1 §10.1.2).
  ///
  /// It may be called again; commands in flight are ended then. A port whose device does not come up is left alone.
  ///
  /// - Parameters:
  ///   - waitMode: whether ports interrupt, where the function has MSI.
  ///   - processor: the processor that they interrupt.
  public func start(waitMode: WaitMode = .interrupt, processor: Int = 0) throws(DriverError) {
    try reset()
    try setUpInterrupt(waitMode, processor)
    if ports.isEmpty {
      try makePorts()
    }
    write(AHCIRegister.interruptStatus, UInt32.max)
    if interrupt != nil {
      write(AHCIRegister.globalControl, AHCIControl.ahciEnable | AHCIControl.interruptEnable)
    }
    let begin = bus.ticks
    for port in ports {
      do {
        try port.bringUp(interrupt: interrupt, since: begin)
      } catch {
        // Other ports work without the device that does not; a machine that goes away has none.
        if error == .machineStopped || error == .outOfResources {
          throw error
        }
      }
    }
  }

  private func makePorts() throws(DriverError) {
    let implemented = read(AHCIRegister.portsImplemented)
    var made: [AHCIPort<B>] = []
    for number in 0..<AHCIController.portsMax where implemented >> UInt32(number) & 1 != 0 {
      guard AHCIController.portOffset(number + 1) <= registersByteCount else {
        throw .missingCapability
      }
      made.append(try AHCIPort(bus: bus, globalRegisters: registers, capabilities: capabilities, number: number))
    }
    ports = made
  }

  private func setUpInterrupt(_ waitMode: WaitMode, _ processor: Int) throws(DriverError) {
    interrupt = nil
    guard let msi else {
      return
    }
    msi.disable()
    guard waitMode == .interrupt else {
      return
    }
    if takenInterrupt?.processor != processor {
      guard let taken = bus.allocateInterrupt(processor: processor) else {
        throw .outOfResources
      }
      takenInterrupt = (processor, taken)
    }
    if let taken = takenInterrupt?.interrupt, msi.program(taken) {
      msi.enable()
      interrupt = taken
    }
  }
}

// One processor owns a controller at a time.
extension AHCIController: @unchecked Sendable {}
extension AHCIPort: @unchecked Sendable {}
extension AHCIQueue: @unchecked Sendable {}
