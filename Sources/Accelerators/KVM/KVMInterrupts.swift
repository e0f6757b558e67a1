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
  private static let irqfdDeassign: UInt32 = 1
  /// irqchip numbers of the routing entries (KVM_IRQCHIP_*).
  private static let legacyMaster: UInt32 = 0
  private static let legacySlave: UInt32 = 1
  private static let ioAPIC: UInt32 = 2
  /// Types of the routing entries (KVM_IRQ_ROUTING_*).
  private static let routeToChip: UInt32 = 1
  private static let routeToMessage: UInt32 = 2

  /// GSIs that vectors hold, and the messages of those that have one.
  private struct Routes {
    var taken: Set<UInt32> = []
    var messages: [UInt32: MSIMessage] = [:]
  }

  private let machine: KVMVirtualMachine
  private let hasIRQFD: Bool
  // Changed when a guest programs a vector, under this lock; the kernel holds the table in use.
  private let routes = Mutex(Routes())
  private let logger = Logger(label: "kvm")

  init(machine: KVMVirtualMachine) {
    self.machine = machine
    hasIRQFD = machine.has(KVM_CAP_IRQFD)
    super.init()
    // KVM begins with a table of its own that wires the timer's line differently; from here on there is one table.
    _ = routes.withLock { apply($0.messages) }
  }

  /// A route through an irqfd; through KVM_SIGNAL_MSI where there is none to have (no KVM_CAP_IRQFD, no descriptor, no
  /// GSI left).
  override func makeRoute() -> InterruptRoute {
    guard hasIRQFD, let event = try? EventDescriptor(), let gsi = takeGSI() else {
      return InterruptRoute(controller: self)
    }
    return KVMInterruptRoute(kvm: self, gsi: gsi, event: event)
  }

  override func send(_ message: MSIMessage) {
    // KVM does not look at these bits of the address.
    guard message.isInterrupt else { return }
    var msi = kvm_msi()
    msi.address_lo = UInt32(truncatingIfNeeded: message.address)
    msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
    msi.data = message.data
    // A message that no local APIC takes is an error to KVM, and lost, as on the bus.
    _ = withUnsafeMutablePointer(to: &msi) {
      ckvm_ioctl(machine.machine.number, ckvm_SIGNAL_MSI, UInt(bitPattern: $0))
    }
  }

  override func setLine(_ line: Int, asserted: Bool) {
    guard let line = UInt32(exactly: line), line < Self.pinCount else { return }
    var level = kvm_irq_level()
    level.irq = line
    level.level = asserted ? 1 : 0
    _ = withUnsafeMutablePointer(to: &level) {
      ckvm_ioctl(machine.machine.number, ckvm_IRQ_LINE, UInt(bitPattern: $0))
    }
  }

  // MARK: GSIs

  private func takeGSI() -> UInt32? {
    routes.withLock { routes in
      guard let gsi = (Self.pinCount..<Self.routesMax).first(where: { !routes.taken.contains($0) }) else { return nil }
      routes.taken.insert(gsi)
      return gsi
    }
  }

  /// Gives a GSI back. Nothing is bound to it.
  func release(_ gsi: UInt32) {
    routes.withLock { routes in
      routes.taken.remove(gsi)
      if routes.messages.removeValue(forKey: gsi) != nil { _ = apply(routes.messages) }
    }
  }

  /// Sends what arrives at a GSI to `message` from now on; nil for nowhere.
  /// - Returns: false where the kernel refuses; the GSI goes where it went before.
  func route(_ gsi: UInt32, to message: MSIMessage?) -> Bool {
    routes.withLock { routes in
      let before = routes.messages[gsi]
      routes.messages[gsi] = message
      if apply(routes.messages) { return true }
      routes.messages[gsi] = before
      return false
    }
  }

  /// Gives the kernel the whole table: the pins as a PC wires them, then the messages.
  /// - Returns: false where it keeps the old one.
  private func apply(_ messages: [UInt32: MSIMessage]) -> Bool {
    // Input 2 of the I/O APIC belongs to the timer's line 0, as on every PC, so line 2 has none.
    let count = Self.legacyPinCount + Self.pinCount - 1 + UInt32(messages.count)
    guard let table = ckvm_routing_make(count), let entries = ckvm_routing_entries(table) else { return false }
    defer { free(table) }
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
    do throws(SystemError) {
      try KVMCall.integer(
        machine.machine.number, ckvm_SET_GSI_ROUTING, UInt(bitPattern: table), "KVM_SET_GSI_ROUTING")
      return true
    } catch {
      logger.warning("interrupt routes could not be changed: \(error)")
      return false
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

/// A vector's way through an irqfd: the eventfd is bound to the route's GSI while the GSI has a message.
final class KVMInterruptRoute: InterruptRoute, @unchecked Sendable {
  // Held, since `close` needs it even where the machine is being taken apart.
  private let kvm: KVMInterruptController
  private let gsi: UInt32
  private let event: EventDescriptor
  private var isBound = false

  init(kvm: KVMInterruptController, gsi: UInt32, event: EventDescriptor) {
    self.kvm = kvm
    self.gsi = gsi
    self.event = event
    super.init(controller: kvm)
  }

  override func update(_ message: MSIMessage) {
    if isBound && message == self.message { return }
    super.update(message)
    let wanted = message.isInterrupt ? message : nil
    // Where the kernel refuses, `fire` sends the message itself; the GSI may not send what it had before.
    guard kvm.route(gsi, to: wanted), wanted != nil else { return unbind() }
    if !isBound { isBound = (try? kvm.bind(event, gsi: gsi, isBound: true)) != nil }
  }

  override func fire() {
    if isBound { event.signal() } else { kvm.send(message) }
  }

  override func close() {
    unbind()
    kvm.release(gsi)
  }

  private func unbind() {
    if isBound { try? kvm.bind(event, gsi: gsi, isBound: false) }
    isBound = false
  }
}
