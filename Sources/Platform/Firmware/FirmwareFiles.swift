// SPDX-License-Identifier: Apache-2.0
import GuestMemory
import Machine

/// A file of firmware configuration: its item, and its length.
struct FirmwareFile {
  var key: UInt16
  var byteCount: UInt32
}

/// Why a file cannot be added, as one line.
public struct FirmwareFileError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line, without the option's name.
  public let description: String
}

extension FirmwareConfig {
  /// Bytes of a file's name; the directory has room for a zero after it.
  public static let fileNameBytesMax = 55
  /// Files of one machine.
  public static let filesMax = 1024
  /// Bytes of one file.
  public static let fileBytesMax = 256 << 20
  /// Types of an entry of the memory map (ACPI 6.5, table 15.4).
  private enum MapEntry {
    static let ram: UInt32 = 1
  }

  /// Adds a file that the guest finds by its name, for example `opt/org.example/name` (docs/specs/fw_cfg, "File
  /// Directory"). Before the guest runs.
  /// - Throws: where the name is empty, too long, taken or not printable ASCII, or there is no room.
  public func add(file name: String, bytes: [UInt8]) throws(FirmwareFileError) {
    guard !name.isEmpty, name.utf8.count <= Self.fileNameBytesMax else {
      throw FirmwareFileError(description: "name=\(name): a name has 1 to \(Self.fileNameBytesMax) bytes")
    }
    guard name.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw FirmwareFileError(description: "name=\(name): a name is printable ASCII without spaces")
    }
    if files[name] != nil { throw FirmwareFileError(description: "name=\(name): there is such a file already") }
    guard files.count < Self.filesMax, bytes.count <= Self.fileBytesMax else {
      throw FirmwareFileError(
        description: "name=\(name): \(Self.filesMax) files of at most \(Self.fileBytesMax >> 20)M each fit")
    }
    let file = FirmwareFile(key: Key.firstFile + UInt16(files.count), byteCount: UInt32(bytes.count))
    files[name] = file
    add(key: file.key, bytes: bytes)
    add(key: Key.fileDirectory, bytes: directory)
  }

  /// Gives a file other bytes; a guest that has selected it before reads the old ones on. Machine lock held.
  /// - Throws: where there is no such file, or there are too many bytes.
  public func change(file name: String, bytes: [UInt8]) throws(FirmwareFileError) {
    guard var file = files[name] else { throw FirmwareFileError(description: "name=\(name): there is no such file") }
    guard bytes.count <= Self.fileBytesMax else {
      throw FirmwareFileError(description: "name=\(name): at most \(Self.fileBytesMax >> 20)M fit")
    }
    file.byteCount = UInt32(bytes.count)
    files[name] = file
    add(key: file.key, bytes: bytes)
    add(key: Key.fileDirectory, bytes: directory)
  }

  /// Adds the file `etc/e820`: where RAM is, as a list of address, length and type (ACPI 6.5, table 15.5).
  public func addMemoryMap(_ regions: [GuestRegion]) throws(FirmwareFileError) {
    let entries = regions.flatMap { region in
      region.start.littleEndianBytes + region.byteCount.littleEndianBytes + MapEntry.ram.littleEndianBytes
    }
    try add(file: "etc/e820", bytes: entries)
  }

  /// The directory: a count, then length, key, two bytes of nothing and the name of each file; numbers are big-endian.
  private var directory: [UInt8] {
    let names = files.keys.sorted()
    return UInt32(names.count).bigEndian.littleEndianBytes
      + names.flatMap { name -> [UInt8] in
        guard let file = files[name] else { return [] }
        let padding = [UInt8](repeating: 0, count: Self.fileNameBytesMax + 1 - name.utf8.count)
        return file.byteCount.bigEndian.littleEndianBytes + file.key.bigEndian.littleEndianBytes + [0, 0]
          + Array(name.utf8) + padding
      }
  }
}
