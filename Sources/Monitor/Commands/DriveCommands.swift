// SPDX-License-Identifier: Apache-2.0
import Assembly
import Block

/// Drives: what they are, what is in them, their trays.
extension MonitorCommands {
  func queryBlock(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    .array(target.drives.map(describe))
  }

  private func describe(_ drive: DriveReport) -> JSONValue {
    var object = JSONObject([
      ("device", .string(drive.name)), ("type", "unknown"), ("removable", .bool(drive.isRemovable)),
      ("locked", .bool(drive.tray?.isLocked ?? false)),
    ])
    if drive.isAttached {
      object["qdev"] = .string(Self.path(of: drive.deviceID, model: drive.model))
      object["io-status"] = .string(drive.status.rawValue)
    }
    if let tray = drive.tray { object["tray_open"] = .bool(tray.isOpen) }
    if let medium = drive.medium { object["inserted"] = describe(medium, limits: drive.limits, of: drive) }
    return .object(object)
  }

  /// A virtio function has its disk one step further down, and that is what QEMU names.
  static func path(of id: String, model: String) -> String {
    model.hasPrefix("virtio-blk-pci") ? "/machine/peripheral/\(id)/virtio-backend" : id
  }

  func describe(_ node: NodeReport) -> JSONValue {
    let size = JSONValue(node.byteCount)
    return [
      "node-name": .string(node.name), "drv": .string(node.driver), "file": .string(node.filename),
      "ro": .bool(node.isReadOnly), "backing_file_depth": 0, "encrypted": false, "detect_zeroes": "off",
      "write_threshold": 0, "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
      "cache": [
        "writeback": .bool(node.cache.hasWriteCache), "direct": .bool(node.cache.isDirect),
        "no-flush": .bool(node.cache == .unsafe),
      ],
      "image": [
        "filename": .string(node.filename), "format": .string(node.driver), "virtual-size": size,
        "dirty-flag": false,
      ],
    ]
  }

  func queryBlockStatistics(
    _ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer
  ) throws(ControlError) {
    let drives = target.drives
    target.statistics { all in
      let described = zip(drives, all).map { drive, statistics -> JSONValue in
        var object = JSONObject([
          ("device", .string(drive.name)), ("stats", Self.describe(statistics.counts)),
        ])
        if drive.isAttached { object["qdev"] = .string(Self.path(of: drive.deviceID, model: drive.model)) }
        if let medium = drive.medium { object["node-name"] = .string(medium.name) }
        return .object(object)
      }
      answer(.success(.array(described)))
    }
  }

  /// What is not counted here is 0, since clients expect every member.
  private static func describe(_ counts: BlockStatistics) -> JSONValue {
    var object = JSONObject([
      ("rd_operations", JSONValue(counts.reads)), ("wr_operations", JSONValue(counts.writes)),
      ("flush_operations", JSONValue(counts.flushes)), ("unmap_operations", JSONValue(counts.discards)),
      ("rd_bytes", JSONValue(counts.readBytes)), ("wr_bytes", JSONValue(counts.writtenBytes)),
    ])
    for name in [
      "unmap_bytes", "rd_merged", "wr_merged", "unmap_merged", "rd_total_time_ns", "wr_total_time_ns",
      "flush_total_time_ns", "unmap_total_time_ns", "wr_highest_offset", "failed_rd_operations",
      "failed_wr_operations", "failed_flush_operations", "failed_unmap_operations", "invalid_rd_operations",
      "invalid_wr_operations", "invalid_flush_operations", "invalid_unmap_operations",
    ] { object[name] = 0 }
    object["account_invalid"] = true
    object["account_failed"] = true
    object["timed_stats"] = []
    object["x-spindle-write-zeroes"] = JSONValue(counts.zeroes)
    object["x-spindle-errors"] = JSONValue(counts.errors)
    object["x-spindle-merged"] = JSONValue(counts.merged)
    return .object(object)
  }

  // MARK: Trays and media

  func openTray(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let drive = try arguments.drive()
    do throws(ControlError) { try target.openTray(of: drive, force: arguments.flag("force")) } catch {
      // As QEMU: the guest has been asked to open it, and the event tells when it has.
      guard error == .locked(drive.name) else { throw error }
    }
    return [:]
  }

  func closeTray(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.closeTray(of: try arguments.drive())
    return [:]
  }

  func eject(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try eject(try arguments.drive(), force: arguments.flag("force"))
    return [:]
  }

  func eject(_ drive: DriveReference, force: Bool) throws(ControlError) {
    try target.openTray(of: drive, force: force)
    try target.removeMedium(of: drive)
  }

  func removeMedium(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.removeMedium(of: .id(arguments.required("id")))
    return [:]
  }

  func insertMedium(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.insertMedium(node: arguments.required("node-name"), into: .id(arguments.required("id")))
    return [:]
  }

  func changeMedium(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    if arguments.text("read-only-mode") == "read-write" {
      throw ControlError("The medium of a CD-ROM drive is read-only")
    }
    try change(
      try arguments.drive(), to: arguments.required("filename"), format: arguments.text("format"),
      force: arguments.flag("force"))
    return [:]
  }

  /// The form before QEMU 6.0: the image, and its format.
  func change(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try change(
      .device(arguments.required("device")), to: arguments.required("target"), format: arguments.text("arg"),
      force: false)
    return [:]
  }

  func change(_ drive: DriveReference, to path: String, format: String?, force: Bool) throws(ControlError) {
    if let format, format != "raw" { throw ControlError("Unknown driver '\(format)'") }
    var image = DriveConfiguration(source: .file(path: path), id: "")
    image.isReadOnly = true
    try target.changeMedium(of: drive, to: image, force: force)
  }

  // MARK: Size

  func resize(_ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer) throws(ControlError) {
    let size = try arguments.count("size") ?? 0
    target.resize(drive: arguments.text("device"), node: arguments.text("node-name"), to: size) { error in
      answer(error.map { .failure($0) } ?? .success([:]))
    }
  }
}
