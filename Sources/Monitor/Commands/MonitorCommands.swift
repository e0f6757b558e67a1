// SPDX-License-Identifier: Apache-2.0
import Assembly
import Machine

/// A command of the monitor: its name, what it takes, and what does it.
struct MonitorCommand: Sendable {
  typealias Answer = (Result<JSONValue, ControlError>) -> Void

  let name: String
  let parameters: [MonitorParameter]
  // Names that are no parameters are the command's own affair.
  let isOpen: Bool
  private let body: @Sendable (MonitorCommands, MonitorArguments, @escaping Answer) throws(ControlError) -> Void

  /// A command that is done when it returns.
  init(
    _ name: String, _ parameters: [MonitorParameter] = [], isOpen: Bool = false,
    now body: @escaping @Sendable (MonitorCommands) -> (MonitorArguments) throws(ControlError) -> JSONValue
  ) {
    self.name = name
    self.parameters = parameters
    self.isOpen = isOpen
    self.body = { (commands, arguments, answer) throws(ControlError) in
      answer(.success(try body(commands)(arguments)))
    }
  }

  /// A command that answers when it is done.
  init(
    _ name: String, _ parameters: [MonitorParameter] = [],
    later body:
      @escaping @Sendable (MonitorCommands) -> (MonitorArguments, @escaping Answer) throws(ControlError) -> Void
  ) {
    self.name = name
    self.parameters = parameters
    isOpen = false
    self.body = { (commands, arguments, answer) throws(ControlError) in try body(commands)(arguments, answer) }
  }

  /// Does it. `answer` is called once, maybe before this returns, unless this throws.
  func run(
    _ commands: MonitorCommands, _ arguments: MonitorArguments, answer: @escaping Answer
  ) throws(ControlError) {
    try body(commands, arguments, answer)
  }
}

/// What clients can ask for. Main loop's thread, machine lock held.
final class MonitorCommands {
  /// The command that ends the negotiation.
  static let negotiation = "qmp_capabilities"

  let target: any MonitorTarget
  let settings: MonitorSettings
  let address: MonitorAddress
  let detached = DetachedTransfers()

  init(target: any MonitorTarget, settings: MonitorSettings, address: MonitorAddress) {
    self.target = target
    self.settings = settings
    self.address = address
  }

  private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

  /// Finds the command of a request and checks its arguments.
  func prepare(
    _ request: JSONObject, isNegotiated: Bool
  ) throws(ControlError) -> (MonitorCommand, MonitorArguments) {
    var name: String?
    var arguments = JSONObject()
    for member in request.members {
      switch (member.name, member.value) {
      case ("execute", .string(let text)): name = text
      case ("execute", _): throw ControlError("QMP input member 'execute' must be a string")
      case ("arguments", .object(let object)): arguments = object
      case ("arguments", _): throw ControlError("QMP input member 'arguments' must be an object")
      case ("id", _): break
      // Out-of-band execution is not offered, so its word means nothing.
      default: throw ControlError("QMP input member '\(member.name)' is unexpected")
      }
    }
    guard let name else { throw ControlError("QMP input lacks member 'execute'") }
    let command = try find(name, isNegotiated: isNegotiated)
    return (command, try MonitorArguments(arguments, command.parameters, isOpen: command.isOpen))
  }

  private func find(_ name: String, isNegotiated: Bool) throws(ControlError) -> MonitorCommand {
    if name == Self.negotiation {
      guard isNegotiated else { return Self.negotiate }
      throw ControlError("Capabilities negotiation is already complete, command ignored", kind: .commandNotFound)
    }
    guard isNegotiated else {
      throw ControlError(
        "Expecting capabilities negotiation with 'qmp_capabilities'", kind: .commandNotFound)
    }
    guard let command = Self.byName[name] else {
      throw ControlError("The command \(name) has not been found", kind: .commandNotFound)
    }
    return command
  }

  // MARK: What there is

  private static let negotiate = MonitorCommand(
    negotiation, [.optional("enable", .any)], now: MonitorCommands.negotiateCapabilities)

  private static let driveNames: [MonitorParameter] = [.optional("device"), .optional("id")]

  static let all: [MonitorCommand] = machineCommands + driveCommands + nodeCommands + deviceCommands + ownCommands

