// SPDX-License-Identifier: Apache-2.0
// blkdebug: rules as QEMU's test programs write them, and what they do.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import Block

@Suite struct DebugRuleTextTests {
  @Test func aFileAsTestProgramsWriteItIsRead() throws {
    let text = """
      [inject-error]
      event = "write_aio"
      errno = "5"
      state = "1"
      immediately = "off"
      once = "on"
      [set-state]
      event = "write_aio"
      state = "1"
      new_state = "2"

      """
    var injection = DebugRule.Injection()
    injection.once = true
    let expected = [
      DebugRule(.writeAIO, state: 1, .injectError(injection)), DebugRule(.writeAIO, state: 1, .setState(2)),
    ]
    #expect(try DebugRule.parse(text, file: "rules") == expected)
    #expect(try DebugRule.parse(text.replacing("\n", with: "\r\n"), file: "rules") == expected)
    let file = try TemporaryFile(Array(text.utf8))
    #expect(try DebugRule.read(path: file.path) == expected)
  }

  @Test func everyKeyHasItsDefaultAndItsPlace() throws {
    let rules = try DebugRule.parse(
      """
      # a comment
      [inject-error "first"]
        event = none
      [inject-error]
      event="l2_load"
      errno = "28"
      immediately = "on"
      sector = "17"
      iotype = "write-zeroes"
      delay-ns = "250"
      """, file: "f")
    var second = DebugRule.Injection()
    second.code = ENOSPC
    second.immediately = true
    second.sector = 17
    second.operations = .writeZeroes
    second.delayNs = 250
    #expect(rules == [DebugRule(DebugEvent.none, .injectError(.init())), DebugRule(nil, .injectError(second))])
    #expect(try DebugRule.parse("[inject-error]\nevent = \"none\"\nsector = \"-1\"", file: "f").count == 1)
    #expect(try DebugRule.parse("", file: "f").isEmpty)
  }

  @Test(arguments: [
    ("event = \"none\"", "f, line 1: 'event = \"none\"' stands before any section"),
    ("\n[suspend]", "f, line 2: '[suspend]': there are only [inject-error] and [set-state]"),
    ("[inject-error", "'[inject-error': there are only"), ("[inject-error]\nevent", "f, line 2: 'event' is not of the"),
    ("[inject-error]\nevent = \"none", "quotation mark too few"), ("[inject-error]\nevent =", "too few"),
    ("[inject-error]\nevent = \"reads\"", "f, line 2: event 'reads' is unknown; those that happen here are none, read"),
    ("[inject-error]\nerrno = \"EIO\"", "errno 'EIO' is not a whole number from 0 to 4095"),
    ("[inject-error]\nerrno = \"5\"\n\n[set-state]", "f, line 1: [inject-error] has no event"),
    ("[inject-error]\nonce = \"maybe\"", "once 'maybe' is neither on nor off"),
    ("[inject-error]\niotype = \"trim\"", "iotype 'trim' is unknown; choose one of read, write"),
    ("[inject-error]\ndelay-ns = \"-1\"", "delay-ns '-1' is not a whole number from 0 to 3600000000000"),
    ("[inject-error]\nsector = \"-2\"", "sector '-2' is not"), ("[inject-error]\nnew_state = \"2\"", "no 'new_state'"),
    ("[set-state]\nevent = \"none\"", "f, line 1: [set-state] has no new_state"),
    ("[set-state]\nnew_state = \"1\"\nnew_state = \"1\"", "f, line 3: new_state is given twice"),
    ("[set-state]\nerrno = \"1\"", "[set-state] has no 'errno'; there are event, state, new_state"),
  ])
  func mistakeIsNamedWithItsLine(text: String, part: String) throws {
    let error = try #require(throws: DebugRuleError.self) { try DebugRule.parse(text, file: "f") }
    #expect(error.description.contains(part), "\(error)")
    #expect(!error.description.contains("\n"))
  }

