// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

extension QTScript {
  /// Reads a script with what it includes.
  /// - Throws: where a file cannot be read, or a line says nothing that is known.
  public init(contentsOf path: String) throws(QTScriptError) {
    var parser = QTScriptParser(name: QTScriptParser.lastComponent(path))
    try parser.read(path, from: nil)
    self = parser.finished
  }

  /// Takes a script's bytes; files that it includes are relative to `folder`.
  init(name: String, _ bytes: [UInt8], folder: String = "") throws(QTScriptError) {
    var parser = QTScriptParser(name: name)
    try parser.parse(bytes, file: name, folder: folder)
    self = parser.finished
  }
}

/// Turns lines into steps. Every limit here keeps a hostile file from taking more than a moment and a few megabytes.
struct QTScriptParser {
  /// A script has no more bytes, with all that it includes.
  static let bytesMax = 16 << 20
  /// A script has no more lines, with all that it includes.
  static let linesMax = 1_000_000
  /// A script includes no more files.
  static let filesMax = 1000
  /// Included files may include others this deep.
  static let includeDepthMax = 16
  /// Repetitions may stand in each other this deep.
  static let repeatDepthMax = 8

  private var script: QTScript
  /// Steps of the repetitions that are open, innermost last; the first are the script's own.
  private var blocks: [[QTScript.Step]] = [[]]
  private var openings: [(place: QTScript.Place, count: Expression, counter: String?)] = []
  /// How many of the openings belong to the files around the one that is being read.
  private var outerCount = 0
  private var names: Set<String> = []
  /// Real paths of the files that are being read, outermost first.
  private var openFiles: [String] = []
  private var lineCount = 0
  private var fileCount = 0
  private var byteCount = 0

  init(name: String) { script = QTScript(name: name) }

  /// The script, once everything is read.
  var finished: QTScript {
    var result = script
    result.steps = blocks[0]
    return result
  }

  static func lastComponent(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  // MARK: Files

  /// Reads a file; `place` is the line that includes it.
  mutating func read(_ path: String, from place: QTScript.Place?) throws(QTScriptError) {
    func failure(_ reason: String) -> QTScriptError {
      place.map { QTScriptError($0, "\(path): \(reason)") } ?? QTScriptError(file: path, reason)
    }
    let bytes: [UInt8]
    do throws(SystemError) { bytes = try Self.contents(path) } catch {
      throw failure("cannot be read (\(SystemError.text(of: error.code)))")
    }
    byteCount += bytes.count
    guard byteCount <= Self.bytesMax else {
      throw failure("has more than \(Self.bytesMax) bytes, with all that it includes")
    }
    let real = realpath(path, nil)
    defer { free(real) }
    let realPath = real.map { String(cString: $0) } ?? path
    guard !openFiles.contains(realPath) else { throw failure("includes itself; leave the @include out") }
    guard openFiles.count <= Self.includeDepthMax else {
      throw failure("is included more than \(Self.includeDepthMax) files deep")
    }
    fileCount += 1
    guard fileCount <= Self.filesMax else { throw failure("is one file more than \(Self.filesMax)") }
    openFiles.append(realPath)
    let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    try parse(bytes, file: Self.lastComponent(path), folder: path.contains("/") ? folder + "/" : "")
    openFiles.removeLast()
  }

  /// The first bytes of a file, one more than may be there.
  private static func contents(_ path: String) throws(SystemError) -> [UInt8] {
    let descriptor = try OwnedDescriptor.open(path, flags: O_RDONLY)
    var result: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while result.count <= bytesMax {
      let count = try HostSystem.checked("read") {
        let result = Glibc.read(descriptor.number, &chunk, chunk.count)
        return result < 0 ? Int(-errno) : result
      }
      if count == 0 { break }
      result += chunk[..<count]
    }
    return result
  }

  /// Parses a whole file; a repetition must end in the file in which it begins.
  mutating func parse(_ bytes: [UInt8], file: String, folder: String) throws(QTScriptError) {
    let outer = outerCount
    outerCount = openings.count
    defer { outerCount = outer }
    var number = 0
    for piece in bytes.split(separator: 10, omittingEmptySubsequences: false) {
      number += 1
      let line = piece.last == 13 ? piece.dropLast() : piece
      guard let text = Self.printable(line) else {
        throw QTScriptError(
          QTScript.Place(file: file, line: number, text: "…"),
          "bytes that are no printable text; a script holds lines of text only")
      }
      let content = QTScript.withoutComment(text[...])
      guard !content.isEmpty else { continue }
      let place = QTScript.Place(file: file, line: number, text: String(content))
      lineCount += 1
      guard lineCount <= Self.linesMax else { throw QTScriptError(place, "more than \(Self.linesMax) lines") }
      let included: String?
      do throws(Expression.Failure) { included = try parse(content, place) } catch {
        throw QTScriptError(place, error.reason)
      }
      if let included { try read(included.hasPrefix("/") ? included : folder + included, from: place) }
    }
    if openings.count > outerCount {
      throw QTScriptError(
        openings[outerCount].place, "the @repeat has no @end; write one after the lines that it repeats")
    }
  }

  /// UTF-8 without control characters other than tabs; nil for anything else.
  private static func printable(_ line: ArraySlice<UInt8>) -> String? {
    guard line.allSatisfy({ $0 >= 32 && $0 != 127 || $0 == 9 }) else { return nil }
    return String(validating: line, as: UTF8.self)
  }
}

// MARK: Lines

extension QTScriptParser {
  /// Takes one line.
  /// - Returns: the path of the file that it includes.
  private mutating func parse(_ text: Substring, _ place: QTScript.Place) throws(Expression.Failure) -> String? {
    guard text.utf8.first == UInt8(ascii: "@") else {
      let (line, expected) = QTScript.splitExpectation(text)
      guard !line.isEmpty else { throw Expression.Failure("there is no request before =>") }
      let request = try checked(try QTScript.request(line))
      let expectation = try expected.map { text throws(Expression.Failure) in
        try checked(try QTScript.expectation(text, verb: request.verb))
      }
      add(.request(request, expectation ?? .any), place)
      return nil
    }
    let (directive, rest) = QTScript.firstWord(text)
    switch directive {
    case "@title": script.title = try something(rest, directive)
    case "@section": script.section = try something(rest, directive)
    case "@machine": script.machineWords += try QTScript.machineWords(rest)
    case "@drive": try addDrive(try QTScript.drive(rest))
    case "@differs": try readDifference(rest)
    case "@include": return try something(rest, directive)
    default: add(try action(directive, rest, place), place)
    }
    return nil
  }

