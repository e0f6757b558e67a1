// SPDX-License-Identifier: Apache-2.0

/// An ELF executable whose headers have been checked completely: what to copy where, and the PVH entry point.
///
/// Both classes are read (ELF specification 1.2; the gABI for 64 bits), since PVH enters in 32-bit mode either way.
public struct ELFImage {
  /// A piece of the file that goes to guest memory.
  public struct Segment: Equatable, Sendable {
    /// Guest-physical address.
    public let address: UInt64
    /// Where its bytes are in the file.
    public let fileRange: Range<Int>
    /// Bytes in memory; what the file does not fill is zero.
    public let memoryBytes: UInt64
  }

  /// The file.
  public let bytes: [UInt8]
  /// The segments to load, none overlapping another.
  public private(set) var segments: [Segment] = []
  /// The 32-bit entry point of the PVH note, inside a segment.
  public private(set) var entry: UInt32 = 0

  /// At most so many program headers are looked at; real kernels have fewer than ten.
  public static let programHeadersMax = 128

  private enum Kind {
    static let load: UInt64 = 1
    static let note: UInt64 = 4
    static let executable: UInt64 = 2
    static let machine386: UInt64 = 3
    static let machineX86_64: UInt64 = 62
  }

  /// Where the fields are in each class.
  private struct Layout {
    let headerBytes: Int
    let addressBytes: Int
    let programOffset: Int
    let entrySize: Int
    let entryCount: Int
    let entryBytes: Int
    let offset: Int
    let physical: Int
    let fileSize: Int
    let memorySize: Int
    static let class32 = Layout(
      headerBytes: 52, addressBytes: 4, programOffset: 28, entrySize: 42, entryCount: 44, entryBytes: 32, offset: 4,
      physical: 12, fileSize: 16, memorySize: 20)
    static let class64 = Layout(
      headerBytes: 64, addressBytes: 8, programOffset: 32, entrySize: 54, entryCount: 56, entryBytes: 56, offset: 8,
      physical: 24, fileSize: 32, memorySize: 40)
  }

  /// Checks a file.
  public init(_ bytes: [UInt8]) throws(BootError) {
    self.bytes = bytes
    let layout = try readHeader()
    var note: UInt32?
    for header in try programHeaders(layout) {
      let kind = field(header, 4)
      if kind == Kind.load {
        try addSegment(header, layout)
      } else if kind == Kind.note {
        let range = try fileRange(header, layout, "a note segment")
        if note == nil { note = try pvhEntry(range) }
      }
    }
    try checkSegments()
    guard let note else { throw .noPVHNote }
    guard segments.contains(where: { UInt64(note) >= $0.address && UInt64(note) - $0.address < $0.memoryBytes }) else {
      throw .malformed("the PVH entry point 0x\(String(note, radix: 16)) is in no segment")
    }
    entry = note
  }

  // MARK: Headers

  private func readHeader() throws(BootError) -> Layout {
    guard bytes.count >= 4, bytes[0..<4].elementsEqual([0x7f, 0x45, 0x4c, 0x46]) else { throw .notELF }
    guard bytes.count >= 20 else { throw .truncated("the ELF header") }
    let layout: Layout
    switch bytes[4] {
    case 1: layout = .class32
    case 2: layout = .class64
    default: throw .malformed("its class is \(bytes[4])")
    }
    guard bytes[5] == 1 else { throw .wrongKind("a big-endian ELF file") }
    guard bytes.count >= layout.headerBytes else { throw .truncated("the ELF header") }
    let machine = field(18, 2)
    guard machine == Kind.machineX86_64 || machine == Kind.machine386 else {
      throw .wrongKind("for another processor (machine \(machine))")
    }
    guard field(16, 2) == Kind.executable else {
      // Position-independent programs of the host are the usual mistake; a PVH kernel says where it wants to be.
      if hasNoPVHNote(layout) { throw .noPVHNote }
      throw .wrongKind("not an executable with fixed addresses (type \(field(16, 2)))")
    }
    return layout
  }

