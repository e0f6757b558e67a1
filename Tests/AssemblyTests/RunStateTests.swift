// SPDX-License-Identifier: Apache-2.0
// A disk that fails stops the machine, and the machine's going on is another try for the disk.
import Block
import Glibc
import GuestDrivers
import Machine
import Platform
import Synchronization
import Testing

@testable import Assembly

@Suite(.timeLimit(.minutes(2))) struct RunStateTests {
  private struct Outcome {
    var failures: Int
    var events: [MachineEvent]
    var states: [RunState]
  }

  /// Runs the test program on one disk whose errors stop the machine; each stop is answered by `resume`.
  private func run(_ drive: String, iothread: Bool) throws -> Outcome {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.drives = [try DriveConfiguration(parsing: "driver=memory,size=1M,id=d," + drive, index: 0)]
    configuration.usesIOThreads = iothread
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let failures = Mutex(-1)
    _ = assembled.useHosted(processorCount: 1) { bus in
      let count = TestProgram(bus: bus, commandLine: Array("disk=plain quiet".utf8)).run()
      failures.withLock { $0 = count }
      machine.requestShutdown(.hostRequest)
    }
    // Of the main loop's thread, which is this one.
    nonisolated(unsafe) var events: [MachineEvent] = []
    nonisolated(unsafe) var states: [RunState] = []
    machine.events.observe { event in
      events.append(event)
      guard event == .stopped else { return }
      states.append(machine.runState)
      machine.mainLoop.execute { machine.resume() }
    }
    #expect(try assembled.run() == .hostRequest)
    #expect(assembled.backends[0].inFlight == 0)
    return Outcome(failures: failures.withLock { $0 }, events: events, states: states)
  }

  @Test(arguments: ["if=virtio", "if=ahci"], [false, true])
  func aFailedReadStopsTheMachineAndIsTriedAgain(interface: String, iothread: Bool) throws {
    let outcome = try run("\(interface),rerror=stop,fault=read:error=EIO:nth=2", iothread: iothread)
    #expect(outcome.failures == 0)
    #expect(outcome.states == [.ioError])
    #expect(
      outcome.events == [
        .resumed, .blockError(drive: "d", isRead: true, action: .stop, code: EIO), .stopped, .resumed,
        .shutdown(.hostRequest),
      ])
  }

  @Test func missingSpaceStopsTheMachineUnderThePolicyForIt() throws {
    let outcome = try run("rerror=enospc,fault=read:error=ENOSPC:nth=2", iothread: false)
    #expect(outcome.failures == 0)
    #expect(outcome.states == [.ioError])
  }

  @Test(arguments: [false, true]) func reportedAndIgnoredErrorsAreToldAndStopNothing(iothread: Bool) throws {
    let outcome = try run("rerror=report,werror=ignore,fault=flush:error=EIO:nth=1", iothread: iothread)
    #expect(outcome.failures == 0)
    #expect(
      outcome.events == [
        .resumed, .blockError(drive: "d", isRead: false, action: .ignore, code: EIO), .shutdown(.hostRequest),
      ])
    let failing = try run("rerror=report,fault=read:error=EIO:nth=2", iothread: iothread)
    #expect(failing.failures > 0)
    #expect(failing.events.contains(.blockError(drive: "d", isRead: true, action: .report, code: EIO)))
    #expect(failing.states.isEmpty)
  }
}
