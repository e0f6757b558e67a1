// SPDX-License-Identifier: Apache-2.0

/// A range that a PCI function decodes where the guest puts it, for reports.
public struct PCIRegion: Equatable, Sendable {
  /// The base address register, 0 to 5.
  public var index: Int
  /// What it decodes.
  public var kind: BARKind
  /// Bytes.
  public var byteCount: UInt64
  /// Where it answers now; nil where it does not.
  public var address: UInt64?
}

extension PCIFunction {
  /// The ranges of the function, by their registers. Machine lock held.
  public final var regions: [PCIRegion] {
    registers.map {
      PCIRegion(index: $0.index, kind: $0.kind, byteCount: $0.byteCount, address: $0.mappedAddress)
    }
    .sorted { $0.index < $1.index }
  }

  /// The interrupt line that the guest's firmware has noted (PCI 3.0, section 6.2.4). Machine lock held.
  public final var interruptLine: UInt8 { configuration.load(UInt8.self, at: PCIRegister.interrupt) }
}

extension PCIHost {
  /// All functions, in the order of their addresses. Machine lock held.
  public var allFunctions: [PCIFunction] {
    (0..<PCIAddress.devicesMax * PCIAddress.functionsMax).compactMap { function(at: PCIAddress(index: $0)) }
  }
}
