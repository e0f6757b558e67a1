// SPDX-License-Identifier: Apache-2.0
import Assembly
import Glibc
import Machine

/// The machine as a whole.
extension MonitorCommands {
  // MARK: The monitor itself

  func negotiateCapabilities(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    switch arguments.object["enable"] {
    case nil: break
    case .array(let names)?:
      // None is offered.
      for name in names {
        guard let text = name.text else { throw .wrongType("enable", expected: "string") }
        throw .wrongValue("enable", text)
      }
    default: throw .wrongType("enable", expected: "array")
    }
    return [:]
  }

  var version: JSONValue {
    let version = settings.dialect.version
    return [
      "qemu": [
        "micro": JSONValue(version.micro), "minor": JSONValue(version.minor), "major": JSONValue(version.major),
      ], "package": .string(settings.package),
    ]
  }

  func queryVersion(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue { version }

  func queryCommands(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    .array(([Self.negotiation] + Self.all.map(\.name)).map { ["name": .string($0)] })
  }

  func queryCharacterDevices(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let own = CharacterDevice(label: settings.label, filename: filename, isInUse: true)
    let all = settings.characterDevices.isEmpty ? [own] : settings.characterDevices
    return .array(
      all.map { device in
        [
          "frontend-open": .bool(device.isInUse), "filename": .string(device.filename), "label": .string(device.label),
        ]
      })
  }

  private var filename: String {
    switch address {
    case .connectUnix(let path): "unix:\(path)"
    case .listenUnix(let path, _): "unix:\(path),server=on"
    case .connectLoopback(let port): "tcp:127.0.0.1:\(port)"
    case .listenLoopback(let port, _): "tcp:127.0.0.1:\(port),server=on"
    case .standardIO: "stdio"
    case .descriptor: "fd"
    }
  }

  // MARK: What it is

  func queryName(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    target.machineName.map { ["name": .string($0)] } ?? [:]
  }

  func queryKVM(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    ["enabled": .bool(target.usesKVM), "present": true]
  }

  func queryArchitecture(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue { ["arch": "x86_64"] }

  /// Of what QEMU lists here there is nothing: no jobs, and no I/O threads that a client has made.
  func queryNone(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue { [] }

  /// Each has a socket of its own. Which thread plays it is not told: the process's number stands for all.
  func queryProcessors(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    .array(
      (0..<target.processorCount).map { index in
        [
          "cpu-index": JSONValue(index), "qom-path": "/machine/unattached/device[\(index)]",
          "thread-id": JSONValue(Int(getpid())),
          "props": ["socket-id": JSONValue(index), "core-id": 0, "thread-id": 0], "target": "x86_64",
        ]
      })
  }

  /// One entry: clients start each machine they find, and all boards here are the same. Its members are exactly those that
  /// a client of its age expects; others make it give up.
  func queryMachines(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    var machine = JSONObject([
      ("name", "pc"), ("cpu-max", JSONValue(MachineConfiguration.processorsMax)), ("hotpluggable-cpus", false),
      ("numa-mem-supported", false), ("deprecated", false),
    ])
    if settings.dialect == .v10 { machine["acpi"] = true }
    return [.object(machine)]
  }

  // MARK: Running

  func queryStatus(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let state = target.runState
    var status = JSONObject([("status", .string(state.rawValue)), ("running", .bool(state == .running))])
    // Gone since QEMU 9.0.
    if settings.dialect == .v7 { status["singlestep"] = false }
    return .object(status)
  }

  func stop(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    target.stop()
    return [:]
  }

  func cont(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.cont()
    return [:]
  }

  func systemReset(_ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer) throws(ControlError) {
    try target.reset { answer(.success([:])) }
  }

  /// What becomes of a guest's panic or a watchdog is taken and changes nothing: there is no device that tells of them.
  func setAction(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.setPolicies(
      reset: arguments.text("reboot").map { $0 == "reset" ? .resetDevices : .shutdown },
      shutdown: arguments.text("shutdown").map { $0 == "pause" ? .pause : .end })
    return [:]
  }

  func systemPowerDown(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.powerDown()
    return [:]
  }

  func quit(_ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer) throws(ControlError) {
    target.quit { answer(.success([:])) }
  }

  // MARK: PCI

  func queryPCI(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    [["bus": 0, "devices": .array(target.pciFunctions.map(describe))]]
  }

  private func describe(_ function: PCIFunction) -> JSONValue {
    let identity = function.identity
    let classCode = Int(identity.classCode >> 8)
    var classInfo = JSONObject([("class", JSONValue(classCode))])
    if let text = Self.classNames[classCode] { classInfo["desc"] = .string(text) }
    var device = JSONObject([
      ("bus", 0), ("slot", JSONValue(Int(function.address.device))),
      ("function", JSONValue(Int(function.address.function))), ("class_info", .object(classInfo)),
      (
        "id",
        [
          "device": JSONValue(Int(identity.device)), "vendor": JSONValue(Int(identity.vendor)),
          "subsystem": JSONValue(Int(identity.subsystem)),
          "subsystem-vendor": JSONValue(Int(identity.subsystemVendor)),
        ]
      ),
      ("irq_pin", JSONValue(Int(identity.interruptPin))), ("qdev_id", .string(function.name)),
      ("regions", .array(function.regions.map(describe))),
    ])
    if identity.interruptPin != 0 { device["irq"] = JSONValue(Int(function.interruptLine)) }
    return .object(device)
  }

  private func describe(_ region: PCIRegion) -> JSONValue {
    var object = JSONObject([
      ("bar", JSONValue(region.index)), ("type", region.kind.isIO ? "io" : "memory"),
      ("address", region.address.map { JSONValue($0) } ?? -1), ("size", JSONValue(region.byteCount)),
    ])
    if !region.kind.isIO {
      object["prefetch"] = .bool(region.kind.isPrefetchable)
      object["mem_type_64"] = .bool(region.kind.is64Bit)
    }
    return .object(object)
  }

  /// Base class and subclass (PCI 3.0, appendix D) of what may be on the bus.
  private static let classNames = [
    0x0100: "SCSI controller", 0x0106: "SATA controller", 0x0600: "Host bridge", 0x0601: "ISA bridge",
    0x0c05: "SMBus",
  ]
}
