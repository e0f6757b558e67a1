// SPDX-License-Identifier: Apache-2.0

/// Device status bits (virtio 1.3 §2.1).
public enum VirtioStatus {
  /// The guest has found the device.
  public static var acknowledge: UInt8 { 1 }
  /// The guest knows how to drive it.
  public static var driver: UInt8 { 2 }
  /// The driver is ready.
  public static var driverOK: UInt8 { 4 }
  /// The features are agreed.
  public static var featuresOK: UInt8 { 8 }
  /// The device has met an error that it does not recover from.
  public static var needsReset: UInt8 { 64 }
  /// The driver has given up.
  public static var failed: UInt8 { 128 }
}

/// The modern virtio PCI transport (virtio 1.3 §4.1): where a function's register blocks are, and access to them.
public struct VirtioPCITransport<B: Bus> {
  /// Virtio's PCI vendor.
  public static var vendor: UInt16 { 0x1AF4 }
  /// "No vector" in the MSI-X vector registers (virtio 1.3 §4.1.5.1.2).
  public static var noVector: UInt16 { 0xFFFF }

  /// `cfg_type` values (virtio 1.3 §4.1.4).
  enum CapabilityType {
    static var common: UInt8 { 1 }
    static var notify: UInt8 { 2 }
    static var interruptStatus: UInt8 { 3 }
    static var device: UInt8 { 4 }
    static var configurationAccess: UInt8 { 5 }
  }

  /// Offsets in the common configuration block (virtio 1.3 §4.1.4.3).
  enum Common {
    static var deviceFeatureSelect: UInt64 { 0 }
    static var deviceFeature: UInt64 { 4 }
    static var driverFeatureSelect: UInt64 { 8 }
    static var driverFeature: UInt64 { 12 }
    static var configurationVector: UInt64 { 16 }
    static var queueCount: UInt64 { 18 }
    static var status: UInt64 { 20 }
    static var generation: UInt64 { 21 }
    static var queueSelect: UInt64 { 22 }
    static var queueSize: UInt64 { 24 }
    static var queueVector: UInt64 { 26 }
    static var queueEnable: UInt64 { 28 }
    static var queueNotifyOffset: UInt64 { 30 }
    static var queueDescriptors: UInt64 { 32 }
    static var queueDriver: UInt64 { 40 }
    static var queueDevice: UInt64 { 48 }
    static var byteCount: UInt64 { 56 }
  }

  /// A register block in a function's memory.
  struct Block: Sendable {
    var register: UInt8 = 0
    var offset: UInt64 = 0
    var address: UInt64 = 0
    var byteCount: UInt64 = 0
  }

  static var vendorCapability: UInt8 { 0x09 }

  let bus: B
  let configuration: PCIConfiguration<B>
  /// The function.
  public let function: PCIFunction
  /// Its MSI-X table, where it has one.
  public let msix: MSIXTable<B>?
  let common: Block
  let notify: Block
  let notifyMultiplier: UInt64
  let interruptStatus: Block
  let device: Block
  /// Offset of the PCI configuration access capability; 0 where there is none.
  let accessCapability: UInt8

