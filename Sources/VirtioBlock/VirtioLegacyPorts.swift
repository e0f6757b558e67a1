// SPDX-License-Identifier: Apache-2.0
import CLinux
import Machine

/// Where the registers of the legacy interface lie (virtio 1.3 §4.1.4.10).
enum LegacyLayout {
  static let bar = 0
  static let barBytes: UInt64 = 128
  static let deviceFeatures: UInt64 = 0
  static let driverFeatures: UInt64 = 4
  static let queueAddress: UInt64 = 8
  static let queueSize: UInt64 = 12
  static let queueSelect: UInt64 = 14
  static let queueNotify: UInt64 = 16
  static let status: UInt64 = 18
  static let interruptStatus: UInt64 = 19
  /// The two vector registers, which are there while MSI-X is enabled.
  static let configurationVector: UInt64 = 20
  static let queueVector: UInt64 = 22
  /// The device configuration begins here, or behind the vector registers.
  static let configuration: UInt64 = 20
  static let configurationWithVectors: UInt64 = 24
  /// Alignment of the used ring, and unit of the queue address register (§2.7.2, §4.1.5.1.3.1).
  static let queueAlignBytes: UInt64 = 4096
}

/// BAR 0 of a transitional device: the registers of virtio before version 1, through which old drivers work.
///
/// They stand beside the modern ones and change the same state, so a guest that mixes the two gets no more than either
/// allows. All functions run under the machine lock.
final class VirtioLegacyPorts: RegisterBlock {
  private let transport: VirtioPCITransport
  private var device: VirtioBlockDevice { transport.device }

  init(_ transport: VirtioPCITransport) {
    self.transport = transport
    super.init()
  }

  private var hasVectors: Bool { device.msix?.isEnabled ?? false }

  /// Offset in the device configuration of a register, or nil where the register is before it.
  private func configurationOffset(_ offset: UInt64) -> UInt64? {
    let start = hasVectors ? LegacyLayout.configurationWithVectors : LegacyLayout.configuration
    return offset >= start ? offset - start : nil
  }

  private var selectedQueue: Int? {
    Int(transport.queueSelect) < device.queueRegisters.count ? Int(transport.queueSelect) : nil
  }

  // MARK: Reads

  /// A register read in its own width or less gives its low bytes; a read inside one, all ones.
  override func read(offset: UInt64, width: Int) -> UInt64 {
    if let configuration = configurationOffset(offset) { return transport.readDevice(configuration, width) }
    guard width <= Self.width(of: offset) else { return UInt64.max }
    let queue = selectedQueue.map { device.queueRegisters[$0] }
    switch offset {
    case LegacyLayout.deviceFeatures: return device.legacyFeatures
    case LegacyLayout.driverFeatures: return device.driverFeatures & 0xffff_ffff
    case LegacyLayout.queueAddress:
      guard let queue, queue.isEnabled else { return 0 }
      return queue.descriptors / LegacyLayout.queueAlignBytes
    case LegacyLayout.queueSize: return UInt64(queue?.size ?? 0)
    case LegacyLayout.queueSelect: return UInt64(transport.queueSelect)
    case LegacyLayout.status: return UInt64(device.statusRegister)
    case LegacyLayout.interruptStatus: return UInt64(device.takeInterruptStatus())
    case LegacyLayout.configurationVector: return UInt64(clinux_load16(device.vectors))
    case LegacyLayout.queueVector:
      guard let index = selectedQueue else { return UInt64(VirtioBlockDevice.noVector) }
      return UInt64(clinux_load16(device.vectors + index + 1))
    default: return 0
    }
  }

  /// Bytes of the register at `offset` before the device configuration; 0 inside a register.
  private static func width(of offset: UInt64) -> Int {
    switch offset {
    case LegacyLayout.deviceFeatures, LegacyLayout.driverFeatures, LegacyLayout.queueAddress: 4
    case LegacyLayout.queueSize, LegacyLayout.queueSelect, LegacyLayout.queueNotify: 2
    case LegacyLayout.configurationVector, LegacyLayout.queueVector: 2
    case LegacyLayout.status, LegacyLayout.interruptStatus: 1
    default: 0
    }
  }

  // MARK: Writes

  /// A register is written in its own width; anything else is ignored.
  override func write(offset: UInt64, width: Int, value: UInt64) {
    if let configuration = configurationOffset(offset) {
      return device.writeLegacyConfiguration(configuration, width, value)
    }
    guard width == Self.width(of: offset) else { return }
    switch offset {
    case LegacyLayout.driverFeatures:
      device.acceptLegacyFeatures(value)
    case LegacyLayout.queueAddress: writeQueueAddress(value)
    case LegacyLayout.queueSelect: transport.queueSelect = UInt16(value)
    case LegacyLayout.queueNotify: device.notifyLegacyQueue(Int(value))
    case LegacyLayout.status: device.writeLegacyStatus(UInt8(value))
    case LegacyLayout.configurationVector:
      clinux_store16(device.vectors, transport.acceptedVector(UInt16(value)))
    case LegacyLayout.queueVector:
      if let index = selectedQueue {
        clinux_store16(device.vectors + index + 1, transport.acceptedVector(UInt16(value)))
      }
    default: break
    }
  }

  /// Page 0 takes the queue back, which resets the device, as on QEMU: drivers write it as they let go.
  private func writeQueueAddress(_ page: UInt64) {
    guard let index = selectedQueue else { return }
    if page == 0 { return device.resetFromGuest() }
    device.placeLegacyQueue(index, at: page * LegacyLayout.queueAlignBytes, alignBytes: LegacyLayout.queueAlignBytes)
  }
}
