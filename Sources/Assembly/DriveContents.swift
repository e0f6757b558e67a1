// SPDX-License-Identifier: Apache-2.0
import AHCI
import Block
import Machine

/// Reading how a drive treats its image, what it lets through, and what it is called.
extension DriveConfiguration {
  /// Keys of limits, which all begin with `throttling.`.
  static let throttlingKeys =
    ["bps", "iops"].flatMap { unit in
      ["total", "read", "write"].flatMap { kind in
        ["", "-max", "-max-length"].map { "throttling.\(unit)-\(kind)\($0)" }
      }
    } + ["throttling.iops-size"]
  /// Characters of a firmware revision (ACS-3 §7.12.7, words 23 to 26).
  private static let firmwareBytesMax = 8

  // MARK: The image

  mutating func readContents(_ list: OptionList, option: String) throws(UsageError) {
    // What is never written needs no place for what is.
    isSnapshot = try list.flag("snapshot", default: false) && !isReadOnly
    isReadOnlyWhereNecessary = try list.flag("auto-read-only", default: false)
    for key in ["locking", "file.locking"] {
      locksImage = try list.choice(key, [("auto", true), ("on", true), ("off", false)], default: locksImage)
    }
    let isIgnored = [("ignore", true), ("off", true), ("unmap", false), ("on", false)]
    ignoresDiscard = try list.choice("discard", isIgnored, default: false)
    zeroDetection = try list.choice(
      "detect-zeroes", ZeroDetection.allCases.map { ($0.rawValue, $0) }, default: .off)
    if zeroDetection == .unmap && ignoresDiscard {
      throw UsageError("\(option): detect-zeroes=unmap needs discard=unmap; write that, or detect-zeroes=on")
    }
    if try list.flag("copy-on-read", default: false) {
      throw UsageError("\(option): copy-on-read=on: images here have no backing file; leave copy-on-read= out")
    }
  }

  /// `cache=`, or QEMU's three keys for its parts.
  static func cacheMode(_ list: OptionList, option: String) throws(UsageError) -> CacheMode {
    let mode = try list.choice("cache", CacheMode.allCases.map { ($0.rawValue, $0) }, default: .writeback)
    let isDirect = try list.flag("cache.direct", default: mode.isDirect)
    let isUnsafe = try list.flag("cache.no-flush", default: mode == .unsafe)
    let hasWriteCache = try list.flag("cache.writeback", default: mode.hasWriteCache)
    switch (isDirect, isUnsafe, hasWriteCache) {
    case (false, false, true): return .writeback
    case (false, false, false): return .writethrough
    case (true, false, true): return .none
    case (true, false, false): return .directsync
    case (false, true, true): return .unsafe
    case (true, true, _), (_, true, false):
      throw UsageError(
        "\(option): cache.no-flush=on goes with cache.direct=off and cache.writeback=on only; leave one of them out")
    }
  }

  // MARK: Limits

  static func limits(_ list: OptionList, option: String) throws(UsageError) -> ThrottleLimits {
    var limits = ThrottleLimits()
    limits.bytes = try limitsOfUnit("bps", list, option: option)
    limits.requests = try limitsOfUnit("iops", list, option: option)
    limits.requestBytes = UInt64(
      try list.number("throttling.iops-size", in: 0...Int(ThrottleLimits.unitsMax), default: 0))
    if limits.requestBytes > 0, limits.requests == ThrottleLimits.Limits() {
      throw UsageError("\(option): throttling.iops-size goes with a limit on requests; write throttling.iops-total too")
    }
    return limits
  }

  private static func limitsOfUnit(
    _ unit: String, _ list: OptionList, option: String
  ) throws(UsageError) -> ThrottleLimits.Limits {
    var limits = ThrottleLimits.Limits()
    limits.total = try limit("throttling.\(unit)-total", list, option: option)
    limits.read = try limit("throttling.\(unit)-read", list, option: option)
    limits.write = try limit("throttling.\(unit)-write", list, option: option)
    guard limits.total.average == 0 || (limits.read.average == 0 && limits.write.average == 0) else {
      throw UsageError(
        "\(option): throttling.\(unit)-total goes without throttling.\(unit)-read and -write; leave one of them out")
    }
    return limits
  }

