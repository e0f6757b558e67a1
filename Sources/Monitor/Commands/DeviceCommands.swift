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

  /// The device of a path: its name alone, or under `/machine/peripheral`.
  private func device(at path: String) throws(ControlError) -> DeviceReport {
    let prefix = "/machine/peripheral/"
    let name = path.hasPrefix(prefix) ? String(path.dropFirst(prefix.count)) : path
    guard let device = target.devices.first(where: { $0.id == name }) else { throw .noDevice(path) }
    return device
  }

  func getProperty(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let (path, property) = (arguments.required("path"), arguments.required("property"))
    if path == "/machine" || path == "/" {
      guard property == "type" else { throw Self.noProperty(target.shape.typeName, property) }
      return .string(path == "/" ? "container" : target.shape.typeName)
    }
    let device = try device(at: path)
    switch property {
    case "type": return .string(device.model)
    case "realized": return true
    case "hotplugged": return false
    case "drive":
      guard let drive = target.drives.first(where: { $0.deviceID == device.id }) else { fallthrough }
      return .string(drive.name)
    default: throw Self.noProperty(device.model, property)
    }
  }

  func setProperty(_ arguments: MonitorArguments) throws(ControlError) -> JSONValue {
    let (path, property) = (arguments.required("path"), arguments.required("property"))
    if path == "/machine" || path == "/" { throw Self.noProperty(target.shape.typeName, property) }
    let device = try device(at: path)
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
