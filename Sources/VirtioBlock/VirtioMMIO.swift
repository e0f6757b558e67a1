// SPDX-License-Identifier: Apache-2.0
import Machine

/// The memory-mapped transport of a virtio device (virtio 1.3 §4.2): where devices are on the board, and their registers.
///
/// Eight places follow each other from `base` on. Each has an interrupt line of its own; those that a PC's serial port,
/// clock and power management use are left out. There is nothing to find the devices by: a guest is told of them, as in
/// `virtio_mmio.device=512@0xfeb00000:5` for Linux.
public enum VirtioMMIO {
  /// Where the first place is.
  public static let base: UInt64 = 0xfeb0_0000
  /// Bytes of a place.
  public static let slotBytes: UInt64 = 0x200
  /// The interrupt lines of the places.
  public static let lines = [5, 6, 7, 10, 11, 12, 14, 15]

  /// Where a place is.
  public static func address(ofSlot slot: Int) -> UInt64 { base + UInt64(slot) * slotBytes }

  /// Offsets of registers that the PCI transport does not have (§4.2.2).
  enum Register {
    static let magic: UInt64 = 0x000
    static let version: UInt64 = 0x004
    static let deviceID: UInt64 = 0x008
    static let vendorID: UInt64 = 0x00c
    static let queueSizeMax: UInt64 = 0x034
    static let queueReady: UInt64 = 0x044
    static let queueNotify: UInt64 = 0x050
    static let interruptStatus: UInt64 = 0x060
    static let interruptAcknowledge: UInt64 = 0x064
    /// Length and base of a shared memory region, of which there is none: all ones (§4.2.2).
    static let sharedMemory: ClosedRange<UInt64> = 0x0b0...0x0bf
    static let configuration: UInt64 = 0x100
  }

  static let magic: UInt64 = 0x7472_6976
  static let version: UInt64 = 2
  static let blockDevice: UInt64 = 2
  static let vendor: UInt64 = 0x1af4
  /// Width of all registers before the device configuration (§4.2.2.2).
  static let registerWidth = 4

  /// A register that both transports have: where it is in the common configuration of PCI (§4.1.4.3), and how wide there.
  struct Common {
    var offset: UInt64
    var width: Int
  }

  /// By offset.
  static func common(_ register: UInt64) -> Common? {
    switch register {
    case 0x010: Common(offset: 4, width: 4)  // DeviceFeatures
    case 0x014: Common(offset: 0, width: 4)  // DeviceFeaturesSel
    case 0x020: Common(offset: 12, width: 4)  // DriverFeatures
    case 0x024: Common(offset: 8, width: 4)  // DriverFeaturesSel
    case 0x030: Common(offset: 22, width: 2)  // QueueSel
    case 0x038: Common(offset: 24, width: 2)  // QueueSize
    case 0x044: Common(offset: 28, width: 2)  // QueueReady
    case 0x070: Common(offset: 20, width: 1)  // Status
    case 0x080: Common(offset: 32, width: 4)  // QueueDescLow and High
    case 0x084: Common(offset: 36, width: 4)
    case 0x090: Common(offset: 40, width: 4)  // QueueDriverLow and High
    case 0x094: Common(offset: 44, width: 4)
    case 0x0a0: Common(offset: 48, width: 4)  // QueueDeviceLow and High
    case 0x0a4: Common(offset: 52, width: 4)
    case 0x0fc: Common(offset: 21, width: 1)  // ConfigGeneration
    default: nil
    }
  }

  /// Registers that can be written but not read, or read but not written (§4.2.2).
  static let writeOnly: Set<UInt64> = [
    0x014, 0x020, 0x024, 0x030, 0x038, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4,
  ]
  static let readOnly: Set<UInt64> = [0x010, 0x0fc]
}

/// The registers of one place. They change the state that the PCI transport's registers would. Machine lock held.
final class VirtioMMIORegisters: RegisterBlock {
  private let transport: VirtioPCITransport
  private var device: VirtioBlockDevice { transport.device }

