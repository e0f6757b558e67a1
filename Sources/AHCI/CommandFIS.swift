// SPDX-License-Identifier: Apache-2.0

/// Types of frame information structure (SATA 3.3 §10.5; AHCI 1.3.1 §4.2.1).
enum FISType {
  static let registerH2D: UInt8 = 0x27
  static let registerD2H: UInt8 = 0x34
  static let setDeviceBits: UInt8 = 0xa1
  static let pioSetup: UInt8 = 0x5f
}

/// A register FIS from the host (SATA 3.3 §10.5.5), read from guest memory once.
struct CommandFIS {
  /// Bytes of a register FIS.
  static let byteCount = 20

  /// What kind of FIS the guest wrote.
  var type: UInt8 = 0
  /// Port multiplier port; 0 is the device itself.
  var multiplierPort: UInt8 = 0
  /// A command, rather than a change of the control register (bit C).
  var isCommand = false
  /// ATA command code.
  var command: UInt8 = 0
  /// Features, 16 bits; 28-bit commands look at the low byte.
  var features: UInt16 = 0
  /// All six bytes of the address.
  var lba: UInt64 = 0
  /// The device register.
  var device: UInt8 = 0
  /// Count, 16 bits.
  var count: UInt16 = 0
  /// The control register: SRST is bit 2.
  var control: UInt8 = 0

  /// No FIS at all.
  init() {}

  /// Copies the FIS at `address`, which must have `byteCount` bytes.
  @inline(__always)
  init(at address: UnsafeRawPointer) {
    let word0 = address.loadUnaligned(as: UInt32.self)
    let word1 = address.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
    let word2 = address.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
    let word3 = address.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
    type = UInt8(truncatingIfNeeded: word0)
    multiplierPort = UInt8(truncatingIfNeeded: word0 >> 8) & 0xf
    isCommand = word0 & 0x8000 != 0
    command = UInt8(truncatingIfNeeded: word0 >> 16)
    features = UInt16(truncatingIfNeeded: word0 >> 24) | UInt16(truncatingIfNeeded: word2 >> 16) & 0xff00
    lba = UInt64(word1 & 0xff_ffff) | UInt64(word2 & 0xff_ffff) << 24
    device = UInt8(truncatingIfNeeded: word1 >> 24)
    count = UInt16(truncatingIfNeeded: word3)
    control = UInt8(truncatingIfNeeded: word3 >> 24)
  }

  /// The address of a 28-bit command: its top four bits are in the device register (ACS-3 §7.1).
  var lba28: UInt64 { lba & 0xff_ffff | UInt64(device & 0xf) << 24 }
}

/// Bits of the ATA status register (ACS-3 §6.2).
enum ATAStatus {
  /// A command is under way.
  static let busy: UInt8 = 0x80
  /// The device accepts commands.
  static let ready: UInt8 = 0x40
  /// The device cannot go on without a reset.
  static let fault: UInt8 = 0x20
  /// Legacy "seek complete"; drivers expect it beside `ready`.
  static let seekComplete: UInt8 = 0x10
  /// The device waits for data to be moved.
  static let dataRequest: UInt8 = 0x08
  /// The command failed (ATA), or has sense data (ATAPI: CHECK CONDITION).
  static let error: UInt8 = 0x01
  /// What a command that succeeded leaves.
  static let good = ready | seekComplete
}

/// Bits of the ATA error register (ACS-3 §6.3).
enum ATAError {
  /// The command is unknown, its fields are invalid, or it cannot be done now.
  static let abort: UInt8 = 0x04
  /// An address beyond the end.
  static let addressNotFound: UInt8 = 0x10
  /// Data that cannot be read.
  static let uncorrectable: UInt8 = 0x40
  /// What a diagnostic that passed leaves.
  static let diagnosticPassed: UInt8 = 0x01
}

/// The registers that a device sends back at the end of a command (SATA 3.3 §10.5.6).
struct TaskFile {
  var status: UInt8 = ATAStatus.good
  var error: UInt8 = 0
  var device: UInt8 = 0
  /// 48 bits.
  var lba: UInt64 = 0
  var count: UInt16 = 0

  /// Whether the command failed.
  var hasFailed: Bool { status & (ATAStatus.error | ATAStatus.fault) != 0 }
}

/// The PIO set-up FIS that a command leaves in the received FIS area (SATA 3.3 §10.5.11).
struct PIOSetup {
  /// Bytes of the last block; 0 where the command leaves no such FIS.
  var blockBytes: UInt16 = 0
  /// Device to host.
  var isInput = false
  /// The FIS has its interrupt bit set, so that PxIS.PSS is set for it.
  var interrupts = false
}

/// The commands that are queued (SATA 3.3 §13.6).
enum QueuedCommand {
  /// READ FPDMA QUEUED.
  static let read: UInt8 = 0x60
  /// WRITE FPDMA QUEUED.
  static let write: UInt8 = 0x61
}
