// SPDX-License-Identifier: Apache-2.0

/// Where a function sits on the PCI buses.
public struct PCIAddress: Equatable, Sendable {
  /// Bus number.
  public var bus: UInt8
  /// Device number, 0 to 31.
  public var device: UInt8
  /// Function number, 0 to 7.
  public var function: UInt8

  /// Names a function.
  public init(bus: UInt8, device: UInt8, function: UInt8) {
    self.bus = bus
    self.device = device
    self.function = function
  }

  /// The offset of the function's configuration space in ECAM (PCI Express 6.0 §7.2.2).
  public var ecamOffset: UInt64 {
    UInt64(bus) << 20 | UInt64(device & 31) << 15 | UInt64(function & 7) << 12
  }
}

/// Offsets, bits and identifiers in a function's configuration space (PCI 3.0 §6.1).
enum PCIRegister {
  static var identifiers: UInt8 { 0x00 }
  static var command: UInt8 { 0x04 }
  static var status: UInt8 { 0x06 }
  static var classAndRevision: UInt8 { 0x08 }
  static var headerType: UInt8 { 0x0E }
  static var firstBAR: UInt8 { 0x10 }
  static var secondaryBus: UInt8 { 0x19 }
  static var capabilities: UInt8 { 0x34 }

  static var commandIO: UInt16 { 1 << 0 }
  static var commandMemory: UInt16 { 1 << 1 }
  static var commandMaster: UInt16 { 1 << 2 }
  static var commandInterruptDisable: UInt16 { 1 << 10 }
  static var statusCapabilities: UInt16 { 1 << 4 }
  static var multipleFunctions: UInt8 { 0x80 }
  static var bridgeHeader: UInt8 { 1 }
  static var bridgeClass: UInt16 { 0x06 }
}

/// Configuration accesses by mechanism 1: an address in port 0xcf8, data in port 0xcfc (PCI 3.0 §3.2.2.3.2).
///
/// The two ports are one shared register pair, so one processor at a time may use them.
public struct PCIConfiguration<B: Bus> {
  static var addressPort: UInt16 { 0xCF8 }
  static var dataPort: UInt16 { 0xCFC }
  /// A list of capabilities longer than this does not fit into configuration space, so it is a loop.
  static var capabilitiesMax: Int { 48 }

  let bus: B

  /// Reaches configuration space over `bus`.
  public init(bus: B) {
    self.bus = bus
  }

  private func select(_ address: PCIAddress, _ offset: UInt8) {
    let selector =
      0x8000_0000 | UInt32(address.bus) << 16 | UInt32(address.device & 31) << 11 | UInt32(address.function & 7) << 8
    bus.out32(PCIConfiguration.addressPort, selector | UInt32(offset & 0xFC))
  }

  /// Reads one byte of configuration space.
  public func read8(_ address: PCIAddress, _ offset: UInt8) -> UInt8 {
    select(address, offset)
    return bus.in8(PCIConfiguration.dataPort + UInt16(offset & 3))
  }

  /// Reads two bytes of configuration space; `offset` is even.
  public func read16(_ address: PCIAddress, _ offset: UInt8) -> UInt16 {
    select(address, offset)
    return bus.in16(PCIConfiguration.dataPort + UInt16(offset & 2))
  }

  /// Reads four bytes of configuration space; `offset` is a multiple of 4.
  public func read32(_ address: PCIAddress, _ offset: UInt8) -> UInt32 {
    select(address, offset)
    return bus.in32(PCIConfiguration.dataPort)
  }

  /// Writes one byte of configuration space.
  public func write8(_ address: PCIAddress, _ offset: UInt8, _ value: UInt8) {
    select(address, offset)
    bus.out8(PCIConfiguration.dataPort + UInt16(offset & 3), value)
  }

  /// Writes two bytes of configuration space; `offset` is even.
  public func write16(_ address: PCIAddress, _ offset: UInt8, _ value: UInt16) {
    select(address, offset)
    bus.out16(PCIConfiguration.dataPort + UInt16(offset & 2), value)
  }

  /// Writes four bytes of configuration space; `offset` is a multiple of 4.
  public func write32(_ address: PCIAddress, _ offset: UInt8, _ value: UInt32) {
    select(address, offset)
    bus.out32(PCIConfiguration.dataPort, value)
  }

