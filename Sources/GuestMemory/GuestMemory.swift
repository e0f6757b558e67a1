// SPDX-License-Identifier: Apache-2.0
// GuestMemory: the guest-physical address space. Regions of RAM backed by file descriptors, bounds-checked access, and
// translation of guest ranges to host pointers. It knows nothing of devices.
import CLinux
import Glibc
import HostSystem

/// Why a guest-physical range could not be used.
public enum GuestMemoryError: Error, Equatable, Sendable {
  /// Some byte of the range is not RAM, or the range wraps around the address space.
  case outsideMemory(address: UInt64, byteCount: UInt64)
  /// A new region overlaps one that is there, is empty, wraps, or is not a whole number of pages.
  case badRegion(address: UInt64, byteCount: UInt64)
}

/// One piece of guest RAM: a range of guest-physical addresses and the host memory behind it.
public final class GuestRegion: @unchecked Sendable {
  /// First guest-physical address.
  public let start: UInt64
  /// Length in bytes, a multiple of the page size.
  public let byteCount: UInt64
  /// The host's view of the first byte; valid as long as this object lives.
  public let host: UnsafeMutableRawPointer
  /// The descriptor that backs the region (memfd or a file), for sharing it with another process.
  public var descriptor: Int32 { file.number }
  private let file: OwnedDescriptor
  private let mapping: Mapping

  /// Makes a region of zeroed memory on a memfd of its own.
  /// - Throws: what the host said; ENOMEM for a size that no host has.
  public init(start: UInt64, byteCount: UInt64, name: String = "spindle-ram") throws(SystemError) {
    guard byteCount <= UInt64(Int.max) else { throw SystemError("mmap", code: ENOMEM) }
    self.start = start
    self.byteCount = byteCount
    file = try MemoryFile.make(name: name, byteCount: Int(byteCount))
    mapping = try Mapping(descriptor: file.number, byteCount: Int(byteCount))
    host = mapping.base
  }

  /// One past the last guest-physical address.
  @inlinable public var end: UInt64 { start + byteCount }
}

/// The guest-physical address space as devices see it: RAM only, so a device can never reach another device's registers.
///
/// Regions are added and removed on the main thread while no device runs requests (a removal must be preceded by a
/// drain); lookups come from any thread. Values that the guest may change at the same time are read once, by `load`.
public final class GuestMemory: @unchecked Sendable {
  /// At most so many regions; a vhost-user front end needs 8, hot plug a few dozen.
  public static let regionsMax = 64
  /// Granularity of regions.
  public static let pageBytes: UInt64 = 4096

  /// What a lookup needs of a region, flat, so that no reference is counted on the way.
  @usableFromInline
  struct Entry {
    @usableFromInline var start: UInt64
    @usableFromInline var byteCount: UInt64
    @usableFromInline var host: UnsafeMutableRawPointer
  }

  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  @usableFromInline var entryCount = 0
  /// The regions, by rising address.
  public private(set) var regions: [GuestRegion] = []

  /// An address space with nothing in it.
  public init() { entries = .allocate(capacity: GuestMemory.regionsMax) }

  deinit { entries.deallocate() }

  /// Puts a region into the address space.
  public func add(_ region: GuestRegion) throws(GuestMemoryError) {
    let (end, wraps) = region.start.addingReportingOverflow(region.byteCount)
    let aligned = (region.start | region.byteCount) % GuestMemory.pageBytes == 0
    let free = regions.allSatisfy { end <= $0.start || region.start >= $0.end }
    guard !wraps, aligned, free, region.byteCount > 0, regions.count < GuestMemory.regionsMax else {
      throw .badRegion(address: region.start, byteCount: region.byteCount)
    }
    regions.append(region)
    regions.sort { $0.start < $1.start }
    publish()
  }

  /// Takes a region out. The caller has drained every device first.
  public func remove(_ region: GuestRegion) {
    regions.removeAll { $0 === region }
    publish()
  }

  /// Bytes of RAM in all.
  public var byteCount: UInt64 { regions.reduce(0) { $0 + $1.byteCount } }

  private func publish() {
    for (index, region) in regions.enumerated() {
      entries[index] = Entry(start: region.start, byteCount: region.byteCount, host: region.host)
    }
    entryCount = regions.count
  }

  // MARK: Translation

  /// The host address of a range that lies in one region, or nil. An empty range translates where its start is RAM.
  @inlinable
  public func pointer(at address: UInt64, byteCount: UInt64) -> UnsafeMutableRawPointer? {
    var index = 0
    while index < entryCount {
      let entry = entries[index]
      let offset = address &- entry.start
      // Subtractions only: no sum that a hostile length could wrap.
      if offset < entry.byteCount {
        return byteCount <= entry.byteCount - offset ? entry.host + Int(offset) : nil
      }
      index += 1
    }
    return nil
  }

  /// Translates a range, which may span regions that touch, into iovecs from `iovecs[0]` on.
  ///
  /// - Parameters:
  ///   - iovecs: room for at least `capacity` entries.
  /// - Returns: how many entries were written; 0 for an empty range; nil where a byte is not RAM or the room is too small.
  @inlinable
  public func translate(
    address: UInt64, byteCount: UInt64, into iovecs: UnsafeMutablePointer<iovec>, capacity: Int
  ) -> Int? {
    if byteCount == 0 { return 0 }
    if let host = pointer(at: address, byteCount: byteCount) {
      if capacity < 1 { return nil }
      iovecs[0] = iovec(iov_base: host, iov_len: Int(byteCount))
      return 1
    }
    return translateAcrossRegions(address: address, byteCount: byteCount, into: iovecs, capacity: capacity)
  }

  @usableFromInline @inline(never)
  func translateAcrossRegions(
    address: UInt64, byteCount: UInt64, into iovecs: UnsafeMutablePointer<iovec>, capacity: Int
  ) -> Int? {
    guard !address.addingReportingOverflow(byteCount).overflow else { return nil }
    var position = address
    var remaining = byteCount
    var used = 0
    for entry in UnsafeBufferPointer(start: entries, count: entryCount) where remaining > 0 {
      guard position >= entry.start, position - entry.start < entry.byteCount else { continue }
      let offset = position - entry.start
      let piece = min(remaining, entry.byteCount - offset)
      guard used < capacity else { return nil }
      iovecs[used] = iovec(iov_base: entry.host + Int(offset), iov_len: Int(piece))
      used += 1
      position += piece
      remaining -= piece
    }
    return remaining == 0 ? used : nil
  }

  /// Whether every byte of the range is RAM; for an empty range, whether its start is.
  @inlinable
  public func contains(address: UInt64, byteCount: UInt64) -> Bool {
    if pointer(at: address, byteCount: byteCount) != nil { return true }
    var position = address
    var remaining = byteCount
    while remaining > 0 {
      guard let entry = (0..<entryCount).first(where: { position &- entries[$0].start < entries[$0].byteCount }) else {
        return false
      }
      let piece = min(remaining, entries[entry].byteCount - (position - entries[entry].start))
      remaining -= piece
      if remaining > 0 && position > UInt64.max - piece { return false }
      position &+= piece
    }
    // An empty range got here because its start is not RAM.
    return byteCount > 0
  }
}
