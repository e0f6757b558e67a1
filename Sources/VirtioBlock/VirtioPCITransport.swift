// SPDX-License-Identifier: Apache-2.0
import CLinux
import Machine

/// The modern PCI transport of a virtio device (virtio 1.3 §4.1): where its register blocks lie, and what they do.
///
/// The layout is QEMU's, so that people find what they know: BAR 4 holds the four blocks a page each, BAR 1 the MSI-X
/// table. All functions run under the machine lock.
enum TransportLayout {
  static let msixBAR = 1
  static let registersBAR = 4
  static let registersBARBytes: UInt64 = 0x4000
  static let msixBARBytes: UInt64 = 0x1000
  static let msixPendingOffset: UInt64 = 0x800
  static let blockBytes: UInt64 = 0x1000
  static let commonOffset: UInt64 = 0
  static let isrOffset: UInt64 = 0x1000
  static let deviceOffset: UInt64 = 0x2000
  static let notifyOffset: UInt64 = 0x3000
  /// Bytes between the doorbells of two queues.
  static let notifyMultiplier: UInt64 = 4
  /// Width of a doorbell write (§4.1.5.2: the queue's index, 16 bits).
  static let notifyWidth = 2
  /// queue_select in the common configuration structure.
  static let queueSelectOffset: UInt64 = 22
  /// Bytes of the common configuration structure, up to queue_device (§4.1.4.3).
  static let commonBytes: UInt32 = 56

  /// cfg_type values (§4.1.4).
  static let capCommon: UInt8 = 1
  static let capNotify: UInt8 = 2
  static let capISR: UInt8 = 3
  static let capDevice: UInt8 = 4
  static let capPCI: UInt8 = 5
  /// Vendor-specific capability id of PCI.
  static let vendorCapability: UInt8 = 9
}

/// BAR 4: dispatches to the four register blocks, a page each.
final class VirtioPCITransport: RegisterBlock {
  unowned(unsafe) let device: VirtioBlockDevice
  private var deviceFeatureSelect: UInt32 = 0
  private var driverFeatureSelect: UInt32 = 0
  /// The queue that the registers of both interfaces are about.
  var queueSelect: UInt16 = 0
  /// Offset of the PCI configuration access capability in configuration space; 0 where there is none.
  var accessCapability = 0

  init(device: VirtioBlockDevice) {
    self.device = device
    super.init()
  }

  func clearSelectors() {
    deviceFeatureSelect = 0
    driverFeatureSelect = 0
    queueSelect = 0
    (device.mmioRegisters as? VirtioLegacyMMIORegisters)?.clear()
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    switch offset & ~(TransportLayout.blockBytes - 1) {
    case TransportLayout.commonOffset: return readCommon(offset, width)
    case TransportLayout.isrOffset:
      return offset == TransportLayout.isrOffset ? UInt64(device.takeInterruptStatus()) : 0
    case TransportLayout.deviceOffset: return readDevice(offset - TransportLayout.deviceOffset, width)
    default: return 0
    }
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    switch offset & ~(TransportLayout.blockBytes - 1) {
    case TransportLayout.commonOffset: writeCommon(offset, width, value)
    case TransportLayout.deviceOffset: writeDevice(offset - TransportLayout.deviceOffset, width, value)
    case TransportLayout.notifyOffset:
      // Reached where no accelerator took the doorbell as an eventfd: an unusual width, or through the access
      // capability.
      let queue = Int((offset - TransportLayout.notifyOffset) / TransportLayout.notifyMultiplier)
      if queue < device.queues.count { device.queues[queue].event.signal() }
    default: break
    }
  }

  // MARK: Common configuration (§4.1.4.3)

  private var selectedQueue: VirtioBlockDevice.QueueRegisters? {
    queueSelect < device.queueRegisters.count ? device.queueRegisters[Int(queueSelect)] : nil
  }

  /// Reads any bytes of the structure, assembled from its 32-bit words.
  private func readCommon(_ offset: UInt64, _ width: Int) -> UInt64 {
    let word = offset & ~3
    let low = UInt64(commonWord(word)) | UInt64(commonWord(word + 4)) << 32
    let shift = (offset & 3) * 8
    let high = shift == 0 || width <= 4 ? 0 : UInt64(commonWord(word + 8)) << (64 - shift)
    let value = low >> shift | high
    return width == 8 ? value : value & ((1 << (UInt64(width) * 8)) - 1)
  }

  private func commonWord(_ offset: UInt64) -> UInt32 {
    let queue = selectedQueue
    switch offset {
    case 0: return deviceFeatureSelect
    case 4: return half(device.offeredFeatures, deviceFeatureSelect)
    case 8: return driverFeatureSelect
    case 12: return half(device.driverFeatures, driverFeatureSelect)
    case 16: return UInt32(clinux_load16(device.vectors)) | UInt32(device.queues.count) << 16
    case 20:
      return UInt32(device.statusRegister) | UInt32(device.configurationGeneration) << 8 | UInt32(queueSelect) << 16
    case 24:
      guard let queue else { return UInt32(VirtioBlockDevice.noVector) << 16 }
      return UInt32(queue.size) | UInt32(clinux_load16(device.vectors + Int(queueSelect) + 1)) << 16
    case 28: return queue.map { ($0.isEnabled ? 1 : 0) | UInt32(queueSelect) << 16 } ?? 0
    case 32: return UInt32(truncatingIfNeeded: queue?.descriptors ?? 0)
    case 36: return UInt32(truncatingIfNeeded: (queue?.descriptors ?? 0) >> 32)
    case 40: return UInt32(truncatingIfNeeded: queue?.available ?? 0)
    case 44: return UInt32(truncatingIfNeeded: (queue?.available ?? 0) >> 32)
    case 48: return UInt32(truncatingIfNeeded: queue?.used ?? 0)
    case 52: return UInt32(truncatingIfNeeded: (queue?.used ?? 0) >> 32)
    default: return 0
    }
  }

