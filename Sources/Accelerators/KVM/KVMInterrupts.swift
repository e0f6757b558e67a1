// SPDX-License-Identifier: Apache-2.0
import CKVM
import Glibc
import HostSystem
import Logging
import Machine
import Synchronization

/// The interrupt side of KVM: the in-kernel 8259s, I/O APIC and local APICs.
///
/// Each MSI vector gets a GSI of its own, routed to its message, and an irqfd: raising the interrupt is one eventfd
/// write from any thread, without a call into the device's or the machine's locks.
final class KVMInterruptController: InterruptController, @unchecked Sendable {
  /// Inputs of the I/O APIC; message GSIs come after them.
  private static let pinCount: UInt32 = 24
  /// GSIs in all, at most; KVM has 4096.
  private static let routesMax: UInt32 = 1024
  private static let timerPin: UInt32 = 2
  private static let legacyPinCount: UInt32 = 16
  private static let pinsPerLegacyChip: UInt32 = 8
  /// irqchip numbers of the routing entries (KVM_IRQCHIP_*).
  private static let legacyMaster: UInt32 = 0
  private static let legacySlave: UInt32 = 1
  private static let ioAPIC: UInt32 = 2
  private static let routeToChip: UInt32 = 1
  private static let routeToMessage: UInt32 = 2
  static let irqfdDeassign: UInt32 = 1

  let machine: KVMVirtualMachine
  private let hasIRQFD: Bool
  // GSI to message. Changed when a guest programs a vector, under this lock; the kernel holds the table in use.
  private let routes = Mutex<[UInt32: MSIMessage]>([:])
  private let logger = Logger(label: "kvm")

  init(machine: KVMVirtualMachine) {
    self.machine = machine
    hasIRQFD = machine.has(KVM_CAP_IRQFD)
    super.init()
  }

  override func makeRoute() -> InterruptRoute {
    guard hasIRQFD, let event = try? EventDescriptor(), let gsi = takeGSI() else {
      return InterruptRoute(controller: self)
    }
    return KVMInterruptRoute(controller: self, gsi: gsi, event: event)
  }

  override func send(_ message: MSIMessage) {
    var msi = kvm_msi()
    msi.address_lo = UInt32(truncatingIfNeeded: message.address)
    msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
    msi.data = message.data
    // A message that no local APIC takes is lost, as on the bus.
    _ = try? KVMCall.structure(machine.machine.number, ckvm_SIGNAL_MSI, &msi, "KVM_SIGNAL_MSI")
  }

  override func setLine(_ line: Int, asserted: Bool) {
    var level = kvm_irq_level()
    level.irq = UInt32(line)
    level.level = asserted ? 1 : 0
    _ = try? KVMCall.structure(machine.machine.number, ckvm_IRQ_LINE, &level, "KVM_IRQ_LINE")
  }

  // MARK: GSIs

  private func takeGSI() -> UInt32? {
    routes.withLock { routes in
      guard let gsi = (Self.pinCount..<Self.routesMax).first(where: { routes[$0] == nil }) else { return nil }
      routes[gsi] = MSIMessage(address: 0, data: 0)
      return gsi
    }
  }

  func release(_ gsi: UInt32) {
    routes.withLock { routes in
      routes[gsi] = nil
      apply(routes)
    }
  }

  func route(_ gsi: UInt32, to message: MSIMessage) {
    routes.withLock { routes in
      routes[gsi] = message
      apply(routes)
    }
  }

  /// Gives the kernel the whole table: the pins as a PC wires them, then the messages.
  private func apply(_ routes: [UInt32: MSIMessage]) {
    let messages = routes.filter { $0.value.address != 0 }
    // Input 2 of the I/O APIC belongs to the timer's line 0, as on every PC, so line 2 has none.
    let count = Self.legacyPinCount + Self.pinCount - 1 + UInt32(messages.count)
    guard let table = ckvm_routing_make(count) else { return }
    defer { free(table) }
    let entries = ckvm_routing_entries(table)!
    var next = 0
    func add(_ gsi: UInt32, type: UInt32, _ fill: (inout kvm_irq_routing_entry) -> Void) {
      entries[next].gsi = gsi
      entries[next].type = type
      fill(&entries[next])
      next += 1
    }
    for pin in 0..<Self.legacyPinCount {
      add(pin, type: Self.routeToChip) {
        $0.u.irqchip.irqchip = pin < Self.pinsPerLegacyChip ? Self.legacyMaster : Self.legacySlave
        $0.u.irqchip.pin = pin % Self.pinsPerLegacyChip
      }
    }
    for pin in 0..<Self.pinCount where pin != Self.timerPin {
      add(pin, type: Self.routeToChip) {
        $0.u.irqchip.irqchip = Self.ioAPIC
        $0.u.irqchip.pin = pin == 0 ? Self.timerPin : pin
      }
    }
    for (gsi, message) in messages {
      add(gsi, type: Self.routeToMessage) {
        $0.u.msi.address_lo = UInt32(truncatingIfNeeded: message.address)
        $0.u.msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
        $0.u.msi.data = message.data
      }
    }
    do {
      try KVMCall.integer(
        machine.machine.number, ckvm_SET_GSI_ROUTING, UInt(bitPattern: table), "KVM_SET_GSI_ROUTING")
    } catch {
      logger.warning("interrupt routes could not be changed: \(error)")
    }
  }

  /// Binds or unbinds an eventfd to a GSI.
  func bind(_ event: EventDescriptor, gsi: UInt32, isBound: Bool) throws(SystemError) {
    var irqfd = kvm_irqfd()
    irqfd.fd = UInt32(event.number)
    irqfd.gsi = gsi
    irqfd.flags = isBound ? 0 : Self.irqfdDeassign
    try KVMCall.structure(machine.machine.number, ckvm_IRQFD, &irqfd, "KVM_IRQFD")
  }
}

/// A vector's way through an irqfd.
final class KVMInterruptRoute: InterruptRoute, @unchecked Sendable {
  private let gsi: UInt32
  private let event: EventDescriptor
  private var isBound = false

  init(controller: KVMInterruptController, gsi: UInt32, event: EventDescriptor) {
    self.gsi = gsi
    self.event = event
    super.init(controller: controller)
  }

  private var kvm: KVMInterruptController? { controller as? KVMInterruptController }

  override func update(_ message: MSIMessage) {
    super.update(message)
    kvm?.route(gsi, to: message)
    if !isBound { isBound = (try? kvm?.bind(event, gsi: gsi, isBound: true)) != nil }
  }

  override func fire() {
    if isBound { event.signal() } else { super.fire() }
  }

  override func close() {
    if isBound { try? kvm?.bind(event, gsi: gsi, isBound: false) }
    isBound = false
    kvm?.release(gsi)
  }
}
