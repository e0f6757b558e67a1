// SPDX-License-Identifier: Apache-2.0
import Platform
import Testing

/// What is wrong with a file, and the text that says so.
struct HostileImage: Sendable, CustomTestStringConvertible {
  var testDescription: String
  var text: String
  var file: [UInt8]

  init(_ what: String, _ text: String, _ change: (inout ELFBuilder) -> Void) {
    testDescription = what
    self.text = text
    var builder = ELFBuilder.kernel()
    change(&builder)
    file = builder.bytes
  }

  init(_ what: String, _ text: String, file: [UInt8]) {
    testDescription = what
    self.text = text
    self.file = file
  }

  static let good = ELFBuilder.kernel()

  static let all: [HostileImage] = [
    HostileImage("no bytes", "is not an ELF file", file: []),
    HostileImage("a script", "is not an ELF file", file: Array("#!/bin/sh\nexit 0\n".utf8)),
    HostileImage("three bytes of the magic", "is not an ELF file", file: [0x7f, 0x45, 0x4c]),
    HostileImage("nothing but the magic", "is truncated: the ELF header", file: [0x7f, 0x45, 0x4c, 0x46]),
    HostileImage("63 bytes of the header", "is truncated: the ELF header", file: Array(good.bytes[..<63])),
    HostileImage("a table that is cut off", "is truncated: the table", file: Array(good.bytes[..<150])),
    HostileImage("a note that is cut off", "is truncated: a note segment", file: Array(good.bytes[..<0x210])),
    HostileImage("a segment that is cut off", "is truncated: a segment", file: Array(good.bytes.dropLast())),
    HostileImage("big-endian", "is a big-endian ELF file") { $0.dataEncoding = 2 },
    HostileImage("for AArch64", "is for another processor (machine 183)") { $0.machine = 183 },
    HostileImage("an object file", "not an executable with fixed addresses (type 1)") { $0.type = 1 },
    HostileImage("position-independent", "not an executable with fixed addresses (type 3)") { $0.type = 3 },
    HostileImage("position-independent without a note", "has no PVH entry note") {
      $0.type = 3
      $0.headers.removeFirst()
    },
    HostileImage("without program headers", "it has no program headers") { $0.headerCount = 0 },
    HostileImage("65535 program headers", "it has 65535 program headers") { $0.headerCount = 0xffff },
    HostileImage("short program headers", "its program headers are 55 bytes long") { $0.headerBytes = 55 },
    HostileImage("a table beyond the file", "is truncated: the table") { $0.headerOffset = 0x10000 },
    HostileImage("a table at the end of all addresses", "is truncated: the table") { $0.headerOffset = .max },
    HostileImage("without a note", "has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)") { $0.headers.removeFirst() },
    HostileImage("a note of someone else", "has no PVH entry note") {
      $0.payload.replaceSubrange(12..<16, with: Array("GNU\0".utf8))
    },
    HostileImage("a Xen note of another type", "has no PVH entry note") { $0.payload[8] = 6 },
    HostileImage("a note name without end", "is truncated: a note") {
      $0.payload.replaceSubrange(0..<4, with: [0xff, 0xff, 0xff, 0xff])
    },
    HostileImage("a note descriptor without end", "is truncated: a note") {
      $0.payload.replaceSubrange(4..<8, with: [0xff, 0xff, 0xff, 0xff])
    },
    HostileImage("a PVH note without an address", "its PVH note has no address") { $0.payload[4] = 3 },
    HostileImage("an entry point above 4 GiB", "its PVH entry point is above 4 GiB") {
      let note = ELFBuilder.note(
        name: Array("Xen\0".utf8), type: 18, descriptor: ELFBuilder.littleEndian(1 << 32, 8))
      $0.payload += note
      $0.headers[0].offset = ELFBuilder.payloadOffset + UInt64($0.payload.count - note.count)
      $0.headers[0].fileBytes = UInt64(note.count)
    },
    HostileImage("an entry point outside", "the PVH entry point 0xfffff is in no segment") {
      $0.payload.replaceSubrange(16..<20, with: ELFBuilder.littleEndian(0xf_ffff, 4))
    },
    HostileImage("nothing to load", "it has nothing to load") { $0.headers.removeLast() },
    HostileImage("an empty segment only", "it has nothing to load") {
      $0.headers[1].fileBytes = 0
      $0.headers[1].memoryBytes = 0
    },
    HostileImage("more in the file than in memory", "a segment is larger in the file than in memory") {
      $0.headers[1].memoryBytes = 2
    },
    HostileImage("a segment beyond the file", "is truncated: a segment") { $0.headers[1].offset = 0x10_0000 },
    HostileImage("a segment at the end of all offsets", "is truncated: a segment") { $0.headers[1].offset = .max },
    HostileImage("a segment larger than all files", "is truncated: a segment") { $0.headers[1].fileBytes = .max },
    HostileImage("a segment that wraps", "a segment wraps around the address space") {
      $0.headers[1].physical = .max - 1
      $0.headers[1].memoryBytes = 3
    },
    HostileImage("the same segment twice", "it overlaps itself at 0x100000") { $0.headers.append($0.headers[1]) },
    HostileImage("a segment that ends in another", "it overlaps itself at 0x1000ff") {
      var other = $0.headers[1]
      other.physical += 0xff
      other.fileBytes = 0
      $0.headers.insert(other, at: 0)
    },
  ]
}

