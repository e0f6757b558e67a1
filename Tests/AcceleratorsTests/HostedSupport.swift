// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem
import Machine
import Synchronization
import Testing

@testable import Accelerators

/// A machine whose processors run a test's program.
final class HostedGuest {
  let machine: Machine
  let accelerator: HostedAccelerator
  let ports: Recorder
  let registers: Recorder
  private let ended: Signal
  private let endedFlag: Flag

  final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
  }

  init(processorCount: Int = 1, _ program: @escaping @Sendable (HostedBus) -> Void) throws {
    let ended = try Signal()
    let endedFlag = Flag()
    let machine = try makeMachine()
    ports = try Recorder(machine)
    registers = try Recorder(machine)
    accelerator = HostedAccelerator(machine: machine, processorCount: processorCount) { bus in
      program(bus)
      endedFlag.set()
      ended.send()
    }
    self.machine = machine
    self.ended = ended
    self.endedFlag = endedFlag
    machine.lock.withLock { [ports, registers] in
      machine.portSpace.map(ports, at: UInt64(devicePort), byteCount: 16)
      machine.memorySpace.map(registers, at: deviceAddress, byteCount: 0x2000)
    }
    // A lost wakeup is to hang, so that the watchdog sees it, and not to be healed by the next second.
    accelerator.controller.processors.forEach { $0.waitSecondsMax = 10_000 }
  }

  /// Starts the processors, waits until the program has returned on the first one, and stops the others.
  func run() throws {
    try accelerator.start()
    let isOver = ended.wait { endedFlag.isSet }
    accelerator.requestStop()
    accelerator.join()
    #expect(isOver, "the watchdog ended the program")
  }

  /// Runs `program` on a machine of its own.
  @discardableResult
  static func run(
    processorCount: Int = 1, _ program: @escaping @Sendable (HostedBus) -> Void
  ) throws -> HostedGuest {
    let guest = try HostedGuest(processorCount: processorCount, program)
    try guest.run()
    return guest
  }
}
