// SPDX-License-Identifier: Apache-2.0

/// Offsets of the HBA's generic registers (AHCI 1.3.1 §3.1).
public enum AHCIRegister {
  /// CAP: what the HBA can do.
  public static var capabilities: UInt64 { 0x00 }
  /// GHC: reset, interrupt enable, AHCI enable.
  public static var globalControl: UInt64 { 0x04 }
  /// IS: which ports have an interrupt pending; a 1 clears.
  public static var interruptStatus: UInt64 { 0x08 }
  /// PI: which ports there are.
  public static var portsImplemented: UInt64 { 0x0C }
  /// VS: the version of the specification.
  public static var version: UInt64 { 0x10 }
  /// CAP2: what else the HBA can do.
  public static var capabilities2: UInt64 { 0x24 }
  /// BOHC: hand-over from firmware.
  public static var handOff: UInt64 { 0x28 }
  /// Where the registers of port 0 are.
  public static var firstPort: UInt64 { 0x100 }
  /// Bytes from one port's registers to the next one's.
  public static var portBytes: UInt64 { 0x80 }
}

/// Fields of CAP, CAP2, GHC and BOHC (AHCI 1.3.1 §3.1.1, §3.1.2, §3.1.10, §3.1.11).
public enum AHCIControl {
  /// CAP.NP: ports, less one.
  public static var portCountMask: UInt32 { 0x1F }
  /// CAP.NCS: command slots, less one, from this bit on.
  public static var slotCountShift: UInt32 { 8 }
  /// The width of CAP.NCS.
  public static var slotCountMask: UInt32 { 0x1F }
  /// CAP.SAM: AHCI is the only way to drive the HBA.
  public static var ahciOnly: UInt32 { 1 << 18 }
  /// CAP.SCLO: PxCMD.CLO works.
  public static var commandListOverride: UInt32 { 1 << 24 }
  /// CAP.SNCQ: native command queuing works.
  public static var commandQueuing: UInt32 { 1 << 30 }
  /// CAP.S64A: addresses may have 64 bits.
  public static var addresses64: UInt32 { 1 << 31 }
  /// CAP2.BOH: BOHC works.
  public static var hasHandOff: UInt32 { 1 << 0 }
  /// GHC.HR: resets the HBA; reads 1 until that has ended.
  public static var reset: UInt32 { 1 << 0 }
  /// GHC.IE: the HBA interrupts.
  public static var interruptEnable: UInt32 { 1 << 1 }
  /// GHC.AE: the HBA is driven by AHCI.
  public static var ahciEnable: UInt32 { 1 << 31 }
  /// BOHC.BOS: firmware owns the HBA.
  public static var firmwareOwns: UInt32 { 1 << 0 }
  /// BOHC.OOS: the operating system asks for the HBA.
  public static var systemOwns: UInt32 { 1 << 1 }
}

/// Offsets of a port's registers (AHCI 1.3.1 §3.3).
public enum AHCIPortRegister {
  /// PxCLB: the command list, low half.
  public static var commandList: UInt64 { 0x00 }
  /// PxCLBU: its high half.
  public static var commandListUpper: UInt64 { 0x04 }
  /// PxFB: the received FIS area, low half.
  public static var receivedFIS: UInt64 { 0x08 }
  /// PxFBU: its high half.
  public static var receivedFISUpper: UInt64 { 0x0C }
  /// PxIS: what has happened; a 1 clears.
  public static var interruptStatus: UInt64 { 0x10 }
  /// PxIE: what of it interrupts.
  public static var interruptEnable: UInt64 { 0x14 }
  /// PxCMD: the engines.
  public static var command: UInt64 { 0x18 }
  /// PxTFD: the device's status and error.
  public static var taskFile: UInt64 { 0x20 }
  /// PxSIG: the device's signature.
  public static var signature: UInt64 { 0x24 }
  /// PxSSTS: the link.
  public static var linkStatus: UInt64 { 0x28 }
  /// PxSCTL: what the link shall do.
  public static var linkControl: UInt64 { 0x2C }
  /// PxSERR: what has happened on the link; a 1 clears.
  public static var linkError: UInt64 { 0x30 }
  /// PxSACT: queued commands that have not ended.
  public static var active: UInt64 { 0x34 }
  /// PxCI: commands that the device has not taken or, not being queued, not ended.
  public static var issue: UInt64 { 0x38 }
}