  init(_ transport: VirtioPCITransport) {
    self.transport = transport
    super.init()
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= VirtioMMIO.Register.configuration {
      return transport.readDevice(offset - VirtioMMIO.Register.configuration, width)
    }
    guard width == VirtioMMIO.registerWidth else { return 0 }
    switch offset {
    case VirtioMMIO.Register.magic: return VirtioMMIO.magic
    case VirtioMMIO.Register.version: return VirtioMMIO.version
    case VirtioMMIO.Register.deviceID: return VirtioMMIO.blockDevice
    case VirtioMMIO.Register.vendorID: return VirtioMMIO.vendor
    case VirtioMMIO.Register.queueSizeMax:
      return transport.queueSelect < device.queueRegisters.count ? UInt64(device.options.queueEntries) : 0
    case VirtioMMIO.Register.interruptStatus: return UInt64(device.pendingInterruptStatus)
    case VirtioMMIO.Register.sharedMemory: return UInt64.max
    default:
      guard let common = VirtioMMIO.common(offset), !VirtioMMIO.writeOnly.contains(offset) else { return 0 }
      return transport.read(offset: TransportLayout.commonOffset + common.offset, width: common.width)
    }
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    if offset >= VirtioMMIO.Register.configuration {
      return transport.writeDevice(offset - VirtioMMIO.Register.configuration, width, value)
    }
    guard width == VirtioMMIO.registerWidth else { return }
    switch offset {
    case VirtioMMIO.Register.queueReady where value == 0: device.takeBackQueue(Int(transport.queueSelect))
    case VirtioMMIO.Register.queueNotify: notify(value)
    case VirtioMMIO.Register.interruptAcknowledge: device.acknowledgeInterrupt(UInt8(truncatingIfNeeded: value))
    default:
      guard let common = VirtioMMIO.common(offset), !VirtioMMIO.readOnly.contains(offset) else { return }
      let largest = UInt64.max >> UInt64(64 - 8 * common.width)
      // A queue that does not exist is selected as one; other values that do not fit mean nothing.
      if value > largest && common.offset != TransportLayout.queueSelectOffset { return }
      transport.write(
        offset: TransportLayout.commonOffset + common.offset, width: common.width, value: min(value, largest))
    }
  }

  private func notify(_ queue: UInt64) {
    if queue < device.queues.count { device.queues[Int(queue)].event.signal() }
  }
}

extension VirtioBlockDevice {
  /// Makes the registers of a device that is not on the PCI bus.
  func makeMMIORegisters() -> RegisterBlock {
    options.interface.isModern ? VirtioMMIORegisters(transport) : VirtioLegacyMMIORegisters(transport)
  }

  /// The driver clears QueueReady (§4.2.2.1): from now on nothing of the queue is looked at. The register reads 1 until the
  /// queue's last request is back, which the guest does not see any more. Machine lock held.
  func takeBackQueue(_ index: Int) {
    guard index < queues.count, queueRegisters[index].isEnabled else { return }
    guard hasStarted else {
      queueRegisters[index].isEnabled = false
      return
    }
    let expected = currentLife
    if isOnMainLoop {
      // The main loop sleeps while we hold the machine lock, so the queue stands still.
      queues[index].stop { [unowned self] in
        if currentLife == expected { queueRegisters[index].isEnabled = false }
      }
      return
    }
    backend.loop.execute { [self] in
      guard currentLife == expected else { return }
      queues[index].stop { [unowned self] in
        machine?.mainLoop.execute { [self] in
          if currentLife == expected { queueRegisters[index].isEnabled = false }
        }
      }
    }
  }

  /// Maps the registers of a device that is not on the PCI bus.
  func mapMMIO(in machine: Machine) {
    guard let slot = options.mmioSlot, let registers = mmioRegisters else { return }
    let address = VirtioMMIO.address(ofSlot: slot)
    machine.memorySpace.map(registers, at: address, byteCount: VirtioMMIO.slotBytes)
    // A doorbell does not look at the value, so it can stand for the only queue. It starts nothing, as a legacy driver's does.
    if queues.count == 1 && options.interface.isModern {
      machine.doorbells.add(
        Doorbell(
          address: address + VirtioMMIO.Register.queueNotify, width: VirtioMMIO.registerWidth, event: queues[0].event))
    }
  }

  func unmapMMIO() {
    guard let machine, let slot = options.mmioSlot, let registers = mmioRegisters else { return }
    machine.memorySpace.unmap(registers)
    machine.doorbells.remove(
      address: VirtioMMIO.address(ofSlot: slot) + VirtioMMIO.Register.queueNotify, width: VirtioMMIO.registerWidth)
  }
}
