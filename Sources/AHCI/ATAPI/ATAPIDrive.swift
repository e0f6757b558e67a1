// SPDX-License-Identifier: Apache-2.0
import Block

/// How a CD-ROM drive describes itself to the guest.
public struct ATAPIDriveOptions: Sendable {
  /// Model number, at most 40 ASCII characters.
  public var model = "SPINDLE DVD-ROM"
  /// Firmware revision, at most 8 ASCII characters.
  public var firmware = "1.0"
  /// Serial number, at most 20 ASCII characters. Drives of one machine should differ in it.
  public var serial = "SPINDLE-DVD-0"

  /// The defaults.
  public init() {}
}

/// A SATA CD-ROM drive (ACS-3 PACKET feature set, MMC-6) whose disc is a backend of the block layer, or none.
///
/// Here are its state and what each ATA command leads to; packet commands are in extensions by theme. Belongs to the
/// machine lock, as its port does.
///
/// After power-on a disc that is in the drive is ready at once: the drive reports no unit attention for resets (6/29h),
/// as guests of emulated drives expect it. A change of the disc is reported even if a reset came in between.
public final class ATAPIDrive: SATADevice {
  /// Tells that the tray has moved, by the guest's or the host's doing: true for open. Called before the command that
  /// moved it ends, with the machine lock held.
  public var onTrayMoved: ((Bool) -> Void)?

  let options: ATAPIDriveOptions

  // MARK: The tray and the disc (ATAPIMedium.swift)

  /// The disc, in the drive or on the open tray.
  var disc: BlockBackend?
  /// Whole blocks of the disc.
  var blockCount: UInt32 = 0
  /// Whether the tray is out. Machine lock held.
  public internal(set) var isTrayOpen = false
  /// The guest prevents removal until it allows it, or until a hard reset; for ever for the persistent kind.
  var isRemovalPrevented = false, isRemovalPreventedPersistently = false
  /// What the guest has not been told of a change of the disc.
  var change = MediumChange.none
  /// What the guest's next GET EVENT STATUS NOTIFICATION tells.
  var mediumEvent = MediumEvent.none
  /// Someone wants the disc that the guest has locked in; told by GET EVENT STATUS NOTIFICATION too.
  var isEjectRequested = false

  // MARK: What the guest has set up

  /// Of the last packet command, until it is fetched or another packet command begins.
  var sense = SCSISense.none
  var modePages = ModePage.ofDrive()
  /// The DMA mode as SET FEATURES has it: 20h and up for multiword, 40h and up for ultra DMA.
  var dmaMode = ATAPIDrive.dmaModeDefault
  /// In Standby or Sleep, until a command needs the disc. The drive does not insist on a reset to leave Sleep.
  var isInStandby = false

  /// Where answers of a few bytes are put together. One command at a time is executed, and needs it only inside a call.
  let replyBytes = UnsafeMutableRawBufferPointer.allocate(byteCount: PacketReply.byteCountMax, alignment: 8)

  /// Ultra DMA 5.
  static let dmaModeDefault: UInt8 = 0x45

  /// Makes a drive with a disc in it, or an empty one, its tray closed.
  /// - Parameter backend: the disc, on the machine's main loop. Blocks are 2048 bytes; what is left at its end is not
  ///   reachable.
  public init(backend: BlockBackend?, options: ATAPIDriveOptions = ATAPIDriveOptions()) {
    self.options = options
    super.init()
    place(backend)
  }

  deinit { replyBytes.deallocate() }

  override var signature: UInt32 { 0xeb14_0101 }
  override var backend: BlockBackend? { disc }

  // MARK: Resets

  /// The tray stays where it is, and a change that was not reported stays to be reported. All else begins anew;
  /// prevention of removal ends (MMC-6, PREVENT ALLOW MEDIUM REMOVAL).
  override func hardReset() {
    softReset()
    isRemovalPrevented = false
    isRemovalPreventedPersistently = false
    isEjectRequested = false
    modePages = ModePage.ofDrive()
    dmaMode = Self.dmaModeDefault
  }

