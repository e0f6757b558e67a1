// SPDX-License-Identifier: Apache-2.0
// Registers, features, status and reset of the modern PCI transport (virtio 1.3 §2.1, §3.1, §4.1).
import Testing

@testable import VirtioBlock

@Suite struct BusMasterTests {
  @Test func chainsWaitUntilTheFunctionIsBusMaster() throws {
    let kit = try DriverKit()
    try kit.start()
    kit.device.configurationWrite(offset: 4, width: 2, value: 3)
    kit.loop.runUntilIdle()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    #expect(kit.driver.held.isEmpty)
    kit.device.configurationWrite(offset: 4, width: 2, value: 7)
    kit.loop.runUntilIdle()
    #expect(kit.driver.held.count == 1)
    kit.completeAll()
    #expect(try kit.takeUsed() != nil)
  }

  @Test func requestThatIsOutComesBackToAFunctionThatIsNoBusMasterAnyMore() throws {
    // Its buffers are with the kernel, which cannot be told; so the guest hears of it.
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.device.configurationWrite(offset: 4, width: 2, value: 3)
    kit.loop.runUntilIdle()
    kit.completeAll()
    #expect(try kit.takeUsed() != nil)
  }

  @Test func legacyDriverNeedNotMakeTheFunctionBusMaster() throws {
    let kit = try DriverKit(interface: .transitional)
    kit.device.configurationWrite(offset: 4, width: 2, value: 1)
    #expect(!kit.device.isBusMaster)
    _ = kit.machine.portSpace.write(DriverKit.ports + 18, width: 1, value: 3)
    #expect(kit.device.isBusMaster)
    #expect(kit.device.configurationRead(offset: 4, width: 2) == 5)
  }
}

@Suite struct TransportTests {
  @Test func identityAndCapabilitiesAreThoseOfAModernDevice() throws {
    let kit = try DriverKit()
    #expect(kit.device.configurationRead(offset: 0, width: 4) == 0x1042_1af4)
    var offset = Int(kit.device.configurationRead(offset: 0x34, width: 1))
    var types: [UInt32] = []
    var guardCount = 0
    while offset != 0 && guardCount < 48 {
      if kit.device.configurationRead(offset: offset, width: 1) == 9 {
        types.append(kit.device.configurationRead(offset: offset + 3, width: 1))
      }
      offset = Int(kit.device.configurationRead(offset: offset + 1, width: 1))
      guardCount += 1
    }
    #expect(types.sorted() == [1, 2, 3, 4, 5])
  }

  @Test func statusReadsBackAsItIsSet() throws {
    let kit = try DriverKit()
    for value in [1, 3] as [UInt8] {
      kit.status = value
      #expect(kit.status == value)
    }
    kit.negotiate(Feature.version1)
    #expect(kit.status == 0xb)
    kit.status = 0xf
    #expect(kit.status == 0xf)
    kit.status = 0
    #expect(kit.status == 0)
  }

  @Test func featuresOKDoesNotStickWithoutVersion1OrWithUnofferedBits() throws {
    let kit = try DriverKit()
    kit.negotiate(Feature.flush)
    #expect(kit.status == 3)
    kit.negotiate(Feature.version1 | 1 << 40)
    #expect(kit.status == 3)
    kit.negotiate(Feature.version1)
    #expect(kit.status == 0xb)
  }

  @Test func featuresAreFixedAfterFeaturesOK() throws {
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.write(8, 4, 0)
    kit.write(12, 4, Feature.flush)
    #expect(kit.read(12, 4) == 0)
  }

  @Test(arguments: [0, 3, 257, 512, 0xffff] as [UInt64])
  func queueSizeThatCannotBeIsNotTaken(size: UInt64) throws {
    // Known failure 13: zero, no power of two, larger than the device's.
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.write(24, 2, size)
    #expect(kit.read(24, 2) == 256)
  }

  @Test func absentQueueReadsAsSizeZeroAndIgnoresWrites() throws {
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.write(22, 2, 0xffff)
    #expect(kit.read(24, 2) == 0)
    kit.write(28, 2, 1)
    #expect(kit.read(28, 2) == 0)
  }

  @Test(
    arguments: [(32, 0x10008), (40, 0x12001), (48, 0x14002), (48, DriverKit.ramBytes - 8), (40, DriverKit.bar)]
      as [(UInt64, UInt64)])
  func ringThatIsMisalignedOrOutsideMemoryIsRefused(register: UInt64, address: UInt64) throws {
    // Known failure 17 (CVE-2023-41051).
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.write(24, 2, 16)
    kit.write(32, 8, kit.ringBase(0))
    kit.write(40, 8, kit.available())
    kit.write(48, 8, kit.used())
    kit.write(register, 8, address)
    kit.write(28, 2, 1)
    #expect(kit.read(28, 2) == 0)
    #expect(kit.status & DeviceStatus.needsReset != 0)
    try kit.start()
    #expect(kit.status == 0xf)
  }

