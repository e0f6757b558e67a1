// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// What is wrong with debug rules, as one line that names the place and the value.
public struct DebugRuleError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The line.
  public let description: String

  init(_ description: String) { self.description = description }
}

extension DebugRule {
  /// Longest file of rules that is read, bytes.
  public static let fileBytesMax = 1 << 20

  /// Reads the file of rules of `blkdebug:FILE:IMAGE`.
  /// - Throws: where the file cannot be read, and what is wrong with it.
  public static func read(path: String) throws(DebugRuleError) -> [DebugRule] {
    let bytes: [UInt8]
    do { bytes = try readWholeFile(path) } catch {
      throw DebugRuleError("\(path): \(SystemError.text(of: error.code))")
    }
    guard bytes.count <= fileBytesMax else {
      throw DebugRuleError("\(path): is longer than \(fileBytesMax) bytes; this is no file of blkdebug rules")
    }
    return try parse(String(decoding: bytes, as: UTF8.self), file: path)
  }

  /// Reads rules in the form of QEMU's configuration files: sections `[inject-error]` and `[set-state]`, each with lines
  /// `key = "value"`, and lines that begin with `#`.
  ///
  /// Keys of both: `event`, which there must be, and `state` (0, the default, for any). Of the first: `errno` (a number, 5
  /// by default), `immediately` and `once` (on, off), `sector` (-1 for any), `iotype` (read, write, write-zeroes, discard,
  /// flush, block-status), `delay-ns` (0). Of the second: `new_state`.
  /// - Parameter file: the name for the text of an error.
  public static func parse(_ text: String, file: String) throws(DebugRuleError) -> [DebugRule] {
    var rules: [DebugRule] = []
    var section: Section?
    // A file that was written elsewhere may end its lines with CR LF, which is one Character.
    let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
    for (index, line) in lines.enumerated() {
      let place = "\(file), line \(index + 1)"
      let trimmed = trim(line)
      if trimmed.isEmpty || trimmed.hasPrefix("#") { continue }
      if trimmed.hasPrefix("[") {
        if let section { rules.append(try section.rule()) }
        section = try Section(header: String(trimmed), place: place)
        continue
      }
      guard section != nil else {
        throw DebugRuleError("\(place): '\(trimmed)' stands before any section; write [inject-error] or [set-state]")
      }
      guard let equals = trimmed.firstIndex(of: "=") else {
        throw DebugRuleError("\(place): '\(trimmed)' is not of the form key = \"value\"")
      }
      let value = unquote(trim(trimmed[trimmed.index(after: equals)...]))
      guard let value else {
        throw DebugRuleError("\(place): '\(trimmed)' has a quotation mark too few; write key = \"value\"")
      }
      try section?.take(String(trim(trimmed[..<equals])), value, place: place)
    }
    if let section { rules.append(try section.rule()) }
    return rules
  }

  /// Reads rules in the form of options: `inject-error.0.event=write_aio`, `set-state.0.new_state=2`. Rules act in the
  /// order of their numbers, injections first.
  /// - Returns: nothing of keys of another form, which are the caller's.
  public static func parse(options: [(key: String, value: String)]) throws(DebugRuleError) -> [DebugRule] {
    var sections: [(kind: Section.Kind, number: Int, section: Section)] = []
    for option in options {
      guard let (kind, number, key) = rulePart(of: option.key) else { continue }
      let place = "\(kind.rawValue).\(number)"
      let index: Int
      if let found = sections.firstIndex(where: { $0.kind == kind && $0.number == number }) {
        index = found
      } else {
        index = sections.count
        sections.append((kind, number, Section(kind, place: place)))
      }
      try sections[index].section.take(key, option.value, place: place)
    }
    sections.sort { ($0.kind.order, $0.number) < ($1.kind.order, $1.number) }
    var rules: [DebugRule] = []
    for entry in sections { rules.append(try entry.section.rule()) }
    return rules
  }

  /// Whether a key is a part of a rule: `inject-error.N.KEY` or `set-state.N.KEY`.
  public static func isOption(_ key: String) -> Bool { rulePart(of: key) != nil }

  private static func rulePart(of key: String) -> (Section.Kind, Int, String)? {
    let parts = key.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 3, let kind = Section.Kind(rawValue: String(parts[0])), let number = Int(parts[1]), number >= 0
    else { return nil }
    return (kind, number, String(parts[2]))
  }

  private static func trim<Text: StringProtocol>(_ text: Text) -> Substring {
    var part = Substring(text)
    while part.first?.isWhitespace == true { part.removeFirst() }
    while part.last?.isWhitespace == true { part.removeLast() }
    return part
  }

