// SPDX-License-Identifier: Apache-2.0

/// CRC-32 as GPT uses it: polynomial 0x04c11db7, reflected, all ones before and after (UEFI 2.10 §5.3.2, ISO 3309).
public struct CRC32: Sendable {
  /// The polynomial, bits reversed.
  static let reflectedPolynomial: UInt32 = 0xEDB8_8320

  private let table: [UInt32]

  /// Builds the table of the 256 byte remainders.
  public init() {
    var table = [UInt32](repeating: 0, count: 256)
    for byte in 0..<256 {
      var remainder = UInt32(byte)
      for _ in 0..<8 {
        remainder = remainder & 1 == 0 ? remainder >> 1 : (remainder >> 1) ^ CRC32.reflectedPolynomial
      }
      table[byte] = remainder
    }
    self.table = table
  }

  /// The state before the first byte.
  public static let start: UInt32 = 0xFFFF_FFFF

  /// The state after one more byte.
  @inline(__always)
  public func advanced(_ state: UInt32, by byte: UInt8) -> UInt32 {
    table[Int(UInt8(truncatingIfNeeded: state) ^ byte)] ^ (state >> 8)
  }

  /// The checksum that a state stands for.
  public static func finish(_ state: UInt32) -> UInt32 { ~state }

  /// The checksum of `byteCount` bytes of RAM at `address`.
  public func checksum<B: Bus>(_ bus: B, address: UInt64, byteCount: UInt64) -> UInt32 {
    var state = CRC32.start
    for offset in 0..<byteCount {
      state = advanced(state, by: bus.ramRead8(address &+ offset))
    }
    return CRC32.finish(state)
  }
}

/// An order-sensitive sum of little-endian 64-bit words: for each word `a += word`, then `b += a`, both modulo 2^64.
///
/// It starts at `a = 0, b = 0`. `b` weighs each word by how many words follow it, so exchanged blocks change it; and
/// two instructions a word keep a whole disk affordable on a processor that is emulated at a million instructions a
/// second. Any other program recomputes it from the definition in the first sentence.
public struct WordSum: Equatable, Sendable {
  /// The plain sum of the words.
  public var a: UInt64
  /// The sum of all values that `a` had after each word.
  public var b: UInt64
  /// How many words were summed.
  public var wordCount: UInt64

  /// The sum of no words.
  public init() {
    a = 0
    b = 0
    wordCount = 0
  }

  /// Adds one word.
  @inline(__always)
  public mutating func add(_ word: UInt64) {
    a &+= word
    b &+= a
    wordCount &+= 1
  }

  /// Adds `byteCount` bytes of RAM at `address`; both are multiples of 64 (a sector is eight times that).
  public mutating func add<B: Bus>(_ bus: B, address: UInt64, byteCount: UInt64) {
    // Locals, and eight words a turn: what is in the loop is executed a million times for a disk of 8 MiB.
    var a = self.a
    var b = self.b
    var cursor = address
    let end = address &+ byteCount
    while cursor < end {
      a &+= bus.ramRead64(cursor)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 8)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 16)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 24)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 32)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 40)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 48)
      b &+= a
      a &+= bus.ramRead64(cursor &+ 56)
      b &+= a
      cursor &+= 64
    }
    self.a = a
    self.b = b
    wordCount &+= byteCount / 8
  }

  /// Adds words that another sum has summed from zero, as if they followed here.
  ///
  /// Each of the other's `wordCount` intermediate sums would have been larger by this `a`.
  public mutating func append(_ other: WordSum) {
    b = b &+ a &* other.wordCount &+ other.b
    a &+= other.a
    wordCount &+= other.wordCount
  }
}

/// The words that the test program writes to the scratch partition.
///
/// With all arithmetic modulo 2^64, word `i` (counted from the partition's first byte, little-endian) is
///
///     z = seed + (i + 1) * 0x9E3779B97F4A7C15
///     word(i) = (z ^ (z >> 32)) * 0xD6E8FEB86659FD93
///
/// A word depends on its index alone, so any part of the partition can be checked by itself.
public struct ScratchPattern: Sendable {
  /// The step between the states of neighbouring words (2^64 divided by the golden ratio, made odd).
  public static let increment: UInt64 = 0x9E37_79B9_7F4A_7C15
  /// The multiplier that mixes a state into a word.
  public static let multiplier: UInt64 = 0xD6E8_FEB8_6659_FD93

  /// What the whole pattern follows from.
  public let seed: UInt64

  /// The pattern of `seed`.
  public init(seed: UInt64) {
    self.seed = seed
  }

  /// The word at `index`.
  public func word(_ index: UInt64) -> UInt64 {
    ScratchPattern.mix(seed &+ (index &+ 1) &* ScratchPattern.increment)
  }

  @inline(__always)
  static func mix(_ state: UInt64) -> UInt64 {
    (state ^ (state >> 32)) &* multiplier
  }

  /// Writes `wordCount` words, from `firstIndex` on, to RAM at `address`.
  public func fill<B: Bus>(_ bus: B, address: UInt64, firstIndex: UInt64, wordCount: UInt64) {
    var state = seed &+ firstIndex &* ScratchPattern.increment
    var cursor = address
    for _ in 0..<wordCount {
      state &+= ScratchPattern.increment
      bus.ramWrite64(cursor, ScratchPattern.mix(state))
      cursor &+= 8
    }
  }

  /// Whether `wordCount` words of RAM at `address` are the pattern's, from `firstIndex` on.
  public func matches<B: Bus>(_ bus: B, address: UInt64, firstIndex: UInt64, wordCount: UInt64) -> Bool {
    var state = seed &+ firstIndex &* ScratchPattern.increment
    var cursor = address
    var difference: UInt64 = 0
    for _ in 0..<wordCount {
      state &+= ScratchPattern.increment
      difference |= bus.ramRead64(cursor) ^ ScratchPattern.mix(state)
      cursor &+= 8
    }
    return difference == 0
  }
}
