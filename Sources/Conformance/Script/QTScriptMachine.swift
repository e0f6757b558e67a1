// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

// The machine of a script: option words as people write them for a shell, and scratch images.
extension QTScript {
  /// A scratch image is no larger; it is sparse.
  static let imageBytesMax: UInt64 = 1 << 43
  private static let sectorBytes: UInt64 = 512
  /// Options about who runs the machine and who talks to it, which the runner decides, and how many values follow them.
  private static let runnersOptions = [
    "-qtest": 1, "-qtest-log": 1, "-accel": 1, "-display": 1, "-enable-kvm": 0, "-nographic": 0, "-nodefaults": 0,
  ]

  /// Whether the script says what the machine has.
  var describesMachine: Bool { !machineWords.isEmpty || !drives.isEmpty }

  // MARK: Reading

  /// The words of a command line, with quotes as in a shell, without those that the runner decides.
  static func machineWords(_ text: Substring) throws(Failure) -> [String] {
    var words = try shellWords(text)
    if words.last == "\\" { words.removeLast() }
    if words.first.map({ !$0.hasPrefix("-") && $0.containsText("qemu-system-") }) == true { words.removeFirst() }
    var kept: [String] = []
    var index = 0
    while index < words.count {
      let word = words[index].hasPrefix("--") ? String(words[index].dropFirst()) : words[index]
      guard let valueCount = runnersOptions[word] else {
        kept.append(words[index])
        index += 1
        continue
      }
      index += 1 + valueCount
    }
    return withoutAccelerators(kept)
  }

  /// What runs the machine may also be a part of its type.
  private static func withoutAccelerators(_ words: [String]) -> [String] {
    var kept: [String] = []
    for word in words {
      guard let option = kept.last, ["-M", "-machine", "--machine"].contains(option) else {
        kept.append(word)
        continue
      }
      let keys = word.split(separator: ",").filter { !$0.hasPrefix("accel=") }
      if keys.isEmpty { kept.removeLast() } else { kept.append(keys.joined(separator: ",")) }
    }
    return kept
  }

  private static func shellWords(_ text: Substring) throws(Failure) -> [String] {
    var words: [String] = []
    var word: [UInt8]?
    var quote: UInt8?
    for byte in text.utf8 {
      if let open = quote {
        if byte == open { quote = nil } else { word?.append(byte) }
      } else if byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\"") {
        quote = byte
        word = word ?? []
      } else if isBlank(byte) {
        if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
        word = nil
      } else {
        guard !"<>|;&`".utf8.contains(byte) else {
          throw Failure("a shell's \(Character(UnicodeScalar(byte))) has no meaning here; leave it out or quote it")
        }
        word = (word ?? []) + [byte]
      }
    }
    guard quote == nil else { throw Failure("a closing quote is missing") }
    if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
    return words
  }

  /// A scratch image, after `@drive`.
  static func drive(_ text: Substring) throws(Failure) -> Drive {
    let words = try words(text)
    guard words.count >= 2 else { throw Failure("write @drive NAME SIZE, such as @drive disk0 64M") }
    guard Expression.isName(words[0]) else { throw Failure("a drive's name is made of letters, digits and _") }
    let more = words.dropFirst(2)
    let keys = more.filter { $0 != "pattern" }
    for key in keys where !key.utf8.contains(UInt8(ascii: "=")) || key.hasPrefix("file=") || key.hasPrefix("id=") {
      throw Failure("\(key) is no key of -drive that is free here; write pattern, or KEY=VALUE such as werror=report")
    }
    return Drive(
      name: String(words[0]), byteCount: try imageSize(words[1]), hasPattern: more.contains("pattern"),
      keys: keys.map { "," + $0 }.joined())
  }

  private static func imageSize(_ text: Substring) throws(Failure) -> UInt64 {
    let units: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
    let shift = text.last.flatMap { units[$0] } ?? 0
    let number = Expression.number(shift == 0 ? text : text.dropLast()) ?? 0
    let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
    guard !overflow, bytes > 0, bytes <= imageBytesMax, bytes.isMultiple(of: sectorBytes) else {
      throw Failure("\"\(text.prefix(20))\" is no size from 512 to 8T in sectors of 512; write 64M")
    }
    return bytes
  }

  // MARK: Making

  /// Writes the scratch images into `folder`.
  /// - Returns: the option words of the machine.
  func prepare(in folder: TemporaryFolder) throws(TransportError) -> [String] {
    var words = ["-nodefaults"]
    if !hasOption("-M", "-machine") { words += ["-M", "q35"] }
    if !hasOption("-m") { words += ["-m", "\(MachineKind.memoryBytes >> 20)"] }
    for drive in drives {
      let path = folder.file(drive.name)
      let patternBytes = drive.hasPattern ? min(drive.byteCount, MachineKind.patternSectors * Self.sectorBytes) : 0
      do {
        try writeWholeFile(path, MachineKind.pattern(0..<patternBytes))
      } catch {
        throw TransportError(.system, "\(path): \(error)")
      }
      guard truncate(path, Int(drive.byteCount)) == 0 else {
        throw TransportError(.system, "truncate \(path): \(SystemError.text(of: errno))")
      }
      let interface = drive.keys.containsText(",if=") ? "" : ",if=none"
      words += ["-drive", "file=\(path),format=raw,id=\(drive.name)\(interface)\(drive.keys)"]
    }
    return words + machineWords
  }

  private func hasOption(_ names: String...) -> Bool {
    machineWords.contains { word in names.contains(word) || names.contains(String(word.dropFirst())) }
  }
}
