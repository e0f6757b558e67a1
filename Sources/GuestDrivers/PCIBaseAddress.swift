// SPDX-License-Identifier: Apache-2.0

/// What one base address register decodes (PCI 3.0 §6.2.5).
public struct PCIBaseAddress: Sendable {
  /// The kinds of base address register.
  public enum Kind: Sendable {
    /// I/O ports.
    case ports
    /// Memory with a 32-bit address.
    case memory32
    /// Memory with a 64-bit address; it takes the next register too.
    case memory64
  }

  /// The register's number, 0 to 5.
  public var index: Int
  /// What it decodes.
  public var kind: Kind
  /// Where it decodes now; 0 where nobody has assigned it.
  public var address: UInt64
  /// How many bytes it decodes, a power of two.
  public var byteCount: UInt64

  /// Whether it decodes memory.
  public var isMemory: Bool { kind != .ports }
}

extension PCIConfiguration {
  /// Finds out what a function's base address registers decode, and where.
  ///
  /// The function does not decode while its registers are sized, so that no size pattern ever claims an address.
  /// Bridges are left alone, since what is behind them would stop decoding too.
  public func baseAddresses(of function: PCIFunction) -> [PCIBaseAddress] {
    guard function.headerType == 0, function.classCode >> 8 != PCIRegister.bridgeClass else {
      return []
    }
    let registerCount = 6
    let address = function.address
    let command = read16(address, PCIRegister.command)
    let decoding = PCIRegister.commandMemory | PCIRegister.commandIO
    write16(address, PCIRegister.command, command & ~decoding)
    var found: [PCIBaseAddress] = []
    var index = 0
    while index < registerCount {
      let offset = PCIRegister.firstBAR + UInt8(index * 4)
      let low = read32(address, offset)
      let lowMask = size(address, offset, restoring: low)
      if low & 1 == 1 {
        let mask = lowMask & 0xFFFF_FFFC
        if mask != 0 {
          // Devices may leave the upper half of a port's address unimplemented.
          let byteCount = UInt64(~(mask | 0xFFFF_0000) &+ 1)
          found.append(
            PCIBaseAddress(index: index, kind: .ports, address: UInt64(low & 0xFFFF_FFFC), byteCount: byteCount))
        }
      } else if low & 0b110 == 0b100, index + 1 < registerCount {
        let high = read32(address, offset + 4)
        let highMask = size(address, offset + 4, restoring: high)
        let mask = UInt64(highMask) << 32 | UInt64(lowMask & 0xFFFF_FFF0)
        if mask != 0 {
          found.append(
            PCIBaseAddress(
              index: index, kind: .memory64, address: UInt64(high) << 32 | UInt64(low & 0xFFFF_FFF0),
              byteCount: ~mask &+ 1))
        }
        index += 1
      } else {
        let mask = lowMask & 0xFFFF_FFF0
        if mask != 0 {
          found.append(
            PCIBaseAddress(
              index: index, kind: .memory32, address: UInt64(low & 0xFFFF_FFF0), byteCount: UInt64(~mask &+ 1)))
        }
      }
      index += 1
    }
    write16(address, PCIRegister.command, command)
    return found
  }

  /// Reads back what a register keeps of all ones, and puts its old value back.
  private func size(_ address: PCIAddress, _ offset: UInt8, restoring value: UInt32) -> UInt32 {
    write32(address, offset, 0xFFFF_FFFF)
    let kept = read32(address, offset)
    write32(address, offset, value)
    return kept
  }

  /// Moves a base address register to `newAddress`, and lets the function decode there.
  public func assign(_ function: PCIFunction, _ register: inout PCIBaseAddress, at newAddress: UInt64) {
    let address = function.address
    let offset = PCIRegister.firstBAR + UInt8(register.index * 4)
    let decoding = register.isMemory ? PCIRegister.commandMemory : PCIRegister.commandIO
    let command = read16(address, PCIRegister.command)
    write16(address, PCIRegister.command, command & ~decoding)
    write32(address, offset, UInt32(truncatingIfNeeded: newAddress))
    if register.kind == .memory64 {
      write32(address, offset + 4, UInt32(newAddress >> 32))
    }
    write16(address, PCIRegister.command, command | decoding)
    register.address = newAddress
  }
}

/// Hands out device addresses below 4 GiB, clear of everything that decodes there already.
public struct PCIAddressWindow: Sendable {
  /// Where device memory is assigned from.
  public static let memoryBase: UInt64 = 0xE000_0000
  /// The interrupt controllers and the firmware's flash begin here.
  public static let memoryEnd: UInt64 = 0xFEC0_0000
  /// Where ports are assigned from.
  public static let portBase: UInt64 = 0xC000
  /// The end of port space.
  public static let portEnd: UInt64 = 0x1_0000

  private var taken: [Range<UInt64>] = []
  private let base: UInt64
  private let end: UInt64

  /// Hands out addresses from `base` up to `end`.
  public init(base: UInt64, end: UInt64) {
    self.base = base
    self.end = end
  }

