// SPDX-License-Identifier: Apache-2.0

/// A mode page: what it is after a reset, which of its bits a guest may change, and what it is now (SPC-3 §7.4).
struct ModePage {
  /// Bits 5 to 0 of the first byte.
  let code: UInt8
  /// The page's bytes, code and length included.
  let defaults: [UInt8]
  /// Bits that MODE SELECT may change.
  let changeable: [UInt8]
  var current: [UInt8]

  private init(_ code: UInt8, _ parameters: [UInt8], changeable: [Int: UInt8] = [:]) {
    self.code = code
    defaults = [code, UInt8(parameters.count)] + parameters
    var mask = [UInt8](repeating: 0, count: defaults.count)
    mask[0] = code
    mask[1] = UInt8(parameters.count)
    for (index, bits) in changeable { mask[index] = bits }
    self.changeable = mask
    current = defaults
  }

  /// Capabilities and mechanical status (MMC-3: CD capabilities and mechanical status page).
  static let capabilities: UInt8 = 0x2a

  /// The pages of a drive, by code.
  static func ofDrive() -> [ModePage] {
    [
      // Read error recovery (MMC-6): its flags, and the number of retries.
      ModePage(0x01, [0, 5, 0, 0, 0, 0, 0, 0, 0, 0], changeable: [2: 0xff, 3: 0xff]),
      // CD audio control (MMC-3): two ports at full volume, which the guest may turn.
      ModePage(
        0x0e, [0x04, 0, 0, 0, 0, 75, 1, 0xff, 2, 0xff, 0, 0, 0, 0],
        changeable: [8: 0x0f, 9: 0xff, 10: 0x0f, 11: 0xff]),
      // Reads CD-R, CD-RW, DVD-ROM and DVD-R; no audio; a tray that ejects and locks; 40x (7056 kB/s), 512 KiB.
      ModePage(
        capabilities,
        [0x1b, 0, 0, 0, 0x29, 0, 0x1b, 0x90, 0, 0, 0x02, 0x00, 0x1b, 0x90, 0, 0, 0, 0, 0, 0]),
    ]
  }

  /// Whether `bytes`, as long as the page, differ from it only where they may.
  func mayBecome(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count == current.count else { return false }
    for index in 2..<current.count where (bytes[index] ^ current[index]) & ~changeable[index] != 0 { return false }
    return true
  }
}

/// MODE SENSE and MODE SELECT (SPC-3 §6.7 to §6.10).
extension ATAPIDrive {
  /// Longest list of parameters that MODE SELECT takes, bytes.
  private static let parameterBytesMax = 512
  /// Bytes before the pages, in the 10-byte commands.
  private static let modeHeaderBytes = 8
  private static let allPages: UInt8 = 0x3f
  private static let allSubpages: UInt8 = 0xff

  /// Which values MODE SENSE asks for.
  private enum PageControl: UInt8 { case current, changeable, defaults, saved }

  func modeSense(_ command: PacketCommand, isShort: Bool, _ slot: UnsafeMutablePointer<CommandSlot>) {
    guard let control = PageControl(rawValue: command[2] >> 6), control != .saved else {
      return check(.savingNotSupported, slot)
    }
    let code = command[2] & 0x3f
    let isAll = code == Self.allPages
    guard command[3] == 0 || (isAll && command[3] == Self.allSubpages) else { return check(.invalidField, slot) }
    let headerBytes = isShort ? 4 : Self.modeHeaderBytes
    var reply = makeReply()
    // No medium type, no device-specific parameter, no block descriptors: only lengths are not 0.
    reply.appendZeroes(headerBytes)
    for page in modePages where isAll || page.code == code { append(page, control, to: &reply) }
    guard reply.count > headerBytes else { return check(.invalidField, slot) }
    if isShort { reply.setLength8(at: 0, after: 1) } else { reply.setLength16(at: 0, after: 2) }
    send(reply, allocation: isShort ? Int(command[4]) : Int(command.uint16(at: 7)), slot)
  }

  private func append(_ page: ModePage, _ control: PageControl, to reply: inout PacketReply) {
    var bytes = control == .changeable ? page.changeable : control == .defaults ? page.defaults : page.current
    if control == .current && page.code == ModePage.capabilities && isLocked {
      let mechanism = 6
      let lockState: UInt8 = 0x02
      bytes[mechanism] |= lockState
    }
    reply.append(bytes)
  }

  func modeSelect(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let isPageFormat = command[1] & 0x10 != 0
    let saves = command[1] & 0x01 != 0
    guard isPageFormat, !saves else { return check(.invalidField, slot) }
    let byteCount = Int(command.uint16(at: 7))
    guard byteCount > 0 else { return succeed(slot) }
    guard byteCount >= Self.modeHeaderBytes, byteCount <= Self.parameterBytesMax else {
      return check(.parameterListLength, slot)
    }
    guard beginData(UInt64(byteCount), isInput: false, slot) else { return }
    let list = UnsafeMutableRawBufferPointer(rebasing: replyBytes[..<byteCount])
    guard link.receive(into: list, for: slot) == byteCount else { return check(.parameterListLength, slot) }
    // All of it is checked before any of it counts.
    if let reason = walk(UnsafeRawBufferPointer(list), applying: false) { return check(reason, slot) }
    _ = walk(UnsafeRawBufferPointer(list), applying: true)
    succeed(slot)
  }

  /// Goes through a parameter list, whose copy the guest cannot change any more.
  /// - Returns: what is wrong with it.
  private func walk(_ list: UnsafeRawBufferPointer, applying: Bool) -> SCSISense? {
    let descriptorBytes = Int(list[6]) << 8 | Int(list[7])
    var position = Self.modeHeaderBytes + descriptorBytes
    guard position <= list.count else { return .parameterListLength }
    while position < list.count {
      guard list.count - position >= 2 else { return .parameterListLength }
      let byteCount = 2 + Int(list[position + 1])
      guard byteCount <= list.count - position else { return .parameterListLength }
      let bytes = UnsafeRawBufferPointer(rebasing: list[position..<position + byteCount])
      // Bit 6 would be a subpage; bit 7 is reserved here.
      guard let index = modePages.firstIndex(where: { $0.code == bytes[0] & 0x7f }), modePages[index].mayBecome(bytes)
      else { return .invalidParameter }
      if applying { for place in 2..<byteCount { modePages[index].current[place] = bytes[place] } }
      position += byteCount
    }
    return nil
  }
}
