// SPDX-License-Identifier: Apache-2.0
// The legacy interface of a transitional device (virtio 1.3 §4.1.4.10, §2.7.2, §3.1.2): as drivers from before version 1
// use it, and as a guest that means harm does.
import Machine
import Testing

@testable import VirtioBlock

extension DriverKit {
  func readPort(_ offset: UInt64, _ width: Int) -> UInt64 {
    machine.portSpace.read(Self.ports + offset, width: width) ?? UInt64.max
  }
  func writePort(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    machine.portSpace.write(Self.ports + offset, width: width, value: value)
  }
}

/// A legacy driver with one queue: descriptors, available ring and, on the next page, used ring.
private final class LegacyDriver {
  static let rings: UInt64 = 0x20000
  static let entries: UInt64 = 256
  static let available = rings + 16 * entries
  static let used = rings + 0x2000
  let kit: DriverKit
  private var index: UInt16 = 0

  init(_ kit: DriverKit) { self.kit = kit }

  func setUpQueue() {
    kit.writePort(14, 2, 0)
    kit.writePort(8, 4, Self.rings / 4096)
  }

  /// Makes a request of three buffers available, and rings.
  func submit(_ type: UInt32, sector: UInt64, deviceWrites: Bool) throws {
    try kit.memory.store(UInt8(0xee), at: DriverKit.statuses)
    let buffers = [
      Buffer.readable(try kit.header(type, sector: sector), 16),
      Buffer(address: DriverKit.data, byteCount: 512, deviceWrites: deviceWrites),
      .writable(DriverKit.statuses, 1),
    ]
    for (position, buffer) in buffers.enumerated() {
      let isLast = position == buffers.count - 1
      try kit.writeDescriptor(
        UInt16(position), buffer, flags: isLast ? 0 : 1, next: UInt16(position + 1), table: Self.rings)
    }
    try kit.memory.store(UInt16(0), at: Self.available + 4 + UInt64(index) * 2)
    index += 1
    try kit.memory.store(index, at: Self.available + 2)
    kit.writePort(16, 2, 0)
    kit.loop.runUntilIdle()
  }

  func usedIndex() throws -> UInt16 { try kit.memory.load(at: Self.used + 2) }
}

@Suite struct LegacyTests {
  @Test(arguments: [
    (VirtioInterface.modern, UInt32(0x1042_1af4), UInt32(0x1100), UInt32(1)), (.transitional, 0x1001_1af4, 2, 0),
    (.legacy, 0x1001_1af4, 2, 0),
  ])
  func identityTellsTheInterface(_ interface: VirtioInterface, id: UInt32, subsystem: UInt32, revision: UInt32) throws {
    // §4.1.2.1 and §4.1.2.3.
    let kit = try DriverKit(interface: interface)
    #expect(kit.device.configurationRead(offset: 0, width: 4) == id)
    #expect(kit.device.configurationRead(offset: 0x2e, width: 2) == subsystem)
    #expect(kit.device.configurationRead(offset: 8, width: 4) == 0x0100_0000 | revision)
  }

  @Test(arguments: VirtioInterface.allCases) func eachInterfaceIsThereOrNot(_ interface: VirtioInterface) throws {
    let kit = try DriverKit(interface: interface)
    #expect(kit.machine.portSpace.isMapped(DriverKit.ports) == (interface != .modern))
    #expect(kit.machine.memorySpace.isMapped(DriverKit.bar) == (interface != .legacy))
    #expect(kit.device.configurationRead(offset: 0x10, width: 1) & 1 == (interface == .modern ? 0 : 1))
  }

  @Test func legacyOnlyDeviceHasNoVirtioCapabilities() throws {
    let kit = try DriverKit(interface: .legacy)
    var offset = Int(kit.device.configurationRead(offset: 0x34, width: 1))
    var ids: [UInt32] = []
    while offset != 0 {
      ids.append(kit.device.configurationRead(offset: offset, width: 1))
      offset = Int(kit.device.configurationRead(offset: offset + 1, width: 1))
    }
    #expect(ids == [0x11])
    #expect(kit.device.configurationRead(offset: 16, width: 4) == UInt32(DriverKit.ports | 1))
  }

