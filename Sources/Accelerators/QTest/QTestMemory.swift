// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory
import Machine

/// Everything that has an address in a machine, as a processor would reach it: RAM first, else device memory, and doorbells.
///
/// A range may lie over both, and is taken piece by piece. Device memory is accessed in aligned pieces of at most
/// `bulkWidthMax` bytes, as QEMU does for registers that do not say otherwise. Main loop's thread, machine lock held.
struct QTestMemory {
  /// Widest access to device memory by a request that moves a block.
  static let bulkWidthMax = 4

  private unowned(unsafe) let machine: Machine

  init(_ machine: Machine) { self.machine = machine }

  /// A run of addresses that are all RAM of one region (with its host address), or none of them.
  private func piece(_ address: UInt64, _ byteCount: UInt64) -> (host: UnsafeMutableRawPointer?, byteCount: UInt64) {
    for region in machine.memory.regions {
      if address < region.start { return (nil, min(byteCount, region.start - address)) }
      if address < region.end {
        return (region.host + Int(address - region.start), min(byteCount, region.end - address))
      }
    }
    // Up to the end of the address space; behind it a range goes on at 0.
    let left = 0 &- address
    return (nil, left == 0 ? byteCount : min(byteCount, left))
  }

  /// Calls `body` for each such run of a range that does not wrap: its host address or nil, its address, its length.
  private func eachPiece(
    _ address: UInt64, _ byteCount: UInt64, _ body: (UnsafeMutableRawPointer?, UInt64, UInt64) -> Void
  ) {
    var position = address
    var remaining = byteCount
    while remaining > 0 {
      let (host, count) = piece(position, remaining)
      body(host, position, count)
      remaining -= count
      position &+= count
    }
  }

  /// How many bytes of a range that does not wrap are not RAM.
  func deviceBytes(_ address: UInt64, _ byteCount: UInt64) -> UInt64 {
    var sum: UInt64 = 0
    eachPiece(address, byteCount) { host, _, count in if host == nil { sum += count } }
    return sum
  }

  // MARK: Numbers

  /// Reads a little-endian number of 1, 2, 4 or 8 bytes; what is neither RAM nor a device reads as 0.
  func load(_ address: UInt64, width: Int) -> UInt64 {
    if machine.memory.pointer(at: address, byteCount: UInt64(width)) != nil {
      switch width {
      case 1: return (try? machine.memory.load(UInt8.self, at: address)).map(UInt64.init) ?? 0
      case 2: return (try? machine.memory.load(UInt16.self, at: address)).map(UInt64.init) ?? 0
      case 4: return (try? machine.memory.load(UInt32.self, at: address)).map(UInt64.init) ?? 0
      default: return (try? machine.memory.load(UInt64.self, at: address)) ?? 0
      }
    }
    var value: UInt64 = 0
    withUnsafeMutableBytes(of: &value) {
      read(address, into: UnsafeMutableRawBufferPointer(rebasing: $0[..<width]), widthMax: width)
    }
    return UInt64(littleEndian: value)
  }

  /// Writes a little-endian number of 1, 2, 4 or 8 bytes; what reaches neither RAM nor a device is lost.
  func store(_ value: UInt64, at address: UInt64, width: Int) {
    if machine.memory.pointer(at: address, byteCount: UInt64(width)) != nil {
      switch width {
      case 1: try? machine.memory.store(UInt8(truncatingIfNeeded: value), at: address)
      case 2: try? machine.memory.store(UInt16(truncatingIfNeeded: value), at: address)
      case 4: try? machine.memory.store(UInt32(truncatingIfNeeded: value), at: address)
      default: try? machine.memory.store(value, at: address)
      }
      return
    }
    withUnsafeBytes(of: value.littleEndian) {
      write(UnsafeRawBufferPointer(rebasing: $0[..<width]), at: address, widthMax: width)
    }
  }

  // MARK: Blocks. An address that runs over the end of the address space goes on at 0, as on a bus of 64 wires.

  /// Reads a block.
  func read(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer, widthMax: Int = bulkWidthMax) {
    guard let base = bytes.baseAddress else { return }
    eachPiece(address, UInt64(bytes.count)) { host, position, count in
      let destination = base + Int(position &- address)
      if let host {
        memcpy(destination, host, Int(count))
      } else {
        eachAccess(position, count, widthMax) { address, offset, width in
          var value = (machine.memorySpace.read(address, width: width) ?? 0).littleEndian
          memcpy(destination + offset, &value, width)
        }
      }
    }
  }

  /// Writes a block.
  func write(_ bytes: UnsafeRawBufferPointer, at address: UInt64, widthMax: Int = bulkWidthMax) {
    guard let base = bytes.baseAddress else { return }
    eachPiece(address, UInt64(bytes.count)) { host, position, count in
      let source = base + Int(position &- address)
      if let host {
        memcpy(host, source, Int(count))
      } else {
        eachAccess(position, count, widthMax) { address, offset, width in
          var value: UInt64 = 0
          memcpy(&value, source + offset, width)
          writeDevice(UInt64(littleEndian: value), at: address, width: width)
        }
      }
    }
  }

  /// Writes the same byte everywhere in a range that does not wrap.
  func fill(_ address: UInt64, byteCount: UInt64, with byte: UInt8) {
    let pattern = UInt64(byte) * 0x0101_0101_0101_0101
    eachPiece(address, byteCount) { host, position, count in
      if let host {
        memset(host, Int32(byte), Int(count))
      } else {
        eachAccess(position, count, Self.bulkWidthMax) { address, _, width in
          writeDevice(AddressSpace.truncate(pattern, width: width), at: address, width: width)
        }
      }
    }
  }

  private func writeDevice(_ value: UInt64, at address: UInt64, width: Int) {
    if machine.doorbells.ring(address: address, width: width) { return }
    _ = machine.memorySpace.write(address, width: width, value: value)
  }

  /// Cuts a range into aligned accesses, each as wide as its address and its rest allow: address, offset, width.
  private func eachAccess(
    _ address: UInt64, _ byteCount: UInt64, _ widthMax: Int, _ body: (UInt64, Int, Int) -> Void
  ) {
    var offset: UInt64 = 0
    while offset < byteCount {
      let position = address &+ offset
      var width = UInt64(widthMax)
      while position % width != 0 || width > byteCount - offset { width /= 2 }
      body(position, Int(offset), Int(width))
      offset += width
    }
  }
}