  @Test func aFileThatIsNotThereIsNamed() throws {
    let error = try #require(throws: DebugRuleError.self) { try DebugRule.read(path: "/nonexistent/rules") }
    #expect(error.description == "/nonexistent/rules: No such file or directory")
  }

  @Test func optionsAreRulesToo() throws {
    let rules = try DebugRule.parse(options: [
      ("set-state.0.event", "write_aio"), ("inject-error.1.event", "flush_to_disk"), ("driver", "blkdebug"),
      ("inject-error.0.event", "write_aio"), ("set-state.0.new_state", "3"), ("inject-error.1.errno", "28"),
    ])
    var second = DebugRule.Injection()
    second.code = ENOSPC
    #expect(
      rules == [
        DebugRule(.writeAIO, .injectError(.init())), DebugRule(.flushToDisk, .injectError(second)),
        DebugRule(.writeAIO, .setState(3)),
      ])
    let error = try #require(throws: DebugRuleError.self) {
      try DebugRule.parse(options: [("inject-error.7.event", "x")])
    }
    #expect(error.description.hasPrefix("inject-error.7: event 'x' is unknown"))
    #expect(DebugRule.isOption("inject-error.0.event") && !DebugRule.isOption("inject-error.x.event"))
  }
}

@Suite struct DebugDriverTests {
  private final class Kit {
    let loop: EventLoop
    let lower = HeldDriver()
    let driver: DebugDriver
    let backend: BlockBackend
    let client = TestClient()

    init(_ rules: String) throws {
      loop = try EventLoop(name: "test")
      driver = DebugDriver(over: lower, rules: try DebugRule.parse(rules, file: "rules"), loop: loop)
      backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    }

    /// Serves one request to its end.
    func run(_ operation: BlockOperation, sector: UInt64 = 0, bytes: Int = 512) -> Int32 {
      let request = TestRequest(
        operation, offset: sector * 512, pieces: operation == .flush ? [] : [bytes], client: client)
      backend.submit(request.pointer)
      lower.completeAll()
      backend.drain()
      return request.pointer.pointee.result
    }
  }

  private static func rules(_ event: String, _ more: String) -> String {
    "[inject-error]\nevent = \"\(event)\"\n\(more)\n"
  }

  @Test(arguments: [("write_aio", BlockOperation.write), ("flush_to_disk", .flush)])
  func theFirstOneFailsAndLaterOnesPass(event: String, operation: BlockOperation) throws {
    let kit = try Kit(
      Self.rules(event, "errno = \"5\"\nstate = \"1\"\nimmediately = \"off\"\nonce = \"on\"")
        + "[set-state]\nevent = \"\(event)\"\nstate = \"1\"\nnew_state = \"2\"")
    #expect(kit.run(.read) == 0)
    #expect(kit.driver.state == 1)
    #expect(kit.run(operation) == -EIO)
    #expect(kit.driver.state == 2)
    #expect(kit.run(operation) == 0)
    #expect(kit.run(operation) == 0)
  }

  @Test func aRuleThatIsNotForOnceStaysActiveForAllKindsOfRequests() throws {
    let kit = try Kit(Self.rules("write_aio", "errno = \"28\""))
    #expect(kit.run(.read) == 0)
    #expect(kit.run(.write) == -ENOSPC)
    #expect(kit.run(.read) == -ENOSPC)
    #expect(kit.run(.discard) == -ENOSPC)
  }

  @Test func iotypeAndSectorNarrowARule() throws {
    let kit = try Kit(Self.rules("none", "sector = \"8\"\niotype = \"read\""))
    #expect(kit.run(.read, sector: 7) == 0)
    #expect(kit.run(.read, sector: 7, bytes: 1024) == -EIO)
    #expect(kit.run(.read, sector: 8) == -EIO)
    #expect(kit.run(.read, sector: 9) == 0)
    #expect(kit.run(.write, sector: 8) == 0)
    #expect(kit.run(.flush) == 0)
  }

