// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc

/// Files that the kernel keeps open for a ring, so that an entry names a place in a table and the kernel counts no
/// references (io_uring_register(2), IORING_REGISTER_FILES). Where the kernel has no such table, everything works without.
struct RingFiles {
  /// Places in the table; files beyond go without.
  static let placesMax: UInt32 = 16

  // Descriptors by place, -1 for free ones. Empty until the first file, and where the kernel refuses the table.
  private var descriptors: [Int32] = []
  private var isRefused = false
  // The last one that was looked up: nearly always the only one.
  private var lastDescriptor: Int32 = -1
  private var lastPlace: Int32 = -1

  var isInUse: Bool { descriptors.contains { $0 >= 0 } }

  mutating func add(_ descriptor: Int32, _ port: RingPort) {
    if descriptors.isEmpty && !isRefused {
      isRefused = port.registerFileTable(count: Self.placesMax) < 0
      if !isRefused { descriptors = Array(repeating: -1, count: Int(Self.placesMax)) }
    }
    guard let place = descriptors.firstIndex(of: -1), port.setFile(descriptor, at: UInt32(place)) >= 0 else { return }
    descriptors[place] = descriptor
    lastDescriptor = -1
  }

  mutating func remove(_ descriptor: Int32, _ port: RingPort) {
    guard let place = descriptors.firstIndex(of: descriptor) else { return }
    _ = port.setFile(-1, at: UInt32(place))
    descriptors[place] = -1
    lastDescriptor = -1
  }

  /// Gives back all places.
  mutating func close(_ port: RingPort) {
    for descriptor in descriptors where descriptor >= 0 { remove(descriptor, port) }
  }

  /// The place of a descriptor; nil where it has none.
  @inline(__always)
  mutating func place(of descriptor: Int32) -> Int32? {
    if descriptor == lastDescriptor { return lastPlace >= 0 ? lastPlace : nil }
    return search(descriptor)
  }

  @inline(never)
  private mutating func search(_ descriptor: Int32) -> Int32? {
    lastDescriptor = descriptor
    lastPlace = Int32(descriptors.firstIndex(of: descriptor) ?? -1)
    return lastPlace >= 0 ? lastPlace : nil
  }
}

/// Memory that the kernel keeps pinned for a ring (IORING_REGISTER_BUFFERS).
struct RingBuffers {
  /// The kernel's bound on one buffer.
  static let bytesMax = 1 << 30

  private var buffers: [iovec] = []
  var isInUse: Bool { !buffers.isEmpty }

  mutating func register(_ memory: [UnsafeRawBufferPointer], _ port: RingPort) -> Int32 {
    var parts: [iovec] = []
    for region in memory {
      guard let base = UnsafeMutableRawPointer(mutating: region.baseAddress) else { continue }
      for start in stride(from: 0, to: region.count, by: Self.bytesMax) {
        parts.append(iovec(iov_base: base + start, iov_len: min(Self.bytesMax, region.count - start)))
      }
    }
    let result = port.registerBuffers(parts)
    if result == 0 { buffers = parts }
    return result
  }

  /// The buffer that a transfer's memory lies in as a whole; nil where there is none.
  @inline(__always)
  func place(of part: iovec) -> Int32? {
    if buffers.isEmpty { return nil }
    let first = UInt(bitPattern: part.iov_base)
    for (place, buffer) in buffers.enumerated() {
      let start = UInt(bitPattern: buffer.iov_base)
      if first >= start && part.iov_len <= buffer.iov_len && first - start <= UInt(buffer.iov_len - part.iov_len) {
        return Int32(place)
      }
    }
    return nil
  }
}
