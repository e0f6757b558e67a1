// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@testable import Conformance

@Suite struct RemoteBusTests {
  private static let memoryBytes: UInt64 = 4 << 20

  private func makeBus() throws -> RemoteBus {
    RemoteBus(client: try MemoryMachine().makeServer().makeClient(), memoryBytes: Self.memoryBytes)
  }

  @Test func accessesReachTheMachine() throws {
    let bus = try makeBus()
    bus.ramWrite64(0x1000, 0x8877_6655_4433_2211)
    #expect(bus.ramRead8(0x1007) == 0x88)
    #expect(bus.mmioRead16(0x1002) == 0x4433)
    #expect(bus.ramRead32(0x1004) == 0x8877_6655)
    bus.store(0x2000, [1, 2, 3])
    #expect(bus.load(0x1FFF, count: 5) == [0, 1, 2, 3, 0])
    #expect(bus.in16(0x80) == 0xFFFF)
    #expect(bus.failure == nil)
  }

  @Test func bulkTransfersAreCutIntoPieces() throws {
    let bus = try makeBus()
    let bytes = (0..<(RemoteBus.bulkBytesMax * 2 + 5)).map { UInt8(truncatingIfNeeded: $0 * 7) }
    bus.store(0x10_0000, bytes)
    #expect(bus.load(0x10_0000, count: bytes.count) == bytes)
    #expect(bus.client.requestCount == 6)
  }

  @Test func memoryIsHandedOutAlignedAndZeroedUntilItEnds() throws {
    let bus = try makeBus()
    bus.fill(RemoteBus.memoryBase, byteCount: 64, 0xAA)
    #expect(bus.allocate(byteCount: 10, alignment: 1) == RemoteBus.memoryBase)
    #expect(bus.ramRead64(RemoteBus.memoryBase) == 0)
    #expect(bus.allocate(byteCount: 10, alignment: 4096) == RemoteBus.memoryBase + 4096)
    #expect(bus.allocate(byteCount: Self.memoryBytes, alignment: 1) == nil)
    #expect(bus.allocate(byteCount: .max, alignment: 1) == nil)
  }

  @Test func messagesAreCountedOnceAndCleared() throws {
    let bus = try makeBus()
    let interrupt = try #require(bus.allocateInterrupt(processor: 0))
    let other = try #require(bus.allocateInterrupt(processor: 0))
    #expect(other.address != interrupt.address)
    #expect(bus.interruptCount(interrupt) == 0)
    bus.ramWrite32(interrupt.address, interrupt.data)
    #expect(bus.waitForInterrupt(interrupt, after: 0))
    #expect(bus.interruptCount(interrupt) == 1)
    #expect(bus.interruptCount(other) == 0)
    bus.ramWrite32(interrupt.address, interrupt.data)
    #expect(bus.interruptCount(interrupt) == 2)
  }

  @Test func afterAFailureReadsGiveOnesAndWaitsEnd() throws {
    let server = try ScriptedServer { line in line == "readl 0x8" ? nil : ["OK 0x5\n"] }
    let bus = RemoteBus(client: server.makeClient(), memoryBytes: Self.memoryBytes)
    #expect(bus.mmioRead32(4) == 5)
    #expect(bus.mmioRead32(8) == .max)
    #expect(bus.failure?.kind == .closed)
    let first = bus.failure
    #expect(bus.in8(0) == 0xFF)
    #expect(bus.ramRead64(0) == .max)
    #expect(bus.load(0, count: 2) == [0xFF, 0xFF])
    bus.out8(0, 0)
    #expect(!bus.relax())
    #expect(bus.failure == first)
  }
}