  private func half(_ features: UInt64, _ select: UInt32) -> UInt32 {
    select > 1 ? 0 : UInt32(truncatingIfNeeded: features >> (32 * UInt64(select)))
  }

  /// Writes a field in its own width, or half of a 64-bit address (§4.1.3); anything else is ignored.
  private func writeCommon(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    switch (offset, width) {
    case (0, 4): deviceFeatureSelect = UInt32(value)
    case (8, 4): driverFeatureSelect = UInt32(value)
    case (12, 4): writeDriverFeatures(UInt32(value))
    case (16, 2): clinux_store16(device.vectors, acceptedVector(UInt16(value)))
    case (20, 1): device.writeStatus(UInt8(value))
    case (TransportLayout.queueSelectOffset, 2): queueSelect = UInt16(value)
    default:
      if offset >= 24 && selectedQueue != nil { writeQueue(Int(queueSelect), offset, width, value) }
    }
  }

  private func writeDriverFeatures(_ value: UInt32) {
    guard driverFeatureSelect <= 1, device.mayNegotiate else { return }
    let shift = 32 * UInt64(driverFeatureSelect)
    device.driverFeatures = device.driverFeatures & ~(0xffff_ffff << shift) | UInt64(value) << shift
  }

  /// A vector beyond the table reads back as "no vector" (§4.1.5.1.2.1).
  func acceptedVector(_ vector: UInt16) -> UInt16 {
    Int(vector) <= device.queues.count ? vector : VirtioBlockDevice.noVector
  }

  private func writeQueue(_ index: Int, _ offset: UInt64, _ width: Int, _ value: UInt64) {
    if (offset, width) == (26, 2) {
      clinux_store16(device.vectors + index + 1, acceptedVector(UInt16(value)))
      return
    }
    // An enabled queue does not change any more until the device is reset (CVE-2026-5747).
    if device.queueRegisters[index].isEnabled { return }
    switch (offset, width) {
    case (24, 2):
      let size = UInt16(value)
      // Only what the device can serve is taken; 0 and odd sizes leave the register alone (CVE-2017-17381).
      if size > 0 && size & (size - 1) == 0 && size <= device.options.queueEntries {
        device.queueRegisters[index].size = size
      }
    case (28, 2): if value == 1 { device.enableQueue(index) }
    case (32, _): merge(value, width, shift: 0, into: &device.queueRegisters[index].descriptors)
    case (36, 4): merge(value, width, shift: 32, into: &device.queueRegisters[index].descriptors)
    case (40, _): merge(value, width, shift: 0, into: &device.queueRegisters[index].available)
    case (44, 4): merge(value, width, shift: 32, into: &device.queueRegisters[index].available)
    case (48, _): merge(value, width, shift: 0, into: &device.queueRegisters[index].used)
    case (52, 4): merge(value, width, shift: 32, into: &device.queueRegisters[index].used)
    default: break
    }
  }

  private func merge(_ value: UInt64, _ width: Int, shift: UInt64, into field: inout UInt64) {
    switch width {
    case 8: field = value
    case 4: field = field & ~(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift
    default: break
    }
  }

  // MARK: Device configuration (§5.2.4)

  func readDevice(_ offset: UInt64, _ width: Int) -> UInt64 {
    let bytes = device.configurationBytes
    device.configurationWasRead()
    var value: UInt64 = 0
    for index in 0..<width where Int(offset) + index < bytes.count {
      value |= UInt64(bytes[Int(offset) + index]) << (8 * UInt64(index))
    }
    return value
  }

  func writeDevice(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    // The writeback field is the only one that a driver may write, and only with CONFIG_WCE (§5.2.6.1).
    guard offset == VirtioBlockDevice.writebackOffset, width == 1, device.negotiated(Feature.configWCE) else { return }
    device.backend.writeCacheEnabled = value & 1 != 0
  }
}

extension VirtioBlockDevice {
  static let writebackOffset: UInt64 = 32

  /// The device configuration as the guest reads it now.
  var configurationBytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Limit.configurationBytes)
    func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
      for index in 0..<MemoryLayout<T>.size { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
    }
    put(backend.byteCount / Limit.sectorBytes, at: 0)
    put(UInt32(options.queueEntries) - 2, at: 12)
    if let geometry = options.geometry {
      put(geometry.cylinders, at: 16)
      put(geometry.heads, at: 18)
      put(geometry.sectors, at: 19)
    }
    put(UInt32(backend.logicalBlockBytes), at: 20)
    let blocksPerPhysical = max(1, backend.physicalBlockBytes / backend.logicalBlockBytes)
    put(UInt8(blocksPerPhysical.trailingZeroBitCount), at: 24)
    put(UInt16(blocksPerPhysical), at: 26)
    put(UInt8(backend.writeCacheEnabled ? 1 : 0), at: Int(Self.writebackOffset))
    put(UInt16(queues.count), at: 34)
    if offers(Feature.discard) {
      put(Limit.rangeSectorsMax, at: 36)
      put(UInt32(Limit.rangeSegmentsMax), at: 40)
      put(UInt32(UInt64(backend.discardGranularityBytes) / Limit.sectorBytes), at: 44)
    }
    if offers(Feature.writeZeroes) {
      put(Limit.rangeSectorsMax, at: 48)
      put(UInt32(Limit.rangeSegmentsMax), at: 52)
      // Each request says whether it may be unmapped.
      put(UInt8(1), at: 56)
    }
    return bytes
  }
}
