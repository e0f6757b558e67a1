// SPDX-License-Identifier: Apache-2.0

/// The 256 bytes of a function's configuration space, and which of their bits a guest may change.
///
/// Every access is bounds-checked; bytes beyond the end read as 0 and cannot be written, which is also what the extended
/// 4096-byte space over ECAM shows. Guarded by the machine lock.
public struct PCIConfigurationSpace {
  /// Bytes that hold something.
  public static let byteCount = 256

  private var values = [UInt8](repeating: 0, count: byteCount)
  private var resetValues = [UInt8](repeating: 0, count: byteCount)
  private var writeMasks = [UInt8](repeating: 0, count: byteCount)
  private var clearMasks = [UInt8](repeating: 0, count: byteCount)

  /// A space of zeroes that a guest cannot change.
  public init() {}

  // MARK: The device's side

  /// Sets bytes as they are after every reset, and now. The range must be inside the space.
  /// - Parameters:
  ///   - writeMask: the bits that a guest can write, byte by byte; missing bytes are read-only.
  public mutating func define(_ offset: Int, bytes: [UInt8], writeMask: [UInt8] = []) {
    precondition(offset >= 0 && offset + bytes.count <= PCIConfigurationSpace.byteCount, "outside configuration space")
    for (index, byte) in bytes.enumerated() {
      values[offset + index] = byte
      resetValues[offset + index] = byte
      writeMasks[offset + index] = index < writeMask.count ? writeMask[index] : 0
    }
  }

  /// Sets a little-endian integer as it is after every reset, and now, with the bits that a guest can write.
  public mutating func define<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _ value: T, writeMask: T = 0) {
    define(offset, bytes: value.littleEndianBytes, writeMask: writeMask.littleEndianBytes)
  }

  /// Marks bits that a guest clears by writing ones to them (PCI 3.0, section 6.2.3: the status register).
  public mutating func defineWriteOneToClear<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _ mask: T) {
    for (index, byte) in mask.littleEndianBytes.enumerated() { clearMasks[offset + index] = byte }
  }

  /// Changes what a guest reads, until the next reset, whatever the write masks say.
  public mutating func store<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int) {
    for (index, byte) in value.littleEndianBytes.enumerated() { values[offset + index] = byte }
  }

  /// What the space holds now.
  public func load<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self, at offset: Int) -> T {
    var value = T.zero
    for index in (0..<MemoryLayout<T>.size).reversed() { value = value << 8 | T(values[offset + index]) }
    return value
  }

  /// Brings every byte to its defined value.
  public mutating func reset() { values = resetValues }

  // MARK: The guest's side

  /// Reads `width` bytes (1, 2 or 4) at any offset.
  public func read(offset: Int, width: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<width where offset + index < PCIConfigurationSpace.byteCount {
      value |= UInt32(values[offset + index]) << UInt32(8 * index)
    }
    return value
  }

  /// Writes those of the low `width` bytes (1, 2 or 4) of `value` that a guest may write.
  public mutating func write(offset: Int, width: Int, value: UInt32) {
    for index in 0..<width where offset + index < PCIConfigurationSpace.byteCount {
      let position = offset + index
      let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
      let kept = values[position] & ~writeMasks[position] & ~(byte & clearMasks[position])
      values[position] = kept | byte & writeMasks[position]
    }
  }
}

extension FixedWidthInteger where Self: UnsignedInteger {
  /// The bytes of the number, least significant first: the order of configuration space and of capabilities.
  public var littleEndianBytes: [UInt8] {
    (0..<MemoryLayout<Self>.size).map { UInt8(truncatingIfNeeded: self >> Self(8 * $0)) }
  }
}
