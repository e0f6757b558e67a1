// SPDX-License-Identifier: Apache-2.0
import Assembly
import AsyncIO
import Block

/// Nodes: images that can be put into drives (`-blockdev`, `blockdev-add`).
extension MonitorCommands {
  func queryNamedBlockNodes(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    .array(target.nodes.map(describe))
  }

  func addNode(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let object = arguments.object
    if object["driver"]?.text == "raw", let lower = object["file"]?.text {
      let raw = try MonitorArguments(object, Self.common + [.required("file")])
      let name = try Self.name(raw)
      try target.addNode(named: name, over: lower, isReadOnly: raw.flag("read-only"))
      return [:]
    }
    try target.addNode(try Self.node(object))
    return [:]
  }

  func removeNode(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.removeNode(named: arguments.required("node-name"))
    return [:]
  }

  /// A node stays on the loop of the drive that it is in; what this command brings with it is that all of its requests are
  /// finished first.
  func setNodeThread(_ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer) throws(ControlError) {
    guard case .null? = arguments.object["iothread"] else {
      throw ControlError("Cannot move a node to an iothread: it stays on the loop of the drive that it is in")
    }
    target.drain(node: arguments.required("node-name")) { error in
      answer(error.map { .failure($0) } ?? .success([:]))
    }
  }

  /// What a node of this name is to be made of.
  private static let common: [MonitorParameter] = [
    .required("driver", .choice(["raw", "file", "host_device", "null-co"])), .optional("node-name"),
    .optional("read-only", .boolean), .optional("auto-read-only", .boolean), .optional("cache", .object),
    .optional("discard", .choice(["unmap", "ignore"])), .optional("detect-zeroes", .choice(["off"])),
    .optional("force-share", .boolean),
  ]
  private static let fileParameters: [MonitorParameter] = [
    .required("filename"), .optional("aio", .choice(["threads", "native", "io_uring"])),
    .optional("locking", .choice(["auto", "on", "off"])),
  ]
  private static let nullParameters: [MonitorParameter] = [
    .optional("size", .integer), .optional("latency-ns", .integer), .optional("read-zeroes", .boolean),
  ]
  private static let cacheParameters: [MonitorParameter] = [
    .optional("direct", .boolean), .optional("no-flush", .boolean),
  ]
  /// Longest name of a node.
  private static let nameBytesMax = 31
  /// Bytes of a `null-co` node that has no size.
  private static let nullBytesDefault: UInt64 = 1 << 30

  /// Reads the arguments of `blockdev-add`. `raw` stands on a `file`, which may be written alone as well.
  static func node(_ object: JSONObject) throws(ControlError) -> DriveConfiguration {
    let head = try MonitorArguments(object, common, isOpen: true)
    let name = try name(head)
    guard head.text("driver") == "raw" else { return try protocolNode(object, name: name) }
    let raw = try MonitorArguments(object, common + [.required("file", .any)])
    guard let file = raw.object["file"]?.members else {
      throw .wrongType("file", expected: "object")
    }
    guard file["driver"]?.text != "raw" else { throw .wrongValue("driver", "raw") }
    var node = try protocolNode(file, name: name)
    node.isReadOnly = node.isReadOnly || raw.flag("read-only")
    if object["cache"] != nil { node.cache = try cache(raw) }
    return node
  }

  private static func name(_ arguments: MonitorArguments) throws(ControlError) -> String {
    guard let name = arguments.text("node-name") else {
      throw ControlError("'node-name' must be specified for the root node")
    }
    guard QEMUIdentifier.isWellFormed(name), name.utf8.count <= nameBytesMax else {
      throw ControlError("Invalid node-name: '\(name)'")
    }
    return name
  }

  private static func protocolNode(_ object: JSONObject, name: String) throws(ControlError) -> DriveConfiguration {
    let head = try MonitorArguments(object, common, isOpen: true)
    let isNull = head.text("driver") == "null-co"
    let arguments = try MonitorArguments(object, common + (isNull ? nullParameters : fileParameters))
    var node: DriveConfiguration
    if isNull {
      let size = try arguments.count("size") ?? nullBytesDefault
      let latency = try arguments.count("latency-ns") ?? 0
      node = DriveConfiguration(source: .null(byteCount: size, latencyNs: latency), id: name)
    } else {
      let filename = arguments.required("filename")
      guard !filename.isEmpty else { throw ControlError("The 'file' block driver requires a file name") }
      node = DriveConfiguration(source: .file(path: filename), id: name)
    }
    node.isReadOnly = arguments.flag("read-only")
    node.cache = try cache(arguments)
    switch arguments.text("aio") {
    case "threads": node.engine = .threads
    case "native": node.engine = .linuxAIO
    case "io_uring": node.engine = .ioUring
    default: break
    }
    return node
  }

  private static func cache(_ arguments: MonitorArguments) throws(ControlError) -> CacheMode {
    guard let object = arguments.object["cache"]?.members else { return .writeback }
    let cache = try MonitorArguments(object, cacheParameters)
    if cache.flag("no-flush") {
      if cache.flag("direct") { throw ControlError("cache.direct and cache.no-flush do not go together here") }
      return .unsafe
    }
    return cache.flag("direct") ? .none : .writeback
  }
}
