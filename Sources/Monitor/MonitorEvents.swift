// SPDX-License-Identifier: Apache-2.0
import Assembly
import Glibc
import HostSystem
import Machine

/// What happens to the machine, as clients are told of it.
extension MonitorCommands {
  /// The event with the time of day; nil for what clients are not told.
  func describe(_ event: MachineEvent) -> JSONValue? {
    let (name, data) = content(event)
    let now = settings.now()
    var object = JSONObject([
      ("timestamp", ["seconds": JSONValue(now.seconds), "microseconds": JSONValue(now.microseconds)]),
      ("event", .string(name)),
    ])
    object["data"] = data
    return .object(object)
  }

  private func content(_ event: MachineEvent) -> (name: String, data: JSONValue?) {
    switch event {
    case .stopped: return ("STOP", nil)
    case .resumed: return ("RESUME", nil)
    case .powerdown: return ("POWERDOWN", nil)
    case .reset(let byGuest):
      return ("RESET", Self.cause(byGuest, byGuest ? "guest-reset" : "host-qmp-system-reset"))
    case .shutdown(let reason): return ("SHUTDOWN", Self.cause(reason.isByGuest, Self.text(of: reason)))
    case .blockError(let drive, let isRead, let action, let code):
      return ("BLOCK_IO_ERROR", blockError(drive, isRead: isRead, action, code))
    case .trayMoved(let device, let isOpen):
      let name = target.drives.first { $0.deviceID == device }?.name ?? ""
      return (
        "DEVICE_TRAY_MOVED", ["device": .string(name), "id": .string(device), "tray-open": .bool(isOpen)]
      )
    case .deviceDeleted(let device):
      return ("DEVICE_DELETED", ["device": .string(device), "path": .string("/machine/peripheral/\(device)")])
    }
  }

  private static func cause(_ byGuest: Bool, _ reason: String) -> JSONValue {
    ["guest": .bool(byGuest), "reason": .string(reason)]
  }

  private static func text(of reason: ShutdownReason) -> String {
    switch reason {
    case .guestExit, .powerOff: "guest-shutdown"
    case .reset: "guest-reset"
    case .guestFault: "guest-panic"
    case .signal: "host-signal"
    case .hostRequest: "host-qmp-quit"
    case .hostReset: "host-qmp-system-reset"
    }
  }

  private func blockError(_ drive: String, isRead: Bool, _ action: BlockErrorAction, _ code: Int32) -> JSONValue {
    let found = target.drives.first { $0.name == drive || ($0.name.isEmpty && $0.medium?.name == drive) }
    var data = JSONObject([
      ("device", .string(found?.name ?? drive)), ("operation", isRead ? "read" : "write"),
      ("action", .string(action.rawValue)),
      ("nospace", .bool(code == ENOSPC)), ("reason", .string(SystemError.text(of: code))),
    ])
    data["node-name"] = found?.medium.map { .string($0.name) }
    return .object(data)
  }
}