  /// For the error text only: whether a file of another type lacks the note as well.
  private func hasNoPVHNote(_ layout: Layout) -> Bool {
    guard let headers = try? programHeaders(layout) else { return true }
    for header in headers where field(header, 4) == Kind.note {
      if let range = try? fileRange(header, layout, "a note segment"), (try? pvhEntry(range)) ?? nil != nil {
        return false
      }
    }
    return true
  }

  /// Offsets of the program headers.
  private func programHeaders(_ layout: Layout) throws(BootError) -> [Int] {
    let start = field(layout.programOffset, layout.addressBytes)
    let size = field(layout.entrySize, 2)
    let count = field(layout.entryCount, 2)
    guard count > 0 else { throw .malformed("it has no program headers") }
    guard count <= UInt64(Self.programHeadersMax) else { throw .malformed("it has \(count) program headers") }
    guard size >= UInt64(layout.entryBytes) else { throw .malformed("its program headers are \(size) bytes long") }
    guard start <= UInt64(bytes.count), count * size <= UInt64(bytes.count) - start else {
      throw .truncated("the table of program headers")
    }
    return (0..<Int(count)).map { Int(start) + $0 * Int(size) }
  }

  private func fileRange(_ header: Int, _ layout: Layout, _ what: String) throws(BootError) -> Range<Int> {
    let offset = field(header + layout.offset, layout.addressBytes)
    let size = field(header + layout.fileSize, layout.addressBytes)
    guard offset <= UInt64(bytes.count), size <= UInt64(bytes.count) - offset else { throw .truncated(what) }
    return Int(offset)..<Int(offset + size)
  }

  private mutating func addSegment(_ header: Int, _ layout: Layout) throws(BootError) {
    let range = try fileRange(header, layout, "a segment")
    let address = field(header + layout.physical, layout.addressBytes)
    let memoryBytes = field(header + layout.memorySize, layout.addressBytes)
    guard memoryBytes >= UInt64(range.count) else { throw .malformed("a segment is larger in the file than in memory") }
    if memoryBytes == 0 { return }
    guard !address.addingReportingOverflow(memoryBytes - 1).overflow else {
      throw .malformed("a segment wraps around the address space")
    }
    segments.append(Segment(address: address, fileRange: range, memoryBytes: memoryBytes))
  }

  private mutating func checkSegments() throws(BootError) {
    guard !segments.isEmpty else { throw .malformed("it has nothing to load") }
    segments.sort { $0.address < $1.address }
    for (lower, upper) in zip(segments, segments.dropFirst()) where upper.address - lower.address < lower.memoryBytes {
      throw .malformed("it overlaps itself at 0x\(String(upper.address, radix: 16))")
    }
  }

  // MARK: Notes

  /// Finds the Xen note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY, Xen's elfnote.h) in a note segment.
  private func pvhEntry(_ range: Range<Int>) throws(BootError) -> UInt32? {
    let entryType: UInt64 = 18
    var position = range.lowerBound
    while range.upperBound - position >= 12 {
      let nameBytes = field(position, 4)
      let descriptorBytes = field(position + 4, 4)
      let type = field(position + 8, 4)
      let name = position + 12
      let paddedName = (nameBytes + 3) & ~3
      let paddedDescriptor = (descriptorBytes + 3) & ~3
      guard paddedName + descriptorBytes <= UInt64(range.upperBound - name) else { throw .truncated("a note") }
      let descriptor = name + Int(paddedName)
      if type == entryType, nameBytes == 4, bytes[name..<name + 4].elementsEqual([0x58, 0x65, 0x6e, 0]) {
        guard descriptorBytes == 4 || descriptorBytes == 8 else { throw .malformed("its PVH note has no address") }
        let address = field(descriptor, Int(descriptorBytes))
        guard let entry = UInt32(exactly: address) else {
          throw .malformed("its PVH entry point is above 4 GiB")
        }
        return entry
      }
      guard paddedDescriptor <= UInt64(range.upperBound - descriptor) else { return nil }
      position = descriptor + Int(paddedDescriptor)
    }
    return nil
  }

  /// Reads a little-endian field; the caller has checked that it is in the file.
  private func field(_ offset: Int, _ width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width { value |= UInt64(bytes[offset + index]) << (8 * UInt64(index)) }
    return value
  }
}
