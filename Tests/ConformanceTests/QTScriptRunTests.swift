// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Conformance

/// Scripts on a machine of nothing but RAM.
@Suite struct QTScriptRunTests {
  private final class Machine: BuiltinMachine {
    private let server: ScriptedServer
    init(_ answer: @escaping @Sendable (String) -> [String]?) throws { server = try ScriptedServer(answer) }
    func takeSocket() -> OwnedDescriptor { server.takeSocket() }
    func takeMonitorSocket() -> OwnedDescriptor? { nil }
    func end() {}
  }

  private static func run(
    _ text: String, _ answer: (@Sendable (String) -> [String]?)? = nil
  ) throws -> CaseResult {
    let memory = MemoryMachine()
    let answer = answer ?? { line in memory.answer(line).map { [$0 + "\n"] } }
    let launcher = try QTestLauncher(.builtin { _ in try Machine(answer) })
    return QTScriptRun.run(try QTScript(name: "a.qts", Array(text.utf8)), on: launcher)
  }

  @Test(arguments: [
    "", "writel 0x10 0x12345678\nreadl 0x10 => 0x1234_5678", "readb 0 => 0\nfrobnicate", "inl 0xcf8 => 0xff & 0xff",
    "@set a 0x1000\n@set b $a+4\nwriteb $b ($a >> 8)\nreadb 0x1004 => 16", "endianness => \"OK little\"",
    "@repeat 3 i\nwriteb 0x20+$i $i+1\n@end\nreadl 0x20 => 0x030201", "@repeat 0\nvanish\n@end", "frob => OK",
    "writel 0 7\n@get x readl 0\nwritel 4 $x*3\n@wait readl 4 == 21", "@wait inb 0 != 0 & 0xff within 1s",
    "@expect alive", "b64read 0 3 => \"OK AAAA\"", "@pause 1ms",
  ])
  func scriptsThatHoldPass(text: String) throws {
    #expect(try Self.run(text).verdict == .passed)
  }

  @Test(arguments: [
    ("\nreadl 0 => 1", "a.qts:2: readl 0 => 1: expected 0x1, saw \"OK 0x0\""),
    ("inw 0 => 0x10 & 0xf0", "expected 0x10 in the bits 0xf0, saw \"OK 0xffff\""),
    ("endianness => \"OK big\"", "expected the reply \"OK big\", saw \"OK little\""),
    ("readl 0 => FAIL", "expected FAIL"),
    ("endianness => 1", "expected a reply with a number"), ("@wait readl 0 == 1 within 2ms", "last seen 0x0"),
    ("@wait irq 3 within 2ms", "line 3 was not raised"),
    ("@repeat 0\n@set x 1\n@end\nreadl $x", "$x has no value here"),
    ("vanish", "a.qts:1: vanish: the machine closed the connection"),
    ("@repeat 0xffffffffffffffff\n@repeat 0xffffffff\n@end\n@end", "more than it may"),
  ])
  func scriptsThatDoNotHoldSayWhereAndWhatWasSeen(text: String, part: String) throws {
    guard case .failed(let detail) = try Self.run(text).verdict else {
      Issue.record("it passed")
      return
    }
    #expect(detail.contains(part), "\(detail)")
  }

  @Test func bytesAreComparedUnderTheirMask() throws {
    let answer: @Sendable (String) -> [String]? = { $0.hasPrefix("read ") ? ["OK 0x0a0b0c\n"] : ["OK little\n"] }
    #expect(try Self.run("read 0 3 => 0x0a0b_0c\nread 0 3 => 0x0a000c & 0xff00ff", answer).verdict == .passed)
    let result = try Self.run("read 0 3 => 0x0a0bff", answer)
    #expect(result.verdict.detail?.contains("byte 2 of 3: expected 0xff, saw 0xc") == true)
    #expect(try Self.run("read 0 2 => 0x0a0b", answer).verdict.detail?.contains("expected 2 bytes, saw 3") == true)
  }

  @Test func interruptsAreWaitedForAndTaken() throws {
    let steps = Atomic<Int>(0)
    let answer: @Sendable (String) -> [String]? = { line in
      guard line.hasPrefix("clock_step") else { return ["OK little\n"] }
      return steps.add(1, ordering: .relaxed).newValue == 3 ? ["IRQ raise 16\nOK 1\n"] : ["OK 1\n"]
    }
    #expect(try Self.run("@wait irq 16", answer).verdict == .passed)
    #expect(steps.load(ordering: .relaxed) == 3)
    steps.store(0, ordering: .relaxed)
    #expect(try Self.run("@wait irq 16\n@wait irq 16 within 1ms", answer).verdict.detail?.contains("a.qts:2") == true)
  }

  @Test func clockThatMovesByItselfIsLeftAlone() throws {
    let refusals = Atomic<Int>(0)
    let reads = Atomic<Int>(0)
    let answer: @Sendable (String) -> [String]? = { line in
      if line.hasPrefix("clock_step") {
        refusals.add(1, ordering: .relaxed)
        return ["FAIL Unknown command\n"]
      }
      guard line.hasPrefix("readl") else { return ["OK little\n"] }
      return reads.add(1, ordering: .relaxed).newValue == 5 ? ["OK 0x1\n"] : ["OK 0x0\n"]
    }
    #expect(try Self.run("@wait readl 0 == 1", answer).verdict == .passed)
    #expect(refusals.load(ordering: .relaxed) == 1)
  }

  @Test func machineThatIsDeadAtTheEndFailsTheScript() throws {
    let result = try Self.run("readb 0") { $0 == "endianness" ? nil : ["OK 0x0\n"] }
    #expect(result.verdict.detail?.hasPrefix("a.qts:1: after the last line: the machine closed") == true)
  }

