// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc
import Synchronization

/// How a disk describes itself to the guest.
public struct ATADriveOptions: Sendable {
  /// Model number, at most 40 ASCII characters.
  public var model = "SPINDLE HARDDISK"
  /// Firmware revision, at most 8 ASCII characters.
  public var firmware = "1.0"
  /// Serial number, at most 20 ASCII characters; empty for the backend's own, or, where that is empty too, "SPINDLE" and
  /// a number that tells the disks of this process apart.
  public var serial = ""
  /// World wide name; 0 for none.
  public var worldWideName: UInt64 = 0
  /// Rotations per minute, or 1 for a disk that does not rotate (ACS-3 §7.12.7, word 217).
  public var rotationRate: UInt16 = 1
  /// The geometry after power-on; nil for the usual one of 16 heads and 63 sectors.
  public var geometry: ATADriveGeometry?

  /// The defaults.
  public init() {}
}

/// Cylinders, heads and sectors of a track that a disk claims to have.
public struct ATADriveGeometry: Equatable, Sendable {
  /// Cylinders, 1 to 65535.
  public var cylinders: Int
  /// Heads, 1 to 16.
  public var heads: Int
  /// Sectors of a track, 1 to 255.
  public var sectors: Int

  /// Makes a geometry.
  public init(cylinders: Int, heads: Int, sectors: Int) {
    self.cylinders = cylinders
    self.heads = heads
    self.sectors = sectors
  }
}

/// A SATA disk (ACS-3, SATA 3.3) on a backend of the block layer.
///
/// Here are its state, and what each command leads to; the commands are in extensions by theme. Belongs to the machine
/// lock, as its port does.
public final class ATADrive: SATADevice {
  /// Bytes of a logical sector.
  static let sectorBytes: UInt64 = 512
  /// Sectors that 28-bit and 48-bit addresses reach (ACS-3 §4.1.2).
  static let lba28SectorsMax: UInt64 = 0x0fff_ffff
  static let lba48SectorsMax: UInt64 = 0xffff_ffff_ffff
  /// Queued commands at once.
  static let queueDepth = 32

  /// What a command waits for: `CommandSlot.phase`.
  enum Step: Int {
    /// Data from the disk, or to it.
    case read, write
    /// A flush, after which the command has succeeded.
    case flush
    /// A flush, after which the disk rests.
    case flushBeforeStandby, flushBeforeSleep
    /// A piece that is read for no other reason than to see whether it can be.
    case verify
    /// A range that is discarded.
    case trim
  }

  /// Power modes (ACS-3, Power Management feature set); the raw value is what CHECK POWER MODE tells.
  enum PowerMode: UInt8 {
    case standby = 0x00
    case idle = 0x80
    case active = 0xff
    /// Nothing is answered before a reset; so the value is never seen.
    case sleep = 0x01
  }

  let disk: BlockBackend
  let options: ATADriveOptions
  let serial: String
  /// Sectors of the disk.
  private(set) var sectorCount: UInt64
  /// Seconds since boot when the drive was made: it has been powered on since then.
  let poweredOnSeconds: Int

  /// The answer to IDENTIFY DEVICE, as it was when the drive last changed.
  let identity = UnsafeMutableRawPointer.allocate(byteCount: Int(sectorBytes), alignment: 8)
  /// `identity` has to be made anew.
  var isIdentityStale = true
  /// A page that is put together for the guest; of use only within one call.
  let page = UnsafeMutableRawPointer.allocate(byteCount: Int(sectorBytes), alignment: 8)

  var power = PowerMode.active
  var features = ATAFeatures()
  var geometry: ATAGeometry
  var smart = ATASmartState()
  /// What READ LOG EXT page 10h tells of.
  var queueFailure: ATAQueueFailure?

  /// Drives so far that made up a serial number. Counted only; nothing else is ordered by it.
  private static let madeUpSerials = Atomic<Int>(0)

  /// Makes a disk on `backend`, which must be on the machine's main loop.
  public init(backend: BlockBackend, options: ATADriveOptions = ATADriveOptions()) {
    disk = backend
    self.options = options
    sectorCount = min(backend.byteCount / Self.sectorBytes, Self.lba48SectorsMax)
    geometry = ATAGeometry(options.geometry, sectorCount: sectorCount)
    poweredOnSeconds = Self.secondsSinceBoot()
    if !options.serial.isEmpty {
      serial = options.serial
    } else if !backend.serial.isEmpty {
      serial = backend.serial
    } else {
      let number = Self.madeUpSerials.add(1, ordering: .relaxed).newValue
      serial = "SPINDLE" + String(repeating: "0", count: max(5 - String(number).count, 0)) + String(number)
    }
    super.init(takesQueued: true)
    backend.onResize = { [weak self] in self?.sizeChanged() }
  }

