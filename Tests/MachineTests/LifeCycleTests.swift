// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem
import Synchronization
import Testing

@testable import Machine

/// A device with work in flight that takes some rounds of the main loop to finish, as a disk does.
private final class SlowDevice: Device {
  private final class Step: BottomHalf, @unchecked Sendable {
    unowned var device: SlowDevice!
    override func run() { device.step() }
  }

  var roundsLeft: Int
  var log: [String] = []
  let journal: Journal?
  private var step_: Step?
  private var isQuiescing = false

  init(name: String = "slow", rounds: Int, journal: Journal? = nil) {
    roundsLeft = rounds
    self.journal = journal
    super.init(name: name)
  }

  override func added(to machine: Machine) {
    let step = Step(loop: machine.mainLoop)
    step.device = self
    step_ = step
  }

  private func note(_ text: String) {
    machine?.lock.preconditionHeld()
    log.append(text)
    journal?.entries.append("\(name) \(text)")
  }

  private func step() {
    roundsLeft -= 1
    note("step")
    if roundsLeft > 0 { step_?.schedule() }
  }

  override func quiesce() {
    note("quiesce")
    if roundsLeft > 0 { step_?.schedule() }
  }
  override var isQuiet: Bool { roundsLeft == 0 }
  override func reset() { note("reset") }
  override func resume() { note("resume") }
  override func shutdown() { note("shutdown") }
}

private final class Journal {
  var entries: [String] = []
}

/// Runs a closure on the main loop.
private final class Call: BottomHalf, @unchecked Sendable {
  let body: () -> Void
  init(_ loop: EventLoop, _ body: @escaping () -> Void) {
    self.body = body
    super.init(loop: loop)
  }
  override func run() { body() }
}

/// vCPUs that do nothing but exits, until they are stopped.
private final class ExitingVCPUs: VCPUGroup, @unchecked Sendable {
  private let machine: Machine
  private let count: Int
  private let stop = Gate()
  private var threads: [HostThread] = []
  let exits = Atomic<Int>(0)
  let joined = Atomic<Bool>(false)

  init(_ machine: Machine, count: Int) {
    self.machine = machine
    self.count = count
  }

  func start() throws(SystemError) {
    for index in 0..<count {
      threads.append(
        try HostThread(name: "vcpu-\(index)") { [self] in
          while !stop.isOpen {
            _ = machine.exitPortRead(0xcf8, width: 4)
            exits.add(1, ordering: .relaxed)
          }
        })
    }
  }
  func requestStop() { stop.open() }
  func join() {
    threads.forEach { $0.join() }
    joined.store(true, ordering: .releasing)
  }
}

