// SPDX-License-Identifier: Apache-2.0

/// The registers through which an ACPI guest hears of functions that come and go on bus 0, and lets them go (QEMU,
/// docs/specs/acpi_pci_hotplug), one bit for each slot.
///
/// They answer at the ports of a PIIX4 board and at those of an ICH9 board alike: 0xae00 and 0x0cc0.
public final class PCIHotPlug: Device {
  /// First ports of the two places.
  public static let basePorts: [UInt64] = [0xae00, 0x0cc0]
  /// Ports of each.
  public static let portCount: UInt64 = 0x14

  private enum Register {
    static let up: UInt64 = 0
    static let down: UInt64 = 4
    static let eject: UInt64 = 8
    static let removable: UInt64 = 12
    static let bus: UInt64 = 16
  }

  private var up: UInt32 = 0
  private var down: UInt32 = 0
  private var removable: [UInt8: PCIFunction] = [:]
  private var selectedBus: UInt32 = 0
  private lazy var registers = Registers(device: self)

  /// Called when a bit of the up or down register was set: the general purpose event that tells the guest. Machine lock
  /// held.
  public var onEvent: () -> Void = {}
  /// Called on the main loop when a function has left the machine, machine lock held.
  public var onRemoved: (PCIFunction) -> Void = { _ in }

  /// Makes the registers, for a machine without removable functions.
  public init() { super.init(name: "pci-hot-plug") }

  // MARK: The host's side. Machine lock held.

  /// Lets the guest eject this function, which is on the bus.
  public func allowRemoval(of function: PCIFunction) { removable[function.address.device] = function }

  /// Puts a function on the bus of a running machine, where the guest finds it at once, and tells the guest.
  /// Its address must be free.
  public func plug(_ function: PCIFunction) {
    machine?.attach(function)
    allowRemoval(of: function)
    up |= bit(of: function)
    onEvent()
  }

  /// Asks the guest to let a function go; it leaves when the guest ejects it, or at the next reset.
  /// - Returns: whether the function is one that can leave and has not begun to.
  @discardableResult
  public func requestUnplug(_ function: PCIFunction) -> Bool {
    guard removable[function.address.device] === function else { return false }
    down |= bit(of: function)
    onEvent()
    return true
  }

  /// Whether the guest was asked to let the function go and has not done so.
  public func isUnplugRequested(_ function: PCIFunction) -> Bool {
    removable[function.address.device] === function && down & bit(of: function) != 0
  }

  private func bit(of function: PCIFunction) -> UInt32 { 1 << UInt32(function.address.device) }

  private func eject(_ slots: UInt32) {
    for slot in 0..<UInt8(PCIAddress.devicesMax) where slots & 1 << UInt32(slot) != 0 {
      up &= ~(1 << UInt32(slot))
      down &= ~(1 << UInt32(slot))
      guard let function = removable.removeValue(forKey: slot), let machine else { continue }
      machine.eject(function) { [onRemoved] in onRemoved(function) }
    }
  }

  // MARK: Device

  public override func added(to machine: Machine) {
    for port in Self.basePorts { machine.portSpace.map(registers, at: port, byteCount: Self.portCount) }
  }

  public override func shutdown() { machine?.portSpace.unmap(registers) }

  /// A guest that begins anew finds the bus as it is: what it was asked to let go leaves now, as on QEMU.
  public override func reset() {
    eject(down)
    up = 0
    down = 0
    selectedBus = 0
  }

  // MARK: The guest's side

  private func value(of register: UInt64) -> UInt32 {
    // There is one bus, number 0; of others nothing is known.
    guard selectedBus == 0 || register == Register.bus else { return 0 }
    switch register {
    case Register.up:
      // Each plugging is told once.
      defer { up = 0 }
      return up
    case Register.down: return down
    // No features beyond the base set.
    case Register.eject: return 0
    case Register.removable: return removable.keys.reduce(0) { $0 | 1 << UInt32($1) }
    case Register.bus: return selectedBus
    default: return 0
    }
  }

  private final class Registers: RegisterBlock {
    // The device owns this block.
    private unowned let device: PCIHotPlug
    init(device: PCIHotPlug) { self.device = device }

    override func read(offset: UInt64, width: Int) -> UInt64 {
      guard offset % 4 == 0 else { return 0 }
      return UInt64(device.value(of: offset))
    }

    override func write(offset: UInt64, width: Int, value: UInt64) {
      guard width == 4 else { return }
      switch offset {
      case Register.eject: if device.selectedBus == 0 { device.eject(UInt32(value)) }
      case Register.bus: device.selectedBus = UInt32(value)
      default: break
      }
    }
  }
}
