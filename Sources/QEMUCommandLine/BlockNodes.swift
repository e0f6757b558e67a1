// SPDX-License-Identifier: Apache-2.0
import Assembly

/// What `-drive` and `-blockdev` describe: names with the keys of our own `--drive` option that say where the bytes are.
struct BlockNodes {
  /// A drive or a node before a device has taken it.
  struct Source {
    /// What devices call it.
    var name: String
    /// Keys of our own option.
    var keys: KeyValueList
    /// Why it is attached at once; nil for one that a device names (`if=none`).
    var interface: Interface?
    /// The port or slot that it asks for.
    var index: Int?
    /// The drive holds a disc.
    var isDisc = false
    var isTaken = false
    /// Nothing is in the drive.
    var isEmpty: Bool { keys["file"] == nil && keys["driver"] == nil }
    /// Its user has asked for `index`.
    var hasOwnIndex = false
    /// It has its name; drives that their users give none get theirs last.
    var hasName = true
    /// The node that it stands on, by its name.
    var lower: String?
  }

  /// Where a drive goes that no `-device` names.
  enum Interface {
    case ide
    case virtio
  }

  /// Most nodes that stand on each other; more are a circle.
  private static let nodesDeepMax = 16

  private(set) var sources: [Source] = []
  private let board: QEMUPlan.Board
  /// Drives on a bus of if=ide: a port has one; the older board's channels had two each.
  private var drivesOfBus: Int { board == .pc ? 2 : 1 }

  /// Reads every drive and node.
  init(_ words: OptionWords, isSnapshot: Bool, board: QEMUPlan.Board) throws(UsageError) {
    self.board = board
    for (position, letter) in ["hda", "hdb", "hdc", "hdd"].enumerated() {
      if let path = words.last(letter) { try addShort(path, option: letter, index: position) }
    }
    if let path = words.last("cdrom") { try addShort(path, option: "cdrom", index: 2) }
    for text in words.all("drive") { try addDrive(text) }
    placeAndName()
    var nodes: [String: KeyValueList] = [:]
    for text in words.all("blockdev") {
      var list = try KeyValueList(text, option: "-blockdev", implied: "driver")
      guard let name = list.take("node-name"), !name.isEmpty else {
        throw UsageError("-blockdev \(text): has no node-name=")
      }
      try list.checkName("node-name", name)
      if nodes[name] != nil { throw UsageError("-blockdev \(text): node-name=\(name) is given twice") }
      list.set("node-name", name)
      nodes[name] = list
    }
    for text in words.all("blockdev") { try addNode(text, nodes) }
    if isSnapshot { for index in sources.indices { sources[index].keys.set("snapshot", "on") } }
  }

  /// The place of a source by its name.
  func index(of name: String) -> Int? { sources.firstIndex { $0.name == name } }

  /// A device has taken it.
  mutating func take(_ index: Int) { sources[index].isTaken = true }

  // MARK: -drive

  private mutating func addShort(_ path: String, option: String, index: Int) throws(UsageError) {
    var keys = KeyValueList(option: "-\(option)")
    keys.set("file", path)
    sources.append(
      Source(
        name: "", keys: keys, interface: .ide, index: index, isDisc: option == "cdrom", hasOwnIndex: true,
        hasName: false))
  }

  private mutating func addDrive(_ text: String) throws(UsageError) {
    var list = try KeyValueList(text, option: "-drive", implied: nil)
    let interface = list.take("if") ?? "ide"
    let media = list.take("media") ?? "disk"
    guard media == "disk" || media == "cdrom" else {
      throw UsageError("-drive: media=\(media) is unknown; choose disk or cdrom")
    }
    let unit = try list.takeNumber("unit", in: 0...1)
    let bus = try list.takeNumber("bus", in: 0...5)
    let index = try list.takeNumber("index", in: 0...31) ?? bus.map { $0 * drivesOfBus + (unit ?? 0) }
    let name = list.take("id")
    if let name { try list.checkName("id", name) }
    if let name, self.index(of: name) != nil { throw UsageError("-drive: id=\(name) is given twice; choose another") }
    let source = Source(
      name: name ?? "", keys: try Self.ownKeys(list), interface: try Self.interface(interface), index: index,
      isDisc: media == "cdrom", hasOwnIndex: index != nil, hasName: name != nil)
    sources.append(source)
  }

  /// Drives without a name get QEMU's, such as `ide2-cd0`, which says where they are; a name that the user has given to
  /// another drive is not taken. Drives of `if=ide` without an index get the first one that no drive asks for.
  private mutating func placeAndName() {
    var counts: [Interface?: Int] = [:]
    var places = Set(sources.filter { $0.interface == .ide }.compactMap(\.index))
    for position in sources.indices {
      let source = sources[position]
      if source.interface == .ide, source.index == nil {
        var free = 0
        while !places.insert(free).inserted { free += 1 }
        sources[position].index = free
      }
      guard !source.hasName else { continue }
      repeat {
        let count = counts[source.interface, default: 0]
        counts[source.interface] = count + 1
        sources[position].name = name(of: sources[position], count: count)
      } while sources.contains { $0.hasName && $0.name == sources[position].name }
      sources[position].hasName = true
    }
  }

