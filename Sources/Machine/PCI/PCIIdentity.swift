// SPDX-License-Identifier: Apache-2.0

/// Where a PCI function is on bus 0.
public struct PCIAddress: Hashable, Sendable, CustomStringConvertible {
  /// Device numbers are below this (PCI Local Bus 3.0, section 3.2.2.3.2).
  public static let devicesMax = 32
  /// Function numbers are below this.
  public static let functionsMax = 8

  /// Device (slot) number, 0 to 31.
  public let device: UInt8
  /// Function number, 0 to 7.
  public let function: UInt8

  /// Names a function of bus 0; both numbers must be in range.
  public init(device: UInt8, function: UInt8 = 0) {
    precondition(device < PCIAddress.devicesMax && function < PCIAddress.functionsMax, "no such PCI address")
    self.device = device
    self.function = function
  }

  /// Names the function at index `device << 3 | function`.
  init(index: Int) { self.init(device: UInt8(index >> 3), function: UInt8(index & 7)) }

  /// Device and function as one number below 256, as configuration addresses carry them.
  public var index: Int { Int(device) << 3 | Int(function) }

  /// As lspci prints it, for example `1f.2`.
  public var description: String {
    let digits = String(device, radix: 16)
    return (digits.count < 2 ? "0" : "") + digits + ".\(function)"
  }
}

/// What a PCI function says it is: the read-only part of its configuration header (PCI 3.0, section 6.2.1).
public struct PCIIdentity: Equatable, Sendable {
  /// Vendor id, offset 0x00.
  public var vendor: UInt16
  /// Device id, offset 0x02.
  public var device: UInt16
  /// Base class, subclass and programming interface in the low 24 bits, offset 0x09; 0x010601 is an AHCI controller.
  public var classCode: UInt32
  /// Revision id, offset 0x08.
  public var revision: UInt8
  /// Subsystem vendor id, offset 0x2c.
  public var subsystemVendor: UInt16
  /// Subsystem id, offset 0x2e.
  public var subsystem: UInt16
  /// Interrupt pin, offset 0x3d: 0 for none, 1 to 4 for INTA# to INTD#.
  public var interruptPin: UInt8

  /// Describes a function.
  public init(
    vendor: UInt16, device: UInt16, classCode: UInt32, revision: UInt8 = 0, subsystemVendor: UInt16 = 0,
    subsystem: UInt16 = 0, interruptPin: UInt8 = 0
  ) {
    precondition(interruptPin <= 4 && classCode < 1 << 24, "no such interrupt pin or class")
    self.vendor = vendor
    self.device = device
    self.classCode = classCode
    self.revision = revision
    self.subsystemVendor = subsystemVendor
    self.subsystem = subsystem
    self.interruptPin = interruptPin
  }
}

/// What a base address register decodes (PCI 3.0, section 6.2.5.1).
public struct BARKind: Equatable, Sendable {
  /// Ports rather than memory.
  public let isIO: Bool
  /// Takes two registers and may lie above 4 GiB.
  public let is64Bit: Bool
  /// Reads have no side effects.
  public let isPrefetchable: Bool

  /// I/O ports.
  public static let io = BARKind(isIO: true, is64Bit: false, isPrefetchable: false)
  /// Memory below 4 GiB.
  public static let memory32 = BARKind.memory32(prefetchable: false)
  /// Memory anywhere.
  public static let memory64 = BARKind.memory64(prefetchable: false)

  /// Memory below 4 GiB, prefetchable or not.
  public static func memory32(prefetchable: Bool) -> BARKind {
    BARKind(isIO: false, is64Bit: false, isPrefetchable: prefetchable)
  }

  /// Memory anywhere, prefetchable or not.
  public static func memory64(prefetchable: Bool) -> BARKind {
    BARKind(isIO: false, is64Bit: true, isPrefetchable: prefetchable)
  }

  /// The read-only low bits of the register.
  var registerBits: UInt32 { isIO ? 1 : (is64Bit ? 4 : 0) | (isPrefetchable ? 8 : 0) }
}
