// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Conformance

/// Counts the machines that were made and ended.
private final class MachineCount: Sendable {
  let made = Atomic<Int>(0)
  let ended = Atomic<Int>(0)
}

private final class FakeMachine: BuiltinMachine {
  private let server: ScriptedServer
  private let count: MachineCount

  init(_ count: MachineCount) throws {
    server = try MemoryMachine().makeServer()
    self.count = count
    count.made.add(1, ordering: .relaxed)
  }

  func takeSocket() -> OwnedDescriptor { server.takeSocket() }
  func takeMonitorSocket() -> OwnedDescriptor? { nil }
  func end() { count.ended.add(1, ordering: .relaxed) }
}

@Suite struct RunTests {
  private static func options(_ cases: [ConformanceCase], _ count: MachineCount) -> ConformanceRun.Options {
    var options = ConformanceRun.Options(target: .builtin { _ in try FakeMachine(count) })
    options.cases = cases
    options.differences = []
    return options
  }

  private static func one(
    _ id: String, shares: Bool = false, _ body: @escaping @Sendable (CaseContext) throws -> Void
  ) -> ConformanceCase {
    ConformanceCase(id, "a title", "§1", .bare, shares: shares, body)
  }

  @Test func noCasePassesWhereThereIsNoDevice() throws {
    // The machine is the same whatever a case wants, so nobody needs to write images for it.
    let cases = ConformanceSuites.all.map { one in
      var bare = one
      bare.machine = .bare
      return bare
    }
    let results = try ConformanceRun(Self.options(cases, MachineCount())).run()
    #expect(results.cases.filter { $0.verdict == .passed }.map(\.testCase.id) == [])
    // What a machine must have is missing, which is no reason to leave a case out.
    let withoutMonitor = Set(ConformanceSuites.all.filter { !$0.machine.needsMonitor }.map(\.id))
    let skipped = results.cases.map { $0.verdict.isFailure ? "" : $0.testCase.id }.filter(withoutMonitor.contains)
    #expect(skipped == ["pci/msi-keeps-message"])
  }

  private static let failing = one("virtio/fails") { try $0.expect(UInt8(2), 1, "the byte") }