  @Test func featuresAreTheLow32WithAnyLayout() throws {
    // §6.3: VERSION_1 cannot be seen, ANY_LAYOUT is offered.
    let kit = try DriverKit(interface: .transitional)
    #expect(kit.readPort(0, 4) == kit.device.offeredFeatures & 0xffff_ffff | 1 << 27)
    #expect(kit.offeredFeatures & (1 << 27 | 1 << 32) == 1 << 32)
    kit.writePort(4, 4, 0xffff_ffff)
    #expect(kit.readPort(4, 4) == kit.readPort(0, 4))
  }

  @Test func readAndWriteGoThroughTheLegacyQueue() throws {
    let kit = try DriverKit(interface: .transitional)
    let driver = LegacyDriver(kit)
    for status in [1, 3] as [UInt64] {
      kit.writePort(18, 1, status)
      #expect(kit.readPort(18, 1) == status)
    }
    kit.writePort(4, 4, Feature.flush)
    kit.writePort(14, 2, 0)
    #expect(kit.readPort(12, 2) == 256)
    driver.setUpQueue()
    #expect(kit.readPort(8, 4) == LegacyDriver.rings / 4096)
    kit.writePort(18, 1, 7)
    #expect(kit.readPort(18, 1) == 7)

    try driver.submit(RequestType.read, sector: 3, deviceWrites: true)
    kit.completeOne()
    #expect(try driver.usedIndex() == 1)
    #expect(try kit.requestStatus() == RequestStatus.ok)
    #expect(try kit.memory.load(UInt8.self, at: DriverKit.data + 5) == kit.driver.bytes[3 * 512 + 5])
    // The ISR register clears as it is read, and the pin with it.
    #expect(kit.interrupts.line.values.contains(true))
    #expect(kit.readPort(19, 1) == 1)
    #expect(kit.readPort(19, 1) == 0)
    #expect(!kit.interrupts.line.values.contains(true))

    try kit.memory.store(UInt8(0x5a), at: DriverKit.data)
    try driver.submit(RequestType.write, sector: 7, deviceWrites: false)
    kit.completeOne()
    #expect(kit.driver.bytes[7 * 512] == 0x5a)
    #expect(try driver.usedIndex() == 2)
  }

  @Test func driverMayUseTheDeviceBeforeDriverOK() throws {
    // §3.1.2: the transitional device MUST support that.
    let kit = try DriverKit(interface: .transitional)
    let driver = LegacyDriver(kit)
    kit.writePort(18, 1, 3)
    driver.setUpQueue()
    try driver.submit(RequestType.read, sector: 0, deviceWrites: true)
    kit.completeOne()
    #expect(try driver.usedIndex() == 1)
    kit.writePort(18, 1, 7)
    try driver.submit(RequestType.read, sector: 1, deviceWrites: true)
    kit.completeOne()
    #expect(try driver.usedIndex() == 2)
  }

  @Test func queueThatIsSetUpAfterDriverOKIsServed() throws {
    let kit = try DriverKit(interface: .transitional)
    let driver = LegacyDriver(kit)
    kit.writePort(18, 1, 7)
    kit.loop.runUntilIdle()
    driver.setUpQueue()
    try driver.submit(RequestType.read, sector: 0, deviceWrites: true)
    kit.completeOne()
    #expect(try driver.usedIndex() == 1)
  }

  @Test func absentQueueHasSizeZeroAndTakesNothing() throws {
    // What QEMU's nxvirtq test writes: queue select 2, queue address 1.
    let kit = try DriverKit(interface: .transitional)
    kit.writePort(14, 2, 2)
    #expect(kit.readPort(12, 2) == 0)
    kit.writePort(8, 4, 1)
    #expect(kit.readPort(8, 4) == 0)
    #expect(kit.readPort(18, 1) == 0)
    kit.writePort(16, 2, 0xffff)
    #expect(kit.status == 0)
  }

