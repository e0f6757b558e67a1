// SPDX-License-Identifier: Apache-2.0
import HostSystem

/// A set of sectors, a bit for each. Memory is taken where bits are set only.
struct SectorMap: ~Copyable {
  private static let bitsPerWord: UInt64 = 64
  private var mapping: Mapping

  /// An empty set of sectors below `sectorCount`.
  init(sectorCount: UInt64) throws(SystemError) {
    mapping = try Mapping.anonymous(byteCount: Self.bytes(sectorCount), reserves: false)
  }

  private static func bytes(_ sectorCount: UInt64) -> Int { Int(sectorCount / bitsPerWord + 1) * 8 }

  /// Takes sectors below another limit; those that are there stay.
  mutating func resize(sectorCount: UInt64) throws(SystemError) {
    try mapping.resize(byteCount: Self.bytes(sectorCount))
  }

  private var words: UnsafeMutablePointer<UInt64> { mapping.base.assumingMemoryBound(to: UInt64.self) }

  /// Puts a range of sectors into the set.
  mutating func insert(_ sectors: Range<UInt64>) {
    var sector = sectors.lowerBound
    while sector < sectors.upperBound {
      let bit = sector % Self.bitsPerWord
      let count = min(Self.bitsPerWord - bit, sectors.upperBound - sector)
      words[Int(sector / Self.bitsPerWord)] |= Self.mask(count) << bit
      sector += count
    }
  }

  /// How many sectors from the first one of a range on are all in the set, or all not.
  func run(in sectors: Range<UInt64>) -> (isMember: Bool, count: UInt64) {
    let isMember = words[Int(sectors.lowerBound / Self.bitsPerWord)] >> (sectors.lowerBound % Self.bitsPerWord) & 1 != 0
    var sector = sectors.lowerBound
    while sector < sectors.upperBound {
      let bit = sector % Self.bitsPerWord
      let count = min(Self.bitsPerWord - bit, sectors.upperBound - sector)
      let word = words[Int(sector / Self.bitsPerWord)]
      let others = ((isMember ? ~word : word) >> bit) & Self.mask(count)
      if others != 0 { return (isMember, sector + UInt64(others.trailingZeroBitCount) - sectors.lowerBound) }
      sector += count
    }
    return (isMember, UInt64(sectors.count))
  }

  private static func mask(_ count: UInt64) -> UInt64 { count == bitsPerWord ? .max : 1 << count - 1 }
}
