// SPDX-License-Identifier: Apache-2.0

/// What the drive is, and what its last command came to: INQUIRY and REQUEST SENSE (SPC-3 §6.4, §6.27).
extension ATAPIDrive {
  /// Peripheral device type of CD-ROM drives.
  private static let deviceType: UInt8 = 0x05
  private static let vendor = "SPINDLE"
  private static let product = "DVD-ROM"

  /// Vital product data pages (SPC-3 §7.6).
  private enum Page {
    static let supported: UInt8 = 0x00
    static let serial: UInt8 = 0x80
    static let identification: UInt8 = 0x83
  }

  func inquiry(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let wantsPage = command[1] & 0x01 != 0
    let isObsolete = command[1] & 0x02 != 0
    var reply = makeReply()
    switch (wantsPage, command[2]) {
    case _ where isObsolete: return check(.invalidField, slot)
    case (false, 0): appendStandardInquiry(&reply)
    case (true, Page.supported): appendPage(Page.supported, to: &reply) { $0.append([0x00, 0x80, 0x83]) }
    case (true, Page.serial):
      appendPage(Page.serial, to: &reply) { $0.append(options.serial, width: options.serial.utf8.prefix(20).count) }
    case (true, Page.identification): appendPage(Page.identification, to: &reply, appendDesignator)
    default: return check(.invalidField, slot)
    }
    send(reply, allocation: Int(command.uint16(at: 3)), slot)
  }

  private func appendStandardInquiry(_ reply: inout PacketReply) {
    // Removable; SPC-3; the response format that goes with it; 31 bytes more; none of the features of bytes 5 to 7.
    reply.append([Self.deviceType, 0x80, 0x05, 0x02, 31, 0, 0, 0])
    reply.append(Self.vendor, width: 8)
    reply.append(Self.product, width: 16)
    reply.append(options.firmware, width: 4)
  }

  private func appendPage(_ code: UInt8, to reply: inout PacketReply, _ body: (inout PacketReply) -> Void) {
    reply.append([Self.deviceType, code, 0, 0])
    body(&reply)
    reply.setLength16(at: 2, after: 4)
  }

  /// One designator: ASCII that begins with the vendor (SPC-3 §7.6.3: T10 vendor ID based).
  private func appendDesignator(_ reply: inout PacketReply) {
    let serial = options.serial.utf8.prefix(20).count
    reply.append([0x02, 0x01, 0x00, UInt8(8 + 16 + serial)])
    reply.append(Self.vendor, width: 8)
    reply.append(Self.product, width: 16)
    reply.append(options.serial, width: serial)
  }

  /// Sense data in fixed format of the packet command before, once (SPC-3 §4.5). A change of the disc that no command
  /// has failed with yet is kept for one that does.
  func requestSense(_ command: PacketCommand, _ slot: UnsafeMutablePointer<CommandSlot>) {
    let wantsDescriptors = command[1] & 0x01 != 0
    guard !wantsDescriptors else { return check(.invalidField, slot) }
    var reply = makeReply()
    // A current error; the number of bytes after the first 8.
    reply.append([0x70, 0, sense.key, 0, 0, 0, 0, 10])
    reply.appendZeroes(4)
    reply.append([sense.code, sense.qualifier])
    reply.appendZeroes(4)
    if send(reply, allocation: Int(command[4]), slot) { sense = .none }
  }
}