@Suite(.timeLimit(.minutes(2))) struct LifeCycleTests {
  @Test(arguments: [
    ShutdownReason.guestExit(status: 1), .guestExit(status: -1), .guestExit(status: Int32.min), .signal(15), .reset,
    .guestFault, .powerOff, .hostReset,
    .hostRequest,
  ])
  func runReturnsTheFirstReason(_ reason: ShutdownReason) throws {
    let machine = try makeMachine()
    #expect(machine.shutdownReason == nil)
    machine.requestShutdown(reason)
    machine.requestShutdown(.hostRequest)
    machine.requestReset()
    #expect(machine.shutdownReason == reason)
    #expect(try machine.run() == reason)
    #expect(!machine.lock.isHeld)
  }

  @Test func aMachineThatStaysStopsItsGuestAndBeginsAnewWhenItIsReset() throws {
    let machine = try makeMachine()
    machine.shutdownPolicy = .pause
    machine.resetPolicy = .resetDevices
    // Of the main loop's thread, which is this one.
    nonisolated(unsafe) var events: [MachineEvent] = []
    nonisolated(unsafe) var states: [RunState] = []
    machine.events.observe { event in
      events.append(event)
      states.append(machine.runState)
      switch event {
      case .stopped:
        // Only a reset lets it run again.
        machine.resume()
        machine.mainLoop.execute { machine.requestHostReset() }
      case .reset:
        machine.resume()
        machine.mainLoop.execute { machine.requestShutdown(.signal(15)) }
      default: break
      }
    }
    machine.requestShutdown(.powerOff)
    #expect(machine.shutdownReason == nil)
    #expect(try machine.run() == .signal(15))
    #expect(
      events == [.resumed, .shutdown(.powerOff), .stopped, .reset(byGuest: false), .resumed, .shutdown(.signal(15))])
    #expect(states[2] == .shutdown && states[3] == .prelaunch)
  }

  @Test(arguments: [ShutdownReason.signal(2), .hostRequest, .guestExit(status: 3), .guestFault])
  func aMachineThatStaysEndsWhereItsUserOrItsProgramSaysSo(reason: ShutdownReason) throws {
    let machine = try makeMachine()
    machine.shutdownPolicy = .pause
    machine.requestShutdown(reason)
    #expect(try machine.run() == reason)
  }

  @Test func aResetThatEndsTheMachineStopsTheGuestOfOneThatStays() throws {
    let machine = try makeMachine()
    machine.shutdownPolicy = .pause
    // Of the main loop's thread, which is this one.
    nonisolated(unsafe) var events: [MachineEvent] = []
    machine.events.observe { event in
      events.append(event)
      if event == .stopped { machine.mainLoop.execute { machine.requestHostReset() } }
      if event == .shutdown(.hostReset) { machine.mainLoop.execute { machine.requestShutdown(.hostRequest) } }
    }
    machine.requestReset()
    #expect(try machine.run() == .hostRequest)
    #expect(
      events == [.resumed, .shutdown(.reset), .stopped, .shutdown(.hostReset), .shutdown(.hostRequest)])
  }

  @Test func requestFromAnotherThreadWakesTheSleepingLoop() throws {
    let machine = try makeMachine()
    let sleeping = Gate()
    // The lock is free only while the loop sleeps, so the thread asks when it has seen that.
    let call = Call(machine.mainLoop) { sleeping.open() }
    call.schedule()
    let thread = try HostThread(name: "asker") {
      sleeping.wait()
      machine.lock.withLock {}
      machine.requestShutdown(.signal(2))
    }
    #expect(try machine.run() == .signal(2))
    thread.join()
  }

  @Test func oneOfManyReasonsGivenAtOnceIsTaken() throws {
    let machine = try makeMachine()
    let threads = try (0..<8).map { index in
      try HostThread(name: "asker") { machine.requestShutdown(.signal(Int32(index))) }
    }
    let reason = try machine.run()
    threads.forEach { $0.join() }
    #expect((0..<8).contains { reason == .signal($0) })
    #expect(machine.shutdownReason == reason)
  }

  @Test func shutdownRunsTheLoopUntilEveryDeviceIsQuiet() throws {
    let machine = try makeMachine()
    let journal = Journal()
    let first = SlowDevice(name: "first", rounds: 3, journal: journal)
    let second = SlowDevice(name: "second", rounds: 7, journal: journal)
    machine.add(first)
    machine.add(second)
    machine.requestShutdown(.hostRequest)
    #expect(try machine.run() == .hostRequest)
    #expect(first.log == ["quiesce", "step", "step", "step", "shutdown"])
    #expect(second.log == ["quiesce"] + [String](repeating: "step", count: 7) + ["shutdown"])
    // Nobody is shut down before all are quiet, and the youngest goes first.
    #expect(journal.entries.suffix(2) == ["second shutdown", "first shutdown"])
  }

  @Test func deviceThatBecomesQuietOnAnotherThreadWakesTheLoop() throws {
    final class Remote: Device {
      let quiet = Gate()
      let asked = Gate()
      override func quiesce() { asked.open() }
      override var isQuiet: Bool { quiet.isOpen }
    }
    let machine = try makeMachine()
    let device = Remote(name: "remote")
    machine.add(device)
    let (asked, quiet) = (device.asked, device.quiet)
    let thread = try HostThread(name: "io") {
      asked.wait()
      // Free only when the main loop sleeps, which it does while it waits for this device.
      machine.lock.withLock {}
      quiet.open()
      machine.deviceBecameQuiet()
    }
    machine.requestShutdown(.hostRequest)
    #expect(try machine.run() == .hostRequest)
    thread.join()
  }

  @Test func vCPUsAreStoppedAndJoinedBeforeDevicesDrain() throws {
    final class Watcher: Device {
      var wasJoined: Bool?
      let vcpus: ExitingVCPUs
      init(_ vcpus: ExitingVCPUs) {
        self.vcpus = vcpus
        super.init(name: "watcher")
      }
      override func quiesce() { wasJoined = vcpus.joined.load(ordering: .acquiring) }
    }
    let machine = try makeMachine()
    let vcpus = ExitingVCPUs(machine, count: 3)
    let watcher = Watcher(vcpus)
    machine.add(watcher)
    machine.vcpus = vcpus
    // Ends the machine from the loop while the vCPUs fight for the lock.
    let call = Call(machine.mainLoop) { machine.requestShutdown(.hostRequest) }
    call.schedule()
    #expect(try machine.run() == .hostRequest)
    #expect(watcher.wasJoined == true)
  }

  /// Looks whose the main loop is when the vCPUs start; fails to start them where it is told to.
  private final class StartProbe: VCPUGroup, @unchecked Sendable {
    let machine: Machine
    let failure: SystemError?
    var foundLoopClaimed: Bool?
    var joins = 0
    init(_ machine: Machine, failure: SystemError? = nil) {
      self.machine = machine
      self.failure = failure
    }
    func start() throws(SystemError) {
      let vcpu = try HostThread(name: "vcpu-0") { [self] in foundLoopClaimed = !machine.mainLoop.isOnLoop }
      vcpu.join()
      if let failure { throw failure }
      machine.requestShutdown(.hostRequest)
    }
    func requestStop() {}
    func join() { joins += 1 }
  }

  @Test func vcpusAreStartedWhenTheMainLoopHasItsThread() throws {
    let machine = try makeMachine()
    let vcpus = StartProbe(machine)
    machine.vcpus = vcpus
    #expect(try machine.run() == .hostRequest)
    #expect(vcpus.foundLoopClaimed == true)
    #expect(vcpus.joins == 1)
  }

  @Test func vcpusThatCannotBeStartedEndTheMachineInOrder() throws {
    let machine = try makeMachine()
    let device = SlowDevice(rounds: 1)
    machine.add(device)
    let vcpus = StartProbe(machine, failure: SystemError("clone", code: 11))
    machine.vcpus = vcpus
    #expect(throws: SystemError("clone", code: 11)) { try machine.run() }
    #expect(device.log == ["quiesce", "step", "shutdown"])
    #expect(!machine.lock.isHeld)
  }

  /// Work that is always there, so that the loop has no reason to sleep; it counts how often a vCPU was kept waiting.
  private final class BusyWork: BottomHalf, @unchecked Sendable {
    static let exitsWanted = 200
    static let roundsWaitedMax = 10_000
    let machine: Machine
    let vcpus: ExitingVCPUs
    var exitsSeen = 0
    var roundsWaited = 0

    init(_ machine: Machine, _ vcpus: ExitingVCPUs) {
      self.machine = machine
      self.vcpus = vcpus
      super.init(loop: machine.mainLoop)
    }

    override func run() {
      let exits = vcpus.exits.load(ordering: .relaxed)
      roundsWaited = exits == exitsSeen && machine.lock.isContended ? roundsWaited + 1 : 0
      exitsSeen = exits
      if exits < BusyWork.exitsWanted, roundsWaited < BusyWork.roundsWaitedMax {
        schedule()
      } else {
        machine.requestShutdown(.hostRequest)
      }
    }
  }

  @Test func loopThatNeverSleepsLetsVCPUsIn() throws {
    let machine = try makeMachine()
    let vcpus = ExitingVCPUs(machine, count: 2)
    machine.vcpus = vcpus
    let busy = BusyWork(machine, vcpus)
    busy.schedule()
    #expect(try machine.run() == .hostRequest)
    #expect(busy.roundsWaited < BusyWork.roundsWaitedMax)
    #expect(busy.exitsSeen >= BusyWork.exitsWanted)
  }

  @Test func resetDrainsThenResetsThenResumes() throws {
    let machine = try makeMachine()
    machine.resetPolicy = .resetDevices
    let (first, second) = (SlowDevice(name: "first", rounds: 2), SlowDevice(name: "second", rounds: 4))
    machine.add(first)
    machine.add(second)
    let function = TestFunction()
    function.addBAR(0, kind: .memory32, byteCount: 4096, block: RecordingBlock())
    machine.attach(function)
    function.configurationWrite(offset: 0x10, width: 4, value: 0xe000_0000)
    function.command = PCICommand.memory
    machine.exitPortWrite(0xcf8, width: 4, value: 0x8000_0000)
    machine.exitPortWrite(0xcf9, width: 1, value: 0x06)
    let call = Call(machine.mainLoop) { machine.requestShutdown(.hostRequest) }
    let resumed = Resumed { call.schedule() }
    machine.add(resumed)
    #expect(try machine.run() == .hostRequest)
    #expect(first.log == ["quiesce", "step", "step", "reset", "resume", "quiesce", "shutdown"])
    #expect(
      second.log == ["quiesce", "step", "step", "step", "step", "reset", "resume", "quiesce", "shutdown"])
    #expect(function.events == [.mapped(0, 0xe000_0000), .unmapped(0)])
    #expect(machine.exitPortRead(0xcf8, width: 4) == 0)
  }

  @Test func resetEndsTheMachineWhereThePolicySaysSo() throws {
    let machine = try makeMachine()
    let device = SlowDevice(rounds: 1)
    machine.add(device)
    machine.exitPortWrite(0xcf9, width: 1, value: 0x06)
    #expect(try machine.run() == .reset)
    #expect(device.log == ["quiesce", "step", "shutdown"])
  }

  @Test func devicesAreKnownByNameAndLeave() throws {
    let machine = try makeMachine()
    let device = SlowDevice(name: "disk0", rounds: 0)
    machine.add(device)
    #expect(machine.device(named: "disk0") === device)
    #expect(device.machine === machine)
    machine.remove(device)
    #expect(machine.device(named: "disk0") == nil)
    #expect(device.machine == nil)
    #expect(device.log == ["shutdown"])
  }
}

/// Calls a closure when the machine resumes it after a reset.
private final class Resumed: Device {
  let body: () -> Void
  init(_ body: @escaping () -> Void) {
    self.body = body
    super.init(name: "resumed")
  }
  override func resume() { body() }
}