  @Test func resultsAreThoseOfCases() throws {
    let folder = try TemporaryFolder()
    for (name, text) in [("a.qts", "@title It reads\nreadb 0 => 0"), ("b.qts", "readb 0 => 1"), ("c.qts", "")] {
      try writeFile(folder.file(name), text)
    }
    let memory = MemoryMachine()
    var options = QTScriptRun.Options(
      target: .builtin { _ in try Machine { line in memory.answer(line).map { [$0 + "\n"] } } })
    options.jobs = 2
    let reported = Atomic<Int>(0)
    let files = ["a.qts", "b.qts", "c.qts", "a.qts"].map { folder.file($0) }
    let results = try QTScriptRun(options).run(files: files) { _ in reported.add(1, ordering: .relaxed) }
    #expect(results.cases.map(\.verdict.word) == ["passed", "failed", "passed", "passed"])
    #expect(reported.load(ordering: .relaxed) == 4)
    #expect(results.text(.tap, version: "1").contains("1..4\nok 1 - a.qts: It reads [script]\nnot ok 2 - b.qts: "))
    #expect(throws: QTScriptError.self) { try QTScriptRun(options).run(files: files + ["/nowhere.qts"]) }
  }

  @Test func machineThatRunsAlreadyIsNotAskedToBeAnother() throws {
    let folder = try TemporaryFolder()
    let launcher: QTestLauncher
    do {
      let listener = try MachineSocket.listen(at: folder.file("qtest"))
      launcher = try QTestLauncher(.socket(folder.file("qtest")))
      let script = try QTScript(name: "a.qts", Array("@machine -m 64".utf8))
      #expect(QTScriptRun.run(script, on: launcher).verdict.word == "skipped")
      _ = consume listener
    }
    // Nobody answers any more.
    #expect(QTScriptRun.run(try QTScript(name: "b.qts", []), on: launcher).verdict.word == "failed")
  }
}

/// The scripts beside this file on real machines.
@Suite struct QTScriptExampleTests {
  static let folder =
    "\(#filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/"))/Scripts"

  static let files: [String] = {
    guard let listing = opendir(folder) else { return [] }
    defer { closedir(listing) }
    var names: [String] = []
    while let entry = readdir(listing) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name.hasSuffix(".qts") { names.append(name) }
    }
    return names.sorted()
  }()

  /// Our own program with QEMU's command line; it is built beside the tests.
  static let frontEnd: String = {
    var path = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &path, path.count)
    let bytes = path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
    let parts = String(decoding: bytes, as: UTF8.self).split(separator: "/").dropLast()
    return "/" + parts.joined(separator: "/") + "/qemu/qemu-system-x86_64"
  }()
  static var hasFrontEnd: Bool { access(frontEnd, X_OK) == 0 }

  private static func run(_ files: [String], on program: String) throws -> ConformanceResults {
    var options = QTScriptRun.Options(target: .command([program]))
    options.jobs = 2
    return try QTScriptRun(options).run(files: files.map { "\(folder)/\($0)" })
  }

  private static func failures(of results: ConformanceResults) -> [String] {
    results.cases.filter { $0.verdict.isFailure }.map { "\($0.testCase.id): \($0.verdict.detail ?? "")" }
  }

  @Test func thereAreScriptsAndAllAreWellFormed() throws {
    #expect(Self.files.count >= 10)
    for name in Self.files { _ = try QTScript(contentsOf: "\(Self.folder)/\(name)") }
  }

  @Test(.enabled(if: RefereeTests.isInstalled)) func allScriptsHoldOnQEMUButForTheKnownDifferences() throws {
    let failures = Self.failures(of: try Self.run(Self.files, on: RefereeTests.program))
    #expect(failures == [])
  }

  @Test(.enabled(if: hasFrontEnd)) func allScriptsHoldOnOurOwnProgram() throws {
    let results = try Self.run(Self.files, on: Self.frontEnd)
    #expect(Self.failures(of: results) == [])
    #expect(results.passedCount == Self.files.count)
  }

  @Test(.enabled(if: hasFrontEnd)) func linesOnStandardInputAreAnsweredOnStandardOutput() throws {
    let folder = try TemporaryFolder()
    try writeFile(
      folder.file("lines"),
      """
      outl 0xcf8 0x8000fa00
      inl 0xcfc
      outl 0xcf8 0x8000fa24
      outl 0xcfc 0xe0000000
      outl 0xcf8 0x8000fa04
      outw 0xcfc 0x7
      write 0x1000 0x4 0x01020304
      readl 0x1000
      frobnicate
      clock_step 100

      """)
    // What a person types: the command line, and the lines on standard input.
    let process = try ChildProcess(
      [
        "sh", "-c", "exec \"$0\" \"$@\" <\(folder.path)/lines 2>\(folder.path)/errors", Self.frontEnd, "-machine",
        "q35,accel=qtest", "-nodefaults", "-display", "none", "-drive", "file=null-co://,if=none,format=raw,id=disk0",
        "-device", "ide-hd,drive=disk0", "-qtest", "stdio",
      ], outputPath: folder.file("replies"))
    #expect(process.waitForEnd(milliseconds: 20_000))
    #expect(process.epitaph?.contains("exited with status 0") == true)
    let replies = String(decoding: try readWholeFile(folder.file("replies")), as: UTF8.self).split(separator: "\n")
    #expect(
      replies == [
        "OK", "OK 0x29228086", "OK", "OK", "OK", "OK", "OK", "OK 0x0000000004030201",
        "FAIL Unknown command 'frobnicate'",
        "OK 100",
      ])
  }
}