  private static func limit(
    _ key: String, _ list: OptionList, option: String
  ) throws(UsageError) -> ThrottleLimits.Limit {
    let range = 0...Int(ThrottleLimits.unitsMax)
    let average = try list.number(key, in: range, default: 0)
    let burst = try list.number(key + "-max", in: range, default: 0)
    guard burst == 0 || (average > 0 && burst >= average) else {
      throw UsageError("\(option): \(key)-max=\(burst) needs a \(key) that is not larger; write both")
    }
    let seconds = try list.number(key + "-max-length", in: 1...max(1, range.upperBound / max(1, burst)), default: 1)
    guard seconds == 1 || burst > 0 else {
      throw UsageError("\(option): \(key)-max-length=\(seconds) needs a \(key)-max; write both")
    }
    return ThrottleLimits.Limit(UInt64(average), burst: UInt64(burst), burstSeconds: UInt64(seconds))
  }

  // MARK: Names and numbers

  mutating func readIdentity(_ list: OptionList, option: String) throws(UsageError) {
    nodeName = list["node-name"]
    deviceID = list["device-id"]
    geometry = try Self.geometry(list, headsMax: interface == .ahci ? 16 : 255, option: option)
    firmwareGeometry = try Self.firmwareGeometry(list)
    let translations = ["none", "lba", "large", "rechs"].map { ($0, String?.some($0)) }
    translation = try list.choice("bios-chs-trans", translations + [("auto", nil)], default: nil)
    firmwareVersion = list["ver"]
    if let ver = firmwareVersion {
      guard ver.utf8.count <= Self.firmwareBytesMax, ver.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else {
        throw UsageError(
          "\(option): ver=\(ver) is not printable ASCII of at most \(Self.firmwareBytesMax) characters; shorten it")
      }
    }
    guard let text = list["addr"] else { return }
    guard interface == .virtio else {
      throw UsageError("\(option): addr=\(text) goes with if=virtio only; write port=")
    }
    guard let address = Self.address(text) else {
      throw UsageError("\(option): addr=\(text) is not SLOT or SLOT.FUNCTION, both hexadecimal, such as 4.0")
    }
    pciAddress = address
  }

  /// Reads a place on the PCI bus as QEMU's `addr=` has it: slot and function, both hexadecimal, with or without 0x.
  /// - Returns: nil for another text, and for numbers that a bus does not have.
  public static func address(_ text: String) -> PCIAddress? {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count) else { return nil }
    func number(_ text: Substring) -> UInt8? { UInt8(text.hasPrefix("0x") ? text.dropFirst(2) : text, radix: 16) }
    guard let slot = number(parts[0]), let function = parts.count == 2 ? number(parts[1]) : 0,
      slot < PCIAddress.devicesMax, function < PCIAddress.functionsMax
    else { return nil }
    return PCIAddress(device: slot, function: function)
  }

  private static func firmwareGeometry(_ list: OptionList) throws(UsageError) -> FirmwareGeometry? {
    let range = 0...Int(UInt32.max)
    var geometry = FirmwareGeometry()
    geometry.cylinders = try list.number("lcyls", in: range, default: 0)
    geometry.heads = try list.number("lheads", in: range, default: 0)
    geometry.sectors = try list.number("lsecs", in: range, default: 0)
    return geometry == FirmwareGeometry() ? nil : geometry
  }

  /// The three numbers go together.
  private static func geometry(
    _ list: OptionList, headsMax: Int, option: String
  ) throws(UsageError) -> ATADriveGeometry? {
    let given = ["cyls", "heads", "secs"].filter { list[$0] != nil }
    if given.isEmpty { return nil }
    guard given.count == 3 else {
      throw UsageError("\(option): cyls=, heads= and secs= go together; write all three")
    }
    return ATADriveGeometry(
      cylinders: try list.number("cyls", in: 1...65535, default: 1),
      heads: try list.number("heads", in: 1...headsMax, default: 1),
      sectors: try list.number("secs", in: 1...255, default: 1)
    )
  }
}
