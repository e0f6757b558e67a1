// SPDX-License-Identifier: Apache-2.0

/// GET CONFIGURATION (MMC-6: GET CONFIGURATION, Features and Profiles).
extension ATAPIDrive {
  /// Profiles (MMC-6: Profile List feature).
  private enum Profile {
    static let none: UInt16 = 0x0000
    static let cdROM: UInt16 = 0x0008
    static let dvdROM: UInt16 = 0x0010
  }

  /// Which features a host asks for.
  private enum RequestType: UInt8 { case all, current, one }

  /// Puts descriptors into the answer where they were asked for.
  private struct FeatureList {
    var reply: PacketReply
    let type: RequestType
    let start: UInt16

    mutating func add(_ code: UInt16, version: UInt8, isPersistent: Bool, isCurrent: Bool, _ data: [UInt8]) {
      guard type == .one ? code == start : code >= start else { return }
      guard type != .current || isCurrent else { return }
      reply.append16(code)
      reply.append(version << 2 | (isPersistent ? 0x02 : 0) | (isCurrent ? 0x01 : 0))
      reply.append(UInt8(data.count))
      reply.append(data)
    }
  }

  private var profile: UInt16 { !isReady ? Profile.none : isDVD ? Profile.dvdROM : Profile.cdROM }

  func getConfiguration(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    guard let type = RequestType(rawValue: command[1] & 0x03) else { return check(.invalidField, slot) }
    var list = FeatureList(reply: makeReply(), type: type, start: command.uint16(at: 2))
    list.reply.append32(0)
    list.reply.append16(0)
    list.reply.append16(profile)
    addFeatures(to: &list)
    let lengthBytes = 4
    list.reply.setLength16(at: 2, after: lengthBytes)
    send(list.reply, allocation: Int(command.uint16(at: 7)), slot)
  }

  /// In the order of their codes.
  private func addFeatures(to list: inout FeatureList) {
    let isCD = profile == Profile.cdROM
    let isDVD = profile == Profile.dvdROM
    // The profiles themselves: DVD-ROM and CD-ROM, each with a flag that says whether it is the current one.
    list.add(
      0x0000, version: 0, isPersistent: true, isCurrent: true,
      [0x00, 0x10, isDVD ? 1 : 0, 0, 0x00, 0x08, isCD ? 1 : 0, 0])
    // Core: Serial ATAPI.
    list.add(0x0001, version: 1, isPersistent: true, isCurrent: true, [0, 0, 0, 7, 0, 0, 0, 0])
    // Morphing: polled events only.
    list.add(0x0002, version: 1, isPersistent: true, isCurrent: true, [0, 0, 0, 0])
    // Removable medium: a tray that loads, ejects and locks.
    list.add(0x0003, version: 2, isPersistent: true, isCurrent: true, [0x39, 0, 0, 0])
    // Random readable: blocks of 2048 bytes; a DVD reads 16 of them at a time; it has error recovery page 01h.
    list.add(
      0x0010, version: 0, isPersistent: false, isCurrent: isCD || isDVD, [0, 0, 0x08, 0x00, 0, isDVD ? 16 : 1, 1, 0])
    // CD read, without CD-Text.
    list.add(0x001e, version: 2, isPersistent: false, isCurrent: isCD, [0, 0, 0, 0])
    // DVD read.
    list.add(0x001f, version: 0, isPersistent: false, isCurrent: isDVD, [])
  }
}
