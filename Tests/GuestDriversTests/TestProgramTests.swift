// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct TestProgramTests {
  private func options(_ line: String) -> TestOptions { TestOptions(parsing: Array(line.utf8)) }

  private func run(_ bus: FakeMachine, _ line: String) -> (failures: Int, text: String) {
    let failures = TestProgram(bus: bus, commandLine: Array(line.utf8)).run()
    return (failures, String(decoding: bus.text, as: UTF8.self))
  }

  @Test func wordsOfTheCommandLineAreUnderstood() {
    let parsed = options("  irq=poll seed=18446744073709551615\tdisk=plain quiet ")
    #expect(parsed.waitMode == .poll && parsed.seed == UInt64.max)
    #expect(!parsed.looksForPartitions && parsed.isQuiet && parsed.unknownWordAt == nil)
    #expect(options("") == TestOptions())
    #expect(options("irq=msi") == options("irq=msix") && options("irq=msi").unknownWordAt == nil)
  }

  @Test(arguments: ["seed=", "seed=18446744073709551616", "seed=1x", "irq=", "quietly", "irq=msix=1", "seed=-1"])
  func unknownWordsAreReported(word: String) {
    #expect(options("quiet \(word)").unknownWordAt == 6)
  }

  @Test func aMachineWithoutADiskFailsAndEndsItsReport() {
    let bus = FakeMachine()
    bus.functions.removeLast()
    let (failures, text) = run(bus, "")
    #expect(failures == 1)
    #expect(text.contains("not ok 6 - there is a disk\n"))
    #expect(text.hasSuffix("1..7\n# passed 6 failed 1\n"))
  }

  @Test func theSumsOfADiskArePrinted() {
    let bus = FakeMachine()
    var sum = WordSum()
    for word in 0..<(bus.disk.count / 8) {
      sum.add((0..<8).reduce(0) { $0 | UInt64(bus.disk[8 * word + $1]) << UInt64(8 * $1) })
    }
    let (_, text) = run(bus, "irq=poll disk=plain quiet")
    func hexadecimal(_ value: UInt64) -> String {
      let digits = String(value, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }
    let line = "# disk-sum disk=0 a=0x\(hexadecimal(sum.a)) b=0x\(hexadecimal(sum.b)) words=16384\n"
    #expect(text.contains(line))
  }

  @Test func aDiskWithoutAScratchPartitionIsNotWritten() {
    let bus = FakeMachine()
    let before = bus.disk
    _ = run(bus, "irq=poll")
    #expect(bus.disk == before)
  }

  @Test func aSilentDeviceEndsTheRunWithAFailure() {
    let bus = FakeMachine()
    bus.behaviour.completesRequests = false
    bus.ticksPerRead = waitTicksMax / 4
    let (failures, text) = run(bus, "irq=poll")
    #expect(failures > 0)
    #expect(text.contains("# the device did not answer in time\n"))
    #expect(text.hasSuffix("failed \(failures)\n"))
  }

  @Test func aStoppingMachineEndsTheRun() {
    let bus = FakeMachine()
    bus.behaviour.completesRequests = false
    bus.isStopping = true
    let (failures, text) = run(bus, "irq=poll")
    #expect(failures > 0 && text.contains("# the machine is going away\n"))
  }

  @Test(
    arguments: [
      { $0.offersVersion1 = false }, { $0.keepsFeaturesOK = false }, { $0.loopsCapabilities = true },
      { $0.usedIdentifierOffset = 1 }, { $0.usedIdentifierOffset = 0x8000_0000 }, { $0.usedIndexJump = 3 },
      { $0.usedIndexJump = 0x8000 },
    ] as [@Sendable (inout FakeMachine.Behaviour) -> Void])
  func aBrokenDeviceFailsTheRunAndNothingElse(breakIt: @Sendable (inout FakeMachine.Behaviour) -> Void) {
    let bus = FakeMachine()
    bus.ticksPerRead = waitTicksMax / 4
    breakIt(&bus.behaviour)
    let (failures, text) = run(bus, "irq=poll")
    #expect(failures > 0)
    #expect(text.hasSuffix("failed \(failures)\n"))
  }

  /// Registers and rings of garbage now and then: the run ends, without a trap, whatever the device answers.
  @Test(arguments: [2, 8, 32, 200] as [UInt64])
  func garbageFromTheDeviceNeverTrapsOrHangs(interval: UInt64) {
    for seed in UInt64(1)...12 {
      let bus = FakeMachine()
      bus.ticksPerRead = waitTicksMax / 4
      bus.garbage = XorShift64(seed: seed &* 0x9E37_79B9 &+ interval)
      bus.garbageInterval = interval
      let (failures, text) = run(bus, "irq=poll disk=plain quiet")
      #expect(text.hasSuffix("failed \(failures)\n"))
    }
  }
}
