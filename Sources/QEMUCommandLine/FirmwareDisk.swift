// SPDX-License-Identifier: Apache-2.0
import AHCI
import Assembly

/// What a PC's firmware is told of a hard disk: a geometry, and how its own interface is to translate it. The numbers follow
/// from the disk's size and partition table as on QEMU, whose tests look at them.
struct FirmwareDisk: Equatable {
  var cylinders: Int
  var heads: Int
  var sectors: Int
  var translation: Translation

  /// How addresses of the firmware's interface become the disk's; the values are those in the clock's memory.
  enum Translation: UInt8 {
    case none = 0
    case lba = 1
    case large = 2
    case revised = 3

    /// As QEMU's property `bios-chs-trans` names them; nil for `auto`.
    init?(named name: String) {
      switch name {
      case "none": self = .none
      case "lba": self = .lba
      case "large": self = .large
      case "rechs": self = .revised
      default: return nil
      }
    }
  }

  static let sectorBytes = 512
  /// Disks that the clock's memory has room for, and where: the types of the first two, then their nine bytes each.
  static let disksMax = 4
  enum Memory {
    static let kinds = 0x12
    static let types = [0x19, 0x1a]
    static let geometries = [0x1b, 0x24]
    static let translations = 0x39
  }
  /// A disk whose geometry is written out.
  private static let userType: UInt8 = 47
  /// What AT disks have unless a user or a partition table says otherwise.
  private static let headsDefault = 16, sectorsDefault = 63
  private static let cylinders = 2...16383
  /// Above these, addresses need translation.
  private static let untranslated = (cylinders: 1024, heads: 16, sectors: 63)
  /// Most tracks that the older translation reaches.
  private static let largeTracksMax = 131_072

  /// - Parameters:
  ///   - sectorCount: of the disk, each of 512 bytes.
  ///   - firstSector: what stands there; less than a sector counts as no partition table.
  ///   - geometry: what the user wants; nil for a guess.
  ///   - translation: what the user wants; nil for what follows.
  init(sectorCount: UInt64, firstSector: [UInt8], geometry: ATADriveGeometry?, translation: Translation?) {
    let found: FirmwareDisk
    if let geometry {
      found = FirmwareDisk(geometry.cylinders, geometry.heads, geometry.sectors)
    } else if let table = Self.geometry(ofTable: firstSector, sectorCount: sectorCount) {
      if table.heads > Self.headsDefault {
        var whole = Self.bySize(sectorCount)
        whole.translation = whole.cylinders * whole.heads <= Self.largeTracksMax ? .large : .lba
        found = whole
      } else {
        found = FirmwareDisk(
          cylinders: table.cylinders, heads: table.heads, sectors: table.sectors, translation: .none)
      }
    } else {
      found = Self.bySize(sectorCount)
    }
    self = found
    if let translation { self.translation = translation }
  }

  private init(cylinders: Int, heads: Int, sectors: Int, translation: Translation) {
    self.cylinders = cylinders
    self.heads = heads
    self.sectors = sectors
    self.translation = translation
  }

  private init(_ cylinders: Int, _ heads: Int, _ sectors: Int) {
    let (most, headsMost, sectorsMost) = Self.untranslated
    let fits = cylinders <= most && heads <= headsMost && sectors <= sectorsMost
    self.init(cylinders: cylinders, heads: heads, sectors: sectors, translation: fits ? .none : .lba)
  }

  private static func bySize(_ sectorCount: UInt64) -> FirmwareDisk {
    let count = sectorCount / UInt64(headsDefault * sectorsDefault)
    let most = cylinders.upperBound
    return FirmwareDisk(
      max(cylinders.lowerBound, Int(min(count, UInt64(most)))), headsDefault, sectorsDefault)
  }

  /// The geometry that the first partition with an end was made for.
  private static func geometry(
    ofTable bytes: [UInt8], sectorCount: UInt64
  ) -> (cylinders: Int, heads: Int, sectors: Int)? {
    let (table, entryBytes, signature) = (0x1be, 16, 0x1fe)
    guard bytes.count >= signature + 2, bytes[signature] == 0x55, bytes[signature + 1] == 0xaa else { return nil }
    for entry in stride(from: table, to: signature, by: entryBytes) {
      let (endHead, endSector) = (Int(bytes[entry + 5]), Int(bytes[entry + 6] & 0x3f))
      let isEmpty = bytes[entry + 12..<entry + 16].allSatisfy { $0 == 0 }
      guard !isEmpty, endHead > 0, endSector > 0 else { continue }
      let count = sectorCount / UInt64((endHead + 1) * endSector)
      guard count >= 1, count <= UInt64(cylinders.upperBound) else { continue }
      return (Int(count), endHead + 1, endSector)
    }
    return nil
  }

  /// The nine bytes of a disk of the user's own type.
  private var bytes: [UInt8] {
    let (low, high) = (UInt8(truncatingIfNeeded: cylinders), UInt8(truncatingIfNeeded: cylinders >> 8))
    let control: UInt8 = 0xc0 | (heads > 8 ? 8 : 0)
    return [
      low, high, UInt8(truncatingIfNeeded: heads), 0xff, 0xff, control, low, high, UInt8(truncatingIfNeeded: sectors),
    ]
  }

  /// What stands in the clock's memory for up to four disks; nil where there is none.
  static func memory(of disks: [FirmwareDisk?]) -> [(address: Int, bytes: [UInt8])] {
    var kinds: UInt8 = 0
    var translations: UInt8 = 0
    var all: [(Int, [UInt8])] = []
    for (index, disk) in disks.prefix(disksMax).enumerated() {
      guard let disk else { continue }
      translations |= disk.translation.rawValue << UInt8(2 * index)
      guard index < Memory.types.count else { continue }
      kinds |= index == 0 ? 0xf0 : 0x0f
      all += [(Memory.types[index], [userType]), (Memory.geometries[index], disk.bytes)]
    }
    return all + [(Memory.kinds, [kinds]), (Memory.translations, [translations])]
  }
}
