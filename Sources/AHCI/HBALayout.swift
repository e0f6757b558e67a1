// SPDX-License-Identifier: Apache-2.0

/// Limits of the controller.
enum Limit {
  /// Command slots of a port (CAP.NCS).
  static let slots = 32
  /// Entries of a request's scatter list; a command whose list needs more goes through a buffer.
  static let iovecsPerSlot = 512
  /// Bytes of that buffer: a transfer goes through it in pieces of at most this size.
  static let bounceBytes: UInt64 = 64 << 10
  static let bounceAlignment = 4096
  /// Lines in the log about a guest's mistakes, of the whole controller.
  static let guestErrorLinesMax = 32
  /// Bytes of the register block in memory: 0x100 of the controller, 0x80 of each port (AHCI 1.3.1 §3).
  static let registerBytes: UInt64 = 0x1000
}

/// Registers of the controller, as offsets in its memory (AHCI 1.3.1 §3.1).
enum HBARegister {
  static let capabilities: UInt64 = 0x00
  static let control: UInt64 = 0x04
  static let interruptStatus: UInt64 = 0x08
  static let portsImplemented: UInt64 = 0x0c
  static let version: UInt64 = 0x10
  /// Ports begin here, `portStride` bytes each.
  static let firstPort: UInt64 = 0x100
  static let portStride: UInt64 = 0x80
}

/// What the controller says it can do.
enum HBAValue {
  /// 64-bit addresses, NCQ, command list override, 1.5 Gbit/s, AHCI only, 32 slots, 6 ports (§3.1.1): what ICH9 models
  /// show, and CLO.
  static let capabilities: UInt32 = 0xc114_1f05
  /// Version 1.3, the highest number that drivers' checks know; 1.3.1 changed no register here (§3.1.5).
  static let version: UInt32 = 0x0001_0300
}

/// Bits of GHC (§3.1.2).
enum HBAControl {
  static let reset: UInt32 = 1 << 0
  static let interruptEnable: UInt32 = 1 << 1
  /// Always 1, as the controller has no other mode (CAP.SAM).
  static let ahciEnable: UInt32 = 1 << 31
}

/// Registers of a port, as offsets from its first (§3.3).
enum PortRegister {
  static let commandList: UInt64 = 0x00
  static let commandListUpper: UInt64 = 0x04
  static let receivedFIS: UInt64 = 0x08
  static let receivedFISUpper: UInt64 = 0x0c
  static let interruptStatus: UInt64 = 0x10
  static let interruptEnable: UInt64 = 0x14
  static let command: UInt64 = 0x18
  static let taskFile: UInt64 = 0x20
  static let signature: UInt64 = 0x24
  static let sataStatus: UInt64 = 0x28
  static let sataControl: UInt64 = 0x2c
  static let sataError: UInt64 = 0x30
  static let sataActive: UInt64 = 0x34
  static let commandIssue: UInt64 = 0x38
  static let notification: UInt64 = 0x3c
}

/// Bits of PxIS and PxIE (§3.3.5, §3.3.6).
enum PortInterrupt {
  /// A register FIS with its interrupt bit (DHRS).
  static let registerFIS: UInt32 = 1 << 0
  /// A PIO set-up FIS with its interrupt bit (PSS).
  static let pioSetupFIS: UInt32 = 1 << 1
  /// A set-device-bits FIS with its interrupt bit (SDBS).
  static let setDeviceBitsFIS: UInt32 = 1 << 3
  /// PxSERR.DIAG.X is set (PCS); read-only.
  static let connectChange: UInt32 = 1 << 6
  /// PxSERR.DIAG.N is set (PRCS); read-only.
  static let phyReadyChange: UInt32 = 1 << 22
  /// The guest's list was shorter than the data (OFS).
  static let overflow: UInt32 = 1 << 24
  /// The link broke off: a FIS that the device does not take (IFS).
  static let interfaceFatal: UInt32 = 1 << 27
  /// Something that the command needs is not in guest memory (HBFS).
  static let hostBusFatal: UInt32 = 1 << 29
  /// The device ended a command with an error (TFES).
  static let taskFileError: UInt32 = 1 << 30

  /// The bits that PxIE can hold; what drivers read back after writing all ones.
  static let enableMask: UInt32 = 0xfdc0_00ff
  /// The bits of PxIS that a guest clears by writing ones; the others follow PxSERR.
  static let clearMask: UInt32 = 0xfd80_00af
}

/// Bits of PxCMD (§3.3.7).
enum PortCommand {
  /// Process the command list (ST).
  static let start: UInt32 = 1 << 0
  /// Spin-up and power-on; always 1, as there is no staggered spin-up and no cold presence detection.
  static let spinUpAndPowerOn: UInt32 = 1 << 1 | 1 << 2
  /// Command list override (CLO): forget BSY and DRQ.
  static let listOverride: UInt32 = 1 << 3
  /// Accept FISes from the device (FRE).
  static let receiveEnable: UInt32 = 1 << 4
  /// The slot that is or was processed last (CCS), 5 bits from here.
  static let currentSlotShift: UInt32 = 8
  /// FISes are accepted (FR).
  static let receiveRunning: UInt32 = 1 << 14
  /// The command list is being processed (CR).
  static let listRunning: UInt32 = 1 << 15
  /// The device is ATAPI; drives the activity LED only (ATAPI, DLAE).
  static let led: UInt32 = 1 << 24 | 1 << 25

  /// What a guest can write and read back; ICC always reads as 0, as there are no power states to change to.
  static let writable = start | receiveEnable | led
}

/// Fields of PxSSTS and PxSCTL (§3.3.10, §3.3.11).
enum PortSATA {
  /// Device detection: the low four bits.
  static let detectionMask: UInt32 = 0xf
  /// PxSCTL.DET: send COMRESET as long as this is there.
  static let detectionReset: UInt32 = 1
  /// PxSCTL.DET: take the port offline.
  static let detectionOffline: UInt32 = 4
  /// PxSSTS of a device that communicates: interface active, 1.5 Gbit/s, DET 3.
  static let linkUp: UInt32 = 0x113
  /// PxSSTS.DET of a port that was taken offline.
  static let linkOffline: UInt32 = 4
  /// PxSCTL bits that read back.
  static let controlMask: UInt32 = 0x000f_ffff
}

/// Bits of PxSERR (§3.3.12).
enum PortError {
  /// ERR.P: the other side broke the protocol.
  static let `protocol`: UInt32 = 1 << 10
  /// DIAG.N: the link came up or went down.
  static let phyReadyChange: UInt32 = 1 << 16
  /// DIAG.X: a device came (COMINIT), or went.
  static let exchanged: UInt32 = 1 << 26
  /// What a guest can clear.
  static let mask: UInt32 = 0x07ff_0f03
}

/// Layout of what a guest shares with a port (§4.2).
enum PortLayout {
  /// The command list: 32 headers.
  static let listBytes: UInt64 = 1024
  static let headerBytes = 32
  /// Where a header keeps the count of bytes moved (PRDBC).
  static let headerByteCount = 4
  /// The area for received FISes.
  static let receivedBytes: UInt64 = 256
  static let pioSetupFIS = 0x20
  static let registerFIS = 0x40
  static let setDeviceBitsFIS = 0x58
  /// In a command table: the ATAPI command, and the first region descriptor.
  static let packetOffset = 0x40
  static let regionsOffset: UInt64 = 0x80
  /// Lengths of a command FIS in words that can be (§4.2.2, CFL), and that of a register FIS.
  static let fisWordsMax: UInt32 = 16
  static let registerFISWords: UInt32 = 5
}