  @Test(arguments: [DriverKit.ramBytes / 4096 - 1, 0xffff_ffff] as [UInt64])
  func queueOutsideMemoryBreaksTheDevice(page: UInt64) throws {
    let kit = try DriverKit(interface: .transitional)
    kit.writePort(18, 1, 3)
    kit.writePort(8, 4, page)
    #expect(kit.readPort(8, 4) == 0)
    #expect(kit.readPort(18, 1) == 0x43)
    kit.writePort(16, 2, 0)
    kit.writePort(18, 1, 7)
    kit.loop.runUntilIdle()
    #expect(kit.readPort(18, 1) == 0x47)
    kit.writePort(18, 1, 0)
    #expect(kit.readPort(18, 1) == 0)
  }

  @Test(arguments: [true, false]) func nothingReachesMemoryAfterAReset(byStatus: Bool) throws {
    let kit = try DriverKit(interface: .transitional)
    let driver = LegacyDriver(kit)
    kit.writePort(18, 1, 3)
    driver.setUpQueue()
    kit.writePort(18, 1, 7)
    try driver.submit(RequestType.read, sector: 0, deviceWrites: true)
    if byStatus { kit.writePort(18, 1, 0) } else { kit.writePort(8, 4, 0) }
    #expect(kit.readPort(18, 1) == 7)
    kit.completeOne()
    #expect(kit.readPort(18, 1) == 0)
    #expect(try driver.usedIndex() == 0)
    #expect(try kit.requestStatus() == 0xee)
  }

  @Test func configurationMovesBehindTheVectorsWhileMSIXIsEnabled() throws {
    let kit = try DriverKit(interface: .transitional)
    let sectors = kit.driver.byteCount / 512
    #expect(kit.readPort(20, 4) == sectors)
    #expect(kit.readPort(24, 4) == 0)
    let msix = try #require(capability(kit.device, id: 0x11))
    kit.device.configurationWrite(offset: msix + 2, width: 2, value: 0x8000)
    #expect(kit.readPort(20, 2) == 0xffff)
    #expect(kit.readPort(24, 4) == sectors)
    kit.writePort(20, 2, 0)
    kit.writePort(22, 2, 1)
    #expect(kit.readPort(20, 2) == 0)
    #expect(kit.readPort(22, 2) == 1)
    // A vector that does not exist reads back as none (§4.1.5.1.2.1).
    kit.writePort(22, 2, 2)
    #expect(kit.readPort(22, 2) == 0xffff)
    kit.device.configurationWrite(offset: msix + 2, width: 2, value: 0)
    #expect(kit.readPort(20, 4) == sectors)
  }

  @Test func writebackFieldIsWrittenWithoutNegotiation() throws {
    let kit = try DriverKit(interface: .transitional)
    let before = kit.backend.writeCacheEnabled
    kit.writePort(20 + 32, 1, before ? 0 : 1)
    #expect(kit.backend.writeCacheEnabled == !before)
  }

  @Test func oddAccessesAreHarmless() throws {
    let kit = try DriverKit(interface: .transitional)
    kit.writePort(18, 1, 3)
    for offset in 0..<128 as Range<UInt64> {
      for width in [1, 2, 4] where offset + UInt64(width) <= 128 && offset != 19 {
        // A write inside a register, or in another width than the register's, changes nothing.
        if ![(4, 4), (8, 4), (14, 2), (16, 2), (18, 1)].contains(where: { $0 == (Int(offset), width) }) {
          kit.writePort(offset, width, UInt64(1) << UInt64(8 * width) - 1)
        }
        _ = kit.readPort(offset, width)
      }
    }
    #expect(kit.readPort(18, 1) == 3)
    #expect(kit.readPort(4, 4) == 0)
    #expect(kit.readPort(8, 4) == 0)
    #expect(kit.readPort(14, 2) == 0)
    #expect(kit.readPort(1, 4) == 0xffff_ffff)
  }

  @Test func modernDriverStillWorksOnATransitionalDevice() throws {
    let kit = try DriverKit(interface: .transitional)
    try kit.start()
    #expect(kit.status == 0xf)
    try kit.submit(RequestType.read, sector: 1, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(try kit.takeUsed()?.written == 513)
  }

  private func capability(_ function: PCIFunction, id: UInt32) -> Int? {
    var offset = Int(function.configurationRead(offset: 0x34, width: 1))
    while offset != 0 {
      if function.configurationRead(offset: offset, width: 1) == id { return offset }
      offset = Int(function.configurationRead(offset: offset + 1, width: 1))
    }
    return nil
  }
}