  /// The disk has another length; what addresses the guest may use is what it reads from now on. Machine lock held.
  private func sizeChanged() {
    sectorCount = min(disk.byteCount / Self.sectorBytes, Self.lba48SectorsMax)
    isIdentityStale = true
  }

  deinit {
    identity.deallocate()
    page.deallocate()
  }

  override var signature: UInt32 { 0x0000_0101 }
  override var backend: BlockBackend? { disk }

  /// Seconds that the host has been up, sleep included.
  static func secondsSinceBoot() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return time.tv_sec
  }

  // MARK: Resets

  /// All settings are the defaults again: the drive does not claim to keep them over COMRESET (word 78 bit 6). SMART is
  /// as it was: that setting outlives even a loss of power (ACS-3, SMART ENABLE OPERATIONS).
  override func hardReset() {
    power = .active
    features = ATAFeatures()
    revertSettings()
    queueFailure = nil
  }

  /// Transfer modes stay in any case, other settings unless the guest has asked for the defaults (SET FEATURES CCh).
  override func softReset() {
    power = .active
    if features.revertsOnSoftReset { revertSettings() }
    queueFailure = nil
  }

  private func revertSettings() {
    features.multipleSectors = ATAFeatures.multipleSectorsMax
    features.hasLookAhead = true
    geometry = ATAGeometry(options.geometry, sectorCount: sectorCount)
    if disk.writeCacheEnabled != disk.writeCacheDefault { disk.writeCacheEnabled = disk.writeCacheDefault }
    isIdentityStale = true
  }

  // MARK: Commands

  /// A drive that sleeps aborts everything: real ones do not answer, and only a reset wakes either (ACS-3, SLEEP).
  override func execute(_ slot: UnsafeMutablePointer<CommandSlot>) {
    if power == .sleep { return fail(slot, ATAError.abort) }
    switch slot.pointee.fis.command {
    case ATACommand.readFPDMAQueued: moveQueued(slot, .read)
    case ATACommand.writeFPDMAQueued: moveQueued(slot, .write)
    case ATACommand.readDMAExt: moveDMA48(slot, .read)
    case ATACommand.writeDMAExt: moveDMA48(slot, .write)
    case ATACommand.writeDMAFUAExt: moveDMA48(slot, .write, durable: true)
    case ATACommand.readDMA, ATACommand.readDMAOnce: moveDMA28(slot, .read)
    case ATACommand.writeDMA, ATACommand.writeDMAOnce: moveDMA28(slot, .write)
    case ATACommand.flushCache, ATACommand.flushCacheExt: flush(slot, then: .flush)
    default: executeSeldom(slot)
    }
  }

  /// Commands that move data through the registers, and those that tell or set something.
  private func executeSeldom(_ slot: UnsafeMutablePointer<CommandSlot>) {
    switch slot.pointee.fis.command {
    case ATACommand.readSectors, ATACommand.readSectorsOnce: movePIO28(slot, .read, blockSectors: 1)
    case ATACommand.writeSectors, ATACommand.writeSectorsOnce: movePIO28(slot, .write, blockSectors: 1)
    case ATACommand.readSectorsExt: movePIO48(slot, .read, blockSectors: 1)
    case ATACommand.writeSectorsExt: movePIO48(slot, .write, blockSectors: 1)
    case ATACommand.readMultiple: movePIO28(slot, .read, blockSectors: features.multipleSectors)
    case ATACommand.writeMultiple: movePIO28(slot, .write, blockSectors: features.multipleSectors)
    case ATACommand.readMultipleExt: movePIO48(slot, .read, blockSectors: features.multipleSectors)
    case ATACommand.writeMultipleExt: movePIO48(slot, .write, blockSectors: features.multipleSectors)
    case ATACommand.writeMultipleFUAExt:
      movePIO48(slot, .write, blockSectors: features.multipleSectors, durable: true)
    case ATACommand.readVerify, ATACommand.readVerifyOnce: verify28(slot)
    case ATACommand.readVerifyExt: verify48(slot)
    case ATACommand.seek: seek(slot)
    case ATACommand.recalibrate: finish(slot)
    case ATACommand.initializeParameters: initializeParameters(slot)
    case ATACommand.dataSetManagement: manageData(slot)
    case ATACommand.identifyDevice: identify(slot)
    case ATACommand.readLogExt: readLog(slot, isPIO: true)
    case ATACommand.readLogDMAExt: readLog(slot, isPIO: false)
    case ATACommand.smart: executeSmart(slot)
    default: executeSetting(slot)
    }
  }

  /// Settings, power, and what the drive says of itself without data; all other commands are aborted. Among those is
  /// PACKET, of which a disk says no more than of any other command that it has not, and NOP, which is always aborted.
  private func executeSetting(_ slot: UnsafeMutablePointer<CommandSlot>) {
    switch slot.pointee.fis.command {
    case ATACommand.setFeatures: setFeatures(slot)
    case ATACommand.setMultipleMode: setMultipleMode(slot)
    case ATACommand.readNativeMax: readNativeMax(slot, is48: false)
    case ATACommand.readNativeMaxExt: readNativeMax(slot, is48: true)
    case ATACommand.executeDiagnostic: diagnose(slot)
    case ATACommand.checkPowerMode, ATACommand.oldCheckPowerMode: checkPowerMode(slot)
    case ATACommand.idle, ATACommand.oldIdle, ATACommand.idleImmediate, ATACommand.oldIdleImmediate: rest(slot, .idle)
    case ATACommand.standby, ATACommand.oldStandby, ATACommand.standbyImmediate, ATACommand.oldStandbyImmediate:
      flush(slot, then: .flushBeforeStandby)
    case ATACommand.sleep, ATACommand.oldSleep: flush(slot, then: .flushBeforeSleep)
    default: fail(slot, ATAError.abort)
    }
  }

  override func transferEnded(_ slot: UnsafeMutablePointer<CommandSlot>, result: Int32) {
    let step = Step(rawValue: slot.pointee.phase)
    guard result == 0 else { return failed(slot, step, result) }
    switch step {
    case .verify: verifyNext(slot)
    case .trim: trimNext(slot)
    case .flushBeforeStandby: rest(slot, .standby)
    case .flushBeforeSleep: rest(slot, .sleep)
    case .read, .write, .flush, nil: finish(slot)
    }
  }

  /// Of several failures the last one is kept. A guest that reads the log reads it before it starts the port again; one that
  /// does not is not kept from going on: ACS-3 has the drive abort all commands until the log is read, QEMU has not, and
  /// drivers that only start the port again work there.
  override func queueFailed(_ slot: UnsafeMutablePointer<CommandSlot>) {
    queueFailure = ATAQueueFailure(
      answer: slot.pointee.answer, tag: UInt8(truncatingIfNeeded: slot.pointee.number & 0x1f),
      isNotQueued: !slot.pointee.isQueued)
  }

  @inline(never)
  private func failed(_ slot: UnsafeMutablePointer<CommandSlot>, _ step: Step?, _ result: Int32) {
    if step == .verify {
      // The piece that failed is known, if not the sector in it.
      answerAddress(slot.pointee.deviceOffset / Self.sectorBytes, slot)
    }
    let isRead = step == .read || step == .verify
    fail(slot, ATAError.register(result: result, operation: isRead ? .read : .write))
  }

  /// Ends the command.
  @inline(__always)
  func finish(_ slot: UnsafeMutablePointer<CommandSlot>) {
    linkReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.finish(slot) }
  }

  /// Submits the slot's request as it is.
  @inline(__always)
  func submit(_ slot: UnsafeMutablePointer<CommandSlot>) {
    linkReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.submit(to: disk, for: slot) }
  }

  /// Ends the command with an error. No PIO set-up FIS goes before it, since no block of data was ready.
  @inline(never)
  func fail(_ slot: UnsafeMutablePointer<CommandSlot>, _ error: UInt8) {
    slot.pointee.pio = PIOSetup()
    freeBuffer(slot)
    slot.pointee.fail(error)
    finish(slot)
  }

  func freeBuffer(_ slot: UnsafeMutablePointer<CommandSlot>) {
    free(slot.pointee.deviceBuffer)
    slot.pointee.deviceBuffer = nil
  }
}