  /// Finds the register blocks of a virtio function and enables it.
  public init(topology: PCITopology<B>, entry: PCITopology<B>.Entry) throws(DriverError) {
    let configuration = topology.configuration
    let address = entry.function.address
    var common = Block()
    var notify = Block()
    var notifyCapability: UInt8 = 0
    var interruptStatus = Block()
    var device = Block()
    var access: UInt8 = 0
    // The driver takes the first block of each type that it can use (virtio 1.3 §4.1.4.1).
    _ = configuration.findCapability(address) { identifier, offset in
      guard identifier == VirtioPCITransport.vendorCapability else {
        return false
      }
      let type = configuration.read8(address, offset + 3)
      if type == CapabilityType.configurationAccess {
        access = access == 0 ? offset : access
        return false
      }
      guard let block = VirtioPCITransport.block(configuration, entry, capability: offset) else {
        return false
      }
      if type == CapabilityType.common, common.byteCount == 0 {
        common = block
      } else if type == CapabilityType.notify, notify.byteCount == 0 {
        notify = block
        notifyCapability = offset
      } else if type == CapabilityType.interruptStatus, interruptStatus.byteCount == 0 {
        interruptStatus = block
      } else if type == CapabilityType.device, device.byteCount == 0 {
        device = block
      }
      return false
    }
    guard common.byteCount >= Common.byteCount, notify.byteCount >= 2, interruptStatus.byteCount >= 1,
      device.byteCount >= 8
    else {
      throw .missingCapability
    }
    bus = configuration.bus
    self.configuration = configuration
    function = entry.function
    msix = MSIXTable(configuration: configuration, entry: entry)
    self.common = common
    self.notify = notify
    notifyMultiplier = UInt64(configuration.read32(address, notifyCapability + 16))
    self.interruptStatus = interruptStatus
    self.device = device
    accessCapability = access
    configuration.enable(address)
  }

  /// Reads where a capability's block is; nil where that is not inside a memory register of the function.
  private static func block(
    _ configuration: PCIConfiguration<B>, _ entry: PCITopology<B>.Entry, capability: UInt8
  ) -> Block? {
    let address = entry.function.address
    let index = configuration.read8(address, capability + 4)
    let offset = UInt64(configuration.read32(address, capability + 8))
    let byteCount = UInt64(configuration.read32(address, capability + 12))
    guard let register = entry.baseAddresses.first(where: { $0.index == Int(index) }), register.isMemory,
      register.address != 0, byteCount > 0, offset + byteCount <= register.byteCount
    else {
      return nil
    }
    return Block(register: index, offset: offset, address: register.address + offset, byteCount: byteCount)
  }

  // MARK: Status and features

  /// The device status register.
  public var status: UInt8 { bus.mmioRead8(common.address + Common.status) }

  /// Adds bits to the device status.
  public func addStatus(_ bits: UInt8) {
    bus.mmioWrite8(common.address + Common.status, status | bits)
  }

  /// Resets the device and waits until it says that it has (virtio 1.3 §4.1.4.3.2).
  public func reset() throws(DriverError) {
    bus.mmioWrite8(common.address + Common.status, 0)
    let start = bus.ticks
    while status != 0 {
      guard bus.relax() else {
        throw .machineStopped
      }
      guard bus.ticks &- start < waitTicksMax else {
        throw .timedOut
      }
    }
  }

  /// The feature bits that the device offers.
  public func deviceFeatures() -> UInt64 {
    bus.mmioWrite32(common.address + Common.deviceFeatureSelect, 0)
    let low = bus.mmioRead32(common.address + Common.deviceFeature)
    bus.mmioWrite32(common.address + Common.deviceFeatureSelect, 1)
    let high = bus.mmioRead32(common.address + Common.deviceFeature)
    return UInt64(high) << 32 | UInt64(low)
  }

  /// Takes features.
  public func setDriverFeatures(_ features: UInt64) {
    bus.mmioWrite32(common.address + Common.driverFeatureSelect, 0)
    bus.mmioWrite32(common.address + Common.driverFeature, UInt32(truncatingIfNeeded: features))
    bus.mmioWrite32(common.address + Common.driverFeatureSelect, 1)
    bus.mmioWrite32(common.address + Common.driverFeature, UInt32(features >> 32))
  }

  /// How many queues the device has.
  public var queueCount: UInt16 { bus.mmioRead16(common.address + Common.queueCount) }

  /// Reads the interrupt status, which clears it (virtio 1.3 §4.1.4.5).
  public func readInterruptStatus() -> UInt8 { bus.mmioRead8(interruptStatus.address) }

  // MARK: Queues

