// SPDX-License-Identifier: Apache-2.0
// A paused machine's vCPUs touch nothing, wherever they were; and a paused machine ends.
import Glibc
import GuestDrivers
import HostSystem
import Testing

@testable import Accelerators
@testable import Machine

/// Pauses a machine again and again from its main loop, and looks whether its guest stands still.
private final class Director: @unchecked Sendable {
  // Everything here belongs to the main loop's thread.
  private let machine: Machine
  private let progress: () -> Int
  private var roundsLeft: Int
  private var seen: Int
  private let startedNs = HostClock.nanoseconds
  private(set) var pauses = 0
  private(set) var moves = 0
  private(set) var events: [MachineEvent] = []

  init(_ machine: Machine, rounds: Int, progress: @escaping () -> Int) {
    self.machine = machine
    self.progress = progress
    roundsLeft = rounds
    seen = progress()
  }

  private var isOverdue: Bool {
    HostClock.nanoseconds - startedNs > UInt64(watchdogSeconds) * 1_000_000_000
  }

  /// Runs the machine until all rounds are done.
  /// - Parameter startsPaused: the guest waits at first, and is looked at then.
  func run(startsPaused: Bool = false) throws {
    machine.events.observe { [self] in events.append($0) }
    machine.mainLoop.execute { [self] in startsPaused ? begin() : step() }
    #expect(try machine.run(startsPaused: startsPaused) == .hostRequest)
    #expect(!isOverdue, "the watchdog ended the test after \(pauses) pauses")
    machine.vcpus = nil
  }

  private func begin() {
    watchForMoves()
    machine.resume()
    step()
  }

  /// The guest has come further since the last time, or it never moves.
  private func step() {
    if roundsLeft == 0 || isOverdue { return machine.requestShutdown(.hostRequest) }
    let now = progress()
    if now == seen { return machine.mainLoop.execute { [self] in step() } }
    roundsLeft -= 1
    machine.pause()
    #expect(machine.lock.isHeld && machine.runState == .paused)
    pauses += 1
    watchForMoves()
    seen = progress()
    // The last pause is ended by the end of the machine.
    if roundsLeft > 0 { machine.resume() }
    machine.mainLoop.execute { [self] in step() }
  }

  private func watchForMoves() {
    let before = progress()
    machine.lock.unlock()
    for _ in 0..<50 {
      sched_yield()
      if progress() != before { moves += 1 }
    }
    machine.lock.lock()
  }
}

