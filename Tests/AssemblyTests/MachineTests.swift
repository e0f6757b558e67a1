// SPDX-License-Identifier: Apache-2.0
// Whole machines with hosted processors: what a person puts together with `spindle run`.
import Accelerators
import Block
import EventLoop
import Glibc
import GuestDrivers
import HostSystem
import Machine
import Platform
import Synchronization
import Testing

@testable import Assembly

private let ioUringWorks: Bool = {
  guard let loop = try? EventLoop(name: "probe") else { return false }
  return (try? loop.ring()) != nil
}()

/// A file of zeroes that is gone when the test is over.
private final class ImageOnDisk {
  let path = "/var/tmp/spindle-assembly-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
  init(byteCount: Int) throws {
    try writeWholeFile(path, [UInt8](repeating: 0, count: byteCount))
  }
  deinit { unlink(path) }
}

@Suite(.enabled(if: ioUringWorks, "io_uring is not permitted here")) struct MachineTests {
  private struct Outcome {
    var ending: ShutdownReason
    var console: String
    var failures: Int
  }

  /// Runs the test program on two processors and returns what it said.
  private func run(_ drives: [String], commandLine: String = "disk=plain", iothread: Bool = false) throws -> Outcome {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.processorCount = 2
    configuration.usesIOThreads = iothread
    for (index, drive) in drives.enumerated() {
      configuration.drives.append(try DriveConfiguration(parsing: drive, index: index))
    }
    let sink = MemorySink()
    let assembled = try AssembledMachine(configuration, serial: sink)
    let failures = Mutex(-1)
    _ = assembled.useHosted(processorCount: 2) { bus in
      let count = TestProgram(bus: bus, commandLine: Array(commandLine.utf8)).run()
      failures.withLock { $0 = count }
      bus.out8(DebugExit.standardPort, UInt8(min(count, 127)))
    }
    let ending = try assembled.run()
    return Outcome(ending: ending, console: sink.text, failures: failures.withLock { $0 })
  }

  @Test(arguments: [false, true], ["disk=plain", "disk=plain irq=poll"])
  func testProgramPasses(iothread: Bool, commandLine: String) throws {
    let image = try ImageOnDisk(byteCount: 1 << 20)
    let outcome = try run(
      ["file=\(image.path),cache=none,queues=2,serial=ABC"], commandLine: commandLine, iothread: iothread)
    #expect(outcome.failures == 0, "\(outcome.console)")
    #expect(outcome.ending == .guestExit(status: 1))
    #expect(outcome.console.contains("disk-serial disk=0 ABC"))
  }

  @Test func severalDisksOfDifferentKindsPass() throws {
    let images = try (0..<2).map { _ in try ImageOnDisk(byteCount: 1 << 20) }
    let outcome = try run(
      [
        "file=\(images[0].path),readonly=on", "file=\(images[1].path),cache=writethrough,queue-size=64",
      ], iothread: true)
    #expect(outcome.failures == 0, "\(outcome.console)")
    #expect(outcome.console.contains("disk 1"))
  }

  @Test(arguments: [false, true], ["disk=plain", "disk=plain irq=poll"])
  func testProgramPassesOverAHCI(iothread: Bool, commandLine: String) throws {
    let images = try (0..<2).map { _ in try ImageOnDisk(byteCount: 1 << 20) }
    let outcome = try run(
      ["file=\(images[0].path),if=ahci,cache=none,serial=ABC", "file=\(images[1].path)"], commandLine: commandLine,
      iothread: iothread)
    #expect(outcome.failures == 0, "\(outcome.console)")
    #expect(outcome.ending == .guestExit(status: 1))
    #expect(outcome.console.contains("disk-serial disk=0 ABC") || outcome.console.contains("disk-serial disk=1 ABC"))
  }

  @Test func imageIsReleasedWhenTheMachineHasRun() throws {
    let image = try ImageOnDisk(byteCount: 1 << 20)
    for iothread in [false, true] {
      _ = try run(["file=\(image.path)"], iothread: iothread)
      _ = try ImageFile.open(path: image.path, cache: .writeback, readOnly: false)
    }
  }

  @Test func machineThatCannotBePutTogetherReleasesWhatItHadOpened() throws {
    let image = try ImageOnDisk(byteCount: 1 << 20)
    #expect(throws: (any Error).self) { try run(["file=\(image.path)", "file=/nonexistent"]) }
    _ = try ImageFile.open(path: image.path, cache: .writeback, readOnly: false)
  }

  @Test func shutdownInTheMiddleOfALoadDrains() throws {
    // The guest goes on submitting while the machine is told to end; nothing is lost, and the process comes back.
    let image = try ImageOnDisk(byteCount: 8 << 20)
    for iothread in [false, true] {
      var configuration = MachineConfiguration()
      configuration.memoryBytes = 64 << 20
      configuration.usesIOThreads = iothread
      configuration.drives = [try DriveConfiguration(parsing: "file=\(image.path),cache=none", index: 0)]
      let assembled = try AssembledMachine(configuration, serial: MemorySink())
      let machine = assembled.machine
      _ = assembled.useHosted(processorCount: 1) { bus in
        let topology = PCITopology(bus: bus)
        guard let entry = topology.entries.first(where: { VirtioBlockDriver<HostedBus>.drives($0.function) }),
          let driver = try? VirtioBlockDriver(topology: topology, entry: entry),
          (try? driver.start(VirtioBlockDriver<HostedBus>.Options())) != nil
        else { return machine.requestShutdown(.hostRequest) }
        var parameters = BlockLoadParameters()
        parameters.waitMode = .interrupt
        parameters.sectorCount = 16384
        parameters.requestCount = 200
        let buffers = bus.allocate(byteCount: parameters.bufferBytes, alignment: 4096)!
        _ = try? BlockLoad(bus: bus, queue: driver.queues[0], parameters: parameters, buffers: buffers)?.run()
        machine.requestShutdown(.signal(2))
        parameters.requestCount = 1 << 40
        _ = try? BlockLoad(bus: bus, queue: driver.queues[0], parameters: parameters, buffers: buffers)?.run()
      }
      #expect(try assembled.run() == .signal(2))
      #expect(assembled.backends[0].inFlight == 0)
      #expect(assembled.backends[0].statistics.reads >= 200)
      #expect(assembled.backends[0].statistics.errors == 0)
    }
  }
}
