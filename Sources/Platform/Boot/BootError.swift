// SPDX-License-Identifier: Apache-2.0

/// Why a kernel cannot be booted, as part of a line that begins with the file's name.
public enum BootError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The file does not begin with the ELF magic.
  case notELF
  /// A header or a segment reaches beyond the end of the file.
  case truncated(String)
  /// An ELF file, but not for this machine; what it is.
  case wrongKind(String)
  /// There is no PVH entry note.
  case noPVHNote
  /// Something in the headers contradicts itself.
  case malformed(String)
  /// A segment does not lie in guest RAM, of which there are `memoryBytes`.
  case doesNotFit(start: UInt64, byteCount: UInt64, memoryBytes: UInt64)
  /// What the kernel is given beside itself (start info, a module) finds no place in guest RAM.
  case noRoom(what: String, memoryBytes: UInt64)
  /// The command line is longer than `PVHLoader.commandLineBytesMax` or holds a zero byte.
  case badCommandLine(String)

  /// The text.
  public var description: String {
    switch self {
    case .notELF: "is not an ELF file"
    case .truncated(let what): "is truncated: \(what) ends beyond the end of the file"
    case .wrongKind(let what): "is \(what); Spindle boots x86-64 or 32-bit x86 executables"
    case .noPVHNote: "has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY); Spindle boots PVH images only"
    case .malformed(let what): "is malformed: \(what)"
    case .doesNotFit(let start, let byteCount, let memoryBytes):
      "does not fit into \(memoryBytes >> 20) MiB: it wants \(byteCount) bytes at 0x\(String(start, radix: 16)); "
        + "give it more with --memory"
    case .noRoom(let what, let memoryBytes):
      "leaves no room in \(memoryBytes >> 20) MiB for \(what); give it more with --memory"
    case .badCommandLine(let what): "takes no command line \(what)"
    }
  }
}