  @Test func verdictsAreThoseOfTheBodies() throws {
    let count = MachineCount()
    let cases = [
      Self.one("pci/passes") { try $0.expect($0.bus.ramRead8(0), 0, "RAM") }, Self.failing,
      Self.one("ata/skips") { try $0.skip("no disk") },
    ]
    let results = try ConformanceRun(Self.options(cases, count)).run()
    #expect(
      results.cases.map(\.verdict) == [.passed, .failed("the byte: expected 0x1, saw 0x2"), .skipped("no disk")])
    #expect((results.passedCount, results.failedCount, results.skippedCount) == (1, 1, 1))
    #expect(!results.isGood)
    #expect(count.made.load(ordering: .relaxed) == 3)
    #expect(count.ended.load(ordering: .relaxed) == 3)
  }

  @Test func casesThatShareRunOnOneMachineUntilOneFails() throws {
    let count = MachineCount()
    let good: @Sendable (CaseContext) throws -> Void = { _ in }
    let cases = [
      Self.one("pci/1", shares: true, good), Self.one("pci/2", shares: true, good),
      Self.one("pci/3", shares: true) { _ in throw ConformanceFailure("bad") }, Self.one("pci/4", shares: true, good),
    ]
    let results = try ConformanceRun(Self.options(cases, count)).run()
    #expect(results.failedCount == 1)
    #expect(count.made.load(ordering: .relaxed) == 2)
    #expect(count.ended.load(ordering: .relaxed) == 2)
  }

  @Test func machineThatVanishesFailsItsCaseAndNoOther() throws {
    let cases = [
      Self.one("pci/1", shares: true) { context in
        _ = try? context.bus.client.send(line: "vanish")
        try context.expect(context.bus.ramRead8(0), 0, "RAM")
      }, Self.one("pci/2", shares: true) { try $0.expect($0.bus.ramRead8(0), 0, "RAM") },
    ]
    let results = try ConformanceRun(Self.options(cases, MachineCount())).run()
    #expect(results.cases.map(\.verdict.word) == ["failed", "passed"])
    #expect(results.cases[0].verdict.detail?.contains("closed the connection") == true)
  }

  @Test func machineThatCannotBeMadeIsTheReason() throws {
    struct NoMachine: Error {}
    var options = ConformanceRun.Options(target: .builtin { _ in throw NoMachine() })
    options.cases = [Self.failing]
    let results = try ConformanceRun(options).run()
    #expect(results.cases[0].verdict.detail?.contains("could not be made") == true)
  }

  @Test func differencesAreExpectedAndMissed() throws {
    var options = Self.options([Self.failing, Self.one("virtio/passes") { _ in }], MachineCount())
    options.differences = [
      KnownDifference("virtio/fails", .other, "it is so"), KnownDifference("virtio/passes", .other, "it was so"),
      KnownDifference("virtio/passes", .qemu, "somebody else's"),
    ]
    let results = try ConformanceRun(options).run()
    #expect(
      results.cases.map(\.verdict) == [
        .knownDifference("it is so", seen: "the byte: expected 0x1, saw 0x2"), .missingDifference("it was so"),
      ])
    #expect((results.passedCount, results.failedCount, results.differenceCount) == (1, 1, 1))
  }

  @Test func manyJobsGiveTheSameResultsInOrder() throws {
    let cases = (0..<40).map { number in
      Self.one("pci/\(number)") { context in
        guard number % 3 != 0 else { throw ConformanceFailure("\(context.random.next())") }
      }
    }
    var options = Self.options(cases, MachineCount())
    let single = try ConformanceRun(options).run()
    options.jobs = 4
    let reported = Atomic<Int>(0)
    let several = try ConformanceRun(options).run { _ in reported.add(1, ordering: .relaxed) }
    #expect(several.cases.map(\.verdict) == single.cases.map(\.verdict))
    #expect(reported.load(ordering: .relaxed) == 40)
    options.seed = 2
    #expect(try ConformanceRun(options).run().cases.map(\.verdict) != single.cases.map(\.verdict))
  }

  @Test func machineThatRunsAlreadyServesOnlyCasesThatShare() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("qtest")
    let listener = try MachineSocket.listen(at: path)
    let machine = MemoryMachine()
    let number = dup(listener.number)
    let server = try HostThread(name: "server") {
      let listener = OwnedDescriptor(taking: number)
      guard let socket = try? MachineSocket.accept(listener, milliseconds: 20_000) else { return }
      var chunk = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = recv(socket.number, &chunk, chunk.count, 0)
        guard count > 1, let reply = machine.answer(String(decoding: chunk[..<(count - 1)], as: UTF8.self)) else {
          return
        }
        _ = send(socket.number, reply + "\n", reply.utf8.count + 1, 0)
      }
    }
    var options = ConformanceRun.Options(target: .socket(path))
    options.cases = [
      Self.one("pci/shares", shares: true) { try $0.expect($0.bus.ramRead8(0), 0, "RAM") },
      Self.one("pci/alone") { _ in },
    ]
    options.jobs = 4
    let results = try ConformanceRun(options).run()
    server.join()
    #expect(results.cases.map(\.verdict.word) == ["passed", "skipped"])
  }

  @Test func filtersChooseByPartsOfIDs() {
    var options = ConformanceRun.Options(target: .socket("/nowhere"))
    options.filters = ["ahci/", "get-id"]
    let subjects = Set(options.chosen.map { $0.id.split(separator: "/")[0] })
    #expect(subjects == ["ahci", "virtio"])
    options.machine = .virtioSerial
    #expect(options.chosen.map(\.id) == ["virtio/get-id", "virtio/get-id-lengths"])
    options.filters = ["nothing of this name"]
    #expect(options.chosen.isEmpty)
  }

  @Test func formatsHoldAllResults() throws {
    let results = ConformanceResults(
      kind: .other, seed: 7,
      cases: [
        CaseResult(testCase: Self.one("pci/1") { _ in }, verdict: .passed, seconds: 0.25),
        CaseResult(testCase: Self.failing, verdict: .failed("a < b & \"c\""), seconds: 1),
        CaseResult(testCase: Self.one("ata/3") { _ in }, verdict: .skipped("none"), seconds: 0),
      ])
    let tap = results.text(.tap, version: "1")
    #expect(tap.hasPrefix("TAP version 13\n1..3\nok 1 - pci/1: a title [§1]\nnot ok 2 - virtio/fails"))
    #expect(tap.contains("ok 3 - ata/3: a title [§1] # SKIP none"))
    let junit = results.text(.junit, version: "1")
    #expect(junit.contains(#"tests="3" failures="1" skipped="1" time="1.250""#))
    #expect(junit.contains("a &lt; b &amp; &quot;c&quot;"))
    let json = results.text(.json, version: "1.2")
    for part in [#""schema" : 1"#, #""spindle" : "1.2""#, #""passed" : 1"#, #""failed" : 1"#, #""seed" : 7"#] {
      #expect(json.contains(part))
    }
    #expect(
      results.text(.text, version: "1").contains(
        "3 cases: 1 passed (0 of them by a known difference), 1 failed, 1 skipped; seed 7"))
  }
}

