// SPDX-License-Identifier: Apache-2.0

/// A function's message signalled interrupts (PCI 3.0 §6.8.1), used with one message.
public struct MSICapability<B: Bus> {
  static var capability: UInt8 { 0x05 }
  static var controlEnable: UInt16 { 1 << 0 }
  /// Multiple message enable: how many messages the function may send, as a power of two.
  static var controlMessages: UInt16 { 7 << 4 }
  static var controlIs64Bit: UInt16 { 1 << 7 }
  static var controlMasks: UInt16 { 1 << 8 }

  let configuration: PCIConfiguration<B>
  let function: PCIAddress
  let capabilityOffset: UInt8
  /// Whether the capability has the layout with a 64-bit address.
  public let is64Bit: Bool
  /// Whether the capability has mask and pending bits.
  public let hasMaskBits: Bool

  /// Finds the capability; nil where the function has none or it does not fit into configuration space.
  public init?(configuration: PCIConfiguration<B>, function: PCIAddress) {
    guard
      let offset = configuration.findCapability(
        function, where: { identifier, _ in identifier == MSICapability.capability })
    else {
      return nil
    }
    let control = configuration.read16(function, offset + 2)
    is64Bit = control & MSICapability.controlIs64Bit != 0
    hasMaskBits = control & MSICapability.controlMasks != 0
    let byteCount = 10 + (is64Bit ? 4 : 0) + (hasMaskBits ? 10 : 0)
    guard Int(offset) + byteCount <= 0x100 else {
      return nil
    }
    self.configuration = configuration
    self.function = function
    capabilityOffset = offset
  }

  private var upperAddressOffset: UInt8 { capabilityOffset + 8 }
  private var dataOffset: UInt8 { capabilityOffset + (is64Bit ? 12 : 8) }
  private var maskOffset: UInt8 { capabilityOffset + (is64Bit ? 16 : 12) }

  /// Makes the function send `interrupt`, and nothing else, once `enable` lets it.
  /// - Returns: false where the message has an address that the function cannot reach, or data of more than 16 bits.
  public func program(_ interrupt: MessageInterrupt) -> Bool {
    guard is64Bit || interrupt.address >> 32 == 0, interrupt.data >> 16 == 0 else {
      return false
    }
    disable()
    configuration.write32(function, capabilityOffset + 4, UInt32(truncatingIfNeeded: interrupt.address))
    if is64Bit {
      configuration.write32(function, upperAddressOffset, UInt32(interrupt.address >> 32))
    }
    configuration.write16(function, dataOffset, UInt16(truncatingIfNeeded: interrupt.data))
    if hasMaskBits {
      configuration.write32(function, maskOffset, 0)
    }
    return true
  }

  /// Lets the function send its one message instead of raising its pin.
  public func enable() {
    let control = configuration.read16(function, capabilityOffset + 2)
    configuration.write16(
      function, capabilityOffset + 2, control & ~MSICapability.controlMessages | MSICapability.controlEnable)
  }

  /// Lets the function send no messages.
  public func disable() {
    let control = configuration.read16(function, capabilityOffset + 2)
    configuration.write16(function, capabilityOffset + 2, control & ~MSICapability.controlEnable)
  }

  /// Whether the capability reads back as `interrupt`, enabled, with one message.
  public func holds(_ interrupt: MessageInterrupt) -> Bool {
    let control = configuration.read16(function, capabilityOffset + 2)
    let upper = is64Bit ? configuration.read32(function, upperAddressOffset) : 0
    return control & (MSICapability.controlEnable | MSICapability.controlMessages) == MSICapability.controlEnable
      && configuration.read32(function, capabilityOffset + 4) == UInt32(truncatingIfNeeded: interrupt.address)
      && upper == UInt32(interrupt.address >> 32)
      && configuration.read16(function, dataOffset) == UInt16(truncatingIfNeeded: interrupt.data)
  }
}
