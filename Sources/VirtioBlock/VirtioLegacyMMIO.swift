// SPDX-License-Identifier: Apache-2.0
import Machine

/// The registers of one place of the memory-mapped transport for drivers from before version 1 (virtio 1.3 §4.2.4): version
/// 1, one page number for all of a queue. QEMU's boards have these unless they are told otherwise. Machine lock held.
final class VirtioLegacyMMIORegisters: RegisterBlock {
  private let transport: VirtioPCITransport
  private var device: VirtioBlockDevice { transport.device }
  private var deviceFeatureSelect: UInt64 = 0
  private var driverFeatureSelect: UInt64 = 0
  private var pageBytes: UInt64 = 0
  private var alignBytes = LegacyLayout.queueAlignBytes

  /// Offsets that the transport of version 2 has not, or uses otherwise.
  private enum Register {
    static let deviceFeatures: UInt64 = 0x010
    static let deviceFeatureSelect: UInt64 = 0x014
    static let driverFeatures: UInt64 = 0x020
    static let driverFeatureSelect: UInt64 = 0x024
    static let pageBytes: UInt64 = 0x028
    static let queueSelect: UInt64 = 0x030
    static let queueSize: UInt64 = 0x038
    static let queueAlign: UInt64 = 0x03c
    static let queuePage: UInt64 = 0x040
    static let status: UInt64 = 0x070
  }
  private static let version: UInt64 = 1

  init(_ transport: VirtioPCITransport) {
    self.transport = transport
    super.init()
  }

  private var selectedQueue: Int? {
    Int(transport.queueSelect) < device.queueRegisters.count ? Int(transport.queueSelect) : nil
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= VirtioMMIO.Register.configuration {
      return transport.readDevice(offset - VirtioMMIO.Register.configuration, width)
    }
    guard width == VirtioMMIO.registerWidth else { return 0 }
    switch offset {
    case VirtioMMIO.Register.magic: return VirtioMMIO.magic
    case VirtioMMIO.Register.version: return Self.version
    case VirtioMMIO.Register.deviceID: return VirtioMMIO.blockDevice
    case VirtioMMIO.Register.vendorID: return VirtioMMIO.vendor
    case Register.deviceFeatures: return deviceFeatureSelect == 0 ? device.legacyFeatures : 0
    case VirtioMMIO.Register.queueSizeMax: return selectedQueue == nil ? 0 : UInt64(device.options.queueEntries)
    case Register.queuePage:
      guard let index = selectedQueue, device.queueRegisters[index].isEnabled, pageBytes > 0 else { return 0 }
      return device.queueRegisters[index].descriptors / pageBytes & 0xffff_ffff
    case VirtioMMIO.Register.interruptStatus: return UInt64(device.pendingInterruptStatus)
    case Register.status: return UInt64(device.statusRegister)
    default: return 0
    }
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    if offset >= VirtioMMIO.Register.configuration {
      return device.writeLegacyConfiguration(offset - VirtioMMIO.Register.configuration, width, value)
    }
    guard width == VirtioMMIO.registerWidth else { return }
    switch offset {
    case Register.deviceFeatureSelect: deviceFeatureSelect = value
    case Register.driverFeatureSelect: driverFeatureSelect = value
    case Register.driverFeatures: if driverFeatureSelect == 0 { device.acceptLegacyFeatures(value) }
    case Register.pageBytes: if Self.isPowerOfTwo(value) { pageBytes = value }
    case Register.queueSelect: transport.queueSelect = UInt16(clamping: value)
    case Register.queueSize: writeQueueSize(value)
    case Register.queueAlign: if Self.isPowerOfTwo(value) { alignBytes = value }
    case Register.queuePage: writeQueuePage(value)
    case VirtioMMIO.Register.queueNotify: device.notifyLegacyQueue(Int(value))
    case VirtioMMIO.Register.interruptAcknowledge: device.acknowledgeInterrupt(UInt8(truncatingIfNeeded: value))
    case Register.status: device.writeLegacyStatus(UInt8(truncatingIfNeeded: value))
    default: break
    }
  }

  /// What a driver has set beside the queues goes with a reset.
  func clear() {
    (deviceFeatureSelect, driverFeatureSelect) = (0, 0)
    alignBytes = LegacyLayout.queueAlignBytes
  }

  private static func isPowerOfTwo(_ value: UInt64) -> Bool { value > 0 && value & (value - 1) == 0 }

  private func writeQueueSize(_ value: UInt64) {
    guard let index = selectedQueue, !device.queueRegisters[index].isEnabled, Self.isPowerOfTwo(value),
      value <= UInt64(device.options.queueEntries)
    else { return }
    device.queueRegisters[index].size = UInt16(value)
  }

  /// Page 0 takes the queue back, which resets the device, as on QEMU.
  private func writeQueuePage(_ page: UInt64) {
    guard let index = selectedQueue else { return }
    if page == 0 { return device.resetFromGuest() }
    // A driver that has not told the size of its pages has no place for a queue.
    guard pageBytes > 0 else { return }
    device.placeLegacyQueue(index, at: page * pageBytes, alignBytes: alignBytes)
  }
}
