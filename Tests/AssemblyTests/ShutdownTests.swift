// SPDX-License-Identifier: Apache-2.0
// A machine whose disk keeps requests back ends all the same, and every request is completed.
import Block
import Glibc
import GuestDrivers
import Machine
import Platform
import Testing

@testable import Assembly

@Suite struct ShutdownTests {
  @Test(arguments: ["any:hang:nth=3", "read:error=EIO:from=3", "any:hang"], [false, true])
  func machineEndsWhileRequestsHangOrAreStopped(fault: String, iothread: Bool) throws {
    var configuration = MachineConfiguration()
    configuration.drives = [
      try DriveConfiguration(
        parsing: "driver=memory,size=1M,rerror=stop,werror=stop,fault=\(fault)", index: 0)
    ]
    configuration.usesIOThreads = iothread
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let backend = assembled.backends[0]
    // The machine is asked to end as soon as the disk keeps something back.
    let watcher = KeepWatcher(backend: backend, machine: machine)
    backend.loop.execute { watcher.look() }
    _ = assembled.useHosted(processorCount: 1) { bus in
      _ = TestProgram(bus: bus, commandLine: Array("disk=plain quiet irq=poll".utf8)).run()
    }
    #expect(try assembled.run() == .hostRequest)
    #expect(backend.inFlight == 0)
  }

  /// Looks again and again, on the disk's loop, until requests wait for a command.
  private final class KeepWatcher: @unchecked Sendable {
    private let backend: BlockBackend
    private let machine: Machine
    init(backend: BlockBackend, machine: Machine) {
      self.backend = backend
      self.machine = machine
    }
    func look() {
      let hanging = (backend.driver as? FaultDriver)?.hangingCount ?? 0
      if backend.keptCount + hanging > 0 { return machine.requestShutdown(.hostRequest) }
      backend.loop.execute { self.look() }
    }
  }
}
