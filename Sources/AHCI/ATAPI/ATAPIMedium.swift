// SPDX-License-Identifier: Apache-2.0
import Block

/// What the guest has yet to be told of a change of the disc.
///
/// Guests that do not ask for events notice a change by seeing the drive empty once and then the disc may have changed:
/// two commands fail, one with each.
enum MediumChange {
  /// Nothing.
  case none
  /// That the disc was out.
  case removal
  /// That there is a disc, maybe another one.
  case attention
}

/// Event codes of the media class (MMC-6, GET EVENT STATUS NOTIFICATION).
enum MediumEvent: UInt8 {
  case none = 0
  case ejectRequest = 1
  case newMedium = 2
  case removal = 3
}

/// Why the host cannot do something with a drive's tray or disc.
public enum ATAPITrayError: Error, Equatable, Sendable {
  /// The guest has locked the disc in. It has been asked to give it free.
  case locked
  /// A disc can be put in or taken out only while the tray is open.
  case trayClosed
  /// There is a disc already.
  case occupied
  /// There is no disc.
  case empty
  /// Reads of the disc are under way. `BlockBackend.drainBegan` and `drain`, on the main loop, end them.
  case busy
}

// MARK: - The host's side

/// What a person does at the front of the drive. Machine lock held, on the main loop's thread.
extension ATAPIDrive {
  /// Whether the guest prevents the disc's removal (MMC-6, PREVENT ALLOW MEDIUM REMOVAL).
  public var isLocked: Bool { isRemovalPrevented || isRemovalPreventedPersistently }

  /// Opens the tray; a tray that is open stays so. Reads under way go on: the disc is in the drive until
  /// `removeMedium`.
  /// - Parameter force: even if the guest has locked it, which ends the lock.
  /// - Throws: `locked`; the guest hears of the wish by its next GET EVENT STATUS NOTIFICATION.
  public func openTray(force: Bool) throws(ATAPITrayError) {
    if isTrayOpen { return }
    if isLocked {
      guard force else {
        isEjectRequested = true
        throw .locked
      }
      isRemovalPrevented = false
      isRemovalPreventedPersistently = false
    }
    if disc != nil { change = .removal }
    moveTray(open: true)
  }

  /// Closes the tray; one that is closed stays so. The guest is told of the disc in it as of a new one.
  public func closeTray() {
    guard isTrayOpen else { return }
    change = .removal
    moveTray(open: false)
  }

  /// Puts a disc on the open tray; `closeTray`, or the guest, takes it in. The drive keeps `backend`, which must be on
  /// the machine's main loop, until `removeMedium`.
  /// - Throws: `trayClosed` or `occupied`.
  public func insert(_ backend: BlockBackend) throws(ATAPITrayError) {
    guard isTrayOpen else { throw .trayClosed }
    guard disc == nil else { throw .occupied }
    place(backend)
    change = .removal
  }

  /// Takes the disc from the open tray.
  /// - Returns: the disc, of which no read is under way and none will be; it is the caller's again.
  /// - Throws: `trayClosed`, `empty` or `busy`; the disc is where it was then.
  @discardableResult
  public func removeMedium() throws(ATAPITrayError) -> BlockBackend {
    guard isTrayOpen else { throw .trayClosed }
    guard let disc else { throw .empty }
    // The backend's own count: commands that the guest has given up never come back to the drive, but their requests
    // come back to the backend.
    guard disc.inFlight == 0 else { throw .busy }
    place(nil)
    return disc
  }

  /// Makes `backend` the disc, or takes the one that there is.
  func place(_ backend: BlockBackend?) {
    disc = backend
    // Addresses have 32 bits, and the last one is left to say "no address".
    blockCount = UInt32(truncatingIfNeeded: min((backend?.byteCount ?? 0) / Self.blockBytes, UInt64(UInt32.max)))
  }

  private func moveTray(open: Bool) {
    isTrayOpen = open
    isEjectRequested = false
    // A tray that moves without a disc changes nothing about media.
    if disc != nil { mediumEvent = open ? .removal : .newMedium } else { mediumEvent = .none }
    onTrayMoved?(open)
  }
}

// MARK: - The guest's side