@Suite struct TargetTests {
  @Test func processThatDiesEarlyGivesItsErrorText() throws {
    let launcher = try QTestLauncher(.command(["sh", "-c", "echo no such machine >&2; exit 3"]))
    #expect(launcher.kind == .other)
    do {
      _ = try launcher.launch([])
      Issue.record("it started")
    } catch {
      #expect(error.kind == .notRunning)
      #expect(error.description.contains("exited with status 3; it wrote: no such machine"))
    }
  }

  @Test func onlyAProgramThatBeginsAsQEMUDoesIsQEMU() throws {
    func kind(_ version: String) throws -> TargetKind {
      try QTestLauncher(.command(["sh", "-c", "[ $1 = -accel ] && echo qtest || echo \"\(version)\"", "sh"])).kind
    }
    #expect(try kind("QEMU emulator version 7.2.0") == .qemu)
    #expect(try kind("A command line after QEMU emulator version 7.2.0") == .other)
  }

  @Test func imagesAreWrittenForAMachineOfSomebodyElse() throws {
    let folder = try TemporaryFolder()
    let words = try MachineKind.virtioStop.prepare(inFolder: folder.path)
    #expect(words.contains { $0.contains("file=blkdebug:\(folder.path)/faults:\(folder.path)/disk0,") })
    #expect(try readWholeFile("\(folder.path)/disk0").count == Int(MachineKind.diskBytes))
    #expect(throws: TransportError.self) { try MachineKind.ahci.prepare(inFolder: "\(folder.path)/nothing") }
  }

  @Test func programThatIsMissingIsReported() {
    #expect(throws: TransportError.self) { try QTestLauncher(.command(["/nowhere/qemu-system-x86_64"])) }
    #expect(throws: TransportError.self) { try QTestLauncher(.command([])) }
  }

  @Test func socketThatNobodyListensAtIsReported() throws {
    // Before any case is run.
    #expect(throws: TransportError.self) { try QTestLauncher(.socket("/nowhere/qtest")) }
    #expect(throws: TransportError.self) { try QTestLauncher(.socket(String(repeating: "x", count: 200))) }
  }

  @Test func whatAProcessWritesIsOneLineThatATerminalCanTake() throws {
    let launcher = try QTestLauncher(
      .command(["sh", "-c", "[ $1 = --version ] || printf 'two\\r\\nlines \\033[31m\\001\\n' >&2; exit 3", "sh"]))
    do {
      _ = try launcher.launch([])
      Issue.record("it started")
    } catch {
      #expect(error.description.hasSuffix("it wrote: two; lines ?[31m?"))
    }
  }

  @Test func processIgnoringSIGTERMIsKilledAndTheFolderIsRemoved() throws {
    var path = ""
    do {
      let folder = try TemporaryFolder()
      path = folder.path
      let child = try ChildProcess(
        ["sh", "-c", "trap '' TERM; echo ready; exec sleep 600"], outputPath: folder.file("out"))
      while child.output != "ready" { usleep(1000) }
      child.end(graceMilliseconds: 50)
      #expect(!child.isRunning)
    }
    #expect(access(path, F_OK) != 0)
  }
}

@Suite struct SuiteTests {
  @Test func idsAreUniqueAndNameTheirSubject() {
    let cases = ConformanceSuites.all
    #expect(cases.count >= 150)
    #expect(Set(cases.map(\.id)).count == cases.count)
    let subjects: Set<Substring> = ["pci", "ahci", "ata", "atapi", "virtio", "loop"]
    for one in cases {
      #expect(subjects.contains(one.id.split(separator: "/")[0]), "\(one.id)")
      #expect(!one.title.isEmpty && !one.section.isEmpty, "\(one.id)")
    }
  }

  @Test func differencesNameCases() {
    let ids = Set(ConformanceSuites.all.map(\.id))
    for one in ConformanceSuites.differences { #expect(ids.contains(one.caseID), "\(one.caseID)") }
  }

  /// Rows that no guest behind a qtest socket provokes: 10 packed rings, which nobody offers; 11 and 18 a second
  /// processor at the right moment; 32 a restart of the machine; 33 two loops of one device.
  private static let outOfReach: Set<Int> = [10, 11, 18, 32, 33]

  @Test func everyKnownFailureInReachIsNamed() {
    var named: Set<Int> = []
    for one in ConformanceSuites.all {
      let words = one.section.split { $0 == " " || $0 == "," || $0 == ";" }
      guard let start = words.lastIndex(where: { $0.hasPrefix("failure") }) else { continue }
      let numbers = words[(start + 1)...].filter { !$0.contains("CVE") }.compactMap { Int($0) }
      named.formUnion(numbers)
      if words.dropFirst(start + 1).contains("to"), numbers.count == 2 { named.formUnion(numbers[0]...numbers[1]) }
    }
    let missing = Set(1...52).subtracting(named).subtracting(Self.outOfReach)
    #expect(missing.isEmpty, "rows \(missing.sorted())")
  }
}
