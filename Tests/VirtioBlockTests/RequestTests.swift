// SPDX-License-Identifier: Apache-2.0
// virtio-blk requests, good and bad (virtio 1.3 §5.2.6; known failures 20 to 30).
import Block
import Glibc
import Testing

@testable import VirtioBlock

@Suite struct RequestTests {
  private let read = RequestType.read
  private let write = RequestType.write

  @Test func readMovesTheSectorIntoGuestMemory() throws {
    let kit = try DriverKit()
    try kit.start()
    let head = try kit.submit(read, sector: 3, data: [.writable(DriverKit.data, 512)])
    #expect(try kit.takeUsed() == nil)
    kit.completeOne()
    let used = try #require(try kit.takeUsed())
    #expect(used.head == UInt32(head))
    #expect(used.written == 513)
    #expect(try kit.requestStatus() == 0)
    #expect(try kit.memory.bytes(at: DriverKit.data, count: 512) == Array(kit.driver.bytes[3 * 512..<4 * 512]))
  }

  @Test func writeMovesManyDataDescriptors() throws {
    // Known failure 25: only the first data descriptor is processed.
    let kit = try DriverKit()
    try kit.start()
    try kit.memory.write((0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 13) }, at: DriverKit.data)
    try kit.submit(
      write, sector: 5,
      data: [
        .readable(DriverKit.data, 100), .readable(DriverKit.data + 100, 412), .readable(DriverKit.data + 512, 512),
      ])
    kit.completeOne()
    #expect(try kit.takeUsed()?.written == 1)
    #expect(try kit.requestStatus() == 0)
    #expect(Array(kit.driver.bytes[5 * 512..<7 * 512]) == (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 13) })
  }

  @Test func headerAndStatusMayBeFramedAnyWay() throws {
    // §2.7.4.1: no assumption about framing. Header in three pieces, status sharing the data's last descriptor.
    let kit = try DriverKit()
    try kit.start()
    let header = try kit.header(read, sector: 1)
    let head = try kit.writeChain([
      .readable(header, 3), .readable(header + 3, 0), .readable(header + 3, 9), .readable(header + 12, 4),
      .writable(DriverKit.data, 512 + 1),
    ])
    try kit.makeAvailable(head)
    kit.kick()
    kit.completeOne()
    #expect(try kit.takeUsed()?.written == 513)
    #expect(try kit.memory.bytes(at: DriverKit.data + 512, count: 1) == [0])
    #expect(try kit.memory.bytes(at: DriverKit.data, count: 512) == Array(kit.driver.bytes[512..<1024]))
  }

  @Test func headerAndDataMayShareADescriptor() throws {
    let kit = try DriverKit()
    try kit.start()
    let base = DriverKit.data
    try kit.memory.store(UInt32(1), at: base)
    try kit.memory.store(UInt64(2), at: base + 8)
    try kit.memory.fill(address: base + 16, byteCount: 512, with: 0x5a)
    let head = try kit.writeChain([.readable(base, 528), .writable(DriverKit.statuses, 1)])
    try kit.makeAvailable(head)
    kit.kick()
    kit.completeOne()
    #expect(Array(kit.driver.bytes[1024..<1536]) == [UInt8](repeating: 0x5a, count: 512))
  }

  @Test(arguments: [1, 511, 513, 1023] as [UInt32])
  func lengthThatIsNoWholeSectorIsAnIOErrorWithoutIO(byteCount: UInt32) throws {
    // Known failure 20 (CVE-2011-1750).
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(read, sector: 0, data: [.writable(DriverKit.data, byteCount)])
    #expect(kit.driver.held.isEmpty)
    #expect(try kit.requestStatus() == RequestStatus.ioError)
    // The status byte is behind the data, of which nothing was written (§2.7.8.2).
    #expect(try kit.takeUsed()?.written == 0)
  }

  @Test(
    arguments: [(64, 1), (63, 2), (UInt64.max, 1), (UInt64.max - 1, 4), (1 << 55, 1), (65, 0)] as [(UInt64, UInt32)])
  func rangeBeyondTheEndIsAnIOError(sector: UInt64, sectors: UInt32) throws {
    // Known failure 21: sector overflow.
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(read, sector: sector, data: sectors == 0 ? [] : [.writable(DriverKit.data, sectors * 512)])
    #expect(kit.driver.held.isEmpty)
    #expect(try kit.requestStatus() == RequestStatus.ioError)
  }

  @Test func lastSectorIsReadable() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(read, sector: 63, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(try kit.requestStatus() == 0)
  }

  @Test func writeToReadOnlyDiskIsAnIOErrorAndFlushStillWorks() throws {
    // Known failure 22.
    let kit = try DriverKit(readOnly: true)
    #expect(kit.offeredFeatures & Feature.readOnly != 0)
    try kit.start()
    let before = kit.driver.bytes
    try kit.submit(write, sector: 0, data: [.readable(DriverKit.data, 512)])
    #expect(kit.driver.held.isEmpty)
    #expect(try kit.requestStatus() == RequestStatus.ioError)
    try kit.submit(RequestType.flush, sector: 0, data: [], index: 1)
    kit.completeAll()
    #expect(try kit.requestStatus(1) == 0)
    #expect(kit.driver.bytes == before)
  }

  @Test(arguments: [2, 3, 5, 0xdead, UInt32.max] as [UInt32])
  func unknownTypeIsUnsupportedAndTheHeadComesBack(type: UInt32) throws {
    // Known failures 28 and 29.
    let kit = try DriverKit()
    try kit.start()
    let head = try kit.submit(type, sector: 0, data: [.writable(DriverKit.data, 512)])
    #expect(try kit.requestStatus() == RequestStatus.unsupported)
    #expect(try kit.takeUsed()?.head == UInt32(head))
  }

  @Test(arguments: [1, 19, 20, 64] as [UInt32])
  func identificationNeverOverrunsItsBuffer(byteCount: UInt32) throws {
    // Known failure 27.
    let kit = try DriverKit(serial: "SERIAL-0123456789-END")
    try kit.start()
    try kit.memory.fill(address: DriverKit.data, byteCount: 128, with: 0xaa)
    try kit.submit(RequestType.getID, sector: 0, data: [.writable(DriverKit.data, byteCount)])
    let expected = Array("SERIAL-0123456789-EN".utf8).prefix(Int(byteCount))
    #expect(try kit.memory.bytes(at: DriverKit.data, count: expected.count) == Array(expected))
    let rest = try kit.memory.bytes(at: DriverKit.data + UInt64(expected.count), count: 8)
    #expect(rest == [UInt8](repeating: 0xaa, count: 8))
    // The status byte counts where it follows at once (§2.7.8.2).
    #expect(try kit.takeUsed()?.written == UInt32(expected.count) + (byteCount <= 20 ? 1 : 0))
  }

  @Test func hostErrorBecomesIOErrorAndMissingSupportBecomesUnsupported() throws {
    let kit = try DriverKit()
    try kit.start()
    try kit.submit(read, sector: 0, data: [.writable(DriverKit.data, 512)], index: 0)
    try kit.submit(read, sector: 0, data: [.writable(DriverKit.data, 512)], index: 1)
    kit.completeOne(result: -EIO)
    kit.completeOne(result: -EOPNOTSUPP)
    #expect(try kit.requestStatus(0) == RequestStatus.ioError)
    #expect(try kit.requestStatus(1) == RequestStatus.unsupported)
    #expect(try kit.takeUsed()?.written == 0)
  }

  @Test func writeIsForcedThroughWhileTheWriteCacheIsOff() throws {
    // §5.2.6.2; known failure 30: WCE off implies flush semantics.
    let kit = try DriverKit()
    try kit.start(features: Feature.version1 | Feature.flush | Feature.configWCE)
    try kit.submit(write, sector: 0, data: [.readable(DriverKit.data, 512)])
    #expect(kit.driver.held[0].pointee.forceUnitAccess == false)
    kit.completeOne()
    kit.write(0x2000 + 32, 1, 0)
    #expect(kit.read(0x2000 + 32, 1) == 0)
    try kit.submit(write, sector: 0, data: [.readable(DriverKit.data, 512)])
    // What was written before is flushed, unasked.
    #expect(kit.driver.held.map { $0.pointee.operation } == [.flush, .write])
    #expect(kit.driver.held.last?.pointee.forceUnitAccess == true)
    kit.completeAll()
    kit.write(0x2000 + 32, 1, 1)
    #expect(kit.read(0x2000 + 32, 1) == 1)
  }

  @Test func usedLengthOfAFailureCountsNothingThatWasNotWritten() throws {
    // §2.7.8.2; known failure 15.
    let kit = try DriverKit()
    try kit.start()
    for type in [read, RequestType.writeZeroes, 0xdead] {
      try kit.submit(type, sector: .max, data: [.writable(DriverKit.data, 1024)])
      #expect(try kit.requestStatus() != RequestStatus.ok)
      #expect(try kit.takeUsed()?.written == 0)
      try kit.submit(type, sector: .max, data: [])
      #expect(try kit.takeUsed()?.written == 1)
    }
    // A write that has room for more than its status.
    try kit.submit(
      write, sector: 0, data: [.readable(DriverKit.data, 512), .writable(DriverKit.data + 4096, 8)])
    kit.completeOne()
    #expect(try kit.requestStatus() == RequestStatus.ok)
    #expect(try kit.takeUsed()?.written == 0)
  }

  @Test func driverThatChoosesTheCacheButCannotFlushBeginsWithWriteThrough() throws {
    // §5.2.5.2.
    let kit = try DriverKit()
    kit.negotiate(Feature.version1 | Feature.configWCE)
    #expect(kit.read(0x2000 + 32, 1) == 0)
    kit.negotiate(Feature.version1 | Feature.configWCE | Feature.flush)
    #expect(kit.read(0x2000 + 32, 1) == 1)
    // Features that are refused change nothing.
    kit.negotiate(Feature.configWCE)
    #expect(kit.status == 3)
    #expect(kit.read(0x2000 + 32, 1) == 1)
  }

  @Test func driverWithoutFlushGetsAWriteThroughDisk() throws {
    let kit = try DriverKit()
    try kit.start(features: Feature.version1)
    try kit.submit(write, sector: 0, data: [.readable(DriverKit.data, 512)])
    #expect(kit.driver.held[0].pointee.forceUnitAccess == true)
  }

  @Test func resetGivesBackWhatWaitsForTheMachineToGoOn() throws {
    // Known failure 31, with a request that failed for lack of space.
    let kit = try DriverKit()
    var stops = 0
    kit.backend.onStop = { _, _ in stops += 1 }
    try kit.start()
    try kit.submit(write, sector: 0, data: [.readable(DriverKit.data, 512)])
    kit.completeOne(result: -ENOSPC)
    #expect(stops == 1)
    #expect(try kit.takeUsed() == nil)
    kit.status = 0
    kit.loop.runUntilIdle()
    #expect(kit.status == 0)
    #expect(kit.backend.inFlight == 0)
    #expect(try kit.requestStatus() == 0xee)
  }
}
