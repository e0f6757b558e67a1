// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct ThinkProgramTests {
  private static let title = "# spindle test guest, load=think\n"

  private func options(_ line: String) -> ThinkOptions? { ThinkOptions(parsing: Array(line.utf8)) }

  private func run(_ bus: FakeMachine, _ line: String) -> (failures: Int, text: String) {
    let failures = BootProgram.run(on: bus, commandLine: Array(line.utf8))
    // Setting the line's speed writes to the same register as a character does.
    return (failures, String(decoding: bus.text.drop { $0 < 0x20 }, as: UTF8.self))
  }

  @Test func wordsOfTheCommandLineAreUnderstood() throws {
    let parsed = try #require(
      options("device=virtio bytes=1099511627776 request=1048576 load=think batch=32 batch-think=0 completion-think=7"))
    #expect(parsed.device == .virtio && parsed.unknownWordAt == nil)
    #expect(parsed.parameters.totalBytes == 1 << 40 && parsed.parameters.requestBytes == 1 << 20)
    #expect(parsed.parameters.batchCount == 32)
    #expect(parsed.parameters.batchThinkNs == 0 && parsed.parameters.completionThinkNs == 7)
    #expect(options("load=think")?.parameters == ThinkingParameters())
    #expect(options("") == nil && options("load=thinking device=ahci") == nil)
  }

  @Test(
    arguments: [
      "batch=0", "batch=33", "request=0", "request=1048577", "bytes=1099511627777", "bytes=", "bytes=1k", "device=nvme",
      "batch-think=60000000001", "completion-think=18446744073709551616", "quiet",
    ])
  func unknownWordsAndValuesOutOfRangeAreReported(word: String) {
    #expect(options("load=think \(word)")?.unknownWordAt == 11)
    let bus = FakeMachine()
    let (failures, text) = run(bus, "load=think \(word)")
    #expect(
      failures == 1
        && text == "\(Self.title)Bail out! a word of the command line is unknown, or its value is out of range\n")
    #expect(bus.marks.isEmpty)
  }

  @Test func theTimeBetweenTheMarksIsReported() {
    let bus = FakeMachine()
    let (failures, text) = run(
      bus, "load=think device=virtio bytes=65536 request=4096 batch=5 batch-think=1000 completion-think=10")
    #expect(failures == 0)
    // 16 requests in 4 batches; nothing else lets the time of this machine pass.
    #expect(text == "\(Self.title)# think requests=16 failures=0 ns=4160\n")
    #expect(bus.marks.map(\.value) == [ThinkMark.begin, ThinkMark.end])
    #expect(bus.marks.map(\.nanoseconds) == [0, 4160])
  }

  @Test func thoughtsAloneNeedNoDisk() {
    let bus = FakeMachine()
    bus.functions.removeLast()
    let (failures, text) = run(bus, "load=think device=none bytes=65536 request=4096 batch=16 batch-think=9")
    #expect(failures == 0 && text == "\(Self.title)# think requests=0 failures=0 ns=16000009\n")
    #expect(bus.notificationCount == 0)
  }

  @Test(arguments: [
    ("device=ahci", "the port has no device, or one that stays busy"),
    ("device=virtio bytes=131584 request=512", "the disk is smaller than what is to be read"),
    ("device=virtio bytes=65536 request=1000", "no more memory or interrupts"),
  ])
  func aLoadThatCannotBeDoneSaysSo(words: String, reason: String) {
    let bus = FakeMachine()
    let (failures, text) = run(bus, "load=think \(words)")
    #expect(failures == 1 && text == "\(Self.title)Bail out! \(reason)\n")
    #expect(bus.marks.isEmpty)
  }

  @Test func aSilentDiskEndsTheLoadWithoutItsLastMark() {
    let bus = FakeMachine()
    bus.behaviour.completesRequests = false
    bus.ticksPerRead = waitTicksMax / 4
    let (failures, text) = run(bus, "load=think device=virtio bytes=65536 request=4096")
    #expect(failures == 1 && text == "\(Self.title)Bail out! the device did not answer in time\n")
    #expect(bus.marks.map(\.value) == [ThinkMark.begin])
  }

  @Test func anotherCommandLineRunsTheTest() {
    let (_, text) = run(FakeMachine(), "irq=poll disk=plain")
    #expect(text.hasPrefix("# spindle test guest, processors 1\n"))
  }
}
