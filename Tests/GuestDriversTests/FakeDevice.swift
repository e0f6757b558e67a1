// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// A PCI function's configuration space with base address registers that keep what their masks let through.
struct FakeFunction {
  let address: PCIAddress
  var bytes: [UInt8]
  /// Writable bits of each base address register.
  var masks: [UInt32] = Array(repeating: 0, count: 6)

  init(address: PCIAddress, vendor: UInt16, device: UInt16, classCode: UInt16, programmingInterface: UInt8 = 0) {
    self.address = address
    bytes = Array(repeating: 0, count: 256)
    put(0, UInt32(vendor) | UInt32(device) << 16)
    put(8, UInt32(classCode) << 16 | UInt32(programmingInterface) << 8)
  }

  mutating func put(_ offset: Int, _ value: UInt32) {
    for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
  }

  func read(_ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  mutating func write(_ offset: Int, _ value: UInt32, byteCount: Int) {
    if offset >= 0x10, offset < 0x28 {
      let index = (offset - 0x10) / 4
      put(offset & ~3, value & masks[index] | read(offset & ~3) & ~masks[index])
      return
    }
    // Identifiers, class and header type do not change; the rest is plain storage here.
    guard offset >= 4, offset < 8 || offset >= 0x40 else { return }
    for index in 0..<byteCount { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
  }

  /// Where a 64-bit memory register decodes.
  func memoryBase(_ register: Int) -> UInt64 {
    UInt64(read(0x14 + 4 * register)) << 32 | UInt64(read(0x10 + 4 * register) & ~15)
  }

  /// The q35 host bridge without ECAM.
  static var hostBridge: FakeFunction {
    FakeFunction(
      address: PCIAddress(bus: 0, device: 0, function: 0), vendor: 0x8086, device: 0x29C0, classCode: 0x0600)
  }

  /// A modern virtio-blk function: registers in a 64-bit BAR 4 of 16 KiB, nobody has assigned it.
  static var virtioBlock: FakeFunction {
    var function = FakeFunction(
      address: FakeMachine.configurationAddress, vendor: 0x1AF4, device: 0x1042, classCode: 0x0100)
    function.masks[4] = 0xFFFF_C000
    function.masks[5] = 0xFFFF_FFFF
    function.put(0x20, 0x4)
    function.put(4, 0x0010_0000)
    function.put(0x34, 0x40)
    function.capability(0x40, next: 0x50, type: 1, offset: 0, byteCount: 0x38)
    function.capability(0x50, next: 0x60, type: 3, offset: 0x1000, byteCount: 1)
    function.capability(0x60, next: 0x70, type: 4, offset: 0x2000, byteCount: 0x40)
    function.capability(0x70, next: 0, type: 2, offset: 0x3000, byteCount: 0x1000)
    function.put(0x80, 4)
    return function
  }

  mutating func capability(_ at: Int, next: UInt32, type: UInt32, offset: UInt32, byteCount: UInt32) {
    put(at, 0x09 | next << 8 | 20 << 16 | type << 24)
    put(at + 4, 4)
    put(at + 8, offset)
    put(at + 12, byteCount)
  }
}

/// The registers of the virtio function: common configuration at 0, device configuration at 0x2000.
struct FakeVirtioRegisters {
  var status: UInt8 = 0
  var offered: UInt64 = VirtioBlockFeature.indirectDescriptors | VirtioBlockFeature.eventIndex
  private(set) var accepted: UInt64 = 0
  private(set) var queueSize: UInt16 = FakeMachine.queueSize
  private(set) var isQueueEnabled = false
  private(set) var descriptorTable: UInt64 = 0
  private(set) var availRing: UInt64 = 0
  private(set) var usedRing: UInt64 = 0
  /// Bit 0: something was used since the last read.
  var interruptStatus: UInt64 = 0
  var availSeen: UInt16 = 0
  var usedNext: UInt16 = 0
  private var featureSelect: UInt64 = 0
  private var driverFeatureSelect: UInt64 = 0
  private var vector: UInt16 = 0xFFFF

  mutating func read(_ offset: UInt64, _ behaviour: FakeMachine.Behaviour) -> UInt64 {
    switch offset {
    case 0x1000:
      defer { interruptStatus = 0 }
      return interruptStatus
    case 4:
      let features = behaviour.offersVersion1 ? offered | VirtioBlockFeature.version1 : offered
      return features >> (32 * featureSelect) & 0xFFFF_FFFF
    case 18: return 1
    case 20: return UInt64(behaviour.keepsFeaturesOK ? status : status & ~VirtioStatus.featuresOK)
    case 24: return UInt64(queueSize)
    case 26: return UInt64(behaviour.refusesVectors ? 0xFFFF : vector)
    case 28: return isQueueEnabled ? 1 : 0
    case 0x2000: return UInt64(FakeMachine.sectorCount)
    default: return 0
    }
  }

  mutating func write(_ offset: UInt64, _ value: UInt64, _ behaviour: FakeMachine.Behaviour) {
    switch offset {
    case 0: featureSelect = value & 1
    case 8: driverFeatureSelect = value & 1
    case 12: accepted |= value << (32 * driverFeatureSelect)
    case 20:
      status = UInt8(truncatingIfNeeded: value)
      if status == 0 {
        let offered = self.offered
        self = FakeVirtioRegisters()
        self.offered = offered
      }
    case 24: queueSize = UInt16(truncatingIfNeeded: value)
    case 26: vector = UInt16(truncatingIfNeeded: value)
    case 28: isQueueEnabled = value == 1
    case 32: descriptorTable = descriptorTable & ~0xFFFF_FFFF | value
    case 36: descriptorTable = descriptorTable & 0xFFFF_FFFF | value << 32
    case 40: availRing = availRing & ~0xFFFF_FFFF | value
    case 44: availRing = availRing & 0xFFFF_FFFF | value << 32
    case 48: usedRing = usedRing & ~0xFFFF_FFFF | value
    case 52: usedRing = usedRing & 0xFFFF_FFFF | value << 32
    default: break
    }
  }
}