@Suite struct ELFImageTests {
  @Test(arguments: HostileImage.all)
  func hostileImagesAreRefusedInOneLine(_ hostile: HostileImage) throws {
    let error = try #require(throws: BootError.self) { _ = try ELFImage(hostile.file) }
    #expect(error.description.contains(hostile.text), "it said: \(error.description)")
    #expect(!error.description.contains("\n"))
  }

  @Test(arguments: [true, false], [62, 3] as [UInt64])
  func bothClassesAreRead(is64Bit: Bool, machine: UInt64) throws {
    var builder = ELFBuilder.kernel()
    builder.is64Bit = is64Bit
    builder.machine = machine
    let image = try ELFImage(builder.bytes)
    #expect(image.entry == 0x10_0000)
    let segment = try #require(image.segments.first)
    #expect(image.segments.count == 1)
    #expect(segment.address == 0x10_0000)
    #expect(Array(image.bytes[segment.fileRange]) == [0xf4, 0xeb, 0xfd])
    #expect(segment.memoryBytes == 0x103)
  }

  @Test func theNoteIsFoundBehindOthers() throws {
    var builder = ELFBuilder.kernel()
    let others =
      ELFBuilder.note(name: Array("GNU\0".utf8), type: 3, descriptor: [UInt8](repeating: 7, count: 20))
      + ELFBuilder.note(name: Array("Linux\0".utf8), type: 257, descriptor: [1])
      + ELFBuilder.note(name: [], type: 0, descriptor: [])
      + ELFBuilder.note(name: Array("Xen\0".utf8), type: 6, descriptor: Array("linux\0".utf8))
    let own = builder.payload.count
    builder.payload += others + ELFBuilder.xenNote(entry: 0x10_0002)
    builder.headers[0].offset += UInt64(own)
    builder.headers[0].fileBytes = UInt64(builder.payload.count - own)
    #expect(try ELFImage(builder.bytes).entry == 0x10_0002)
  }

  @Test func anEightByteEntryBelow4GiBIsTaken() throws {
    var builder = ELFBuilder.kernel()
    let own = builder.payload.count
    builder.payload += ELFBuilder.note(
      name: Array("Xen\0".utf8), type: 18, descriptor: ELFBuilder.littleEndian(0x10_0001, 8))
    builder.headers[0].offset += UInt64(own)
    builder.headers[0].fileBytes = UInt64(builder.payload.count - own)
    #expect(try ELFImage(builder.bytes).entry == 0x10_0001)
  }

  @Test func segmentsThatTouchDoNotOverlap() throws {
    var builder = ELFBuilder.kernel()
    var other = builder.headers[1]
    other.physical += other.memoryBytes
    builder.headers.insert(other, at: 0)
    #expect(try ELFImage(builder.bytes).segments.map(\.address) == [0x10_0000, 0x10_0103])
  }

  @Test func programHeadersMayBeLongerThanTheirFields() throws {
    var builder = ELFBuilder.kernel()
    let regular = builder.bytes
    // The table moves behind the file, each entry eight bytes longer.
    builder.headerOffset = UInt64(regular.count)
    builder.headerBytes = 64
    var file = builder.bytes
    for index in 0..<2 {
      file += regular[(64 + 56 * index)..<(64 + 56 * index + 56)] + [UInt8](repeating: 0xaa, count: 8)
    }
    #expect(try ELFImage(file).entry == 0x10_0000)
  }

  // MARK: Damage. Every outcome is right but a trap, and whatever is accepted keeps its promises.

  private func check(_ file: [UInt8]) {
    guard let image = try? ELFImage(file) else { return }
    #expect(!image.segments.isEmpty)
    #expect(image.segments.allSatisfy { $0.fileRange.upperBound <= file.count })
    #expect(image.segments.allSatisfy { UInt64($0.fileRange.count) <= $0.memoryBytes })
    #expect(image.segments.contains { UInt64(image.entry) &- $0.address < $0.memoryBytes })
    #expect(zip(image.segments, image.segments.dropFirst()).allSatisfy { $1.address - $0.address >= $0.memoryBytes })
  }

  @Test func everyTruncationIsRefused() {
    let whole = HostileImage.good.bytes
    for length in 0..<whole.count {
      #expect(throws: BootError.self) { _ = try ELFImage(Array(whole[..<length])) }
    }
  }

  @Test(arguments: [true, false])
  func noSingleBitMakesItTrap(is64Bit: Bool) {
    var builder = ELFBuilder.kernel()
    builder.is64Bit = is64Bit
    let whole = builder.bytes
    for bit in 0..<whole.count * 8 {
      var file = whole
      file[bit / 8] ^= 1 << UInt8(bit % 8)
      check(file)
    }
  }

  @Test func noDamageMakesItTrap() {
    let whole = HostileImage.good.bytes
    var random = SplitMix(seed: 0x5eed)
    for _ in 0..<20_000 {
      var file = whole
      for _ in 0..<(1 + random.next() % 8) {
        let position = Int(random.next() % UInt64(file.count))
        // Edges of ranges find more than arbitrary values do.
        file[position] = [0, 1, 0x7f, 0x80, 0xff, UInt8(truncatingIfNeeded: random.next())].randomElement(
          using: &random)!
      }
      if random.next() % 4 == 0 { file.removeLast(Int(random.next() % UInt64(file.count))) }
      check(file)
    }
  }
}

/// A generator whose numbers are the same in every run (SplitMix64).
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}