  private mutating func action(
    _ directive: Substring, _ rest: Substring, _ place: QTScript.Place
  ) throws(Expression.Failure) -> QTScript.Step.Action? {
    switch directive {
    case "@set":
      let (name, value) = QTScript.firstWord(rest)
      let expression = try checked(try Expression(parsing: value))
      return .set(try define(name), expression)
    case "@get":
      let (name, text) = QTScript.firstWord(rest)
      let request = try checked(try QTScript.readingRequest(text, directive: "@get NAME"))
      return .get(try define(name), request)
    case "@wait": return try checked(try QTScript.wait(rest))
    case "@pause": return .pause(nanoseconds: try QTScript.nanoseconds(rest))
    case "@repeat":
      try open(rest, place)
      return nil
    case "@end": return try close(rest)
    case "@expect":
      guard rest == "alive" else { throw Expression.Failure("write @expect alive; replies are expected behind =>") }
      return .expectAlive
    default:
      throw Expression.Failure(
        "\(directive) is no directive; there are @title, @section, @machine, @drive, @differs, @set, @get, @wait, @pause, "
          + "@repeat, @end, @include and @expect")
    }
  }

  private mutating func add(_ action: QTScript.Step.Action?, _ place: QTScript.Place) {
    if let action { blocks[blocks.count - 1].append(QTScript.Step(place: place, action: action)) }
  }

  private func something(_ text: Substring, _ directive: Substring) throws(Expression.Failure) -> String {
    guard !text.isEmpty else { throw Expression.Failure("nothing follows \(directive)") }
    return String(text)
  }

  private mutating func addDrive(_ drive: QTScript.Drive) throws(Expression.Failure) {
    guard !script.drives.contains(where: { $0.name == drive.name }) else {
      throw Expression.Failure("there is a drive \(drive.name) already; give it another name")
    }
    script.drives.append(drive)
  }

  private mutating func readDifference(_ text: Substring) throws(Expression.Failure) {
    let (target, reason) = QTScript.firstWord(text)
    guard target == "qemu", !reason.isEmpty else {
      throw Expression.Failure("write @differs qemu and what it does instead")
    }
    script.knownDifference = String(reason)
  }

  // MARK: Repetitions

  private mutating func open(_ text: Substring, _ place: QTScript.Place) throws(Expression.Failure) {
    guard openings.count < Self.repeatDepthMax else {
      throw Expression.Failure("repetitions stand in each other at most \(Self.repeatDepthMax) deep")
    }
    let words = try QTScript.words(text)
    guard words.count == 1 || words.count == 2 else {
      throw Expression.Failure("write @repeat COUNT, or @repeat COUNT NAME")
    }
    let count = try checked(try Expression(parsing: words[0]))
    let counter: String? = words.count == 2 ? try define(words[1]) : nil
    openings.append((place, count, counter))
    blocks.append([])
  }

  private mutating func close(_ text: Substring) throws(Expression.Failure) -> QTScript.Step.Action? {
    guard text.isEmpty else { throw Expression.Failure("nothing may follow @end") }
    guard openings.count > outerCount, let opening = openings.popLast(), let steps = blocks.popLast() else {
      throw Expression.Failure("there is no @repeat in this file for the @end")
    }
    add(.repetition(opening.count, counter: opening.counter, steps), opening.place)
    return nil
  }

  // MARK: Names

  private mutating func define(_ name: Substring) throws(Expression.Failure) -> String {
    let bare = name.utf8.first == UInt8(ascii: "$") ? name.dropFirst() : name
    guard Expression.isName(bare) else {
      throw Expression.Failure("a variable's name is made of letters, digits and _, and does not begin with a digit")
    }
    names.insert(String(bare))
    return String(bare)
  }

  private func checked(_ expression: Expression) throws(Expression.Failure) -> Expression {
    for name in expression.names where !names.contains(name) {
      throw Expression.Failure("$\(name) has no value yet; write @set \(name) VALUE on a line before")
    }
    return expression
  }

  private func checked(_ request: QTScript.Request) throws(Expression.Failure) -> QTScript.Request {
    for case .number(let expression) in request.pieces { _ = try checked(expression) }
    return request
  }

  private func checked(_ expectation: QTScript.Expectation) throws(Expression.Failure) -> QTScript.Expectation {
    guard case .number(let value, let mask) = expectation else { return expectation }
    _ = try checked(value)
    if let mask { _ = try checked(mask) }
    return expectation
  }

  private func checked(_ action: QTScript.Step.Action) throws(Expression.Failure) -> QTScript.Step.Action {
    switch action {
    case .waitForInterrupt(let line, _): _ = try checked(line)
    case .wait(let condition, _):
      _ = try checked(condition.request)
      _ = try checked(condition.value)
      if let mask = condition.mask { _ = try checked(mask) }
    default: break
    }
    return action
  }
}