  @Test func injectionsOfALaterEventTakeThePlaceOfEarlierOnes() throws {
    let kit = try Kit(
      Self.rules("read_aio", "errno = \"5\"\niotype = \"write\"")
        + Self.rules("flush_to_os", "errno = \"28\"\niotype = \"write\""))
    #expect(kit.run(.read) == 0)
    #expect(kit.run(.write) == -EIO)
    #expect(kit.run(.flush) == 0)
    #expect(kit.run(.write) == -ENOSPC)
  }

  @Test func theErrorNumberZeroIsNoError() throws {
    let kit = try Kit(Self.rules("none", "errno = \"0\""))
    #expect(kit.run(.write) == 0)
  }

  @Test(arguments: ["pwritev_zero", "pwritev_done"]) func zeroesHaveTheirEvents(event: String) throws {
    let kit = try Kit(Self.rules(event, "iotype = \"read\""))
    #expect(kit.run(.read) == 0)
    #expect(kit.run(.writeZeroes) == 0)
    #expect(kit.run(.read) == -EIO)
  }

  @Test func aFailedRequestReachesTheDiskWhenItIsTriedAgain() throws {
    let kit = try Kit(Self.rules("write_aio", "once = \"on\""))
    #expect(kit.run(.write) == -EIO)
    #expect(kit.run(.write) == 0)
    #expect(kit.backend.statistics.writes == 1 && kit.backend.statistics.errors == 1)
  }

  @Test func aDelayedRequestWaitsAndGoesToTheDisk() throws {
    let kit = try Kit(Self.rules("none", "errno = \"0\"\niotype = \"read\"\ndelay-ns = \"2000000\""))
    let start = HostClock.nanoseconds
    let request = TestRequest(.read, pieces: [512], client: kit.client)
    kit.backend.submit(request.pointer)
    #expect(kit.lower.held.isEmpty)
    while kit.lower.held.isEmpty { kit.loop.runOnce(mayBlock: true) }
    #expect(HostClock.nanoseconds >= start + 2_000_000)
    kit.lower.completeAll()
    #expect(kit.client.results == [0])
  }

  @Test func aDelayedRequestCanFailAndIsHurriedByADrain() throws {
    // An hour: nobody waits for that.
    let kit = try Kit(Self.rules("none", "errno = \"28\"\ndelay-ns = \"3600000000000\""))
    #expect(kit.run(.write) == -ENOSPC)
    #expect(kit.lower.held.isEmpty)
  }

  // MARK: Breakpoints

  private func submit(_ kit: Kit, _ operation: BlockOperation) -> TestRequest {
    let request = TestRequest(operation, pieces: operation == .flush ? [] : [512], client: kit.client)
    kit.backend.submit(request.pointer)
    return request
  }

  @Test(arguments: [
    ("read_aio", BlockOperation.read), ("write_aio", .write), ("pwritev", .write), ("pwritev_zero", .writeZeroes),
    ("flush_to_os", .flush), ("flush_to_disk", .flush),
  ])
  func aBreakpointHoldsTheNextRequestOfItsEventOnly(event: String, operation: BlockOperation) throws {
    let kit = try Kit("")
    var told = 0
    #expect(kit.driver.setBreakpoint(at: try #require(DebugEvent(rawValue: event)), tag: "a"))
    kit.driver.whenHeld(tag: "a") { told += 1 }
    _ = submit(kit, .discard)
    #expect(kit.lower.held.count == 1 && told == 0)
    let held = submit(kit, operation)
    #expect(kit.lower.held.count == 1 && told == 1)
    _ = submit(kit, operation)
    #expect(kit.lower.held.count == 2)
    kit.driver.whenHeld(tag: "a") { told += 1 }
    #expect(told == 2)
    #expect(!kit.driver.resume(tag: "b"))
    #expect(kit.driver.resume(tag: "a"))
    #expect(kit.lower.held.last == held.pointer)
    #expect(!kit.driver.resume(tag: "a"))
    kit.lower.completeAll()
    #expect(kit.client.results == [0, 0, 0])
  }