  @Test func registersOfAnEnabledQueueDoNotChange() throws {
    // Known failure 12 (CVE-2026-5747).
    let kit = try DriverKit()
    try kit.start()
    kit.write(22, 2, 0)
    kit.write(24, 2, 8)
    kit.write(32, 8, 0x1000)
    kit.write(36, 4, 7)
    #expect(kit.read(24, 2) == 16)
    #expect(kit.read(32, 8) == kit.ringBase(0))
  }

  @Test func addressesMayBeWrittenInHalves() throws {
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.write(32, 4, 0x1234_5670)
    kit.write(36, 4, 0x9)
    #expect(kit.read(32, 8) == 0x9_1234_5670)
    #expect(kit.read(33, 1) == 0x56)
  }

  @Test func kickBeforeDriverOKOrAfterResetIsIgnored() throws {
    // Known failure 14.
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    kit.setUpQueue()
    try kit.makeAvailable(try kit.writeChain([.readable(DriverKit.headers, 16), .writable(DriverKit.statuses, 1)]))
    kit.kick()
    #expect(try kit.takeUsed() == nil)
    try kit.start()
    kit.status = 0
    try kit.makeAvailable(0)
    kit.kick()
    #expect(kit.driver.held.isEmpty)
    #expect(kit.status == 0)
  }

  @Test func resetIsAcknowledgedOnlyWhenNothingIsInFlightAndNothingLateReachesTheGuest() throws {
    // Known failure 31; §2.4.1: status reads 0 when the reset is complete.
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.status = 0
    #expect(kit.status != 0)
    let used = try kit.memory.bytes(at: kit.used(), count: 64)
    kit.completeOne()
    #expect(kit.status == 0)
    #expect(try kit.memory.bytes(at: kit.used(), count: 64) == used)
    #expect(try kit.requestStatus() == 0xee)
  }

  @Test func driverThatDoesNotWaitForItsResetStartsWhenTheOldRequestsAreBack() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    for queue in 0..<1 { try kit.memory.fill(address: kit.ringBase(queue), byteCount: 0x8000, with: 0) }
    kit.negotiate(Feature.version1)
    kit.setUpQueue()
    kit.status = 0xf
    kit.completeOne()
    try kit.submitAfterRestart()
    kit.completeOne()
    #expect(try kit.requestStatus() == 0)
  }

  @Test func configurationTellsTheDisk() throws {
    let kit = try DriverKit(queues: 3)
    #expect(kit.read(0x2000, 8) == 64)
    #expect(kit.read(0x2000 + 12, 4) == 254)
    #expect(kit.read(0x2000 + 20, 4) == 512)
    #expect(kit.read(0x2000 + 34, 2) == 3)
    #expect(kit.read(0x2000 + 58, 8) == 0)
    kit.write(0x2000, 8, 1)
    #expect(kit.read(0x2000, 8) == 64)
  }

  @Test func configurationWindowReachesTheRegisters() throws {
    // §4.1.4.9: a driver without memory access works through configuration space.
    let kit = try DriverKit()
    let capability = kit.device.transport.accessCapability
    kit.device.configurationWrite(offset: capability + 4, width: 1, value: 4)
    kit.device.configurationWrite(offset: capability + 8, width: 4, value: 20)
    kit.device.configurationWrite(offset: capability + 12, width: 4, value: 1)
    kit.device.configurationWrite(offset: capability + 16, width: 1, value: 3)
    #expect(kit.status == 3)
    #expect(kit.device.configurationRead(offset: capability + 16, width: 1) == 3)
    kit.device.configurationWrite(offset: capability + 8, width: 4, value: 0xffff_fffc)
    kit.device.configurationWrite(offset: capability + 16, width: 4, value: 0)
    #expect(kit.status == 3)
  }

  @Test func resetsByTheThousandLeaveNothingBehind() throws {
    // Known failure 52.
    let kit = try DriverKit()
    for round in 0..<1000 {
      try kit.start()
      try kit.submit(RequestType.read, sector: UInt64(round % 64), data: [.writable(DriverKit.data, 512)])
      kit.status = 0
      kit.completeAll()
      #expect(kit.status == 0)
    }
    #expect(kit.backend.inFlight == 0)
  }
}
