// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory
import HostSystem

/// Guest RAM as a q35 machine lays it out: from 0 up to 2 GiB below the device hole, the rest from 4 GiB up.
public enum MachineMemory {
  /// Why there is no such memory, as one line.
  public struct SizeError: Error, Equatable, CustomStringConvertible, Sendable {
    /// The line, without the option's name.
    public let description: String
  }

  /// Where low RAM ends at the latest; devices are above it.
  public static let lowBytesMax: UInt64 = 2 << 30
  /// Where high RAM begins.
  public static let highStart: UInt64 = 4 << 30
  /// The least a guest is given: it needs the first megabyte and room for an image.
  public static let bytesMin: UInt64 = 2 << 20

  /// Physical memory of the host in bytes.
  public static var hostBytes: UInt64 { UInt64(sysconf(Int32(_SC_PHYS_PAGES))) * UInt64(sysconf(Int32(_SC_PAGESIZE))) }

  /// Checks a size before anything is made.
  public static func check(byteCount: UInt64) throws(SizeError) {
    if byteCount < bytesMin { throw SizeError(description: "a guest needs at least \(bytesMin >> 20)M") }
    if byteCount > hostBytes { throw SizeError(description: "the host has \(hostBytes >> 20)M; ask for less") }
    if byteCount % GuestMemory.pageBytes != 0 {
      throw SizeError(description: "not a multiple of \(GuestMemory.pageBytes) bytes; round it")
    }
  }

  /// Makes `byteCount` bytes of RAM (checked before); pages are taken from the host when they are first touched.
  public static func make(byteCount: UInt64) throws(SystemError) -> GuestMemory {
    let memory = GuestMemory()
    let low = min(byteCount, lowBytesMax)
    do {
      try memory.add(GuestRegion(start: 0, byteCount: low))
      if byteCount > low { try memory.add(GuestRegion(start: highStart, byteCount: byteCount - low)) }
    } catch let error as SystemError {
      throw error
    } catch {
      preconditionFailure("the regions are disjoint and whole pages: \(error)")
    }
    return memory
  }
}