  @Test func rulesActOnARequestAfterItsBreakpoint() throws {
    let kit = try Kit(Self.rules("pwritev", "errno = \"28\"\nonce = \"on\""))
    #expect(kit.driver.setBreakpoint(at: .writeAIO, tag: "a"))
    let held = submit(kit, .write)
    #expect(submit(kit, .write).pointer.pointee.result == -ENOSPC)
    #expect(kit.driver.resume(tag: "a"))
    #expect(kit.lower.held == [held.pointer])
    kit.lower.completeAll()
    kit.backend.drain()
  }

  @Test func breakpointsOfANameAreTakenAwayTogether() throws {
    let kit = try Kit("")
    for event in [DebugEvent.readAIO, .writeAIO, .writeAIO] { #expect(kit.driver.setBreakpoint(at: event, tag: "a")) }
    for _ in 0..<2 { _ = submit(kit, .write) }
    #expect(kit.lower.held.isEmpty)
    #expect(kit.driver.removeBreakpoints(tag: "a"))
    #expect(kit.lower.held.count == 2)
    _ = submit(kit, .read)
    #expect(kit.lower.held.count == 3)
    #expect(!kit.driver.removeBreakpoints(tag: "a"))
    kit.lower.completeAll()
  }

  @Test(arguments: [DebugEvent.none, .pwritevDone]) func noRequestIsHeldWhereNoneComesBy(event: DebugEvent) throws {
    #expect(try !Kit("").driver.setBreakpoint(at: event, tag: "a"))
  }

  @Test func aDrainLetsGoOfWhatIsHeld() throws {
    let kit = try Kit("")
    #expect(kit.driver.setBreakpoint(at: .writeAIO, tag: "a") && kit.driver.setBreakpoint(at: .writeAIO, tag: "b"))
    let held = submit(kit, .write)
    kit.backend.drainBegan()
    #expect(kit.lower.held == [held.pointer])
    // What comes meanwhile is not held either.
    _ = submit(kit, .write)
    #expect(kit.lower.held.count == 2)
    kit.lower.completeAll()
    kit.backend.drainEnded()
    _ = submit(kit, .write)
    #expect(kit.lower.held.isEmpty)
    kit.backend.drainBegan()
    kit.lower.completeAll()
  }

  @Test func whatIsHeldNeverReachesTheDiskOnceItsDeviceHasGivenUp() throws {
    let kit = try Kit("")
    var errors = 0
    kit.backend.onError = { _, _, _ in errors += 1 }
    #expect(kit.driver.setBreakpoint(at: .writeAIO, tag: "a"))
    _ = submit(kit, .write)
    kit.backend.giveUp()
    kit.backend.drain()
    #expect(kit.lower.held.isEmpty)
    #expect(kit.client.results == [-ECANCELED])
    // It is nobody's error, and the way is free again.
    #expect(errors == 0)
    #expect(kit.run(.write) == 0)
  }

  @Test func theDriverIsFoundBehindOtherLayers() throws {
    let kit = try Kit("")
    let loop = kit.loop
    #expect(kit.backend.debugDriver === kit.driver)
    let inner = DebugDriver(over: NullDriver(byteCount: 4096), rules: [], loop: loop)
    let outer = FaultDriver(over: inner, rules: [], loop: loop)
    let backend = BlockBackend(driver: outer, loop: loop, configuration: BlockConfiguration())
    #expect(backend.debugDriver === inner)
    let plain = BlockBackend(
      driver: NullDriver(byteCount: 4096), loop: loop, configuration: BlockConfiguration())
    #expect(plain.debugDriver == nil)
  }
}