extension ATAPIDrive {
  /// Blocks that only a DVD has room for: more than 80 minutes.
  private static let cdBlocksMax: UInt32 = 80 * RawSector.secondsPerMinute * RawSector.framesPerSecond

  /// The disc without a reference counted.
  var discReference: Unmanaged<BlockBackend>? {
    @inline(__always) get { disc.map { Unmanaged.passUnretained($0) } }
  }
  /// The guest sees a disc.
  var hasMedium: Bool { !isTrayOpen && disc != nil }
  /// The guest can read.
  var isReady: Bool { hasMedium && blockCount > 0 }
  /// The disc is too large for a CD.
  var isDVD: Bool { blockCount > Self.cdBlocksMax }

  /// Why the guest cannot read.
  var notReadyReason: SCSISense {
    if hasMedium { return .incompatibleMedium }
    return isTrayOpen ? .noMediumTrayOpen : .noMediumTrayClosed
  }

  /// A change of the disc that a command is to fail with, step by step; nil for none, and while the disc is out.
  @inline(__always)
  func takeAttention() -> SCSISense? {
    if change == .none { return nil }
    return advanceChange()
  }

  @inline(never)
  private func advanceChange() -> SCSISense? {
    guard hasMedium else { return nil }
    guard change == .removal else {
      change = .none
      return .mediumChanged
    }
    change = .attention
    return .noMediumTrayOpen
  }

  // MARK: START STOP UNIT

  /// Ejects and loads; starting, stopping and power conditions have nothing to do (MMC-6: START STOP UNIT).
  func startStopUnit(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let powerCondition = command[4] >> 4
    let movesTray = command[4] & 0x02 != 0
    let opens = command[4] & 0x01 == 0
    guard powerCondition == 0, movesTray, opens != isTrayOpen else { return succeed(slot) }
    if opens && isLocked { return check(.removalPrevented, slot) }
    moveTray(open: opens)
    succeed(slot)
  }

  // MARK: PREVENT ALLOW MEDIUM REMOVAL

  /// Two locks, of which the persistent one is the guest's way to hear of the eject button (MMC-6: PREVENT
  /// ALLOW MEDIUM REMOVAL).
  func preventAllowMediumRemoval(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let prevents = command[4] & 0x01 != 0
    let isPersistent = command[4] & 0x02 != 0
    if isPersistent { isRemovalPreventedPersistently = prevents } else { isRemovalPrevented = prevents }
    succeed(slot)
  }

  // MARK: GET EVENT STATUS NOTIFICATION

  /// Classes of events, one bit each: media alone.
  private static let mediaClass: UInt8 = 4

  /// Polled only; an event that was told is gone (MMC-6: GET EVENT STATUS NOTIFICATION).
  func getEventStatusNotification(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let isPolled = command[1] & 0x01 != 0
    guard isPolled else { return check(.invalidField, slot) }
    let supported = UInt8(1) << Self.mediaClass
    let allocation = Int(command.uint16(at: 7))
    var reply = makeReply()
    guard command[4] & supported != 0 else {
      // No event available: bit 7 says that none of the classes is known.
      reply.append16(2)
      reply.append(UInt8(0x80))
      reply.append(supported)
      send(reply, allocation: allocation, slot)
      return
    }
    let event = isEjectRequested ? .ejectRequest : mediumEvent
    reply.append16(6)
    reply.append(Self.mediaClass)
    reply.append(supported)
    reply.append(event.rawValue)
    reply.append(UInt8((isTrayOpen ? 0x01 : 0) | (hasMedium ? 0x02 : 0)))
    reply.append16(0)
    // With no room beyond the header, nothing was told.
    let headerBytes = 4
    guard send(reply, allocation: allocation, slot), allocation > headerBytes else { return }
    if event == .ejectRequest { isEjectRequested = false } else { mediumEvent = .none }
  }

  // MARK: MECHANISM STATUS

  /// A drive that is idle and changes no discs (MMC-6: MECHANISM STATUS).
  func mechanismStatus(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    var reply = makeReply()
    reply.append(UInt8(0))
    reply.append(UInt8(isTrayOpen ? 0x10 : 0))
    reply.appendZeroes(6)
    send(reply, allocation: Int(command.uint16(at: 8)), slot)
  }
}