  /// The value between quotation marks, or as it is where there are none.
  private static func unquote(_ text: Substring) -> String? {
    guard text.contains("\"") else { return text.isEmpty ? nil : String(text) }
    guard text.count >= 2, text.first == "\"", text.last == "\"" else { return nil }
    let inner = text.dropFirst().dropLast()
    return inner.contains("\"") ? nil : String(inner)
  }
}

/// A rule while it is read.
private struct Section {
  enum Kind: String {
    case injectError = "inject-error"
    case setState = "set-state"
    var order: Int { self == .injectError ? 0 : 1 }
  }

  private let kind: Kind
  private let place: String
  private var keys: Set<String> = []
  private var event: DebugEvent?
  private var state = 0
  private var injection = DebugRule.Injection()
  private var newState: Int?

  private static let iotypes: [(name: String, operations: FaultOperations)] = [
    ("read", .read), ("write", .write), ("write-zeroes", .writeZeroes), ("discard", .discard), ("flush", .flush),
    // Nobody asks for it here.
    ("block-status", []),
  ]
  private static let booleans = [
    "on": true, "off": false, "yes": true, "no": false, "true": true, "false": false, "y": true, "n": false,
  ]
  /// Largest errno value of Linux.
  private static let errnoMax = 4095
  /// Longest delay: an hour.
  private static let delayNsMax = 3_600_000_000_000

  init(_ kind: Kind, place: String) {
    self.kind = kind
    self.place = place
  }

  /// `[name]` or `[name "id"]`.
  init(header: String, place: String) throws(DebugRuleError) {
    let name = header.dropFirst().prefix { $0 != "]" && !$0.isWhitespace }
    guard header.hasSuffix("]"), let kind = Kind(rawValue: String(name)) else {
      throw DebugRuleError("\(place): '\(header)': there are only [inject-error] and [set-state]")
    }
    self.init(kind, place: place)
  }

  mutating func take(_ key: String, _ value: String, place: String) throws(DebugRuleError) {
    guard keys.insert(key).inserted else { throw DebugRuleError("\(place): \(key) is given twice; give it once") }
    switch (kind, key) {
    case (_, "event"): event = try readEvent(value, place)
    case (_, "state"): state = try number(key, value, 0...Int(Int32.max), place)
    case (.setState, "new_state"): newState = try number(key, value, 0...Int(Int32.max), place)
    case (.injectError, "errno"): injection.code = Int32(try number(key, value, 0...Self.errnoMax, place))
    case (.injectError, "immediately"): injection.immediately = try boolean(key, value, place)
    case (.injectError, "once"): injection.once = try boolean(key, value, place)
    case (.injectError, "sector"):
      let sector = try number(key, value, -1...Int.max, place)
      injection.sector = sector < 0 ? nil : UInt64(sector)
    case (.injectError, "delay-ns"):
      injection.delayNs = UInt64(try number(key, value, 0...Self.delayNsMax, place))
    case (.injectError, "iotype"):
      guard let type = Self.iotypes.first(where: { $0.name == value }) else {
        let known = Self.iotypes.map(\.name).joined(separator: ", ")
        throw DebugRuleError("\(place): iotype '\(value)' is unknown; choose one of \(known)")
      }
      injection.operations = type.operations
    default:
      let known =
        kind == .setState
        ? "event, state, new_state" : "event, state, errno, immediately, once, sector, iotype, delay-ns"
      throw DebugRuleError("\(place): [\(kind.rawValue)] has no '\(key)'; there are \(known)")
    }
  }

  private func readEvent(_ value: String, _ place: String) throws(DebugRuleError) -> DebugEvent? {
    if let event = DebugEvent(rawValue: value) { return event }
    if DebugEvent.foreign.contains(value) { return nil }
    let known = DebugEvent.allCases.map(\.rawValue).joined(separator: ", ")
    throw DebugRuleError("\(place): event '\(value)' is unknown; those that happen here are \(known)")
  }

  private func number(
    _ key: String, _ value: String, _ range: ClosedRange<Int>, _ place: String
  ) throws(DebugRuleError) -> Int {
    guard let number = Int(value), range.contains(number) else {
      throw DebugRuleError(
        "\(place): \(key) '\(value)' is not a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  private func boolean(_ key: String, _ value: String, _ place: String) throws(DebugRuleError) -> Bool {
    if let flag = Self.booleans[value] { return flag }
    throw DebugRuleError("\(place): \(key) '\(value)' is neither on nor off")
  }

  func rule() throws(DebugRuleError) -> DebugRule {
    guard keys.contains("event") else {
      throw DebugRuleError("\(place): [\(kind.rawValue)] has no event; write event = \"write_aio\", for instance")
    }
    switch kind {
    case .injectError: return DebugRule(event, state: state, .injectError(injection))
    case .setState:
      guard let newState else {
        throw DebugRuleError("\(place): [set-state] has no new_state; write new_state = \"2\", for instance")
      }
      return DebugRule(event, state: state, .setState(newState))
    }
  }
}
