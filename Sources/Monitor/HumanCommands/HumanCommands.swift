// SPDX-License-Identifier: Apache-2.0
import Assembly
import Machine

/// The commands that people type, as far as test programs send them too (`human-monitor-command`). A mistake is a line
/// of the answer, never an error of the protocol.
extension MonitorCommands {
  /// Takes the lines of a command's output.
  typealias HumanAnswer = (String) -> Void

  func humanMonitorCommand(
    _ arguments: MonitorArguments, answer: @escaping MonitorCommand.Answer
  ) throws(ControlError) {
    human(arguments.required("command-line")) { text in
      // Lines end as on a terminal.
      let lines = text.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\r\n")
      answer(.success(.string(lines)))
    }
  }

  /// Does what a line says. `answer` is called once; its text ends with a newline or is empty.
  func human(_ line: String, answer: @escaping HumanAnswer) {
    guard let words = CommandWords.split(line) else { return answer("unterminated string literal\n") }
    guard let name = words.first else { return answer("") }
    do throws(ControlError) {
      try humanCommand(name, Array(words.dropFirst()), answer)
    } catch {
      answer("Error: \(error)\n")
    }
  }

  private func humanCommand(
    _ name: String, _ words: [String], _ answer: @escaping HumanAnswer
  ) throws(ControlError) {
    switch name {
    case "info": return answer(try info(words))
    case "stop", "s": target.stop()
    case "cont", "c": try target.cont()
    case "system_reset": return try target.reset { answer("") }
    case "system_powerdown": try target.powerDown()
    case "quit", "q": return target.quit { answer("") }
    case "eject":
      let force = words.first == "-f"
      try eject(.device(try word(force ? 1 : 0, of: words, name, "block device name")), force: force)
    case "change":
      let drive = DriveReference.device(try word(0, of: words, name, "block device name"))
      try change(
        drive, to: try word(1, of: words, name, "file name"), format: words.count > 2 ? words[2] : nil, force: false)
    case "device_del": try target.removeDevice(id: try word(0, of: words, name, "string"))
    case "device_add": try humanAddDevice(try word(0, of: words, name, "string"))
    case "drive_add":
      try humanAddDrive(words)
      return answer("OK\n")
    case "drive_del": try target.removeDrive(named: try word(0, of: words, name, "block device name"))
    case "qemu-io":
      let drive = try word(0, of: words, name, "block device name")
      return try hostIO(drive: drive, words.count > 1 ? words[1] : "", answer)
    case "savevm", "loadvm", "delvm":
      throw ControlError("\(name): snapshots need an image format that holds them, and raw images do not")
    default: return answer("unknown command: '\(name)'\n")
    }
    answer("")
  }

  private func word(
    _ index: Int, of words: [String], _ command: String, _ what: String
  ) throws(ControlError) -> String {
    guard words.indices.contains(index) else { throw ControlError("\(command): \(what) expected") }
    return words[index]
  }

  /// `MODEL,key=value,…`.
  private func humanAddDevice(_ text: String) throws(ControlError) {
    var object = JSONObject()
    for (index, part) in text.split(separator: ",").enumerated() {
      guard let equals = part.firstIndex(of: "=") else {
        guard index == 0 else { throw .missing(String(part)) }
        object["driver"] = .string(String(part))
        continue
      }
      object[String(part[..<equals])] = .string(String(part[part.index(after: equals)...]))
    }
    _ = try addDevice(try MonitorArguments(object, [.required("driver")], isOpen: true))
  }

  // MARK: info

  private func info(_ words: [String]) throws(ControlError) -> String {
    switch words.first {
    case "status": return "VM status: \(Self.statusText(target.runState))\n"
    case "version":
      let version = settings.dialect.version
      return "\(version.major).\(version.minor).\(version.micro) \(settings.package)\n"
    case "name": return target.machineName.map { "\($0)\n" } ?? ""
    case "kvm": return "kvm support: \(target.usesKVM ? "enabled" : "disabled")\n"
    case "block": return blockText()
    case "qtree": return treeText()
    case "pci": return target.pciFunctions.map { "  \($0.address) \($0.name)\n" }.joined()
    case let other?: return "unknown command: 'info \(other)'\n"
    case nil: return "info: status, version, name, kvm, block, qtree or pci\n"
    }
  }

  private static func statusText(_ state: RunState) -> String {
    switch state {
    case .running: "running"
    case .paused: "paused"
    case .prelaunch, .ioError, .shutdown: "paused (\(state.rawValue))"
    }
  }

  private func blockText() -> String {
    target.drives.map { drive in
      let name = drive.name.isEmpty ? drive.medium?.name ?? drive.deviceID : drive.name
      var lines: [String] = []
      if let medium = drive.medium {
        let node = drive.name.isEmpty ? "" : " (\(medium.name))"
        let mode = medium.isReadOnly ? ", read-only" : ""
        lines.append("\(name)\(node): \(medium.filename) (\(medium.driver)\(mode))")
      } else {
        lines.append("\(name): [not inserted]")
      }
      if drive.isAttached {
        lines.append("    Attached to:      \(Self.path(of: drive.deviceID, model: drive.model))")
      }
      if let tray = drive.tray ?? (drive.isAttached ? nil : TrayReport()) {
        let (lock, position) = (tray.isLocked ? "locked" : "not locked", tray.isOpen ? "open" : "closed")
        lines.append("    Removable device: \(lock), tray \(position)")
      }
      if let medium = drive.medium {
        lines.append("    Cache mode:       \(Self.cacheText(medium))")
      }
      return lines.joined(separator: "\n") + "\n"
    }.joined(separator: "\n")
  }

  private static func cacheText(_ medium: NodeReport) -> String {
    let words = [
      (medium.cache.hasWriteCache, "writeback"), (!medium.cache.hasWriteCache, "writethrough"),
      (medium.cache.isDirect, "direct"), (medium.cache == .unsafe, "ignore flushes"),
    ]
    return words.filter(\.0).map(\.1).joined(separator: ", ")
  }

  private func treeText() -> String {
    var lines = ["bus: main-system-bus", "  type System"]
    for bus in Set(target.devices.map(\.bus)).sorted() {
      lines.append("  bus: \(bus)")
      for device in target.devices where device.bus == bus {
        lines.append("    dev: \(device.model), id \"\(device.id)\"")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}

/// Words of a command line: blanks part them, and double quotes hold them together.
enum CommandWords {
  /// Takes a line apart; nil where a quote is not closed.
  static func split(_ line: String) -> [String]? {
    var words: [String] = []
    var word: String?
    var isQuoted = false
    var rest = line[...]
    while let character = rest.popFirst() {
      switch character {
      case "\\" where isQuoted:
        guard let next = rest.popFirst() else { return nil }
        word = (word ?? "") + (next == "n" ? "\n" : String(next))
      case "\"":
        isQuoted.toggle()
        word = word ?? ""
      case " ", "\t", "\n", "\r", "\r\n":
        if isQuoted {
          word = (word ?? "") + String(character)
        } else if let complete = word {
          words.append(complete)
          word = nil
        }
      default: word = (word ?? "") + String(character)
      }
    }
    if isQuoted { return nil }
    if let word { words.append(word) }
    return words
  }
}
