// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct AHCIDriverTests {
  private func makeController(_ bus: FakeMachine) throws -> AHCIController<FakeMachine> {
    let topology = PCITopology(bus: bus)
    let entry = try #require(topology.entries.first { AHCIController<FakeMachine>.drives($0.function) })
    return try AHCIController(topology: topology, entry: entry)
  }

  private func start(_ bus: FakeMachine, waitMode: WaitMode = .poll) throws -> AHCIController<FakeMachine> {
    let controller = try makeController(bus)
    try controller.start(waitMode: waitMode)
    return controller
  }

  private func startQueue(_ bus: FakeMachine, usesCommandQueuing: Bool = true) throws -> AHCIQueue<FakeMachine> {
    let port = try #require(try start(bus).ports.first)
    let queue = try #require(port.queue)
    return usesCommandQueuing
      ? queue : AHCIQueue(engine: port.engine, depth: 32, usesCommandQueuing: false)
  }

  private func hba(_ bus: FakeMachine) throws -> FakeHBA { try #require(bus.hba) }

  // MARK: Set-up

  @Test func functionsAreKnownByClassAndProgrammingInterface() {
    let address = PCIAddress(bus: 0, device: 9, function: 0)
    func drives(_ classCode: UInt16, _ interface: UInt8) -> Bool {
      AHCIController<FakeMachine>.drives(
        PCIFunction(
          address: address, vendor: 0x1234, device: 1, classCode: classCode, programmingInterface: interface,
          headerType: 0))
    }
    #expect(drives(0x0106, 1))
    #expect(!drives(0x0106, 0) && !drives(0x0101, 1))
  }

  @Test func theDiskOfAPortIsFoundAndIdentified() throws {
    let bus = FakeMachine.withHBA()
    let controller = try start(bus)
    let port = try #require(controller.ports.first)
    #expect(controller.ports.count == 1 && port.kind == .ata && controller.interrupt == nil)
    #expect(port.identity?.sectorCount == UInt64(FakeMachine.sectorCount))
    #expect(port.queue?.usesCommandQueuing == true && port.queue?.depth == 32)
    // Memory decoding and bus mastering.
    #expect(bus.functions[1].read(4) & 6 == 6)
  }

  @Test func interruptsGoByMSIWhereTheyAreWanted() throws {
    let bus = FakeMachine.withHBA()
    let controller = try start(bus, waitMode: .interrupt)
    let interrupt = try #require(controller.interrupt)
    #expect(controller.msi?.holds(interrupt) == true)
    let queue = try #require(controller.ports[0].queue)
    let before = bus.interruptCount(interrupt)
    #expect(try queue.readAndWait(sector: 3, into: bus.buffer(), byteCount: 512))
    #expect(bus.interruptCount(interrupt) != before)
  }

  @Test func aPortWithoutADeviceIsEmpty() throws {
    let bus = FakeMachine.withHBA()
    bus.ticksPerRead = 1_000_000
    try hba(bus).behaviour.hasDevice = false
    let port = try #require(try start(bus).ports.first)
    #expect(port.kind == .none && port.identity == nil && port.queue == nil)
  }

  @Test func aFunctionWithoutRegistersInBAR5IsRefused() throws {
    let bus = FakeMachine.withHBA()
    bus.functions[1].masks[5] = 0
    #expect(throws: DriverError.missingCapability) { try makeController(bus) }
  }

  @Test func aResetThatDoesNotEndIsAnError() throws {
    let bus = FakeMachine.withHBA()
    bus.ticksPerRead = waitTicksMax / 4
    try hba(bus).behaviour.keepsReset = true
    #expect(throws: DriverError.stuck) { try start(bus) }
  }

  @Test(
    arguments: [
      { $0.neverRuns = true }, { $0.neverReceives = true }, { $0.staysBusy = true }, { $0.completesCommands = false },
    ] as [@Sendable (inout FakeHBA.Behaviour) -> Void])
  func aPortThatDoesNotComeUpIsLeftAlone(breakIt: @Sendable (inout FakeHBA.Behaviour) -> Void) throws {
    let bus = FakeMachine.withHBA()
    bus.ticksPerRead = waitTicksMax / 4
    try breakIt(&hba(bus).behaviour)
    let port = try #require(try start(bus).ports.first)
    #expect(port.identity == nil && port.queue == nil)
  }

  @Test func aStoppingMachineUnwinds() throws {
    let bus = FakeMachine.withHBA()
    try hba(bus).behaviour.completesCommands = false
    bus.isStopping = true
    #expect(throws: DriverError.machineStopped) { try start(bus) }
  }

  // MARK: Requests

  @Test(arguments: [true, false])
  func dataArrivesFromItsSector(usesCommandQueuing: Bool) throws {
    let bus = FakeMachine.withHBA()
    let queue = try startQueue(bus, usesCommandQueuing: usesCommandQueuing)
    let buffer = bus.buffer()
    #expect(try queue.readAndWait(sector: 5, into: buffer, byteCount: 4096))
    #expect((0..<4096).allSatisfy { bus.ramRead8(buffer + UInt64($0)) == bus.disk[5 * 512 + $0] })
  }

  @Test(
    arguments: [(true, false, 0x61), (true, true, 0x61), (false, false, 0x35), (false, true, 0x3D)]
      as [(Bool, Bool, UInt8)])
  func aWriteReachesTheDisk(usesCommandQueuing: Bool, forces: Bool, opcode: UInt8) throws {
    let bus = FakeMachine.withHBA()
    let queue = try startQueue(bus, usesCommandQueuing: usesCommandQueuing)
    queue.forcesUnitAccess = forces
    let buffer = bus.buffer()
    ScratchPattern(seed: 9).fill(bus, address: buffer, firstIndex: 0, wordCount: 64)
    #expect(try queue.writeAndWait(sector: 10, from: buffer, byteCount: 512))
    #expect((0..<512).allSatisfy { bus.disk[5120 + $0] == bus.ramRead8(buffer + UInt64($0)) })
    #expect(try hba(bus).opcodes.last == opcode)
  }

  @Test func allSlotsAreIssuedByOneWriteAndInvisibleBefore() throws {
    let bus = FakeMachine.withHBA()
    let queue = try startQueue(bus)
    let buffer = bus.buffer(byteCount: 32 * 512)
    let before = try hba(bus).issues.count
    for slot in 0..<queue.depth {
      queue.prepare(slot: slot, writes: false, address: buffer + UInt64(slot) << 9, byteCount: 512)
      queue.submit(slot: slot, sector: UInt64(slot))
    }
    #expect(try hba(bus).issues.count == before && queue.countUsed() == 0 && queue.inFlightCount == 32)
    queue.kick()
    #expect(try hba(bus).issues.suffix(1) == [0xFFFF_FFFF] && queue.countUsed() == 32)
    var slots = Set<Int>()
    while queue.countUsed() > 0, let slot = queue.takeCounted() {
      slots.insert(slot)
    }
    #expect(slots.count == 32 && queue.inFlightCount == 0 && queue.takeCounted() == nil)
    #expect((0..<32 * 512).allSatisfy { bus.ramRead8(buffer + UInt64($0)) == bus.disk[$0] })
  }

  @Test(arguments: [true, false])
  func aLoadRunsToItsEnd(usesCommandQueuing: Bool) throws {
    let bus = FakeMachine.withHBA()
    let queue = try startQueue(bus, usesCommandQueuing: usesCommandQueuing)
    var parameters = BlockLoadParameters()
    parameters.sectorCount = UInt64(FakeMachine.sectorCount)
    parameters.depth = 32
    parameters.requestCount = 320
    let buffers = bus.buffer(byteCount: parameters.bufferBytes)
    let load = try #require(BlockLoad(bus: bus, queue: queue, parameters: parameters, buffers: buffers))
    let result = try load.run()
    #expect(result.completedCount == 320 && result.errorCount == 0 && result.notificationCount == 10)
  }

  // MARK: Errors

  /// The other requests of the sweep succeed, whether the disk has an error log, has none, or queues nothing.
  @Test(arguments: [(true, true), (true, false), (false, true)])
  func aRequestThatFailsAmongOthersFailsAlone(usesCommandQueuing: Bool, hasLog: Bool) throws {
    let bus = FakeMachine.withHBA()
    try hba(bus).identity[84] = hasLog ? 1 << 14 | 1 << 5 : 1 << 14
    try hba(bus).behaviour.badSector = 4
    let queue = try startQueue(bus, usesCommandQueuing: usesCommandQueuing)
    let buffer = bus.buffer(byteCount: 8 * 512)
    for slot in 0..<8 {
      queue.prepare(slot: slot, writes: false, address: buffer + UInt64(slot) << 9, byteCount: 512)
      queue.submit(slot: slot, sector: UInt64(slot))
    }
    queue.kick()
    var failed: [Int] = []
    while queue.inFlightCount > 0 {
      let slot = try queue.waitForSlot()
      if !queue.hasSucceeded(slot) { failed.append(slot) }
    }
    #expect(failed == [4] && queue.recoveryCount > 0)
    let isRight = (0..<8 * 512).allSatisfy {
      $0 / 512 == 4 || bus.ramRead8(buffer + UInt64($0)) == bus.disk[$0]
    }
    #expect(isRight)
    #expect(try hba(bus).opcodes.contains(ATAOpcode.readLogExt) == (usesCommandQueuing && hasLog))
    // Without a log, only a reset makes the disk take commands again.
    #expect(try (hba(bus).deviceResetCount > 0) == (usesCommandQueuing && !hasLog))
  }

  @Test func theErrorLogNamesTheTag() throws {
    let bus = FakeMachine.withHBA()
    let port = try #require(try start(bus).ports.first)
    let outcome = try port.transfer(
      ATAOpcode.readQueued, sector: UInt64(FakeMachine.sectorCount), count: 1,
      AHCIBuffer(address: bus.buffer(), byteCount: 512), slot: 13)
    #expect(!outcome.isGood && outcome.isAborted)
    let log = try #require(port.engine.lastErrorLog)
    #expect(log.tag == 13 && !log.isNotQueued && log.checksumHolds && log.status == 0x41)
  }

  @Test func aPortThatRefusesItsErrorLogIsStillUsable() throws {
    let bus = FakeMachine.withHBA()
    let port = try #require(try start(bus).ports.first)
    try hba(bus).behaviour.refusesLog = true
    try hba(bus).behaviour.badSector = 0
    let buffer = AHCIBuffer(address: bus.buffer(), byteCount: 512)
    let outcome = try port.transfer(ATAOpcode.readQueued, sector: 0, count: 1, buffer)
    #expect(!outcome.isGood && port.engine.lastErrorLog == nil && port.engine.isRunning)
    try port.reset()
    #expect(try port.transfer(ATAOpcode.readQueued, sector: 1, count: 1, buffer).isGood)
  }

  @Test func commandsThatOutliveTheEngineAreEndedByAReset() throws {
    let bus = FakeMachine.withHBA()
    let port = try #require(try start(bus).ports.first)
    try hba(bus).behaviour.keepsCommandsWhenStopped = true
    let outcome = try port.perform(ATACommand(0x02))
    #expect(outcome.isAborted)
    #expect(try hba(bus).deviceResetCount == 1 && port.engine.isRunning)
  }

  @Test func anEngineThatDoesNotStopIsAnError() throws {
    let bus = FakeMachine.withHBA()
    let port = try #require(try start(bus).ports.first)
    bus.ticksPerRead = waitTicksMax / 4
    try hba(bus).behaviour.neverStops = true
    #expect(throws: DriverError.stuck) { try port.perform(ATACommand(0x02)) }
    #expect(throws: DriverError.stuck) { try port.perform(ATACommand(ATAOpcode.flushCache)) }
  }

  @Test(arguments: [WaitMode.poll, .interrupt])
  func aSilentDiskTimesOutAndTheQueueWantsAReset(waitMode: WaitMode) throws {
    let bus = FakeMachine.withHBA()
    let controller = try start(bus, waitMode: waitMode)
    let queue = try #require(controller.ports[0].queue)
    try hba(bus).behaviour.completesCommands = false
    bus.ticksPerRead = waitTicksMax / 4
    let buffer = bus.buffer()
    #expect(throws: DriverError.timedOut) { try queue.readAndWait(sector: 0, into: buffer, byteCount: 512) }
    #expect(throws: DriverError.deviceBroken) { try queue.checkIdle() }
    try hba(bus).behaviour.completesCommands = true
    try controller.start(waitMode: waitMode)
    #expect(controller.ports[0].queue === queue)
    #expect(try queue.readAndWait(sector: 0, into: buffer, byteCount: 512))
  }

  @Test func nothingSynchronousRunsWhileTheQueueIsInUse() throws {
    let bus = FakeMachine.withHBA()
    let port = try #require(try start(bus).ports.first)
    let queue = try #require(port.queue)
    queue.prepare(slot: 0, writes: false, address: bus.buffer(), byteCount: 512)
    queue.submit(slot: 0, sector: 0)
    #expect(throws: DriverError.deviceBroken) { try port.flush() }
  }

  // MARK: The test program

  private func run(_ bus: FakeMachine, _ line: String) -> (failures: Int, text: String) {
    let failures = TestProgram(bus: bus, commandLine: Array(line.utf8)).run()
    return (failures, String(decoding: bus.text, as: UTF8.self))
  }

  @Test(arguments: ["irq=poll disk=plain", "irq=msi disk=plain"])
  func everyCasePassesOnADiskThatIsRight(line: String) {
    let bus = FakeMachine.withHBA()
    let (failures, text) = run(bus, line)
    #expect(failures == 0, "\(text)")
    #expect(text.contains("READ LOG EXT page 10h names the queued command that failed (ACS-3 9.12)\n"))
    #expect(text.contains("# disk-sum disk=0 a=0x") && text.contains("ok 6 - ahci: an HBA reset ends"))
  }

  @Test func anHBAWithoutDevicesAddsItsRegisterCasesOnly() throws {
    let bus = FakeMachine()
    bus.functions.append(FakeHBA.function)
    let hba = FakeHBA()
    hba.behaviour.hasDevice = false
    bus.hba = hba
    bus.ticksPerRead = 1_000_000
    let (_, text) = run(bus, "irq=poll disk=plain")
    let cases = text.split(separator: "\n").filter { $0.contains("- ahci: ") }
    #expect(cases.count == 8 && cases.allSatisfy { $0.hasPrefix("ok ") })
    #expect(text.contains("disk 0") && !text.contains("disk 1") && text.contains("- there is a disk\n"))
  }

  @Test(
    arguments: [
      { $0.keepsReset = true }, { $0.neverRuns = true }, { $0.neverReceives = true }, { $0.staysBusy = true },
      { $0.completesCommands = false }, { $0.hasDevice = false }, { $0.badSector = 0 },
    ] as [@Sendable (inout FakeHBA.Behaviour) -> Void])
  func aBrokenHBAFailsTheRunAndNothingElse(breakIt: @Sendable (inout FakeHBA.Behaviour) -> Void) throws {
    let bus = FakeMachine.withHBA()
    bus.ticksPerRead = waitTicksMax / 4
    try breakIt(&hba(bus).behaviour)
    let (failures, text) = run(bus, "irq=poll")
    #expect(failures > 0)
    #expect(text.hasSuffix("failed \(failures)\n"))
  }

  /// Registers of garbage now and then: the run ends, without a trap, whatever the HBA answers.
  @Test(arguments: [2, 8, 32, 200] as [UInt64])
  func garbageFromTheHBANeverTrapsOrHangs(interval: UInt64) {
    for seed in UInt64(1)...8 {
      let bus = FakeMachine.withHBA()
      bus.ticksPerRead = waitTicksMax / 4
      bus.garbage = XorShift64(seed: seed &* 0x9E37_79B9 &+ interval)
      bus.garbageInterval = interval
      let (failures, text) = run(bus, "irq=poll disk=plain quiet")
      #expect(text.hasSuffix("failed \(failures)\n"))
    }
  }
}

extension FakeMachine {
  /// Takes RAM for a test's data.
  func buffer(byteCount: UInt64 = 4096) -> UInt64 {
    guard let address = allocate(byteCount: byteCount, alignment: 4096) else {
      preconditionFailure("the machine has RAM for the test")
    }
    return address
  }
}