  /// The largest size of a queue; 0 where the device has no such queue.
  public func queueSizeMax(_ index: UInt16) -> UInt16 {
    bus.mmioWrite16(common.address + Common.queueSelect, index)
    return bus.mmioRead16(common.address + Common.queueSize)
  }

  /// Gives the device a queue and enables it.
  /// - Returns: the address whose writing notifies the device of the queue.
  public func enableQueue(_ index: UInt16, _ ring: SplitVirtqueue<B>, vector: UInt16) throws(DriverError) -> UInt64 {
    let base = common.address
    bus.mmioWrite16(base + Common.queueSelect, index)
    bus.mmioWrite16(base + Common.queueSize, ring.size)
    write64(base + Common.queueDescriptors, ring.descriptorTable)
    write64(base + Common.queueDriver, ring.availRing)
    write64(base + Common.queueDevice, ring.usedRing)
    bus.mmioWrite16(base + Common.queueVector, vector)
    guard bus.mmioRead16(base + Common.queueVector) == vector else {
      throw .vectorRefused
    }
    let notifyOffset = UInt64(bus.mmioRead16(base + Common.queueNotifyOffset)) * notifyMultiplier
    guard bus.mmioRead16(base + Common.queueSize) == ring.size, notifyOffset + 2 <= notify.byteCount else {
      throw .queueRefused
    }
    bus.mmioWrite16(base + Common.queueEnable, 1)
    guard bus.mmioRead16(base + Common.queueEnable) == 1 else {
      throw .queueRefused
    }
    return notify.address + notifyOffset
  }

  /// Sets the vector of configuration changes to none.
  public func clearConfigurationVector() {
    bus.mmioWrite16(common.address + Common.configurationVector, VirtioPCITransport.noVector)
  }

  /// 64-bit registers are written as two halves, which every device must take (virtio 1.3 §4.1.3).
  private func write64(_ address: UInt64, _ value: UInt64) {
    bus.mmioWrite32(address, UInt32(truncatingIfNeeded: value))
    bus.mmioWrite32(address + 4, UInt32(value >> 32))
  }

  // MARK: Device configuration

  /// How many bytes of device configuration there are.
  public var deviceConfigurationBytes: UInt64 { device.byteCount }

  /// Changes whenever a read of several fields would not be consistent (virtio 1.3 §2.5).
  public var generation: UInt8 { bus.mmioRead8(common.address + Common.generation) }

  /// Reads one byte of device configuration; 0 past its end.
  public func device8(_ offset: UInt64) -> UInt8 {
    offset + 1 <= device.byteCount ? bus.mmioRead8(device.address + offset) : 0
  }

  /// Reads two bytes of device configuration; 0 past its end.
  public func device16(_ offset: UInt64) -> UInt16 {
    offset + 2 <= device.byteCount ? bus.mmioRead16(device.address + offset) : 0
  }

  /// Reads four bytes of device configuration; 0 past its end.
  public func device32(_ offset: UInt64) -> UInt32 {
    offset + 4 <= device.byteCount ? bus.mmioRead32(device.address + offset) : 0
  }

  /// Writes one byte of device configuration; nothing past its end.
  public func writeDevice8(_ offset: UInt64, _ value: UInt8) {
    if offset + 1 <= device.byteCount {
      bus.mmioWrite8(device.address + offset, value)
    }
  }

  /// Reads four bytes of device configuration through the configuration access capability (virtio 1.3 §4.1.4.9).
  /// - Returns: nil where the function has no such capability.
  public func device32ByConfigurationAccess(_ offset: UInt64) -> UInt32? {
    guard accessCapability != 0, offset + 4 <= device.byteCount else {
      return nil
    }
    let address = function.address
    configuration.write8(address, accessCapability + 4, device.register)
    configuration.write32(address, accessCapability + 8, UInt32(truncatingIfNeeded: device.offset + offset))
    configuration.write32(address, accessCapability + 12, 4)
    return configuration.read32(address, accessCapability + 16)
  }
}
