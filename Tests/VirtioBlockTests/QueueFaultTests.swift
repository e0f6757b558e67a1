// SPDX-License-Identifier: Apache-2.0
// What a hostile driver does with a virtqueue (known failures 1 to 19). Every case ends the same way: the device asks to
// be reset, nothing outside guest memory was touched, and after a reset it serves again.
import Testing

@testable import VirtioBlock

@Suite struct QueueFaultTests {
  private let indirectFeatures = Feature.version1 | Feature.flush | Feature.indirectDescriptors

  /// The device is broken, says so, and a reset restores service.
  private func expectBrokenThenUsable(_ kit: DriverKit, sourceLocation: SourceLocation = #_sourceLocation) throws {
    #expect(kit.status & DeviceStatus.needsReset != 0, sourceLocation: sourceLocation)
    kit.completeAll()
    try kit.start()
    #expect(kit.status == 0xf, sourceLocation: sourceLocation)
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(try kit.requestStatus() == 0, sourceLocation: sourceLocation)
  }

  @Test(arguments: [1, 2, 7] as [UInt16])
  func descriptorLoopBreaksTheDevice(cycle: UInt16) throws {
    // Known failure 1 (CVE-2019-9547): self, two-cycle, long cycle.
    let kit = try DriverKit()
    try kit.start()
    for index in 0..<cycle {
      try kit.writeDescriptor(index, .readable(DriverKit.headers, 16), flags: 1, next: (index + 1) % cycle)
    }
    try kit.makeAvailable(0)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func ringsThatLieOverEachOtherEndInNoHang() throws {
    // The flags of the used ring are avail.idx. As the device stops asking for notifications a request is there, and as it
    // asks again idx goes back; that it sees so shows that it looks once more after asking (known failure 18).
    let kit = try DriverKit()
    kit.negotiate(Feature.version1)
    try kit.writeDescriptor(0, .readable(try kit.header(0xdead, sector: 0), 16), flags: 1, next: 1)
    try kit.writeDescriptor(1, .writable(DriverKit.statuses, 1))
    kit.write(22, 2, 0)
    kit.write(24, 2, 16)
    kit.write(32, 8, kit.ringBase(0))
    kit.write(40, 8, kit.used() - 2)
    kit.write(48, 8, kit.used())
    kit.write(28, 2, 1)
    kit.status = 0xf
    kit.loop.runUntilIdle()
    #expect(try kit.requestStatus() == RequestStatus.unsupported)
    try expectBrokenThenUsable(kit)
  }

  @Test func zeroLengthDescriptorsAreTolerated() throws {
    // Known failure 2 (CVE-2016-6490): wherever they point.
    let kit = try DriverKit()
    try kit.start()
    let header = try kit.header(RequestType.read, sector: 0)
    let head = try kit.writeChain([
      .readable(UInt64.max, 0), .readable(header, 16), .writable(0xffff_ffff_0000, 0), .writable(DriverKit.data, 512),
      .writable(DriverKit.statuses, 1), .writable(7, 0),
    ])
    try kit.makeAvailable(head)
    kit.kick()
    kit.completeOne()
    #expect(try kit.requestStatus() == 0)
    #expect(kit.status == 0xf)
  }

  @Test func chainOfOnlyZeroLengthDescriptorsBreaksTheDevice() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.makeAvailable(try kit.writeChain([.readable(0, 0), .writable(0, 0)]))
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func hugeLengthsBreakTheDevice() throws {
    // Known failure 3 (CVE-2016-7422): sums past 2^32.
    let kit = try DriverKit()
    try kit.start()
    let header = try kit.header(RequestType.read, sector: 0)
    let huge = Buffer.writable(DriverKit.data, 0xffff_ffff)
    try kit.makeAvailable(try kit.writeChain([.readable(header, 16), huge, huge, .writable(DriverKit.statuses, 1)]))
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test(arguments: [16, 255, 65535] as [UInt16])
  func headOutOfRangeBreaksTheDevice(head: UInt16) throws {
    // Known failure 4.
    let kit = try DriverKit()
    try kit.start()
    try kit.makeAvailable(head)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func nextOutOfRangeBreaksTheDevice() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.writeDescriptor(0, .readable(try kit.header(0, sector: 0), 16), flags: 1, next: 16)
    try kit.makeAvailable(0)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  /// Ways to get an indirect table wrong: length, extra flags of the descriptor, address.
  @Test(
    arguments: [(0, 0, 0), (24, 0, 0), (48, 1, 0), (48, 0, UInt64.max - 15), (48, 0, DriverKit.ramBytes - 32)]
      as [(UInt32, UInt16, UInt64)])
  func badIndirectTableBreaksTheDevice(byteCount: UInt32, flags: UInt16, address: UInt64) throws {
    // Known failure 5.
    let kit = try DriverKit()
    try kit.start(features: indirectFeatures)
    let table = address == 0 ? DriverKit.data : address
    try kit.writeDescriptor(0, .readable(table, byteCount), flags: 4 | flags, next: 1)
    try kit.makeAvailable(0)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func nestedIndirectTableBreaksTheDevice() throws {
    let kit = try DriverKit()
    try kit.start(features: indirectFeatures)
    try kit.writeDescriptor(0, .readable(DriverKit.data, 16), flags: 4)
    try kit.writeDescriptor(0, .readable(DriverKit.data, 16), flags: 4, table: DriverKit.data)
    try kit.makeAvailable(0)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func indirectWithoutTheFeatureBreaksTheDevice() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.writeDescriptor(0, .readable(DriverKit.data, 48), flags: 4)
    try kit.makeAvailable(0)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func indirectTableServesARequest() throws {
    let kit = try DriverKit()
    try kit.start(features: indirectFeatures)
    let table = DriverKit.data + 0x8000
    try kit.writeDescriptor(0, .readable(try kit.header(0, sector: 2), 16), flags: 1, next: 1, table: table)
    try kit.writeDescriptor(1, .writable(DriverKit.data, 512), flags: 1, next: 2, table: table)
    try kit.writeDescriptor(2, .writable(DriverKit.statuses, 1), table: table)
    try kit.writeDescriptor(0, .readable(table, 48), flags: 4)
    try kit.makeAvailable(0)
    kit.kick()
    kit.completeOne()
    #expect(try kit.takeUsed()?.written == 513)
    #expect(try kit.memory.bytes(at: DriverKit.data, count: 512) == Array(kit.driver.bytes[1024..<1536]))
  }

  @Test(arguments: [DriverKit.ramBytes - 256, DriverKit.ramBytes, DriverKit.bar, UInt64.max - 100] as [UInt64])
  func bufferOutsideMemoryBreaksTheDeviceWithoutPartialTransfer(address: UInt64) throws {
    // Known failures 6 and 19: RAM's end, nothing, the device's own registers, the end of the address space.
    let kit = try DriverKit()
    try kit.start()
    let header = try kit.header(RequestType.read, sector: 0)
    try kit.makeAvailable(
      try kit.writeChain([.readable(header, 16), .writable(address, 512), .writable(DriverKit.statuses, 1)]))
    kit.kick()
    #expect(kit.driver.held.isEmpty)
    try expectBrokenThenUsable(kit)
  }

  @Test(arguments: [17, 18, 1000, 40000] as [UInt16])
  func availableIndexThatJumpsBreaksTheDevice(by: UInt16) throws {
    // Known failure 7.
    let kit = try DriverKit()
    try kit.start()
    try kit.memory.store(by, at: kit.available() + 2)
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func headMadeAvailableTwiceBreaksTheDeviceAndTheFirstCompletesOnce() throws {
    // Known failures 8 and 9 (CVE-2016-5403, CVE-2026-45782).
    let kit = try DriverKit()
    try kit.start()
    let head = try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    try kit.makeAvailable(head)
    kit.kick()
    #expect(kit.driver.held.count == 1)
    #expect(kit.status & DeviceStatus.needsReset != 0)
    kit.completeOne()
    #expect(try kit.takeUsed()?.head == UInt32(head))
    #expect(try kit.takeUsed() == nil)
    try expectBrokenThenUsable(kit)
  }

  @Test func readableAfterWritableBreaksTheDevice() throws {
    // Known failure 23.
    let kit = try DriverKit()
    try kit.start()
    let header = try kit.header(RequestType.read, sector: 0)
    try kit.makeAvailable(
      try kit.writeChain([.writable(DriverKit.data, 512), .readable(header, 16), .writable(DriverKit.statuses, 1)]))
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func requestWithoutStatusOrWithoutHeaderBreaksTheDevice() throws {
    // Known failures 16 and 24.
    let kit = try DriverKit()
    try kit.start()
    try kit.makeAvailable(try kit.writeChain([.readable(try kit.header(0, sector: 0), 16)]))
    kit.kick()
    try expectBrokenThenUsable(kit)
    try kit.makeAvailable(
      try kit.writeChain([.readable(DriverKit.headers, 15), .writable(DriverKit.statuses, 1)]))
    kit.kick()
    try expectBrokenThenUsable(kit)
  }

  @Test func brokenDeviceTakesNothingMoreUntilReset() throws {
    // Known failure 63: one device broken, the rest runs.
    let kit = try DriverKit()
    try kit.start()
    try kit.makeAvailable(99)
    kit.kick()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    #expect(kit.driver.held.isEmpty)
    try expectBrokenThenUsable(kit)
  }

  @Test func randomRingsNeverTrapOrReachOutsideMemory() throws {
    // A deterministic storm of descriptors: whatever comes, the process lives and a reset restores service.
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    func random() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    let kit = try DriverKit()
    for _ in 0..<300 {
      try kit.start(features: indirectFeatures | (random() & 1 == 0 ? Feature.eventIndex : 0))
      for index in 0..<UInt16(16) {
        let address = random() % 4 == 0 ? random() : random() % DriverKit.ramBytes
        let length = random() % 3 == 0 ? UInt32(truncatingIfNeeded: random()) : UInt32(random() % 2048)
        let buffer = Buffer(address: address, byteCount: length, deviceWrites: random() & 1 == 0)
        let next = UInt16(truncatingIfNeeded: random() % 20)
        try kit.writeDescriptor(index, buffer, flags: UInt16(truncatingIfNeeded: random() % 8), next: next)
      }
      for _ in 0..<random() % 8 { try kit.makeAvailable(UInt16(truncatingIfNeeded: random() % 18)) }
      kit.kick()
      kit.completeAll()
    }
    kit.status = 0
    try kit.start()
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(try kit.requestStatus() == 0)
  }
}
