// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// Codes of the commands that a disk serves (ACS-3 §7 and Annex B; the last four groups are from earlier editions, and
/// firmware and old drivers send them still).
enum ATACommand {
  static let dataSetManagement: UInt8 = 0x06
  static let readSectors: UInt8 = 0x20, readSectorsExt: UInt8 = 0x24
  static let readMultiple: UInt8 = 0xc4, readMultipleExt: UInt8 = 0x29
  static let readDMA: UInt8 = 0xc8, readDMAExt: UInt8 = 0x25
  static let readVerify: UInt8 = 0x40, readVerifyExt: UInt8 = 0x42
  static let readFPDMAQueued: UInt8 = 0x60, writeFPDMAQueued: UInt8 = 0x61
  static let readLogExt: UInt8 = 0x2f, readLogDMAExt: UInt8 = 0x47
  static let writeSectors: UInt8 = 0x30, writeSectorsExt: UInt8 = 0x34
  static let writeMultiple: UInt8 = 0xc5, writeMultipleExt: UInt8 = 0x39, writeMultipleFUAExt: UInt8 = 0xce
  static let writeDMA: UInt8 = 0xca, writeDMAExt: UInt8 = 0x35, writeDMAFUAExt: UInt8 = 0x3d
  static let flushCache: UInt8 = 0xe7, flushCacheExt: UInt8 = 0xea
  static let identifyDevice: UInt8 = 0xec
  static let executeDiagnostic: UInt8 = 0x90
  static let setFeatures: UInt8 = 0xef, setMultipleMode: UInt8 = 0xc6
  static let smart: UInt8 = 0xb0
  static let standbyImmediate: UInt8 = 0xe0, idleImmediate: UInt8 = 0xe1, standby: UInt8 = 0xe2, idle: UInt8 = 0xe3
  static let checkPowerMode: UInt8 = 0xe5, sleep: UInt8 = 0xe6

  // ATA/ATAPI-7 and before: the host protected area, of which only the size can be read.
  static let readNativeMax: UInt8 = 0xf8, readNativeMaxExt: UInt8 = 0x27
  // ATA/ATAPI-5 and before: the same commands "without retry".
  static let readSectorsOnce: UInt8 = 0x21, writeSectorsOnce: UInt8 = 0x31, readVerifyOnce: UInt8 = 0x41
  static let readDMAOnce: UInt8 = 0xc9, writeDMAOnce: UInt8 = 0xcb
  // ATA/ATAPI-5 and before: heads and cylinders.
  static let initializeParameters: UInt8 = 0x91, seek: UInt8 = 0x70
  // Its further codes, 0x11 to 0x1f, are retired.
  static let recalibrate: UInt8 = 0x10
  // ATA-3 and before: other codes of the power commands.
  static let oldStandbyImmediate: UInt8 = 0x94, oldIdleImmediate: UInt8 = 0x95, oldStandby: UInt8 = 0x96
  static let oldIdle: UInt8 = 0x97, oldCheckPowerMode: UInt8 = 0x98, oldSleep: UInt8 = 0x99
}

/// Bits of the device register (ACS-3 §7.1).
enum ATADeviceRegister {
  /// The address is a sector's number, rather than cylinder, head and sector.
  static let lba: UInt8 = 0x40
  /// Forced unit access, in queued commands.
  static let forceUnitAccess: UInt8 = 0x80
  /// The top of a 28-bit address, or the head.
  static let highNibble: UInt8 = 0x0f
}

extension ATAError {
  /// The error register for what the block layer answered: the one table of it.
  ///
  /// Data that the host cannot read are a medium error. All else is a command that could not be carried out: the write
  /// commands have no bit of their own for a medium that takes no data (ACS-3 §6.3, and each command's error outputs),
  /// and a host without memory, or a file that is gone, is no fault of a sector.
  /// - Parameter result: a negative errno value.
  static func register(result: Int32, operation: BlockOperation) -> UInt8 {
    guard operation == .read else { return abort }
    switch -result {
    case EIO, ENODATA, EILSEQ, EBADMSG, EREMOTEIO: return uncorrectable
    default: return abort
    }
  }
}