  /// Lets the function decode memory accesses and be a bus master.
  public func enable(_ address: PCIAddress) {
    let command = read16(address, PCIRegister.command)
    write16(address, PCIRegister.command, command | PCIRegister.commandMemory | PCIRegister.commandMaster)
  }

  /// Visits the capabilities in list order until `visit` returns true, at most as many as fit (PCI 3.0 §6.7).
  /// - Returns: the offset of the capability that `visit` accepted.
  public func findCapability(
    _ address: PCIAddress, where visit: (_ identifier: UInt8, _ offset: UInt8) -> Bool
  ) -> UInt8? {
    guard read16(address, PCIRegister.status) & PCIRegister.statusCapabilities != 0 else {
      return nil
    }
    var offset = read8(address, PCIRegister.capabilities) & 0xFC
    var steps = 0
    while offset >= 0x40, steps < PCIConfiguration.capabilitiesMax {
      let header = read16(address, offset)
      if visit(UInt8(truncatingIfNeeded: header), offset) {
        return offset
      }
      offset = UInt8(truncatingIfNeeded: header >> 8) & 0xFC
      steps += 1
    }
    return nil
  }
}

/// A function that answered the enumeration.
public struct PCIFunction: Sendable {
  /// Where it is.
  public var address: PCIAddress
  /// Vendor identifier.
  public var vendor: UInt16
  /// Device identifier.
  public var device: UInt16
  /// Base class (high byte) and subclass.
  public var classCode: UInt16
  /// Programming interface: which registers a function of its class has (PCI 3.0 §6.2.1).
  public var programmingInterface: UInt8
  /// Header type without the multiple-function bit: 0 is a device, 1 a bridge.
  public var headerType: UInt8

  /// Describes a function.
  public init(
    address: PCIAddress, vendor: UInt16, device: UInt16, classCode: UInt16, programmingInterface: UInt8,
    headerType: UInt8
  ) {
    self.address = address
    self.vendor = vendor
    self.device = device
    self.classCode = classCode
    self.programmingInterface = programmingInterface
    self.headerType = headerType
  }
}

extension PCIConfiguration {
  /// At most this many buses are visited.
  public static var busesMax: Int { 16 }
  /// At most this many functions are listed.
  public static var functionsMax: Int { 64 }

  /// Lists the functions of bus 0 and of every bus behind a bridge that firmware has numbered, in address order.
  public func enumerate() -> [PCIFunction] {
    var functions: [PCIFunction] = []
    var buses: [UInt8] = [0]
    var visited = 0
    while visited < buses.count {
      let number = buses[visited]
      visited += 1
      for device in UInt8(0)..<32 {
        let first = PCIAddress(bus: number, device: device, function: 0)
        guard let function = probe(first) else {
          continue
        }
        let headerType = read8(first, PCIRegister.headerType)
        functions.append(function)
        let isMultiple = headerType & PCIRegister.multipleFunctions != 0
        for index in UInt8(1)..<8 where isMultiple {
          if let further = probe(PCIAddress(bus: number, device: device, function: index)) {
            functions.append(further)
          }
        }
        if functions.count >= PCIConfiguration.functionsMax {
          return functions
        }
      }
      addBuses(behind: functions, from: number, to: &buses)
    }
    return functions
  }

  /// Adds the buses behind the bridges of bus `number`, each once.
  private func addBuses(behind functions: [PCIFunction], from number: UInt8, to buses: inout [UInt8]) {
    for function in functions where function.address.bus == number && function.headerType == PCIRegister.bridgeHeader {
      let secondary = read8(function.address, PCIRegister.secondaryBus)
      // A bridge leads to higher numbers only; anything else is a loop or a bridge that nobody has set up.
      if secondary > number, buses.count < PCIConfiguration.busesMax, !buses.contains(secondary) {
        buses.append(secondary)
      }
    }
  }

  private func probe(_ address: PCIAddress) -> PCIFunction? {
    let identifiers = read32(address, PCIRegister.identifiers)
    guard identifiers & 0xFFFF != 0xFFFF, identifiers != 0 else {
      return nil
    }
    let classAndRevision = read32(address, PCIRegister.classAndRevision)
    return PCIFunction(
      address: address, vendor: UInt16(truncatingIfNeeded: identifiers), device: UInt16(identifiers >> 16),
      classCode: UInt16(classAndRevision >> 16),
      programmingInterface: UInt8(truncatingIfNeeded: classAndRevision >> 8),
      headerType: read8(address, PCIRegister.headerType) & ~PCIRegister.multipleFunctions)
  }
}
