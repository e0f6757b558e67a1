// SPDX-License-Identifier: Apache-2.0

/// A message-signalled interrupt: what a device writes, and where.
public struct MSIMessage: Equatable, Sendable {
  /// Guest-physical address of the write.
  public var address: UInt64
  /// The value written.
  public var data: UInt32

  /// Names the message `data` to `address`.
  public init(address: UInt64, data: UInt32) {
    self.address = address
    self.data = data
  }
}

/// The way from one MSI or MSI-X vector to a processor, made by an accelerator; the base class goes through its
/// controller's `send`. An accelerator with a faster way (KVM: irqfd) overrides it.
open class InterruptRoute: @unchecked Sendable {
  /// Who made the route.
  public unowned let controller: InterruptController
  /// What `fire` sends; changed only by `update`.
  public private(set) var message = MSIMessage(address: 0, data: 0)

  /// Makes a route through `controller`.
  public init(controller: InterruptController) { self.controller = controller }

  /// Changes what `fire` sends. Called by the vector's owner with the vector's lock held, never beside `fire`.
  open func update(_ message: MSIMessage) { self.message = message }

  /// Raises the interrupt, once. Called with the vector's lock held, from any thread; must not block.
  open func fire() { controller.send(message) }

  /// Gives up what the route holds (GSI, eventfd). Nothing is called afterwards.
  open func close() {}
}

/// Where interrupts of a machine go: the accelerator's side of every interrupt.
open class InterruptController: @unchecked Sendable {
  /// For subclasses.
  public init() {}

  /// Makes a route for one vector. Called when the guest first uses the vector: on the thread that handles its exit,
  /// with the machine lock held, or on the main thread while the machine is assembled.
  open func makeRoute() -> InterruptRoute { InterruptRoute(controller: self) }

  /// Delivers one message. Any thread; must not block.
  open func send(_ message: MSIMessage) {}

  /// Sets a level-triggered input of the interrupt controllers (GSI numbers as on a PC: 4 is the first serial port).
  /// Called under the machine lock.
  open func setLine(_ line: Int, asserted: Bool) {}

  /// Tells which PCI function's pin (1 to 4 for INTA# to INTD#) has changed, after `setLine` where that has changed the
  /// line; for accelerators that show pins. Called under the machine lock.
  open func pinChanged(of function: PCIAddress, pin: UInt8, asserted: Bool) {}
}
