// SPDX-License-Identifier: Apache-2.0

/// The bootable images that this package builds: ELF files with a PVH entry note.
///
/// The build writes each as base64 into a Swift file; the bytes are decoded when they are asked for.
public enum GuestImage {
  /// The test guest: it tests the machine and its virtio-blk disks, and prints TAP on the first serial port.
  public static var testguest: [UInt8] { decode(testguestBase64) }

  /// Decodes base64 (RFC 4648 §4), and skips everything that is not of its alphabet, such as line ends.
  static func decode(_ text: StaticString) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.utf8CodeUnitCount / 4 * 3)
    var bits: UInt32 = 0
    var bitCount = 0
    for index in 0..<text.utf8CodeUnitCount {
      guard let value = value(text.utf8Start[index]) else {
        continue
      }
      bits = bits << 6 | value
      bitCount += 6
      if bitCount >= 8 {
        bitCount -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
      }
    }
    return bytes
  }

  private static func value(_ character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
