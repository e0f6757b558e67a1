// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

extension GuestMemory {
  /// Reads a little-endian integer once; the bytes need not be aligned or lie in one region.
  ///
  /// An aligned integer of up to 8 bytes is read by one access, so a guest that changes it meanwhile is seen before or
  /// after the change.
  public func load<T: FixedWidthInteger>(_ type: T.Type = T.self, at address: UInt64) throws(GuestMemoryError) -> T {
    let size = MemoryLayout<T>.size
    guard let host = pointer(at: address, byteCount: UInt64(size)) else {
      var value = T.zero
      try read(address: address, into: &value, byteCount: size)
      return T(littleEndian: value)
    }
    if UInt(bitPattern: host) % UInt(size) == 0 {
      switch size {
      case 1: return T(truncatingIfNeeded: clinux_load8(host))
      case 2: return T(littleEndian: T(truncatingIfNeeded: clinux_load16(host)))
      case 4: return T(littleEndian: T(truncatingIfNeeded: clinux_load32(host)))
      case 8: return T(littleEndian: T(truncatingIfNeeded: clinux_load64(host)))
      default: break
      }
    }
    var value = T.zero
    memcpy(&value, host, size)
    return T(littleEndian: value)
  }

  /// Writes a little-endian integer; the bytes need not be aligned or lie in one region.
  ///
  /// An aligned integer of up to 8 bytes is written by one access, so a guest never sees half of it.
  public func store<T: FixedWidthInteger>(_ value: T, at address: UInt64) throws(GuestMemoryError) {
    let size = MemoryLayout<T>.size
    var value = value.littleEndian
    if let host = pointer(at: address, byteCount: UInt64(size)), UInt(bitPattern: host) % UInt(size) == 0 {
      switch size {
      case 1: return clinux_store8(host, UInt8(truncatingIfNeeded: value))
      case 2: return clinux_store16(host, UInt16(truncatingIfNeeded: value))
      case 4: return clinux_store32(host, UInt32(truncatingIfNeeded: value))
      case 8: return clinux_store64(host, UInt64(truncatingIfNeeded: value))
      default: break
      }
    }
    try write(address: address, from: &value, byteCount: size)
  }

  /// Copies guest bytes out. Nothing is copied unless the whole range is RAM.
  public func read(
    address: UInt64, into destination: UnsafeMutableRawPointer, byteCount: Int
  ) throws(GuestMemoryError) {
    try eachPiece(address: address, byteCount: byteCount) { host, offset, count in
      memcpy(destination + offset, host, count)
    }
  }

  /// Copies bytes into the guest. Nothing is copied unless the whole range is RAM.
  public func write(address: UInt64, from source: UnsafeRawPointer, byteCount: Int) throws(GuestMemoryError) {
    try eachPiece(address: address, byteCount: byteCount) { host, offset, count in
      memcpy(host, source + offset, count)
    }
  }

  /// Copies an array into the guest.
  public func write(_ bytes: [UInt8], at address: UInt64) throws(GuestMemoryError) {
    let failure: GuestMemoryError? = bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return nil }
      do throws(GuestMemoryError) {
        try write(address: address, from: base, byteCount: buffer.count)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
  }

  /// Copies guest bytes into a new array.
  public func bytes(at address: UInt64, count: Int) throws(GuestMemoryError) -> [UInt8] {
    guard contains(address: address, byteCount: UInt64(count)) || count == 0 else {
      throw .outsideMemory(address: address, byteCount: UInt64(count))
    }
    var result = [UInt8](repeating: 0, count: count)
    let failure: GuestMemoryError? = result.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else { return nil }
      do throws(GuestMemoryError) {
        try read(address: address, into: base, byteCount: buffer.count)
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
    return result
  }

  /// Sets every byte of a range.
  public func fill(address: UInt64, byteCount: Int, with value: UInt8) throws(GuestMemoryError) {
    try eachPiece(address: address, byteCount: byteCount) { host, _, count in memset(host, Int32(value), count) }
  }

  private func eachPiece(
    address: UInt64, byteCount: Int, _ body: (UnsafeMutableRawPointer, Int, Int) -> Void
  ) throws(GuestMemoryError) {
    guard byteCount > 0 else { return }
    if let host = pointer(at: address, byteCount: UInt64(byteCount)) {
      body(host, 0, byteCount)
      return
    }
    guard contains(address: address, byteCount: UInt64(byteCount)) else {
      throw .outsideMemory(address: address, byteCount: UInt64(byteCount))
    }
    var offset = 0
    for region in regions where offset < byteCount {
      let position = address + UInt64(offset)
      guard position >= region.start, position < region.end else { continue }
      let piece = Int(min(UInt64(byteCount - offset), region.end - position))
      body(region.host + Int(position - region.start), offset, piece)
      offset += piece
    }
  }
}
