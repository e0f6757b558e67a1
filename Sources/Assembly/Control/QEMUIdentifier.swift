// SPDX-License-Identifier: Apache-2.0

/// Names as users of QEMU write them.
public enum QEMUIdentifier {
  private static let devicePrefixes = ["/machine/peripheral/", "/machine/peripheral-anon/"]
  /// A virtio function has its disk one step further down.
  private static let backendSuffix = "/virtio-backend"

  /// Whether a text names a device: a letter, then letters, digits, '-', '.', '_'.
  public static func isWellFormed(_ name: String) -> Bool {
    func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
    func isOther(_ byte: UInt8) -> Bool {
      (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || "-._".utf8.contains(byte)
    }
    guard let first = name.utf8.first, isLetter(first) else { return false }
    return name.utf8.allSatisfy { isLetter($0) || isOther($0) }
  }

  /// The name of the device at a path in the tree of objects, such as `/machine/peripheral/v0/virtio-backend`, which is what
  /// clients find as `qdev` of a drive; another text as it is.
  public static func device(ofPath path: String) -> String {
    var name = path[...]
    for prefix in devicePrefixes where name.hasPrefix(prefix) { name = name.dropFirst(prefix.count) }
    if name.hasSuffix(backendSuffix) { name = name.dropLast(backendSuffix.count) }
    return String(name)
  }
}
