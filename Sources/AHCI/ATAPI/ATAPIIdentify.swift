// SPDX-License-Identifier: Apache-2.0

/// IDENTIFY PACKET DEVICE (ACS-3 §7.13).
extension ATAPIDrive {
  /// Words of the identification.
  private static let identifyWords = 256

  func identifyPacketDevice(_ slot: UnsafeMutablePointer<CommandSlot>) {
    let byteCount = Self.identifyWords * 2
    let data = UnsafeMutableRawBufferPointer(rebasing: replyBytes[..<byteCount])
    data.initializeMemory(as: UInt8.self, repeating: 0)
    fillIdentification(data)
    slot.pointee.pio = PIOSetup(blockBytes: UInt16(byteCount), isInput: true, interrupts: true)
    _ = link.send(UnsafeRawBufferPointer(data), for: slot)
    link.finish(slot)
  }

  private func fillIdentification(_ data: UnsafeMutableRawBufferPointer) {
    // A CD-ROM drive with removable media, packets of 12 bytes, ready for them within 50 microseconds.
    put(0x85c0, at: 0, in: data)
    put(options.serial, at: 10, words: 10, in: data)
    put(options.firmware, at: 23, words: 4, in: data)
    put(options.model, at: 27, words: 20, in: data)
    // DMA, IORDY that may be disabled; bit 9 is always set.
    put(0x0f00, at: 49, in: data)
    put(0x4000, at: 50, in: data)
    // Words 64 to 70 and 88 are valid.
    put(0x0006, at: 53, in: data)
    // 62 stays 0: the DMA direction need not be told by the command.
    put(0x0007 | selected(first: 0x20, last: 0x22), at: 63, in: data)
    // PIO modes 3 and 4, and the cycle times of multiword DMA 2 and PIO 4 in nanoseconds.
    put(0x0003, at: 64, in: data)
    for word in 65...68 { put(120, at: word, in: data) }
    // Serial ATA generations 1 and 2, no queued commands.
    put(0x0006, at: 76, in: data)
    // ATA/ATAPI-4 to ACS-3.
    put(0x07f0, at: 80, in: data)
    // NOP, DEVICE RESET, PACKET and power management, supported and enabled; bit 14 marks the words as valid.
    put(0x4218, at: 82, in: data)
    put(0x4000, at: 83, in: data)
    put(0x4000, at: 84, in: data)
    put(0x4218, at: 85, in: data)
    put(0x4000, at: 87, in: data)
    put(0x003f | selected(first: 0x40, last: Self.dmaModeDefault), at: 88, in: data)
    // 125 stays 0: a byte count limit of 0 is refused where there are data to move by PIO.
    // Serial transport, up to SATA 3.0.
    put(0x103f, at: 222, in: data)
    seal(data)
  }

  /// The bit that says which mode of a family is selected.
  private func selected(first: UInt8, last: UInt8) -> UInt16 {
    first...last ~= dmaMode ? 0x100 << UInt16(dmaMode - first) : 0
  }

  private func put(_ value: UInt16, at word: Int, in data: UnsafeMutableRawBufferPointer) {
    data.storeBytes(of: value.littleEndian, toByteOffset: word * 2, as: UInt16.self)
  }

  /// ASCII in pairs whose first character is the high byte, padded with spaces (ACS-3: ATA string convention).
  private func put(_ text: String, at word: Int, words: Int, in data: UnsafeMutableRawBufferPointer) {
    for index in 0..<words * 2 { data[word * 2 + index] = UInt8(ascii: " ") }
    for (index, character) in text.utf8.prefix(words * 2).enumerated() { data[word * 2 + (index ^ 1)] = character }
  }

  /// Makes the last word the checksum: the sum of all bytes is 0 then (ACS-3: IDENTIFY DEVICE, word 255).
  private func seal(_ data: UnsafeMutableRawBufferPointer) {
    data[data.count - 2] = 0xa5
    data[data.count - 1] = 0 &- data.dropLast().reduce(0, &+)
  }
}
