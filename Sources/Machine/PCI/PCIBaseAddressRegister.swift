// SPDX-License-Identifier: Apache-2.0
import GuestMemory

/// Registers that lie over a part of a BAR's block and answer before it: the MSI-X table.
struct BAROverlay {
  let offset: UInt64
  let byteCount: UInt64
  let block: RegisterBlock
}

/// One base address register of a function, and the mapping that it has now.
final class PCIBaseAddressRegister {
  /// The first of the registers is at this configuration offset.
  static let firstOffset = 0x10
  /// A function has so many registers; a 64-bit one takes two of them.
  static let registersMax = 6
  /// Ports end here.
  static let portsMax: UInt64 = 0x1_0000

  let index: Int
  let kind: BARKind
  let byteCount: UInt64
  let block: RegisterBlock
  var overlays: [BAROverlay] = []
  /// Where the register's blocks are mapped now; nil where nothing is.
  private(set) var mappedAddress: UInt64?

  init(index: Int, kind: BARKind, byteCount: UInt64, block: RegisterBlock) {
    self.index = index
    self.kind = kind
    self.byteCount = byteCount
    self.block = block
  }

  var configurationOffset: Int { PCIBaseAddressRegister.firstOffset + 4 * index }

  /// Puts the register into a configuration space: size bits read as 0, type bits are read-only.
  func define(in configuration: inout PCIConfigurationSpace) {
    let mask = ~(byteCount - 1)
    configuration.define(
      configurationOffset, kind.registerBits, writeMask: UInt32(truncatingIfNeeded: mask) & (kind.isIO ? ~3 : ~15))
    if kind.is64Bit {
      configuration.define(configurationOffset + 4, UInt32(0), writeMask: UInt32(truncatingIfNeeded: mask >> 32))
    }
  }

  /// Where the guest wants the register's range now; nil where it cannot be: decoding is off, the address is 0 or all
  /// ones (a guest is measuring the size), the range wraps, or it covers RAM, which always wins.
  func wantedAddress(_ configuration: PCIConfigurationSpace, memory: GuestMemory) -> UInt64? {
    let command = configuration.load(UInt16.self, at: PCIRegister.command)
    guard command & (kind.isIO ? PCICommand.io : PCICommand.memory) != 0 else { return nil }
    var address = UInt64(configuration.load(UInt32.self, at: configurationOffset)) & (kind.isIO ? ~3 : ~15)
    if kind.is64Bit {
      address |= UInt64(configuration.load(UInt32.self, at: configurationOffset + 4)) << 32
    }
    let (last, wraps) = address.addingReportingOverflow(byteCount - 1)
    guard address != 0, !wraps else { return nil }
    if kind.isIO { return last < PCIBaseAddressRegister.portsMax ? address : nil }
    guard last < (kind.is64Bit ? UInt64.max : UInt64(UInt32.max)) else { return nil }
    let coversRAM = memory.regions.contains { $0.start <= last && address <= $0.end - 1 }
    return coversRAM ? nil : address
  }

  /// Maps the register's blocks; nothing is mapped before.
  func map(at address: UInt64, in space: AddressSpace) {
    // First mapped, first to answer: the overlays lie over the block.
    for overlay in overlays { space.map(overlay.block, at: address + overlay.offset, byteCount: overlay.byteCount) }
    space.map(block, at: address, byteCount: byteCount)
    mappedAddress = address
  }

  /// Unmaps the register's blocks.
  func unmap(from space: AddressSpace) {
    guard let address = mappedAddress else { return }
    for overlay in overlays { space.unmap(overlay.block, at: address + overlay.offset) }
    space.unmap(block, at: address)
    mappedAddress = nil
  }
}