  /// Notes that something decodes at `address`.
  public mutating func reserve(_ address: UInt64, byteCount: UInt64) {
    let (rangeEnd, overflow) = address.addingReportingOverflow(byteCount)
    taken.append(address..<(overflow ? UInt64.max : rangeEnd))
  }

  /// The lowest free place of `byteCount` bytes (a power of two), aligned to its size; nil where there is none.
  public mutating func take(byteCount: UInt64) -> UInt64? {
    guard byteCount > 0, byteCount & (byteCount - 1) == 0, byteCount <= end - base else {
      return nil
    }
    var candidate = (base + byteCount - 1) & ~(byteCount - 1)
    // Each turn passes at least one taken range, so there are at most as many turns as ranges.
    for _ in 0...taken.count {
      guard candidate + byteCount <= end else {
        return nil
      }
      let range = candidate..<(candidate + byteCount)
      var conflict: Range<UInt64>?
      for other in taken where other.overlaps(range) {
        conflict = other
      }
      guard let conflict else {
        taken.append(range)
        return candidate
      }
      guard conflict.upperBound < end else {
        return nil
      }
      candidate = (conflict.upperBound + byteCount - 1) & ~(byteCount - 1)
    }
    return nil
  }
}

/// All functions of the machine with what they decode, assigned where firmware has not.
public struct PCITopology<B: Bus> {
  /// A function and its base address registers.
  public struct Entry: Sendable {
    /// The function.
    public var function: PCIFunction
    /// Its base address registers, those that decode nothing left out.
    public var baseAddresses: [PCIBaseAddress]
  }

  /// The q35 host bridge: its PCIEXBAR register says where ECAM is (Intel 3 Series Express Chipset datasheet §5.1.15).
  static var hostBridge: (vendor: UInt16, device: UInt16) { (0x8086, 0x29C0) }
  static var ecamRegister: UInt8 { 0x60 }

  /// Access to configuration space.
  public let configuration: PCIConfiguration<B>
  /// The functions in address order.
  public private(set) var entries: [Entry]
  /// Where ECAM decodes, where a host bridge says that it does.
  public private(set) var ecam: (base: UInt64, byteCount: UInt64)?
  /// How many base address registers were assigned here.
  public private(set) var assignedCount = 0
  /// How many base address registers found no place.
  public private(set) var unassignedCount = 0

  /// Enumerates the machine behind `bus`, and assigns every register that has no address or one at 4 GiB or above.
  ///
  /// Addresses below 4 GiB are what every carrier maps, so a register that firmware has put higher is moved.
  public init(bus: B) {
    configuration = PCIConfiguration(bus: bus)
    entries = []
    for function in configuration.enumerate() {
      entries.append(Entry(function: function, baseAddresses: configuration.baseAddresses(of: function)))
    }
    ecam = findECAM()
    assignAll()
  }

  private func findECAM() -> (base: UInt64, byteCount: UInt64)? {
    for entry in entries {
      let function = entry.function
      guard function.vendor == PCITopology.hostBridge.vendor, function.device == PCITopology.hostBridge.device else {
        continue
      }
      let low = configuration.read32(function.address, PCITopology.ecamRegister)
      let high = configuration.read32(function.address, PCITopology.ecamRegister + 4)
      guard low & 1 == 1 else {
        return nil
      }
      let byteCounts: [UInt64] = [256 << 20, 128 << 20, 64 << 20, 64 << 20]
      return (UInt64(high) << 32 | UInt64(low & 0xFC00_0000), byteCounts[Int(low >> 1 & 3)])
    }
    return nil
  }

  private mutating func assignAll() {
    var memory = PCIAddressWindow(base: PCIAddressWindow.memoryBase, end: PCIAddressWindow.memoryEnd)
    var ports = PCIAddressWindow(base: PCIAddressWindow.portBase, end: PCIAddressWindow.portEnd)
    if let ecam {
      memory.reserve(ecam.base, byteCount: ecam.byteCount)
    }
    for entry in entries {
      for register in entry.baseAddresses where register.address != 0 {
        if register.isMemory {
          memory.reserve(register.address, byteCount: register.byteCount)
        } else {
          ports.reserve(register.address, byteCount: register.byteCount)
        }
      }
    }
    for entryIndex in entries.indices {
      for index in entries[entryIndex].baseAddresses.indices {
        let register = entries[entryIndex].baseAddresses[index]
        let (end, overflow) = register.address.addingReportingOverflow(register.byteCount)
        if register.address != 0, !overflow, end <= 1 << 32 {
          continue
        }
        let place =
          register.isMemory ? memory.take(byteCount: register.byteCount) : ports.take(byteCount: register.byteCount)
        guard let place else {
          unassignedCount += 1
          continue
        }
        configuration.assign(
          entries[entryIndex].function, &entries[entryIndex].baseAddresses[index], at: place)
        assignedCount += 1
      }
    }
  }
}