  private static let machineCommands = [
    MonitorCommand("query-status", now: MonitorCommands.queryStatus),
    MonitorCommand("query-version", now: MonitorCommands.queryVersion),
    MonitorCommand("query-commands", now: MonitorCommands.queryCommands),
    MonitorCommand("query-name", now: MonitorCommands.queryName),
    MonitorCommand("query-kvm", now: MonitorCommands.queryKVM),
    MonitorCommand("query-chardev", now: MonitorCommands.queryCharacterDevices),
    MonitorCommand("query-machines", now: MonitorCommands.queryMachines),
    MonitorCommand("query-pci", now: MonitorCommands.queryPCI),
    MonitorCommand("query-cpus-fast", now: MonitorCommands.queryProcessors),
    MonitorCommand("query-iothreads", now: MonitorCommands.queryNone),
    MonitorCommand("query-jobs", now: MonitorCommands.queryNone),
    MonitorCommand("query-block-jobs", now: MonitorCommands.queryNone),
    MonitorCommand("query-target", now: MonitorCommands.queryArchitecture),
    MonitorCommand("stop", now: MonitorCommands.stop),
    MonitorCommand("cont", now: MonitorCommands.cont),
    MonitorCommand("system_reset", later: MonitorCommands.systemReset),
    MonitorCommand("system_powerdown", now: MonitorCommands.systemPowerDown),
    MonitorCommand(
      "set-action",
      [
        .optional("reboot", .choice(["reset", "shutdown"])), .optional("shutdown", .choice(["poweroff", "pause"])),
        .optional("panic", .choice(["pause", "shutdown", "exit-failure", "none"])),
        .optional(
          "watchdog", .choice(["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"])),
      ], now: MonitorCommands.setAction),
    MonitorCommand("quit", later: MonitorCommands.quit),
    MonitorCommand(
      "human-monitor-command", [.required("command-line"), .optional("cpu-index", .integer)],
      later: MonitorCommands.humanMonitorCommand),
    MonitorCommand(
      "screendump",
      [
        .required("filename"), .optional("device"), .optional("head", .integer),
        .optional("format", .choice(["ppm", "png"])),
      ], now: MonitorCommands.screenDump),
  ]

  private static let driveCommands = [
    MonitorCommand("query-block", now: MonitorCommands.queryBlock),
    MonitorCommand(
      "query-blockstats", [.optional("query-nodes", .boolean)], later: MonitorCommands.queryBlockStatistics),
    MonitorCommand("eject", driveNames + [.optional("force", .boolean)], now: MonitorCommands.eject),
    MonitorCommand(
      "blockdev-open-tray", driveNames + [.optional("force", .boolean)], now: MonitorCommands.openTray),
    MonitorCommand("blockdev-close-tray", driveNames, now: MonitorCommands.closeTray),
    MonitorCommand("blockdev-remove-medium", [.required("id")], now: MonitorCommands.removeMedium),
    MonitorCommand(
      "blockdev-insert-medium", [.required("id"), .required("node-name")], now: MonitorCommands.insertMedium),
    MonitorCommand(
      "blockdev-change-medium",
      driveNames + [
        .required("filename"), .optional("format"), .optional("force", .boolean),
        .optional("read-only-mode", .choice(["retain", "read-only", "read-write"])),
      ], now: MonitorCommands.changeMedium),
    MonitorCommand(
      "change", [.required("device"), .required("target"), .optional("arg")], now: MonitorCommands.change),
    MonitorCommand(
      "block_resize", [.optional("device"), .optional("node-name"), .required("size", .integer)],
      later: MonitorCommands.resize),
    MonitorCommand(
      "block_set_io_throttle", driveNames + throttleParameters, later: MonitorCommands.setThrottle),
  ]

  private static let nodeCommands = [
    MonitorCommand(
      "query-named-block-nodes", [.optional("flat", .boolean)], now: MonitorCommands.queryNamedBlockNodes),
    MonitorCommand("blockdev-add", isOpen: true, now: MonitorCommands.addNode),
    MonitorCommand("blockdev-del", [.required("node-name")], now: MonitorCommands.removeNode),
    MonitorCommand(
      "x-blockdev-set-iothread",
      [.required("node-name"), .required("iothread", .any), .optional("force", .boolean)],
      later: MonitorCommands.setNodeThread),
  ]

  private static let deviceCommands = [
    MonitorCommand(
      "device_add", [.required("driver"), .optional("bus"), .optional("id")], isOpen: true,
      now: MonitorCommands.addDevice),
    MonitorCommand("device_del", [.required("id")], now: MonitorCommands.removeDevice),
    MonitorCommand("device-list-properties", [.required("typename")], now: MonitorCommands.listProperties),
    MonitorCommand(
      "qom-list-types", [.optional("implements"), .optional("abstract", .boolean)], now: MonitorCommands.listTypes),
    MonitorCommand("qom-list", [.required("path")], now: MonitorCommands.listObject),
    MonitorCommand("qom-get", [.required("path"), .required("property")], now: MonitorCommands.getProperty),
    MonitorCommand(
      "qom-set", [.required("path"), .required("property"), .required("value", .any)], now: MonitorCommands.setProperty),
    MonitorCommand(
      "object-add", [.required("qom-type"), .required("id")], isOpen: true, now: MonitorCommands.addObject),
    MonitorCommand("object-del", [.required("id")], now: MonitorCommands.removeObject),
  ]

  private static let ownCommands = [
    MonitorCommand("x-spindle-engine", now: MonitorCommands.queryEngines),
    MonitorCommand("x-spindle-wakeups", now: MonitorCommands.queryWakeups),
    MonitorCommand("x-spindle-latency", now: MonitorCommands.queryLatencies),
    MonitorCommand(
      "x-spindle-trace",
      [
        .required("action", .choice(["start", "stop"])), .optional("events-per-thread", .integer),
        .optional("filename"),
      ],
      now: MonitorCommands.trace),
  ]
}
