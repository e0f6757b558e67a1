// SPDX-License-Identifier: Apache-2.0
import Assembly
import AsyncIO
import Bench
import Block

/// What `spindle aio FILE` finds out about a file.
struct FileReport: Encodable {
  /// What `aio=auto` does under one cache mode.
  struct Choice: Encodable {
    let cache: String
    /// Absent where the cache mode is impossible.
    let engine: String?
    let reason: String
  }

  let path: String
  let kind: String
  let byteCount: UInt64
  /// Bytes; absent where the file cannot be opened for direct I/O.
  let directOffsetAlignment: Int?
  let directMemoryAlignment: Int?
  let hasDurableWrites: Bool
  let deviceFUA: String?
  let choices: [Choice]
  var measured: [BenchResult] = []

  /// Whether the file can be opened for direct I/O.
  var isDirectPossible: Bool { directOffsetAlignment != nil }

  private enum CodingKeys: String, CodingKey {
    case path, kind, byteCount, directOffsetAlignment, directMemoryAlignment, hasDurableWrites, deviceFUA, choices
  }

  init(path: String, engines: [EngineAvailability]) throws {
    self.path = path
    let cached = try ImageFile.open(path: path, cache: .writeback, readOnly: true, locks: false)
    let facts = cached.facts
    kind = facts.isBlockDevice ? "block device" : "file on \(facts.fileSystem)"
    byteCount = cached.byteCount
    hasDurableWrites = facts.hasDurableWrites
    deviceFUA = facts.deviceFUA?.rawValue
    var alignment: IOAlignment?
    var obstacle = ""
    do throws(ImageError) {
      alignment = try ImageFile.open(path: path, cache: .none, readOnly: true, locks: false).alignment
    } catch {
      obstacle = "\(error)"
    }
    directOffsetAlignment = alignment?.offset
    directMemoryAlignment = alignment?.memory
    choices = CacheMode.allCases.map { cache in
      if cache.isDirect && alignment == nil { return Choice(cache: cache.rawValue, engine: nil, reason: obstacle) }
      let choice = EngineChoice.auto(facts: facts, isDirect: cache.isDirect, engines: engines)
      return Choice(cache: cache.rawValue, engine: choice.kind.rawValue, reason: choice.reason)
    }
  }

  func print() {
    Swift.print("\n\(path): \(kind), \(byteCount) bytes")
    if let directOffsetAlignment, let directMemoryAlignment {
      Swift.print(
        "direct I/O: offsets and lengths in units of \(directOffsetAlignment), memory of \(directMemoryAlignment) bytes"
      )
    } else {
      Swift.print("direct I/O: none")
    }
    let device = deviceFUA.map { "; the disk: \($0)" } ?? ""
    Swift.print("durable writes (FUA): \(hasDurableWrites ? "one call" : "a write, then a flush")\(device)\n")
    Swift.print(pad("cache", 14) + pad("aio=auto", 11) + "why")
    for choice in choices { Swift.print(pad(choice.cache, 14) + pad(choice.engine ?? "-", 11) + choice.reason) }
  }
}
