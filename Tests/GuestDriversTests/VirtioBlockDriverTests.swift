// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct VirtioBlockDriverTests {
  private func makeDriver(_ bus: FakeMachine) throws -> VirtioBlockDriver<FakeMachine> {
    let topology = PCITopology(bus: bus)
    let entry = try #require(topology.entries.first { VirtioBlockDriver<FakeMachine>.drives($0.function) })
    return try VirtioBlockDriver(topology: topology, entry: entry)
  }

  private func start(
    _ bus: FakeMachine, mask: UInt64 = VirtioBlockFeature.known
  ) throws -> VirtioBlockDriver<FakeMachine> {
    let driver = try makeDriver(bus)
    var options = VirtioBlockDriver<FakeMachine>.Options()
    options.featureMask = mask
    options.waitMode = .poll
    options.segmentsMax = 6
    try driver.start(options)
    return driver
  }

  @Test func handshakeEndsWithDriverOKAndTheOfferedFeatures() throws {
    let driver = try start(FakeMachine())
    #expect(driver.transport.status == 15)
    #expect(
      driver.features
        == VirtioBlockFeature.version1 | VirtioBlockFeature.indirectDescriptors | VirtioBlockFeature.eventIndex)
    #expect(driver.configuration.sectorCount == UInt64(FakeMachine.sectorCount))
    #expect(driver.queues.count == 1 && driver.queues[0].depth == 16)
  }

  @Test func aDeviceWithoutVersion1IsRefused() throws {
    let bus = FakeMachine()
    bus.behaviour.offersVersion1 = false
    #expect(throws: DriverError.notModern) { try start(bus) }
  }

  @Test func clearedFeaturesOKIsAnError() throws {
    let bus = FakeMachine()
    bus.behaviour.keepsFeaturesOK = false
    #expect(throws: DriverError.featuresRefused) { try start(bus) }
  }

  @Test(arguments: [0, 3, 65534] as [UInt16])
  func aRefusedVectorIsAnError(vector: UInt16) throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.refusesVectors = true
    let ring = SplitVirtqueue(bus: bus, memory: FakeMachine.ramBase, size: 2, usesEventIndex: false)
    #expect(throws: DriverError.vectorRefused) { try driver.transport.enableQueue(0, ring, vector: vector) }
  }

  @Test(arguments: [0, VirtioBlockFeature.known] as [UInt64])
  func dataArrivesDirectAndIndirect(mask: UInt64) throws {
    let bus = FakeMachine()
    let driver = try start(bus, mask: mask)
    let buffer = try #require(bus.allocate(byteCount: 4096, alignment: 4096))
    #expect(try driver.read(sector: 3, into: buffer, byteCount: 4096) == VirtioBlockStatus.ok)
    for offset in 0..<4096 where bus.ramRead8(buffer + UInt64(offset)) != bus.disk[3 * 512 + offset] {
      Issue.record("byte \(offset) differs")
      break
    }
    let completion = try driver.queues[0].perform(
      type: VirtioBlockType.read, sector: 0, address: buffer, byteCount: 4096, segmentBytes: 998)
    #expect(completion == VirtioBlockCompletion(slot: 0, status: 0, usedByteCount: 4097))
    #expect(bus.ramRead8(buffer + 4095) == bus.disk[4095])
  }

  @Test func aWriteReachesTheDisk() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    let buffer = try #require(bus.allocate(byteCount: 512, alignment: 512))
    ScratchPattern(seed: 9).fill(bus, address: buffer, firstIndex: 0, wordCount: 64)
    #expect(try driver.write(sector: 10, from: buffer, byteCount: 512) == VirtioBlockStatus.ok)
    #expect((0..<512).allSatisfy { bus.disk[5120 + $0] == bus.ramRead8(buffer + UInt64($0)) })
  }

  @Test func manyRequestsTakeOneNotificationAndComeBackInAnyOrder() throws {
    let bus = FakeMachine()
    bus.behaviour.completesBackwards = true
    let driver = try start(bus)
    let queue = driver.queues[0]
    let buffer = try #require(bus.allocate(byteCount: 16 * 512, alignment: 512))
    for slot in 0..<queue.depth {
      queue.prepare(slot: slot, type: VirtioBlockType.read, address: buffer + UInt64(slot * 512), byteCount: 512)
      queue.submit(slot: slot, sector: UInt64(slot))
    }
    queue.kick()
    #expect(bus.notificationCount == 1)
    var slots: [Int] = []
    while let completion = queue.reap() {
      slots.append(completion.slot)
    }
    #expect(slots == Array((0..<16).reversed()))
    #expect(queue.inFlightCount == 0)
    #expect((0..<8192).allSatisfy { bus.ramRead8(buffer + UInt64($0)) == bus.disk[$0] })
  }

  @Test func anUnknownTypeIsReportedNotTrapped() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    let completion = try driver.queues[0].perform(
      type: 0xDEAD, sector: 0, address: FakeMachine.ramBase, byteCount: 512)
    #expect(completion.status == VirtioBlockStatus.unsupported)
  }

  @Test func aSilentDeviceTimesOut() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.completesRequests = false
    bus.ticksPerRead = waitTicksMax / 4
    #expect(throws: DriverError.timedOut) {
      try driver.read(sector: 0, into: FakeMachine.ramBase, byteCount: 512)
    }
  }

  @Test func aStoppingMachineUnwinds() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.completesRequests = false
    bus.isStopping = true
    #expect(throws: DriverError.machineStopped) {
      try driver.read(sector: 0, into: FakeMachine.ramBase, byteCount: 512)
    }
    #expect(bus.relaxCount == 1)
  }

  @Test(arguments: [1, 16, 0x1_0000] as [UInt32])
  func aUsedIdentifierThatIsNotInFlightBreaksTheQueue(offset: UInt32) throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.usedIdentifierOffset = offset
    #expect(throws: DriverError.deviceBroken) {
      try driver.read(sector: 0, into: FakeMachine.ramBase, byteCount: 512)
    }
    #expect(driver.queues[0].isBroken)
  }

  @Test func aUsedIndexThatJumpsBreaksTheQueue() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.usedIndexJump = 100
    #expect(throws: DriverError.deviceBroken) {
      try driver.read(sector: 0, into: FakeMachine.ramBase, byteCount: 512)
    }
  }

  @Test func aStartAfterAResetWithRequestsInFlightBeginsAnew() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    bus.behaviour.completesRequests = false
    let queue = driver.queues[0]
    queue.prepare(slot: 5, type: VirtioBlockType.read, address: FakeMachine.ramBase, byteCount: 512)
    queue.submit(slot: 5, sector: 0)
    queue.kick()
    #expect(queue.inFlightCount == 1)
    bus.behaviour.completesRequests = true
    var options = VirtioBlockDriver<FakeMachine>.Options()
    options.waitMode = .poll
    options.segmentsMax = 6
    try driver.start(options)
    #expect(driver.queues[0] === queue && queue.inFlightCount == 0)
    let buffer = try #require(bus.allocate(byteCount: 512, alignment: 512))
    #expect(try driver.read(sector: 1, into: buffer, byteCount: 512) == VirtioBlockStatus.ok)
    #expect(bus.ramRead8(buffer) == bus.disk[512])
  }

  @Test func aQueueGoesOnWhereItStoodForItsNewOwner() throws {
    let bus = FakeMachine()
    let driver = try start(bus)
    let buffer = try #require(bus.allocate(byteCount: 512, alignment: 512))
    #expect(try driver.read(sector: 1, into: buffer, byteCount: 512) == VirtioBlockStatus.ok)
    let queue = VirtioBlockQueue(takingOver: driver.queues[0], on: bus)
    let completion = try queue.perform(type: VirtioBlockType.read, sector: 2, address: buffer, byteCount: 512)
    #expect(completion.status == VirtioBlockStatus.ok && bus.ramRead8(buffer) == bus.disk[1024])
  }
}
