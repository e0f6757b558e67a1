// SPDX-License-Identifier: Apache-2.0
import Assembly

/// Devices, their types and their properties.
extension MonitorCommands {
  // MARK: Plugging

  func addDevice(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let model = arguments.required("driver")
    guard let type = DeviceType.named(model), !type.isAbstract else {
      throw ControlError("'\(model)' is not a valid device model name")
    }
    var options: [String: String] = [:]
    for member in arguments.object.members where member.name != "driver" {
      guard let text = Self.optionText(member.value) else { throw .wrongType(member.name, expected: "string") }
      options[member.name] = text
    }
    if let id = options["id"], target.devices.contains(where: { $0.id == id }) {
      throw ControlError("Duplicate device ID '\(id)'")
    }
    try target.addDevice(model: model, options: options)
    return [:]
  }

  private static func optionText(_ value: JSONValue) -> String? {
    switch value {
    case .string(let text): text
    case .bool(let flag): flag ? "on" : "off"
    case .integer, .unsigned, .number: value.jsonText
    case .null, .array, .object: nil
    }
  }

  func removeDevice(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    try target.removeDevice(id: arguments.required("id"))
    return [:]
  }

  // MARK: Types

  func listTypes(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let ancestor = arguments.text("implements") ?? "object"
    let withAbstract = arguments.flag("abstract")
    let found = DeviceType.all.filter { $0.implements(ancestor) && (withAbstract || !$0.isAbstract) }
    return .array(
      found.map { type in
        var object = JSONObject([("name", .string(type.name)), ("parent", .string(type.parent))])
        if type.isAbstract { object["abstract"] = true }
        return .object(object)
      })
  }

  func listProperties(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let name = arguments.required("typename")
    guard let type = DeviceType.named(name) else { throw .noDevice(name) }
    if type.isAbstract { throw ControlError("Parameter 'typename' expects a non-abstract device type") }
    return .array(type.properties.map { ["name": .string($0.name), "type": .string($0.type)] })
  }

  // MARK: Objects

  /// Something in the tree of objects, as far as there is one.
  private enum TreeObject {
    /// What holds others: their names and types.
    case container(type: String, children: [(name: String, type: String)])
    case device(DeviceReport)
  }

  private static let peripherals = "/machine/peripheral"

  /// The object of a path; a device is found by its name alone too.
  private func object(at path: String) throws(ControlError) -> TreeObject {
    switch path {
    case "/": return .container(type: "container", children: [("machine", target.shape.typeName)])
    case "/machine":
      return .container(type: target.shape.typeName, children: [("peripheral", "container")])
    case Self.peripherals:
      return .container(type: "container", children: target.devices.map { ($0.id, $0.model) })
    default:
      guard let device = target.devices.first(where: { $0.id == QEMUIdentifier.device(ofPath: path) }) else {
        throw .noDevice(path)
      }
      return .device(device)
    }
  }

  /// What can be read of a device: names, types and values.
  private func readable(_ device: DeviceReport) -> [(name: String, type: String, value: JSONValue)] {
    var all: [(name: String, type: String, value: JSONValue)] = [
      ("type", "string", .string(device.model)), ("realized", "bool", true),
      ("hotplugged", "bool", .bool(device.isHotPlugged)), ("parent_bus", "link<bus>", .string(device.bus)),
    ]
    if let drive = target.drives.first(where: { $0.deviceID == device.id }) {
      all.append(("drive", "str", .string(drive.name)))
    }
    return all
  }

  func listObject(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let entries: [(name: String, type: String)]
    switch try object(at: arguments.required("path")) {
    case .container(_, let children):
      entries = [("type", "string")] + children.map { ($0.name, "child<\($0.type)>") }
    case .device(let device): entries = readable(device).map { ($0.name, $0.type) }
    }
    return .array(entries.map { ["name": .string($0.name), "type": .string($0.type)] })
  }

  func getProperty(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let property = arguments.required("property")
    switch try object(at: arguments.required("path")) {
    case .container(let type, _):
      guard property == "type" else { throw Self.noProperty(type, property) }
      return .string(type)
    case .device(let device):
      guard let found = readable(device).first(where: { $0.name == property }) else {
        throw Self.noProperty(device.model, property)
      }
      return found.value
    }
  }

  func setProperty(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let (path, property) = (arguments.required("path"), arguments.required("property"))
    let device: DeviceReport
    switch try object(at: path) {
    case .container(let type, _): throw Self.noProperty(type, property)
    case .device(let found): device = found
    }
    guard DeviceType.named(device.model)?.properties.contains(where: { $0.name == property }) == true else {
      throw Self.noProperty(device.model, property)
    }
    throw ControlError(
      "Attempt to set property '\(property)' on device '\(device.id)' (type '\(device.model)') after it was realized")
  }

  private static func noProperty(_ type: String, _ property: String) -> ControlError {
    ControlError("Property '\(type).\(property)' not found")
  }

  func addObject(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let type = arguments.required("qom-type")
    guard type == "iothread" else { throw .wrongValue("qom-type", type) }
    throw ControlError("I/O threads are made with the machine; write -object iothread on the command line")
  }

  func removeObject(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    throw ControlError("object '\(arguments.required("id"))' not found")
  }
}
