// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Memory mapped into the process, unmapped when its owner lets go of it.
public struct Mapping: ~Copyable, @unchecked Sendable {
  /// The first byte; valid as long as this value lives.
  public let base: UnsafeMutableRawPointer
  /// Length in bytes.
  public let byteCount: Int

  /// Maps `byteCount` bytes of a descriptor, shared, from `offset`.
  public init(descriptor: Int32, byteCount: Int, offset: Int = 0, writable: Bool = true) throws(SystemError) {
    var address: UnsafeMutableRawPointer?
    let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
    _ = try checked("mmap") {
      clinux_mmap(&address, nil, byteCount, protection, MAP_SHARED | MAP_NORESERVE, descriptor, offset)
    }
    self.init(taking: address!, byteCount: byteCount)
  }

  /// Takes ownership of mapped memory.
  public init(taking base: UnsafeMutableRawPointer, byteCount: Int) {
    self.base = base
    self.byteCount = byteCount
  }

  /// Maps zeroed memory that belongs to this process alone.
  public static func anonymous(byteCount: Int) throws(SystemError) -> Mapping {
    var address: UnsafeMutableRawPointer?
    _ = try checked("mmap") {
      clinux_mmap(&address, nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    }
    return Mapping(taking: address!, byteCount: byteCount)
  }

  deinit { _ = clinux_munmap(base, byteCount) }
}

/// An anonymous file in memory (memfd), which other processes or KVM can map too.
public enum MemoryFile {
  /// Makes a file of `byteCount` zero bytes; pages are taken when they are first touched.
  public static func make(name: String, byteCount: Int) throws(SystemError) -> OwnedDescriptor {
    let descriptor = OwnedDescriptor(taking: try checked("memfd_create") { clinux_memfd_create(name) })
    _ = try checked("ftruncate") { clinux_ftruncate(descriptor.number, byteCount) }
    return descriptor
  }
}
