// SPDX-License-Identifier: Apache-2.0
import Assembly
import AsyncIO
import EventLoop
import FoundationEssentials

/// What `spindle aio` shows: for people as text, for programs as JSON.
struct EngineReport {
  let engines = EngineAvailability.probeAll()
  var file: FileReport?

  func print() {
    row("engine", "here", "what it offers, or why it is missing")
    for engine in engines {
      row(
        engine.kind.rawValue, engine.isUsable ? "yes" : "no", engine.obstacle ?? engine.features.joined(separator: ", ")
      )
    }
    Swift.print()
    row("loop", "here", "")
    for monitor in LoopMonitor.allCases where monitor != .auto {
      let works = (try? EventLoop(name: "probe", monitor: monitor)) != nil
      row(monitor.rawValue, works ? "yes" : "no", works && monitor == automaticMonitor ? "auto takes it" : "")
    }
    file?.print()
  }

  private var automaticMonitor: LoopMonitor? { (try? EventLoop(name: "probe", monitor: .auto))?.monitorInUse }

  private func row(_ name: String, _ works: String, _ text: String) {
    Swift.print((pad(name, 11) + pad(works, 6) + text).trimmingEnd)
  }
}

/// Fills a column up with spaces.
func pad(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(1, width - text.count))
}

extension String {
  /// Without the spaces at the end.
  var trimmingEnd: String {
    var rest = self[...]
    while rest.last == " " { rest.removeLast() }
    return String(rest)
  }
}

// MARK: JSON

extension EngineReport: Encodable {
  private enum Key: String, CodingKey { case schema, spindle, command, engines, file, results }
  private struct Engine: Encodable {
    let name: String
    let usable: Bool
    let obstacle: String?
    let features: [String]
  }

  func encode(to encoder: Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(1, forKey: .schema)
    try container.encode(Spindle.version, forKey: .spindle)
    try container.encode("aio", forKey: .command)
    let list = engines.map {
      Engine(name: $0.kind.rawValue, usable: $0.isUsable, obstacle: $0.obstacle, features: $0.features)
    }
    try container.encode(list, forKey: .engines)
    try container.encodeIfPresent(file, forKey: .file)
    try container.encode(file?.measured ?? [], forKey: .results)
  }
}

/// Prints the report for programs.
func printJSON(_ report: EngineReport) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  Swift.print(String(decoding: try encoder.encode(report), as: UTF8.self))
}
