// SPDX-License-Identifier: Apache-2.0
import Glibc

/// The 256 words that IDENTIFY DEVICE answers with, while they are put together.
struct IdentifyWords {
  /// Bytes of a page.
  static let byteCount = 512

  let page: UnsafeMutableRawPointer

  subscript(_ word: Int) -> UInt16 {
    get { UInt16(littleEndian: page.load(fromByteOffset: word * 2, as: UInt16.self)) }
    nonmutating set { page.storeBytes(of: newValue.littleEndian, toByteOffset: word * 2, as: UInt16.self) }
  }

  /// Puts a number into as many words as it has, the low word first.
  func set<Value: FixedWidthInteger>(_ word: Int, _ value: Value) {
    for index in 0..<Value.bitWidth / 16 { self[word + index] = UInt16(truncatingIfNeeded: value >> (16 * index)) }
  }

  /// Puts ASCII text into a range of words: the first character of each pair is in the upper byte, spaces fill the end
  /// (ACS-3 §3, ATA string convention). What is not printable becomes a question mark, what is too long is cut off.
  func set(_ words: ClosedRange<Int>, _ text: String) {
    var characters = text.unicodeScalars.makeIterator()
    func next() -> UInt16 {
      guard let character = characters.next() else { return 0x20 }
      return (0x20...0x7e).contains(character.value) ? UInt16(character.value) : 0x3f
    }
    for word in words {
      let first = next()
      self[word] = first << 8 | next()
    }
  }
}

/// IDENTIFY DEVICE (ACS-3 §7.12). It claims what the drive does, and nothing else.
extension ATADrive {
  func identify(_ slot: UnsafeMutablePointer<CommandSlot>) {
    _ = link.send(UnsafeRawBufferPointer(start: currentIdentity, count: IdentifyWords.byteCount), for: slot)
    setPIOInput(slot)
    finish(slot)
  }

  /// The words, made anew where something has changed.
  var currentIdentity: UnsafeRawPointer {
    if isIdentityStale {
      isIdentityStale = false
      identity.initializeMemory(as: UInt8.self, repeating: 0, count: IdentifyWords.byteCount)
      let words = IdentifyWords(page: identity)
      fillNames(words)
      fillSizes(words)
      fillTransfers(words)
      fillFeatureSets(words)
      fillSerialATA(words)
      // Word 255: a signature, and what makes the sum of all bytes 0.
      words[255] = 0x00a5
      Self.seal(identity)
    }
    return UnsafeRawPointer(identity)
  }

  /// Logical sectors of a physical one as a power of two, at most what the field takes.
  var physicalSectorShift: Int {
    let sectors = max(disk.physicalBlockBytes / Int(Self.sectorBytes), 1)
    return min(sectors.trailingZeroBitCount, 15)
  }

  private func fillNames(_ words: IdentifyWords) {
    // A disk that cannot be removed.
    words[0] = 0x0040
    words.set(10...19, serial)
    words.set(23...26, options.firmware)
    words.set(27...46, options.model)
    // ATA/ATAPI-4 to ACS-3, which is revision 5 of its draft.
    words[80] = 0x07f0
    words[81] = 0x006d
    if options.worldWideName != 0 {
      // The most significant word comes first.
      for index in 0..<4 {
        words[108 + index] = UInt16(truncatingIfNeeded: options.worldWideName >> UInt64(48 - 16 * index))
      }
    }
    words[217] = options.rotationRate
  }

  private func fillSizes(_ words: IdentifyWords) {
    let first = ATAGeometry(options.geometry, sectorCount: sectorCount)
    words[1] = UInt16(first.cylinders)
    words[3] = UInt16(first.heads)
    // Words 4 and 5 are from ATA-1: bytes of a track and of a sector.
    words[4] = UInt16(min(first.sectors * Self.sectorBytes, UInt64(UInt16.max)))
    words[5] = UInt16(Self.sectorBytes)
    words[6] = UInt16(first.sectors)
    // Words 54-58 are valid, and 64-70, and 88.
    words[53] = 0x0007
    words[54] = UInt16(geometry.cylinders)
    words[55] = UInt16(geometry.heads)
    words[56] = UInt16(geometry.sectors)
    words.set(57, UInt32(min(geometry.sectorCount, sectorCount)))
    words.set(60, UInt32(end28))
    words.set(100, sectorCount)
    let shift = physicalSectorShift
    words[106] = 0x4000 | (shift > 0 ? 0x2000 | UInt16(shift) : 0)
    // Sector 0 is the first of a physical sector.
    words[209] = 0x4000
  }

  private func fillTransfers(_ words: IdentifyWords) {
    words[47] = 0x8000 | UInt16(ATAFeatures.multipleSectorsMax)
    words[59] = features.multipleSectors > 0 ? 0x0100 | UInt16(features.multipleSectors) : 0
    words[48] = 0x4000
    // IORDY, which can be disabled; LBA; DMA. The drive manages its standby timer itself.
    words[49] = 0x0f00
    words[50] = 0x4000
    words[63] = (1 << UInt16(ATAFeatures.multiwordModeMax + 1)) - 1
    words[88] = (1 << UInt16(ATAFeatures.ultraModeMax + 1)) - 1
    switch features.transferMode {
    case .multiword(let mode): words[63] |= 0x0100 << UInt16(mode)
    case .ultra(let mode): words[88] |= 0x0100 << UInt16(mode)
    }
    // PIO modes 3 and 4, and the cycle times of these and of multiword DMA mode 2, in nanoseconds.
    words[64] = 0x0003
    for word in 65...68 { words[word] = 120 }
    if hasTrim {
      words[105] = UInt16(Self.trimBlocksMax)
      words[169] = 0x0001
    }
  }

  private func fillFeatureSets(_ words: IdentifyWords) {
    let hasName: UInt16 = options.worldWideName != 0 ? 0x0100 : 0
    // NOP, look-ahead, write cache, power management, SMART.
    words[82] = 0x4069
    // FLUSH CACHE (EXT), 48-bit addresses.
    words[83] = 0x7400
    // FUA, general purpose logging.
    words[84] = 0x4060 | hasName
    // The same as far as it is on.
    words[85] = 0x4008
    if features.hasLookAhead { words[85] |= 0x0040 }
    if disk.writeCacheEnabled { words[85] |= 0x0020 }
    if smart.isEnabled { words[85] |= 0x0001 }
    // Bit 15: words 119 and 120 are valid.
    words[86] = 0xb400
    words[87] = 0x4060 | hasName
    // READ LOG DMA EXT.
    words[119] = 0x4008
    words[120] = 0x4008
  }

  private func fillSerialATA(_ words: IdentifyWords) {
    words[75] = UInt16(Self.queueDepth - 1)
    // Generations 1 to 3, NCQ, and READ LOG DMA EXT that reads the same as READ LOG EXT.
    words[76] = 0x810e
    // The link runs at generation 1, which is what the port's status register says.
    words[77] = 0x0002
    // Serial ATA, up to SATA 3.3.
    words[222] = 0x11ff
  }
}
