// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What the SMART commands have set.
struct ATASmartState {
  var isEnabled = true
  var hasAutosave = true
  /// EXECUTE OFFLINE IMMEDIATE has run.
  var hasCollected = false
}

/// Subcommands (ACS-3 §7, SMART feature field values).
private enum Subcommand {
  static let readData: UInt8 = 0xd0, readThresholds: UInt8 = 0xd1
  static let autosave: UInt8 = 0xd2, executeOffline: UInt8 = 0xd4
  static let enable: UInt8 = 0xd8, disable: UInt8 = 0xd9, returnStatus: UInt8 = 0xda
}

/// The SMART feature set, without logs and self-tests, which IDENTIFY DEVICE does not claim.
///
/// The attributes are those that mean something for a disk image, and are counted all the time; nothing is collected off
/// line. None that predicts failure can reach its threshold, so that the status is always good.
extension ATADrive {
  /// What bytes 1 and 2 of the address have to be.
  private static let key: UInt64 = 0xc24f
  /// The revision of both pages; of the vendor's choice.
  private static let revision: UInt16 = 0x0010

  /// An attribute: its number, flags (bit 0: predicts failure), threshold, and what it is now.
  private struct Attribute {
    var id: UInt8
    var flags: UInt16
    var threshold: UInt8 = 0
    var value: UInt8 = 100
    var raw: UInt64
  }

  func executeSmart(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let subcommand = UInt8(truncatingIfNeeded: slot.pointee.fis.features)
    guard slot.pointee.fis.lba >> 8 & 0xffff == Self.key, smart.isEnabled || subcommand == Subcommand.enable else {
      return fail(slot, ATAError.abort)
    }
    switch subcommand {
    case Subcommand.readData: return sendPage(slot, fillSmartData)
    case Subcommand.readThresholds: return sendPage(slot, fillSmartThresholds)
    case Subcommand.autosave:
      let count = slot.pointee.fis.count & 0xff
      guard count == 0 || count == 0xf1 else { return fail(slot, ATAError.abort) }
      smart.hasAutosave = count != 0
    case Subcommand.executeOffline:
      // The low byte of the address says what to do: 0 is to collect data; all others are self-tests, which the drive
      // has not, or nothing.
      guard slot.pointee.fis.lba & 0xff == 0 else { return fail(slot, ATAError.abort) }
      smart.hasCollected = true
    case Subcommand.enable: setSmart(true)
    case Subcommand.disable: setSmart(false)
    // The address comes back as it is where no threshold is exceeded.
    case Subcommand.returnStatus: break
    default: return fail(slot, ATAError.abort)
    }
    finish(slot)
  }

  private func setSmart(_ isEnabled: Bool) {
    smart.isEnabled = isEnabled
    isIdentityStale = true
  }

  private var attributes: [Attribute] {
    let hours = UInt64(max(Self.secondsSinceBoot() - poweredOnSeconds, 0) / 3600)
    let errors = disk.statistics.errors
    return [
      // Sectors that were reallocated.
      Attribute(id: 5, flags: 0x0033, threshold: 10, raw: 0),
      // Hours that it has been powered on.
      Attribute(id: 9, flags: 0x0032, raw: hours),
      // Errors that the host had with reads and writes.
      Attribute(id: 187, flags: 0x0032, value: UInt8(100 - min(errors, 99)), raw: errors),
      // Errors of the link.
      Attribute(id: 199, flags: 0x003e, raw: 0),
    ]
  }

  private func fillSmartData() {
    page.storeBytes(of: Self.revision.littleEndian, as: UInt16.self)
    for (index, attribute) in attributes.enumerated() {
      let entry = page + 2 + index * 12
      entry.storeBytes(of: attribute.id, as: UInt8.self)
      entry.storeBytes(of: attribute.flags.littleEndian, toByteOffset: 1, as: UInt16.self)
      // Now, and at its worst.
      entry.storeBytes(of: attribute.value, toByteOffset: 3, as: UInt8.self)
      entry.storeBytes(of: attribute.value, toByteOffset: 4, as: UInt8.self)
      for byte in 0..<6 {
        let value = UInt8(truncatingIfNeeded: attribute.raw >> UInt64(8 * byte))
        entry.storeBytes(of: value, toByteOffset: 5 + byte, as: UInt8.self)
      }
    }
    // Off-line collection: never started, or completed; it can be started, and does not take any time.
    page.storeBytes(of: smart.hasCollected ? 0x02 : 0x00, toByteOffset: 362, as: UInt8.self)
    page.storeBytes(of: 0x01, toByteOffset: 367, as: UInt8.self)
    // Autosave can be set.
    page.storeBytes(of: 0x02, toByteOffset: 368, as: UInt8.self)
    sealPage()
  }

  private func fillSmartThresholds() {
    page.storeBytes(of: Self.revision.littleEndian, as: UInt16.self)
    for (index, attribute) in attributes.enumerated() {
      page.storeBytes(of: attribute.id, toByteOffset: 2 + index * 12, as: UInt8.self)
      page.storeBytes(of: attribute.threshold, toByteOffset: 3 + index * 12, as: UInt8.self)
    }
    sealPage()
  }
}
