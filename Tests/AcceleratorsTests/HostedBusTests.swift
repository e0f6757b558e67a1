// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem
import Machine
import Testing

@testable import Accelerators

@Suite struct HostedBusTests {
  @Test func portAccessesOfEachWidthReachTheDevice() throws {
    let values = Collected<UInt32>()
    let guest = try HostedGuest.run { bus in
      values.add(UInt32(bus.in8(devicePort)))
      values.add(UInt32(bus.in16(devicePort + 2)))
      values.add(bus.in32(devicePort + 4))
      bus.out8(devicePort, 0xa1)
      bus.out16(devicePort + 2, 0xb2a1)
      bus.out32(devicePort + 4, 0xd4c3_b2a1)
    }
    #expect(values.elements == [0x11, 0x4433, 0x8877_6655])
    #expect(
      guest.ports.accesses == [
        .read(0, 1), .read(2, 2), .read(4, 4), .write(0, 1, 0xa1), .write(2, 2, 0xb2a1), .write(4, 4, 0xd4c3_b2a1),
      ])
    #expect(guest.ports.withoutLock == 0)
  }

  @Test func deviceMemoryAccessesOfEachWidthReachTheDevice() throws {
    let values = Collected<UInt64>()
    let guest = try HostedGuest.run { bus in
      values.add(UInt64(bus.mmioRead8(deviceAddress + 1)))
      values.add(UInt64(bus.mmioRead16(deviceAddress + 2)))
      values.add(UInt64(bus.mmioRead32(deviceAddress + 4)))
      values.add(bus.mmioRead64(deviceAddress + 8))
      bus.mmioWrite8(deviceAddress + 1, 0xa1)
      bus.mmioWrite16(deviceAddress + 2, 0xb2a1)
      bus.mmioWrite32(deviceAddress + 4, 0xd4c3_b2a1)
      bus.mmioWrite64(deviceAddress + 8, 0x1827_3645_d4c3_b2a1)
    }
    #expect(values.elements == [0x22, 0x4433, 0x8877_6655, Recorder.answer])
    #expect(
      guest.registers.accesses == [
        .read(1, 1), .read(2, 2), .read(4, 4), .read(8, 8), .write(1, 1, 0xa1), .write(2, 2, 0xb2a1),
        .write(4, 4, 0xd4c3_b2a1), .write(8, 8, 0x1827_3645_d4c3_b2a1),
      ])
    #expect(guest.registers.withoutLock == 0)
  }

  @Test func aSleepLetsItsTimePassByTheBusesClock() throws {
    let elapsed = Collected<UInt64>()
    try HostedGuest.run { bus in
      let start = bus.nanoseconds
      _ = bus.sleep(nanoseconds: 20_000)
      elapsed.add(bus.nanoseconds - start)
    }
    #expect(elapsed.elements.count == 1 && elapsed.elements.allSatisfy { $0 >= 20_000 })
  }

  @Test func unclaimedPlacesAnswerAsOnAPC() throws {
    let values = Collected<UInt64>()
    try HostedGuest.run { bus in
      bus.out32(0x9990, 1)
      bus.mmioWrite64(0xc000_0000, 1)
      values.add(UInt64(bus.in8(0x9990)))
      values.add(UInt64(bus.in32(0x9990)))
      values.add(bus.mmioRead64(0xc000_0000))
    }
    #expect(values.elements == [0xff, 0xffff_ffff, 0])
  }

  @Test func aDeviceUnderRAMIsNotSeen() throws {
    let values = Collected<UInt64>()
    let guest = try HostedGuest { bus in
      bus.mmioWrite32(0x2000, 0x1234_5678)
      values.add(UInt64(bus.mmioRead16(0x2000)))
      values.add(UInt64(bus.ramRead32(0x2000)))
    }
    guest.machine.lock.withLock { _ = guest.machine.memorySpace.map(guest.registers, at: 0x2000, byteCount: 8) }
    try guest.run()
    #expect(values.elements == [0x5678, 0x1234_5678])
    #expect(guest.registers.accesses.isEmpty)
  }

  // MARK: RAM

  @Test func RAMAccessesOfEachWidthAreLittleEndian() throws {
    let values = Collected<UInt64>()
    let guest = try HostedGuest.run { bus in
      bus.ramWrite64(0x1000, 0x8877_6655_4433_2211)
      values.add(UInt64(bus.ramRead8(0x1001)))
      values.add(UInt64(bus.ramRead16(0x1002)))
      values.add(UInt64(bus.ramRead32(0x1004)))
      values.add(bus.ramRead64(0x1000))
      bus.ramWrite8(0x1001, 0xa1)
      bus.ramWrite16(0x1002, 0xb2a1)
      bus.ramWrite32(0x1004, 0xd4c3_b2a1)
    }
    #expect(values.elements == [0x22, 0x4433, 0x8877_6655, 0x8877_6655_4433_2211])
    #expect(try guest.machine.memory.bytes(at: 0x1000, count: 8) == [0x11, 0xa1, 0xa1, 0xb2, 0xa1, 0xb2, 0xc3, 0xd4])
  }

  @Test func theLastBytesOfRAMAreReached() throws {
    let values = Collected<UInt64>()
    try HostedGuest.run { bus in
      bus.ramWrite64(ramBytes - 8, 0x8877_6655_4433_2211)
      values.add(bus.ramRead64(ramBytes - 8))
      values.add(UInt64(bus.ramRead32(ramBytes - 4)))
      values.add(UInt64(bus.ramRead16(ramBytes - 2)))
      values.add(UInt64(bus.ramRead8(ramBytes - 1)))
    }
    #expect(values.elements == [0x8877_6655_4433_2211, 0x8877_6655, 0x8877, 0x88])
  }

  @Test(arguments: [ramBytes, ramBytes + 4096, deviceAddress, UInt64.max & ~7, 1 << 63])
  func outsideRAMReadsAreOnesAndWritesAreLost(address: UInt64) throws {
    let values = Collected<UInt64>()
    let guest = try HostedGuest.run { bus in
      bus.ramWrite8(address, 0)
      bus.ramWrite16(address, 0)
      bus.ramWrite32(address, 0)
      bus.ramWrite64(address, 0)
      values.add(UInt64(bus.ramRead8(address)))
      values.add(UInt64(bus.ramRead16(address)))
      values.add(UInt64(bus.ramRead32(address)))
      values.add(bus.ramRead64(address))
    }
    #expect(values.elements == [0xff, 0xffff, 0xffff_ffff, .max])
    #expect(guest.registers.accesses.isEmpty)
  }

  @Test func anAccessThatEndsBeyondRAMIsOutside() throws {
    let values = Collected<UInt64>()
    try HostedGuest.run { bus in
      bus.ramWrite64(ramBytes - 8, 0)
      bus.ramWrite64(ramBytes - 4, 1)
      values.add(bus.ramRead64(ramBytes - 4))
      values.add(bus.ramRead64(ramBytes - 8))
    }
    #expect(values.elements == [.max, 0])
  }

  @Test func allocationsAreAlignedZeroedAndDisjoint() throws {
    let taken = Collected<(start: UInt64, byteCount: UInt64, isZero: Bool)>()
    let allocate = { @Sendable (bus: HostedBus) in
      for round in 0..<200 {
        let byteCount = UInt64(round * 37 % 1000 + 1)
        let alignment: UInt64 = 1 << UInt64(round % 13)
        guard let start = bus.allocate(byteCount: byteCount, alignment: alignment) else { return }
        let isZero = (0..<byteCount).allSatisfy { bus.ramRead8(start + $0) == 0 }
        for offset in 0..<byteCount { bus.ramWrite8(start + offset, 0xff) }
        taken.add((start, byteCount, isZero && start % alignment == 0))
      }
    }
    try HostedGuest.run(processorCount: 2) { bus in
      #expect(bus.startProcessor(1, allocate))
      allocate(bus)
    }
    let ranges = taken.elements.sorted { $0.start < $1.start }
    #expect(ranges.count >= 200)
    #expect(ranges.allSatisfy { $0.isZero && $0.start >= 1 << 20 && $0.start + $0.byteCount <= ramBytes })
    #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.start + $0.byteCount <= $1.start })
  }

  @Test func allocationEndsWithTheMemory() throws {
    let results = Collected<UInt64?>()
    try HostedGuest.run { bus in
      results.add(bus.allocate(byteCount: .max, alignment: 1))
      results.add(bus.allocate(byteCount: ramBytes, alignment: 1))
      results.add(bus.allocate(byteCount: 1, alignment: 1 << 63))
      results.add(bus.allocate(byteCount: ramBytes - (1 << 20) - 16, alignment: 4096))
      results.add(bus.allocate(byteCount: 17, alignment: 1))
      results.add(bus.allocate(byteCount: 16, alignment: 16))
      results.add(bus.allocate(byteCount: 1, alignment: 1))
    }
    #expect(results.elements == [nil, nil, nil, 1 << 20, nil, ramBytes - 16, nil])
  }

  // MARK: Doorbells

  @Test func aDoorbellRingsWithoutTheMachineLock() throws {
    let rung = try Signal()
    let event = try EventDescriptor()
    let flag = HostedGuest.Flag()
    let guest = try HostedGuest { bus in
      bus.mmioWrite16(deviceAddress + 0x1000, 3)
      flag.set()
      rung.send()
    }
    guest.machine.lock.withLock {
      _ = guest.machine.doorbells.add(Doorbell(address: deviceAddress + 0x1000, width: 2, event: event))
    }
    guest.machine.lock.lock()
    try guest.accelerator.start()
    let isOver = rung.wait { flag.isSet }
    guest.machine.lock.unlock()
    guest.accelerator.requestStop()
    guest.accelerator.join()
    #expect(isOver, "the processor waited for the machine lock")
    #expect(event.consume() == 1)
    #expect(guest.registers.accesses.isEmpty)
  }

  @Test func accessesOfOtherWidthsThanTheDoorbellsReachTheDevice() throws {
    let event = try EventDescriptor()
    let guest = try HostedGuest { bus in
      bus.mmioWrite32(deviceAddress + 0x1000, 1)
      bus.mmioWrite8(deviceAddress + 0x1000, 2)
      bus.mmioWrite16(deviceAddress + 0x1002, 3)
      _ = bus.mmioRead16(deviceAddress + 0x1000)
      bus.mmioWrite16(deviceAddress + 0x1000, 4)
    }
    guest.machine.lock.withLock {
      _ = guest.machine.doorbells.add(Doorbell(address: deviceAddress + 0x1000, width: 2, event: event))
    }
    try guest.run()
    #expect(event.consume() == 1)
    #expect(
      guest.registers.accesses == [
        .write(0x1000, 4, 1), .write(0x1000, 1, 2), .write(0x1002, 2, 3), .read(0x1000, 2),
      ])
  }
}