  private func name(of source: Source, count: Int) -> String {
    switch source.interface {
    case .virtio: return "virtio\(count)"
    case nil: return "none\(count)"
    case .ide:
      let index = source.index ?? count
      let place = "ide\(index / drivesOfBus)-\(source.isDisc ? "cd" : "hd")\(index % drivesOfBus)"
      return sources.contains { $0.hasName && $0.name == place } ? "\(place)-\(count)" : place
    }
  }

  private static func interface(_ name: String) throws(UsageError) -> Interface? {
    switch name {
    case "none": return nil
    case "ide": return .ide
    case "virtio": return .virtio
    default: throw UsageError("-drive: if=\(name) is not offered; choose none, ide or virtio")
    }
  }

  /// Turns QEMU's keys into ours: most are the same.
  private static func ownKeys(_ list: KeyValueList) throws(UsageError) -> KeyValueList {
    var list = list
    nameImageFile(&list)
    try checkFormat(list.take("format"), option: list.option)
    if let value = list.take("readonly", "read-only") { list.set("readonly", value) }
    if let value = list.take("filename", "file.filename") { list.set("file", value) }
    if let value = list.take("latency-ns", "file.latency-ns") { list.set("latency", value) }
    switch list.take("file.driver") ?? "file" {
    case "file", "host_device": break
    case "null-co", "null-aio": list.set("file", "null-co://")
    case let other: throw UsageError("\(list.option): file.driver=\(other) is not offered; there are file and null-co")
    }
    switch list.take("driver") ?? "raw" {
    case "raw", "file", "host_device": break
    case "null-co", "null-aio": list.set("file", "null-co://")
    case "blkdebug":
      list.set("driver", "blkdebug")
      if let rules = list.take("config") { list.set("file", "blkdebug:\(rules):\(list["file"] ?? "")") }
    case let other:
      throw UsageError("\(list.option): driver=\(other) is not offered; there are raw, file, null-co and blkdebug")
    }
    return list
  }

  private static func checkFormat(_ format: String?, option: String) throws(UsageError) {
    guard let format, format != "raw" else { return }
    if format == "qcow2" {
      throw UsageError("\(option): format=qcow2 is not offered; convert the image (qemu-img convert -O raw)")
    }
    throw UsageError("\(option): format=\(format) is not offered; write format=raw")
  }

  // MARK: -blockdev

  private mutating func addNode(_ text: String, _ nodes: [String: KeyValueList]) throws(UsageError) {
    var list = try KeyValueList(text, option: "-blockdev", implied: "driver")
    let name = list.take("node-name") ?? ""
    if index(of: name) != nil { throw UsageError("-blockdev: node-name=\(name) is a drive's name already") }
    let lower = nodes.keys.contains(list["file"] ?? list["image"] ?? "") ? list["file"] ?? list["image"] : nil
    list = try Self.resolve(list, nodes, depth: 0)
    for key in list.keys where key.hasPrefix("file.cache.") || key == "file.aio" || key == "file.read-only" {
      if let value = list.take(key) { list.set(String(key.dropFirst("file.".count)), value) }
    }
    var keys = try Self.ownKeys(list)
    keys.set("node-name", name)
    sources.append(Source(name: name, keys: keys, lower: lower))
  }

  /// A format's node stands on a protocol's, and a rule's on another, which it names or describes: puts their keys together.
  private static func resolve(
    _ own: KeyValueList, _ nodes: [String: KeyValueList], depth: Int
  ) throws(UsageError) -> KeyValueList {
    var list = own
    if list["file.driver"] == "blkdebug" {
      list.ignore("driver")
      for key in list.keys where key.hasPrefix("file.") { list.rename(key, to: String(key.dropFirst("file.".count))) }
    }
    nameImageFile(&list)
    guard let below = list.take("file") else { return list }
    guard depth < nodesDeepMax, let found = nodes[below] else {
      throw UsageError("-blockdev: file=\(below) names no node that there is")
    }
    let node = try resolve(found, nodes, depth: depth + 1)
    for (key, value) in node.remainder where key != "node-name" && list[key] == nil { list.set(key, value) }
    switch node["driver"] {
    case "blkdebug"?: list.set("driver", "blkdebug")
    case let driver? where driver.hasPrefix("null"):
      if list["driver"] == "blkdebug" { list.set("file.driver", driver) } else { list.set("driver", driver) }
    default: break
    }
    return list
  }

  /// What others call file, blkdebug calls image.
  private static func nameImageFile(_ list: inout KeyValueList) {
    guard list["driver"] == "blkdebug" else { return }
    for key in list.keys where key == "image" || key.hasPrefix("image.") {
      list.rename(key, to: "file" + key.dropFirst("image".count))
    }
  }
}