/// Fields of PxCMD (AHCI 1.3.1 §3.3.7).
public enum AHCIPortCommand {
  /// ST: commands are processed.
  public static var start: UInt32 { 1 << 0 }
  /// SUD: the device spins up.
  public static var spinUp: UInt32 { 1 << 1 }
  /// POD: the device has power.
  public static var powerOn: UInt32 { 1 << 2 }
  /// CLO: BSY and DRQ are cleared.
  public static var listOverride: UInt32 { 1 << 3 }
  /// FRE: received FISes are stored.
  public static var receive: UInt32 { 1 << 4 }
  /// FR: the engine that stores them runs.
  public static var receiveRuns: UInt32 { 1 << 14 }
  /// CR: the engine that processes commands runs.
  public static var listRuns: UInt32 { 1 << 15 }
  /// ATAPI: the device is an ATAPI device; for the activity light only.
  public static var isATAPI: UInt32 { 1 << 24 }
}

/// Bits of PxIS and PxIE (AHCI 1.3.1 §3.3.5, §3.3.6).
public enum AHCIPortInterrupt {
  /// DHRS: a device-to-host register FIS has come.
  public static var registerFIS: UInt32 { 1 << 0 }
  /// PSS: a PIO set-up FIS has come, and its data was moved.
  public static var pioSetup: UInt32 { 1 << 1 }
  /// DSS: a DMA set-up FIS has come.
  public static var dmaSetup: UInt32 { 1 << 2 }
  /// SDBS: a set-device-bits FIS has come.
  public static var deviceBits: UInt32 { 1 << 3 }
  /// DPS: a PRD with its interrupt bit set was used up.
  public static var descriptor: UInt32 { 1 << 5 }
  /// OFS: the command moves more data than its PRDs hold.
  public static var overflow: UInt32 { 1 << 24 }
  /// INFS: a link error that is not fatal.
  public static var linkNotFatal: UInt32 { 1 << 26 }
  /// IFS: a fatal link error.
  public static var linkFatal: UInt32 { 1 << 27 }
  /// HBDS: a host bus error on data.
  public static var busData: UInt32 { 1 << 28 }
  /// HBFS: a host bus error on a structure.
  public static var busFatal: UInt32 { 1 << 29 }
  /// TFES: the device has set ERR.
  public static var taskFileError: UInt32 { 1 << 30 }

  /// What ends commands that go well.
  public static var completions: UInt32 { registerFIS | pioSetup | dmaSetup | deviceBits | descriptor }
  /// What stops the port (AHCI 1.3.1 §6.2.2).
  public static var errors: UInt32 { taskFileError | busFatal | busData | linkFatal }
  /// Everything that this driver wants to hear of.
  public static var wanted: UInt32 {
    registerFIS | pioSetup | dmaSetup | deviceBits | overflow | linkNotFatal | errors
  }
}

/// Fields of PxTFD (AHCI 1.3.1 §3.3.8), whose low byte is the ATA status and whose next byte is the ATA error.
public enum AHCITaskFile {
  /// ERR; CHK for an ATAPI device.
  public static var error: UInt32 { 1 << 0 }
  /// DRQ.
  public static var dataRequest: UInt32 { 1 << 3 }
  /// BSY.
  public static var busy: UInt32 { 1 << 7 }
  /// ABRT of the error byte: the device does not do this.
  public static var aborted: UInt32 { 1 << 10 }
  /// IDNF of the error byte: there is no such sector.
  public static var notFound: UInt32 { 1 << 12 }
}

/// Fields of PxSSTS and PxSCTL (AHCI 1.3.1 §3.3.10, §3.3.11).
public enum AHCILink {
  /// DET.
  public static var detectionMask: UInt32 { 0xF }
  /// DET: a device, and the link to it works.
  public static var present: UInt32 { 3 }
  /// DET in PxSCTL: COMRESET is sent for as long as this is there.
  public static var reset: UInt32 { 1 }
  /// IPM from this bit on; 1 is active.
  public static var powerShift: UInt32 { 8 }
  /// SPD from this bit on: the generation of the link, 1 to 3.
  public static var speedShift: UInt32 { 4 }
}

/// PxSIG (AHCI 1.3.1 §3.3.9; ATA8-AAM, signatures).
public enum AHCISignature {
  /// An ATA device.
  public static var ata: UInt32 { 0x0000_0101 }
  /// An ATAPI device.
  public static var atapi: UInt32 { 0xEB14_0101 }
}

/// Offsets in the received FIS area (AHCI 1.3.1 §4.2.1).
public enum AHCIReceivedFIS {
  /// The last PIO set-up FIS.
  public static var pioSetup: UInt64 { 0x20 }
  /// The last device-to-host register FIS.
  public static var register: UInt64 { 0x40 }
  /// The last set-device-bits FIS.
  public static var deviceBits: UInt64 { 0x58 }
  /// Bytes of the area.
  public static var byteCount: UInt64 { 0x100 }
}
