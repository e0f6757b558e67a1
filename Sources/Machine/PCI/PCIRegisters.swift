// SPDX-License-Identifier: Apache-2.0

/// Offsets of the type 0 configuration header (PCI 3.0, figure 6-1).
public enum PCIRegister {
  /// Vendor id, 16 bits.
  public static let vendor = 0x00
  /// Command, 16 bits.
  public static let command = 0x04
  /// Status, 16 bits.
  public static let status = 0x06
  /// Revision id, 8 bits, and the class code in the 24 bits above.
  public static let revision = 0x08
  /// Cache line size, 8 bits.
  public static let cacheLine = 0x0c
  /// Header type, 8 bits.
  public static let headerType = 0x0e
  /// Subsystem vendor id, 16 bits, and the subsystem id above.
  public static let subsystem = 0x2c
  /// Offset of the first capability, 8 bits.
  public static let capabilities = 0x34
  /// Interrupt line, 8 bits, and the interrupt pin above.
  public static let interrupt = 0x3c
  /// The first byte after the header: capabilities are from here on.
  public static let headerEnd = 0x40
}

/// Bits of the command register (PCI 3.0, section 6.2.2).
public enum PCICommand {
  /// The function answers port accesses.
  public static let io: UInt16 = 1 << 0
  /// The function answers memory accesses.
  public static let memory: UInt16 = 1 << 1
  /// The function may read and write guest memory and send MSI messages.
  public static let master: UInt16 = 1 << 2
  /// The function may assert SERR#; nothing here does.
  public static let systemError: UInt16 = 1 << 8
  /// The function may not assert INTx#.
  public static let interruptDisable: UInt16 = 1 << 10
}

/// Bits of the status register (PCI 3.0, section 6.2.3).
public enum PCIStatus {
  /// The function wants to assert INTx#, whether it may or not.
  public static let interrupt: UInt16 = 1 << 3
  /// There is a list of capabilities.
  public static let capabilities: UInt16 = 1 << 4
  /// The error bits, which a guest clears by writing ones.
  public static let errors: UInt16 = 0xf900
}

/// Capability ids (PCI Code and ID Assignment, section 2).
public enum PCICapability {
  /// Message-signalled interrupts.
  public static let msi: UInt8 = 0x05
  /// Vendor-specific; virtio describes its structures with it.
  public static let vendor: UInt8 = 0x09
  /// Message-signalled interrupts with a table in a BAR.
  public static let msix: UInt8 = 0x11
  /// SATA index/data pair.
  public static let sata: UInt8 = 0x12
}
