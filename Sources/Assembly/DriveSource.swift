// SPDX-License-Identifier: Apache-2.0
import Block

/// Reading where a drive's bytes are: a file, as it is or behind fault rules, or no file at all.
extension DriveConfiguration {
  /// Longest latency of a null disk: an hour.
  private static let latencyNsMax = 3_600_000_000_000
  private static let drivers = ["file", "null", "null-co", "null-aio", "memory", "blkdebug"]
  private static let debugPrefix = "blkdebug:"
  private static let nullPrefixes = ["null-co://", "null-aio://"]

  /// Reads the source, and the rules that stand before it.
  mutating func readSource(_ list: OptionList, option: String) throws(UsageError) -> Source {
    var driver = try list.choice("driver", Self.drivers.map { ($0, $0) }, default: "file")
    var file = list["file"]
    if let name = file, name.hasPrefix(Self.debugPrefix) {
      isDebugged = true
      file = try readDebugRules(name, option: option)
    } else if driver != "blkdebug", let key = list.keys.first(where: { DebugRule.isOption($0) }) {
      throw UsageError("\(option): \(key)= goes with driver=blkdebug only; write driver=blkdebug")
    }
    if driver == "blkdebug" {
      isDebugged = true
      do throws(DebugRuleError) { debugRules += try DebugRule.parse(options: list.all) } catch {
        throw UsageError("\(option): \(error)")
      }
      driver = "file"
    }
    if let name = file, driver == "file", Self.nullPrefixes.contains(name) {
      driver = "null"
      file = nil
    }
    let isNull = driver.hasPrefix("null")
    try checkNullKeys(list, isNull: isNull, option: option)
    if isNull || driver == "memory" {
      if file != nil { throw UsageError("\(option): driver=\(driver) takes no file; leave file= out") }
      let byteCount = try ByteSize.parse(list["size"] ?? "1G", option: "\(option) size")
      if driver == "memory" { return .memory(byteCount: byteCount) }
      return .null(
        byteCount: byteCount, latencyNs: UInt64(try list.number("latency", in: 0...Self.latencyNsMax, default: 0)))
    }
    return try fileSource(list, file: file, option: option)
  }

  private mutating func checkNullKeys(_ list: OptionList, isNull: Bool, option: String) throws(UsageError) {
    if !isNull, list["latency"] != nil {
      throw UsageError("\(option): latency= goes with driver=null only; fault=any:delay=TIME slows other disks")
    }
    for key in ["read-zeroes", "file.read-zeroes"] where list[key] != nil {
      readsZeroes = try list.flag(key, default: false)
      guard isNull else { throw UsageError("\(option): \(key)= goes with driver=null only; leave \(key)= out") }
    }
  }

  private func fileSource(_ list: OptionList, file: String?, option: String) throws(UsageError) -> Source {
    if list["size"] != nil {
      throw UsageError("\(option): size= goes with driver=null and driver=memory only; a file has its own size")
    }
    if media == .cdrom, file == nil, list["driver"] == nil { return .empty }
    guard let file, !file.isEmpty else {
      throw UsageError("\(option): no file is named; write file=PATH")
    }
    return .file(path: file)
  }

  /// `blkdebug:RULES:IMAGE`, where RULES, a path without colons, may be left out.
  /// - Returns: the image.
  private mutating func readDebugRules(_ name: String, option: String) throws(UsageError) -> String {
    let rest = name.dropFirst(Self.debugPrefix.count)
    guard let colon = rest.firstIndex(of: ":") else {
      throw UsageError("\(option): file=\(name) names no image; write file=blkdebug:RULES:IMAGE, or blkdebug::IMAGE")
    }
    if colon != rest.startIndex {
      do throws(DebugRuleError) { debugRules = try DebugRule.read(path: String(rest[..<colon])) } catch {
        throw UsageError("\(option): file=blkdebug: \(error)")
      }
    }
    return String(rest[rest.index(after: colon)...])
  }
}