@Suite(.timeLimit(.minutes(2))) struct HostedPauseTests {
  private static let counter: UInt64 = 0x2000

  /// A guest that counts in RAM, and does `work` each time.
  private func check(
    startsPaused: Bool = false, processors: Int = 1, rounds: Int = 100,
    _ work: @escaping @Sendable (HostedBus) -> Bool
  ) throws {
    let guest = try HostedGuest(processorCount: processors) { bus in
      @Sendable func count(_ bus: HostedBus) {
        let place = Self.counter + 8 * UInt64(bus.processor)
        repeat { bus.ramWrite64(place, bus.ramRead64(place) + 1) } while work(bus)
      }
      for index in 1..<max(2, processors) { _ = bus.startProcessor(index, count) }
      count(bus)
    }
    guest.machine.vcpus = guest.accelerator
    let memory = guest.machine.memory
    let director = Director(guest.machine, rounds: rounds) {
      var sum: UInt64 = 0
      for index in 0..<processors {
        let value: UInt64? = try? memory.load(at: Self.counter + 8 * UInt64(index))
        sum &+= value ?? 0
      }
      return Int(sum)
    }
    try director.run(startsPaused: startsPaused)
    #expect(director.pauses == rounds && director.moves == 0)
    #expect(director.events.filter { $0 == .stopped }.count == rounds)
  }

  @Test func accessesToDevicesWaitForTheMachine() throws {
    try check(processors: 3) { bus in
      bus.out32(devicePort, 1)
      _ = bus.mmioRead32(deviceAddress)
      return !bus.isStopping
    }
  }

  @Test func pollingProcessorsStand() throws { try check(processors: 2) { $0.relax() } }

  @Test func doorbellsDoNotRing() throws {
    try check { bus in
      bus.mmioWrite32(deviceAddress + 0x1000, 1)
      return bus.relax()
    }
  }

  @Test func waitsForInterruptsEndAtTheGate() throws {
    try check(processors: 2) { bus in
      guard bus.processor == 1 else {
        // The first one only keeps the second one going.
        bus.accelerator.controller.send(HostedInterruptController.message(processor: 1, vector: 0x40))
        return bus.relax()
      }
      let message = HostedInterruptController.message(processor: 1, vector: 0x40)
      let interrupt = MessageInterrupt(number: 0x40, address: message.address, data: message.data)
      return bus.waitForInterrupt(interrupt, after: bus.interruptCount(interrupt))
    }
  }

  @Test func sleepsAreCutShortByAPauseAndGoOnAfterIt() throws {
    try check { $0.sleep(nanoseconds: 10_000) }
    try check(rounds: 1) { $0.sleep(nanoseconds: 3_600_000_000_000) }
  }

  @Test func aMachineThatStartsPausedHasNotRunAnInstruction() throws {
    try check(startsPaused: true) { $0.relax() }
  }

  @Test func whatStandsAtTheGateIsNotDoneWhenTheMachineEnds() throws {
    let guest = try HostedGuest { bus in
      bus.out32(devicePort, 1)
      bus.out32(devicePort, 2)
      #expect(bus.in32(devicePort) == .max)
      bus.mmioWrite32(deviceAddress, 3)
    }
    let machine = guest.machine
    machine.vcpus = guest.accelerator
    // The pause comes from inside the guest's own access, so that the next one meets the closed gate for sure.
    guest.ports.onWrite = { _ in
      machine.mainLoop.execute {
        machine.pause(.ioError)
        #expect(machine.runState == .ioError)
        machine.requestShutdown(.hostRequest)
      }
      // Until then the guest does not come further than its next access.
      machine.gate.close()
    }
    #expect(try machine.run() == .hostRequest)
    machine.vcpus = nil
    #expect(guest.ports.accesses == [.write(0, 4, 1)])
    #expect(guest.registers.accesses.isEmpty)
  }
}

@Suite(.enabled(if: kvmWorks, "KVM works here"), .timeLimit(.minutes(2))) struct KVMPauseTests {
  private static let counter: UInt32 = KVMGuest.scratch

  /// A guest whose code counts at `counter`.
  private func check(
    startsPaused: Bool = false, rounds: Int = 100, processors: Int = 1, _ code: (inout GuestCode) -> Void
  ) throws {
    let guest = try KVMGuest(processorCount: processors, code)
    guest.machine.vcpus = guest.accelerator
    let director = Director(guest.machine, rounds: rounds) {
      let value: UInt32? = try? guest.load(UInt32.self, Self.counter)
      return Int(value ?? 0)
    }
    try director.run(startsPaused: startsPaused)
    #expect(director.pauses == rounds && director.moves == 0)
    #expect(guest.faults.elements == [])
  }

  /// inc dword [counter]
  private func count(_ code: inout GuestCode) {
    code.emit(0xff, 0x05)
    code.emit(0, 0, UInt8(Self.counter >> 16), UInt8(Self.counter >> 24))
  }

  @Test(arguments: [false, true]) func aGuestThatCountsInMemoryStands(startsPaused: Bool) throws {
    try check(startsPaused: startsPaused) { code in
      count(&code)
      // Back to it.
      code.emit(0xeb, 0xf8)
    }
  }

  @Test func aGuestThatExitsAllTheTimeStands() throws {
    try check(rounds: 200) { code in
      code.set(.edx, UInt32(devicePort))
      count(&code)
      // in al, dx; back to the count
      code.emit(0xec, 0xeb, 0xf7)
    }
  }

  @Test func processorsThatSleepInTheKernelAreNoObstacle() throws {
    try check(rounds: 1, processors: 3) { code in
      count(&code)
      code.halt()
    }
  }
}
