// SPDX-License-Identifier: Apache-2.0
// Discard and write-zeroes requests, good and bad (virtio 1.3 §5.2.6; known failures 22 and 26).
import Block
import DeviceTestKit
import Glibc
import Testing

@testable import VirtioBlock

@Suite struct RangeRequestTests {
  private static let features =
    Feature.version1 | Feature.flush | Feature.discard | Feature.writeZeroes | Feature.configWCE

  private typealias Segment = (sector: UInt64, sectors: UInt32, flags: UInt32)

  private func kit(readOnly: Bool = false, features: UInt64 = Self.features) throws -> DriverKit {
    let kit = try DriverKit(readOnly: readOnly, driver: ScriptedDriver(servesRanges: true))
    try kit.start(features: features & kit.offeredFeatures)
    return kit
  }

  private func put(_ segments: [Segment], _ kit: DriverKit) throws {
    for (index, segment) in segments.enumerated() {
      let address = DriverKit.data + UInt64(index) * 16
      try kit.memory.store(segment.sector, at: address)
      try kit.memory.store(segment.sectors, at: address + 8)
      try kit.memory.store(segment.flags, at: address + 12)
    }
  }

  /// Submits segments as one readable buffer and gives the status byte, 0xee while there is none.
  private func answer(_ type: UInt32, _ segments: [Segment], byteCount: UInt32? = nil, _ kit: DriverKit) throws -> UInt8
  {
    try put(segments, kit)
    try kit.submit(type, sector: 0, data: [.readable(DriverKit.data, byteCount ?? UInt32(segments.count * 16))])
    return try kit.requestStatus()
  }

  private static let both = [RequestType.discard, RequestType.writeZeroes]

