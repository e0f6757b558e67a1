// SPDX-License-Identifier: Apache-2.0
import Assembly
import Block

/// Limits of a drive's speed, with QEMU's names for them and its words for what does not go together.
extension MonitorCommands {
  private typealias LimitsOfUnit = WritableKeyPath<ThrottleLimits, ThrottleLimits.Limits>
  private typealias LimitOfKind = WritableKeyPath<ThrottleLimits.Limits, ThrottleLimits.Limit>

  /// One of the six limits: its name, and where it is.
  private struct Limit {
    let name: String
    let path: WritableKeyPath<ThrottleLimits, ThrottleLimits.Limit>

    init(_ unit: (String, LimitsOfUnit), _ kind: (String, LimitOfKind)) {
      name = unit.0 + kind.0
      path = unit.1.appending(path: kind.1)
    }
  }

  private static var limits: [Limit] {
    let units: [(String, LimitsOfUnit)] = [("bps", \.bytes), ("iops", \.requests)]
    let kinds: [(String, LimitOfKind)] = [("", \.total), ("_rd", \.read), ("_wr", \.write)]
    return units.flatMap { unit in kinds.map { Limit(unit, $0) } }
  }

  /// What `block_set_io_throttle` takes beside the drive.
  static var throttleParameters: [MonitorParameter] {
    let names = limits.map(\.name)
    return names.map { .required($0, .integer) } + names.map { .optional($0 + "_max", .integer) }
      + names.map { .optional($0 + "_max_length", .integer) } + [.optional("iops_size", .integer), .optional("group")]
  }

  func setThrottle(_ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer) throws(ControlError) {
    let reference = try arguments.drive()
    var limits = ThrottleLimits()
    for limit in Self.limits {
      limits[keyPath: limit.path] = ThrottleLimits.Limit(
        try Self.number(limit.name, arguments), burst: try Self.number(limit.name + "_max", arguments),
        burstSeconds: arguments.object[limit.name + "_max_length"] == nil
          ? 1 : try Self.number(limit.name + "_max_length", arguments))
    }
    limits.requestBytes = try Self.number("iops_size", arguments)
    try Self.check(limits)
    if let group = arguments.text("group"), group != groupName(of: reference) {
      throw ControlError("Drives share no limits here, so 'group' can only be the drive's own name")
    }
    try target.setLimits(of: reference, to: limits) { answer(.success([:])) }
  }

  /// QEMU puts each drive into a group of its own name, where its user names none.
  private func groupName(of reference: DriveReference) -> String {
    let drive = target.drives.first {
      switch reference {
      case .device(let name): $0.name == name
      case .id(let id): $0.deviceID == QEMUIdentifier.device(ofPath: id)
      }
    }
    return drive.map(Self.groupName) ?? reference.name
  }

  private static func groupName(_ drive: DriveReport) -> String { drive.name.isEmpty ? drive.deviceID : drive.name }

  private static func number(_ name: String, _ arguments: MonitorArguments) throws(ControlError) -> UInt64 {
    guard case .integer(let value)? = arguments.object[name] else { return 0 }
    guard let number = UInt64(exactly: value) else { throw outOfRange }
    return number
  }

  private static let outOfRange = ControlError(
    "bps/iops/max values must be within [0, \(ThrottleLimits.unitsMax)]")

  private static func check(_ limits: ThrottleLimits) throws(ControlError) {
    for all in [limits.bytes, limits.requests] {
      let (total, parts) = (all.total, [all.read, all.write])
      if (total.average > 0 && parts.contains { $0.average > 0 })
        || (total.burst > 0 && parts.contains { $0.burst > 0 })
      {
        throw ControlError("bps/iops/max total values and read/write values cannot be used at the same time")
      }
    }
    if limits.requestBytes > 0, limits.requests == ThrottleLimits.Limits() {
      throw ControlError("iops size requires an iops value to be set")
    }
    for limit in Self.limits { try check(limits[keyPath: limit.path]) }
  }

  private static func check(_ limit: ThrottleLimits.Limit) throws(ControlError) {
    let most = ThrottleLimits.unitsMax
    if limit.average > most || limit.burst > most { throw outOfRange }
    if limit.burstSeconds == 0 { throw ControlError("the burst length cannot be 0") }
    if limit.burst == 0, limit.burstSeconds > 1 { throw ControlError("burst length set without burst rate") }
    if limit.burst > 0, limit.burstSeconds > most / limit.burst {
      throw ControlError("burst length too high for this burst rate")
    }
    if limit.burst > 0, limit.average == 0 {
      throw ControlError("bps_max/iops_max require corresponding bps/iops values")
    }
    if limit.burst > 0, limit.burst < limit.average {
      throw ControlError("bps_max/iops_max cannot be lower than bps/iops")
    }
  }

  /// A node in a drive, with the drive's limits. Bursts, and the group, are there only where there are any.
  func describe(_ node: NodeReport, limits: ThrottleLimits, of drive: DriveReport) -> JSONValue {
    guard !limits.isEmpty, var object = describe(node).members else { return describe(node) }
    for limit in Self.limits {
      let value = limits[keyPath: limit.path]
      object[limit.name] = JSONValue(value.average)
      guard value.burst > 0 else { continue }
      object[limit.name + "_max"] = JSONValue(value.burst)
      object[limit.name + "_max_length"] = JSONValue(value.burstSeconds)
    }
    if limits.requestBytes > 0 { object["iops_size"] = JSONValue(limits.requestBytes) }
    object["group"] = .string(Self.groupName(drive))
    return .object(object)
  }
}
