// SPDX-License-Identifier: Apache-2.0
import GuestMemory

/// The DMA register of firmware configuration: 64 bits, big-endian, in two halves (docs/specs/fw_cfg, "Guest-side DMA
/// Interface"). A write to the lower half starts the transfer that is described in guest memory at that address.
struct FirmwareDMA {
  /// The register's first port, from the selector's on.
  static let offset = 4
  /// Bytes of the description: control and length, 32 bits each, then the address of the data, all big-endian.
  private static let descriptionBytes: UInt64 = 16
  /// Bytes of one transfer: a guest that asks for more is told of an error, since it would hold the machine for long.
  private static let transferBytesMax: UInt32 = 64 << 20
  private static let signatureBytes = Array("QEMU CFG".utf8)

  private enum Control {
    static let error: UInt32 = 1 << 0
    static let read: UInt32 = 1 << 1
    static let skip: UInt32 = 1 << 2
    static let select: UInt32 = 1 << 3
    static let write: UInt32 = 1 << 4
  }

  private var upperHalf: UInt32 = 0

  /// What a read of the register gives: the characters "QEMU CFG" in the order of their ports.
  static func signature(at offset: Int, width: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<width where offset + index < signatureBytes.count {
      value |= UInt32(signatureBytes[offset + index]) << UInt32(8 * index)
    }
    return value
  }

  /// Takes a write of one of the halves; others are ignored.
  /// - Returns: the address of the description where this was the lower half.
  mutating func write(_ offset: Int, width: Int, value: UInt32) -> UInt64? {
    guard width == 4 else { return nil }
    if offset == 0 { upperHalf = value.byteSwapped }
    guard offset == 4 else { return nil }
    defer { upperHalf = 0 }
    return UInt64(upperHalf) << 32 | UInt64(value.byteSwapped)
  }

  /// Does what the description at `address` says, and writes the outcome into its control field: 0, or the error bit.
  ///
  /// A description that is not in memory is ignored. Bytes past the end of an item read as 0.
  static func carryOut(_ address: UInt64, in memory: GuestMemory, for device: FirmwareConfig) {
    guard memory.contains(address: address, byteCount: descriptionBytes),
      // Read once: the guest may change it meanwhile.
      let control = try? UInt32(bigEndian: memory.load(at: address)),
      let length = try? UInt32(bigEndian: memory.load(at: address + 4)),
      let target = try? UInt64(bigEndian: memory.load(at: address + 8))
    else { return }
    if control & Control.select != 0 { device.select(UInt16(control >> 16)) }
    var failed = length > transferBytesMax
    if !failed {
      if control & Control.read != 0 {
        failed = !copy(Int(length), to: target, in: memory, from: device)
      } else if control & Control.write != 0 {
        // No item can be written.
        failed = true
      } else if control & Control.skip != 0 {
        device.skip(Int(length))
      }
    }
    try? memory.store((failed ? Control.error : 0).bigEndian, at: address)
  }

  private static func copy(_ length: Int, to target: UInt64, in memory: GuestMemory, from device: FirmwareConfig)
    -> Bool
  {
    guard memory.contains(address: target, byteCount: UInt64(length)) else { return length == 0 }
    let bytes = Array(device.take(length))
    do throws(GuestMemoryError) {
      try memory.write(bytes, at: target)
      try memory.fill(address: target + UInt64(bytes.count), byteCount: length - bytes.count, with: 0)
    } catch { return false }
    return true
  }
}