  /// SRST and DEVICE RESET end commands; what the guest has set up stays (ACS-3: DEVICE RESET).
  override func softReset() {
    sense = .none
    isInStandby = false
  }

  // MARK: ATA commands

  /// Codes of ATA commands (ACS-3 §7).
  private enum Opcode {
    static let deviceReset: UInt8 = 0x08
    static let readSectors: UInt8 = 0x20
    static let executeDeviceDiagnostic: UInt8 = 0x90
    static let packet: UInt8 = 0xa0
    static let identifyPacketDevice: UInt8 = 0xa1
    static let standbyImmediate: UInt8 = 0xe0
    static let idleImmediate: UInt8 = 0xe1
    static let standby: UInt8 = 0xe2
    static let idle: UInt8 = 0xe3
    static let checkPowerMode: UInt8 = 0xe5
    static let sleep: UInt8 = 0xe6
    static let identifyDevice: UInt8 = 0xec
    static let setFeatures: UInt8 = 0xef
  }

  override func execute(_ slot: UnsafeMutablePointer<CommandSlot>) {
    switch slot.pointee.fis.command {
    case Opcode.packet: return executePacket(slot)
    case Opcode.identifyPacketDevice: return identifyPacketDevice(slot)
    case Opcode.identifyDevice, Opcode.readSectors:
      // Hosts tell packet devices from disks by what this leaves (ACS-3: IDENTIFY DEVICE, READ SECTOR(S)).
      answerSignature(slot)
      slot.pointee.fail(ATAError.abort)
    case Opcode.deviceReset:
      softReset()
      answerDiagnostic(slot)
    case Opcode.executeDeviceDiagnostic: answerDiagnostic(slot)
    case Opcode.setFeatures: setFeatures(slot)
    case Opcode.checkPowerMode: slot.pointee.answer.count = isInStandby ? PowerMode.standby : PowerMode.active
    case Opcode.idle, Opcode.idleImmediate: isInStandby = false
    case Opcode.standby, Opcode.standbyImmediate, Opcode.sleep: isInStandby = true
    default:
      // Among them what would ask for an address of the disc (READ NATIVE MAX), and NOP, which always does this.
      slot.pointee.fail(ATAError.abort)
    }
    link.finish(slot)
  }

  override func transferEnded(_ slot: UnsafeMutablePointer<CommandSlot>, result: Int32) {
    readEnded(slot, result: result)
  }

  /// What CHECK POWER MODE answers (ACS-3: CHECK POWER MODE).
  private enum PowerMode {
    static let standby: UInt16 = 0x00
    static let active: UInt16 = 0xff
  }

  /// Puts the signature into the registers (ACS-3: table of device signatures).
  private func answerSignature(_ slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.answer.count = UInt16(signature & 0xff)
    slot.pointee.answer.lba = UInt64(signature >> 8)
    slot.pointee.answer.device = 0
  }

  /// A packet device shows no status bit after its diagnostic: DRDY comes with the first packet command (ACS-3: EXECUTE
  /// DEVICE DIAGNOSTIC, DEVICE RESET).
  private func answerDiagnostic(_ slot: UnsafeMutablePointer<CommandSlot>) {
    answerSignature(slot)
    slot.pointee.answer.status = 0
    slot.pointee.answer.error = ATAError.diagnosticPassed
  }

  /// SET FEATURES knows transfer modes alone (ACS-3: SET FEATURES, set transfer mode).
  private func setFeatures(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let setTransferMode: UInt16 = 0x03
    guard slot.pointee.fis.features & 0xff == setTransferMode else { return slot.pointee.fail(ATAError.abort) }
    let mode = UInt8(truncatingIfNeeded: slot.pointee.fis.count)
    switch mode {
    case 0x00, 0x01, 0x08...0x0c: break  // PIO, which leaves the DMA mode alone.
    case 0x20...0x22, 0x40...Self.dmaModeDefault: dmaMode = mode
    default: slot.pointee.fail(ATAError.abort)
    }
  }
}
