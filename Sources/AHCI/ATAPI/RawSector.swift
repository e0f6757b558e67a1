// SPDX-License-Identifier: Apache-2.0

/// A sector of a CD-ROM data track in mode 1, as it is on the disc before scrambling (ECMA-130 §14 and annex A).
enum RawSector {
  /// Bytes of a sector.
  static let byteCount = 2352
  /// Where the parts begin: the address and the mode after the sync pattern, the user data, the error detection code
  /// over all before it, 8 bytes of zeroes, and the P and Q parities.
  static let headerOffset = 12, userDataOffset = 16, detectionOffset = 2064, reservedOffset = 2068
  static let parityPOffset = 2076, parityQOffset = 2248
  /// Blocks before the one at address 0: two seconds (MMC-6: LBA to MSF translation).
  static let pregapBlocks: UInt32 = 150
  /// Blocks of a second, and seconds of a minute.
  static let framesPerSecond: UInt32 = 75, secondsPerMinute: UInt32 = 60

  /// Makes the sector at `address` of 2048 bytes of user data; `sector` has `byteCount` bytes.
  static func fill(_ sector: UnsafeMutableRawBufferPointer, address: UInt32, userData: UnsafeRawBufferPointer) {
    precondition(sector.count == byteCount && userData.count == detectionOffset - userDataOffset)
    sector[0] = 0x00
    for index in 1...10 { sector[index] = 0xff }
    sector[11] = 0x00
    let frames = address &+ pregapBlocks
    sector[12] = decimal(frames / framesPerSecond / secondsPerMinute)
    sector[13] = decimal(frames / framesPerSecond % secondsPerMinute)
    sector[14] = decimal(frames % framesPerSecond)
    sector[15] = 0x01
    UnsafeMutableRawBufferPointer(rebasing: sector[userDataOffset..<detectionOffset]).copyMemory(from: userData)
    let code = detectionCode(UnsafeRawBufferPointer(rebasing: sector[..<detectionOffset]))
    sector.storeBytes(of: code.littleEndian, toByteOffset: detectionOffset, as: UInt32.self)
    for index in reservedOffset..<parityPOffset { sector[index] = 0 }
    fillParityP(sector)
    fillParityQ(sector)
  }

  /// A number as two decimal digits.
  private static func decimal(_ number: UInt32) -> UInt8 {
    UInt8(truncatingIfNeeded: (number / 10) << 4 | number % 10)
  }

  // MARK: Error detection

  /// (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), least significant bit first (ECMA-130 §14.3).
  private static let detectionPolynomial: UInt32 = 0xd801_8001

  private static let detectionTable: [UInt32] = (0..<256).map { index in
    var value = UInt32(index)
    for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ detectionPolynomial : value >> 1 }
    return value
  }

  private static func detectionCode(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var code: UInt32 = 0
    for byte in bytes { code = code >> 8 ^ detectionTable[Int(UInt8(truncatingIfNeeded: code) ^ byte)] }
    return code
  }

  // MARK: Error correction

  // A Reed-Solomon code over GF(2^8) with x^8 + x^4 + x^3 + x^2 + 1 and the primitive element 2. Words of two bytes are
  // two codewords side by side, so everything is done for even and odd bytes apart. A codeword's bytes add up to 0, and
  // so they do when each is multiplied by 2 to the power of its place, counted from the end.

  /// Twice a number.
  @inline(__always)
  private static func doubled(_ value: UInt8) -> UInt8 { value << 1 ^ (value & 0x80 != 0 ? 0x1d : 0) }

  /// A number divided by 3, which is what the first parity byte takes.
  private static let thirds: [UInt8] = {
    var table = [UInt8](repeating: 0, count: 256)
    for index in 0..<256 {
      let value = UInt8(index)
      table[Int(doubled(value) ^ value)] = value
    }
    return table
  }()

  /// A codeword under way: the sum of its bytes, and the sum of them weighted.
  private struct Codeword {
    var sum: UInt8 = 0
    var weighted: UInt8 = 0

    @inline(__always)
    mutating func add(_ byte: UInt8) {
      sum ^= byte
      weighted = RawSector.doubled(weighted ^ byte)
    }

    /// The two bytes that complete it.
    var parity: (UInt8, UInt8) {
      let first = RawSector.thirds[Int(RawSector.doubled(weighted) ^ sum)]
      return (first, sum ^ first)
    }
  }

  /// P: 43 columns of 24 words from the header on.
  private static func fillParityP(_ sector: UnsafeMutableRawBufferPointer) {
    let rowBytes = 86
    for column in 0..<rowBytes {
      var word = Codeword()
      for row in 0..<24 { word.add(sector[headerOffset + row * rowBytes + column]) }
      (sector[parityPOffset + column], sector[parityPOffset + rowBytes + column]) = word.parity
    }
  }

  /// Q: 26 diagonals of 43 words over everything from the header to the end of P.
  private static func fillParityQ(_ sector: UnsafeMutableRawBufferPointer) {
    let diagonals = 26
    let words = 26 * 43
    for diagonal in 0..<diagonals {
      for half in 0..<2 {
        var word = Codeword()
        for step in 0..<43 { word.add(sector[headerOffset + (43 * diagonal + 44 * step) % words * 2 + half]) }
        let place = parityQOffset + diagonal * 2 + half
        (sector[place], sector[place + diagonals * 2]) = word.parity
      }
    }
  }
}
