// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Memory mapped into the process, unmapped when its owner lets go of it.
public struct Mapping: ~Copyable, @unchecked Sendable {
  /// The first byte; valid as long as this value lives.
  public private(set) var base: UnsafeMutableRawPointer
  /// Length in bytes.
  public private(set) var byteCount: Int

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
  /// - Parameter reserves: false for memory most of which will never be touched: the host does not set it aside.
  public static func anonymous(byteCount: Int, reserves: Bool = true) throws(SystemError) -> Mapping {
    var address: UnsafeMutableRawPointer?
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | (reserves ? 0 : MAP_NORESERVE)
    _ = try checked("mmap") {
      clinux_mmap(&address, nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0)
    }
    return Mapping(taking: address!, byteCount: byteCount)
  }

  /// Makes the mapping longer or shorter. Its first byte may be elsewhere afterwards; new pages of anonymous memory are
  /// zeroes.
  public mutating func resize(byteCount new: Int) throws(SystemError) {
    var address: UnsafeMutableRawPointer? = base
    _ = try checked("mremap") { clinux_mremap(&address, byteCount, new) }
    base = address!
    byteCount = new
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
