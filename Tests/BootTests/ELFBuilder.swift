// SPDX-License-Identifier: Apache-2.0
// Builds ELF files for tests, good ones and ones that a linker would never write.

/// A program header.
struct ProgramHeader: Sendable {
  static let load: UInt64 = 1
  static let note: UInt64 = 4

  var type: UInt64 = load
  var offset: UInt64
  var physical: UInt64
  var fileBytes: UInt64
  var memoryBytes: UInt64
}

/// An ELF file with a header, a table of program headers and whatever bytes follow it.
struct ELFBuilder: Sendable {
  static let payloadOffset: UInt64 = 0x200

  var is64Bit = true
  var dataEncoding: UInt8 = 1
  var type: UInt64 = 2
  var machine: UInt64 = 62
  var headerOffset: UInt64?
  var headerCount: UInt64?
  var headerBytes: UInt64?
  var headers: [ProgramHeader] = []
  /// What is at `payloadOffset`.
  var payload: [UInt8] = []

  /// A kernel of one segment at `address` with a note that enters at its first byte.
  static func kernel(at address: UInt64 = 0x10_0000, code: [UInt8] = [0xf4, 0xeb, 0xfd]) -> ELFBuilder {
    var builder = ELFBuilder()
    let note = xenNote(entry: UInt32(truncatingIfNeeded: address))
    builder.payload = note + code
    builder.headers = [
      ProgramHeader(
        type: ProgramHeader.note, offset: payloadOffset, physical: 0, fileBytes: UInt64(note.count),
        memoryBytes: UInt64(note.count)),
      ProgramHeader(
        offset: payloadOffset + UInt64(note.count), physical: address, fileBytes: UInt64(code.count),
        memoryBytes: UInt64(code.count) + 0x100),
    ]
    return builder
  }

  /// A note as the ELF specification lays it out, padded to four bytes.
  static func note(name: [UInt8], type: UInt32, descriptor: [UInt8]) -> [UInt8] {
    func padded(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4) }
    return littleEndian(UInt64(name.count), 4) + littleEndian(UInt64(descriptor.count), 4)
      + littleEndian(UInt64(type), 4) + padded(name) + padded(descriptor)
  }

  /// XEN_ELFNOTE_PHYS32_ENTRY.
  static func xenNote(entry: UInt32) -> [UInt8] {
    note(name: Array("Xen\0".utf8), type: 18, descriptor: littleEndian(UInt64(entry), 4))
  }

  static func littleEndian(_ value: UInt64, _ width: Int) -> [UInt8] {
    (0..<width).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  /// The file.
  var bytes: [UInt8] {
    let wide = is64Bit ? 8 : 4
    let table: UInt64 = is64Bit ? 64 : 52
    var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, is64Bit ? 2 : 1, dataEncoding, 1] + [UInt8](repeating: 0, count: 9)
    func add(_ value: UInt64, _ width: Int) { file += Self.littleEndian(value, width) }
    add(type, 2)
    add(machine, 2)
    add(1, 4)
    add(0, wide)
    add(headerOffset ?? table, wide)
    add(0, wide)
    add(0, 4)
    add(table, 2)
    add(headerBytes ?? (is64Bit ? 56 : 32), 2)
    add(headerCount ?? UInt64(headers.count), 2)
    add(0, 6)
    for header in headers {
      add(header.type, 4)
      if is64Bit { add(7, 4) }
      add(header.offset, wide)
      add(header.physical, wide)
      add(header.physical, wide)
      add(header.fileBytes, wide)
      add(header.memoryBytes, wide)
      if !is64Bit { add(7, 4) }
      add(1, wide)
    }
    precondition(file.count <= Int(Self.payloadOffset))
    file += [UInt8](repeating: 0, count: Int(Self.payloadOffset) - file.count)
    return file + payload
  }
}