  @Test func featuresAndLimitsAreOfferedWhereTheDiskServesThem() throws {
    let kit = try kit()
    #expect(kit.offeredFeatures & (Feature.discard | Feature.writeZeroes) == Feature.discard | Feature.writeZeroes)
    let bytes = kit.device.configurationBytes
    func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) } }
    #expect(word(36) == Limit.rangeSectorsMax)
    #expect(word(40) == UInt32(Limit.rangeSegmentsMax))
    #expect(word(44) == 8)
    #expect(word(48) == Limit.rangeSectorsMax)
    #expect(word(52) == UInt32(Limit.rangeSegmentsMax))
    #expect(bytes[56] == 1)
    let plain = try DriverKit()
    #expect(plain.offeredFeatures & (Feature.discard | Feature.writeZeroes) == 0)
    #expect(plain.device.configurationBytes[36...].allSatisfy { $0 == 0 })
  }

  @Test func segmentsAreServedOneAfterTheOtherAndAnsweredOnce() throws {
    let kit = try kit()
    try put([(2, 3, 0), (10, 0, 0), (20, 4, 1)], kit)
    // The segments are split at an odd byte: framing is free.
    try kit.submit(
      RequestType.writeZeroes, sector: 0, data: [.readable(DriverKit.data, 21), .readable(DriverKit.data + 21, 27)])
    #expect(kit.driver.held.count == 1)
    let request = try #require(kit.driver.held.first)
    #expect(request.pointee.operation == .writeZeroes)
    #expect((request.pointee.offset, request.pointee.byteCount) == (1024, 1536))
    #expect(!request.pointee.mayUnmap)
    kit.completeOne()
    #expect(try kit.takeUsed() == nil)
    #expect((request.pointee.offset, request.pointee.byteCount) == (10240, 2048))
    #expect(request.pointee.mayUnmap)
    kit.completeOne()
    #expect(try kit.requestStatus() == RequestStatus.ok)
    #expect(try kit.takeUsed()?.written == 1)
    #expect(kit.driver.held.isEmpty)
  }

  @Test func guestThatChangesSegmentsAfterTheKickChangesNothing() throws {
    let kit = try kit()
    _ = try answer(RequestType.discard, [(0, 1, 0), (1, 1, 0)], kit)
    try put([(0, 1, 0), (1 << 60, 0xffff_ffff, 0xffff_ffff)], kit)
    kit.completeOne()
    #expect(kit.driver.held.first.map { $0.pointee.offset == 512 } == true)
    kit.completeOne()
    #expect(try kit.requestStatus() == RequestStatus.ok)
  }

  @Test func failedSegmentEndsTheRequestAndTheNextOneIsWhole() throws {
    let kit = try kit()
    _ = try answer(RequestType.writeZeroes, [(0, 1, 0), (1, 1, 0)], kit)
    kit.completeOne(result: -EIO)
    #expect(try kit.requestStatus() == RequestStatus.ioError)
    #expect(kit.driver.held.isEmpty)
    #expect(try kit.takeUsed() != nil)
    try kit.submit(RequestType.read, sector: 0, data: [.writable(DriverKit.data, 512)])
    kit.completeOne()
    #expect(try kit.requestStatus() == RequestStatus.ok)
    #expect(try kit.takeUsed()?.written == 513)
  }

  @Test func resetBetweenSegmentsEndsTheRequest() throws {
    let kit = try kit()
    _ = try answer(RequestType.writeZeroes, [(0, 1, 0), (1, 1, 0)], kit)
    kit.status = 0
    kit.completeOne()
    #expect(kit.driver.held.isEmpty)
    #expect(kit.status == 0)
    #expect(try kit.requestStatus() == 0xee)
  }

  @Test func unmapWithDiscardAndUnknownFlagsAreUnsupported() throws {
    let kit = try kit()
    #expect(try answer(RequestType.discard, [(0, 1, 1)], kit) == RequestStatus.unsupported)
    for type in Self.both {
      for flags: UInt32 in [2, 0x8000_0000, 0xffff_ffff] {
        #expect(try answer(type, [(0, 1, 0), (0, 1, flags)], kit) == RequestStatus.unsupported)
        // The flag decides even where the range is bad as well.
        #expect(try answer(type, [(1 << 63, 1, 0), (0, 1, flags)], kit) == RequestStatus.unsupported)
      }
    }
    #expect(kit.driver.held.isEmpty)
  }

  @Test(arguments: both) func badLengthsAndRangesAreErrorsAndNothingIsDone(type: UInt32) throws {
    let kit = try kit()
    let tooMany = [Segment](repeating: (0, 1, 0), count: Limit.rangeSegmentsMax + 1)
    #expect(try answer(type, tooMany, kit) == RequestStatus.ioError)
    for byteCount: UInt32 in [0, 1, 15, 17, 31] {
      #expect(try answer(type, [(0, 1, 0), (0, 1, 0)], byteCount: byteCount, kit) == RequestStatus.ioError)
    }
    let bad: [Segment] = [
      (64, 1, 0), (63, 2, 0), (0, 65, 0), (UInt64.max, 1, 0), (UInt64.max, UInt32.max, 0), (1 << 55, 1, 0),
      (0, UInt32.max, 0), (65, 0, 0),
    ]
    for segment in bad {
      #expect(try answer(type, [(0, 1, 0), segment], kit) == RequestStatus.ioError)
    }
    #expect(kit.driver.held.isEmpty)
  }

  @Test(arguments: both) func asManySegmentsAsTheConfigurationSaysAreServed(type: UInt32) throws {
    let kit = try kit()
    let segments = (0..<Limit.rangeSegmentsMax).map { (UInt64($0), UInt32(1), UInt32(0)) }
    _ = try answer(type, segments, kit)
    for index in segments.indices {
      #expect(kit.driver.held.first.map { $0.pointee.offset == UInt64(index) * 512 } == true)
      kit.completeOne()
    }
    #expect(try kit.requestStatus() == RequestStatus.ok)
  }

  @Test(arguments: both) func requestOfEmptySegmentsSucceedsWithoutTheDisk(type: UInt32) throws {
    let kit = try kit()
    #expect(try answer(type, [(0, 0, 0), (64, 0, 0)], kit) == RequestStatus.ok)
    #expect(kit.driver.held.isEmpty)
  }

  @Test(arguments: both) func readOnlyDiskAnswersWithAnErrorAndOffersNothing(type: UInt32) throws {
    // Known failure 22.
    let kit = try kit(readOnly: true)
    #expect(kit.offeredFeatures & (Feature.discard | Feature.writeZeroes) == 0)
    #expect(try answer(type, [(0, 1, 0)], kit) == RequestStatus.ioError)
    #expect(kit.driver.held.isEmpty)
  }

  @Test(arguments: both) func withoutTheFeatureTheRequestIsUnsupported(type: UInt32) throws {
    let kit = try kit(features: Feature.version1)
    #expect(try answer(type, [(0, 1, 0)], kit) == RequestStatus.unsupported)
    #expect(kit.driver.held.isEmpty)
  }
}
