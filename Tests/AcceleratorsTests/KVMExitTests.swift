// SPDX-License-Identifier: Apache-2.0
import Accelerators
import HostSystem
import Machine
import Testing

@Suite(.enabled(if: kvmWorks, "KVM works here")) struct KVMExitTests {
  @Test func theEntryStateIsPVHs() throws {
    let guest = try KVMGuest { code in
      // ebx; then the segment registers and cr0, each by way of eax.
      code.emit(0x89, 0xd8)
      code.storeAccumulator(at: KVMGuest.scratch)
      code.emit(0x0f, 0x20, 0xc0)
      code.storeAccumulator(at: KVMGuest.scratch + 4)
      code.emit(0x0f, 0x20, 0xe0)
      code.storeAccumulator(at: KVMGuest.scratch + 8)
      code.emit(0x31, 0xc0, 0x8c, 0xc8)
      code.storeAccumulator(at: KVMGuest.scratch + 12)
      code.emit(0x31, 0xc0, 0x8c, 0xd8)
      code.storeAccumulator(at: KVMGuest.scratch + 16)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.run(untilPortAccesses: 1)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch) == 0x1234_5678)
    // Protection on, paging off; no extensions; code and data segments of their own.
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 4) & 0x8000_0001 == 1)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 8) == 0)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 12) == 8)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 16) == 16)
  }

  @Test func portAccessesOfEachWidthReachTheDevice() throws {
    let guest = try KVMGuest { code in
      code.out(devicePort, width: 1, 0xffff_ffa1)
      code.out(devicePort + 2, width: 2, 0xffff_b2a1)
      code.out(devicePort + 4, width: 4, 0xd4c3_b2a1)
      code.in(devicePort, width: 1, to: KVMGuest.scratch)
      code.in(devicePort + 2, width: 2, to: KVMGuest.scratch + 4)
      code.in(devicePort + 4, width: 4, to: KVMGuest.scratch + 8)
      code.in(0x9990, width: 2, to: KVMGuest.scratch + 12)
      code.out(devicePort, width: 1, 0)
      code.halt()
    }
    try guest.run(untilPortAccesses: 7)
    #expect(
      guest.ports.accesses == [
        .write(0, 1, 0xa1), .write(2, 2, 0xb2a1), .write(4, 4, 0xd4c3_b2a1), .read(0, 1), .read(2, 2), .read(4, 4),
        .write(0, 1, 0),
      ])
    #expect(guest.ports.withoutLock == 0)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch) == 0x11)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 4) == 0x4433)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 8) == 0x8877_6655)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 12) == 0xffff)
  }

  @Test(arguments: [1, 2, 4])
  func stringInstructionsTransferEachElement(width: Int) throws {
    let count = 300
    let guest = try KVMGuest { code in
      code.outString(devicePort, width: width, count: UInt32(count), from: KVMGuest.scratch)
      code.inString(devicePort + 4, width: width, count: UInt32(count), to: KVMGuest.scratch + 0x1000)
      code.out(devicePort + 8, width: 1, 1)
      code.halt()
    }
    let data = (0..<count * width).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
    try guest.machine.memory.write(data, at: UInt64(KVMGuest.scratch))
    try guest.run(untilPortAccesses: 2 * count + 1)
    let accesses = guest.ports.accesses
    let written = accesses[..<count].flatMap { access in
      (0..<width).map { UInt8(truncatingIfNeeded: (access.value ?? 0) >> (8 * UInt64($0))) }
    }
    #expect(written == data)
    #expect(accesses[..<count].allSatisfy { $0.offset == 0 && $0.width == width })
    #expect(Array(accesses[count..<2 * count]) == [Recorder.Access](repeating: .read(4, width), count: count))
    let answer = (0..<width).map { UInt8(truncatingIfNeeded: Recorder.answer >> (32 + 8 * UInt64($0))) }
    #expect(
      try guest.machine.memory.bytes(at: UInt64(KVMGuest.scratch) + 0x1000, count: count * width)
        == Array([[UInt8]](repeating: answer, count: count).joined()))
  }

  @Test(arguments: [1, 2, 4, 8])
  func deviceMemoryAccessesOfEachWidthReachTheDevice(width: Int) throws {
    let device = UInt32(deviceAddress)
    let guest = try KVMGuest { code in
      code.copy(from: KVMGuest.scratch, to: device + 0x10, width: width)
      code.copy(from: device + 0x18, to: KVMGuest.scratch + 0x100, width: width)
      code.copy(from: device + 0x8000, to: KVMGuest.scratch + 0x200, width: width)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    let value: UInt64 = 0x1827_3645_d4c3_b2a1
    let mask = width == 8 ? UInt64.max : 1 << UInt64(8 * width) - 1
    try guest.machine.memory.store(value, at: UInt64(KVMGuest.scratch))
    try guest.machine.memory.store(UInt64.max, at: UInt64(KVMGuest.scratch + 0x200))
    try guest.run(untilPortAccesses: 1)
    #expect(guest.registers.accesses == [.write(0x10, width, value & mask), .read(0x18, width)])
    #expect(guest.registers.withoutLock == 0)
    #expect(try guest.load(UInt64.self, KVMGuest.scratch + 0x100) == Recorder.answer & mask)
    // Unclaimed device memory reads as 0.
    #expect(try guest.load(UInt64.self, KVMGuest.scratch + 0x200) == ~mask)
  }

  @Test func anAccessAcrossAPageArrivesByteForByte() throws {
    let device = UInt32(deviceAddress)
    let guest = try KVMGuest { code in
      code.copy(from: KVMGuest.scratch, to: device + 0xffd, width: 4)
      code.copy(from: device + 0xffd, to: KVMGuest.scratch + 0x100, width: 4)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.machine.memory.store(UInt32(0xd4c3_b2a1), at: UInt64(KVMGuest.scratch))
    try guest.run(untilPortAccesses: 1)
    // KVM splits the access at the page, and three bytes are no width that a device knows.
    #expect(
      guest.registers.accesses == [
        .write(0xffd, 1, 0xa1), .write(0xffe, 1, 0xb2), .write(0xfff, 1, 0xc3), .write(0x1000, 1, 0xd4),
        .read(0xffd, 1), .read(0xffe, 1), .read(0xfff, 1), .read(0x1000, 1),
      ])
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 0x100) == 0x1188_7766)
  }

  @Test func aDoorbellRingsWithoutAnExit() throws {
    let address = UInt32(deviceAddress) + 0x1000
    let guest = try KVMGuest { code in
      for _ in 0..<3 { code.copy(from: KVMGuest.scratch, to: address, width: 2) }
      code.copy(from: KVMGuest.scratch, to: address, width: 4)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    let event = try EventDescriptor()
    guest.machine.lock.withLock {
      _ = guest.machine.doorbells.add(Doorbell(address: UInt64(address), width: 2, event: event))
    }
    try guest.run(untilPortAccesses: 1)
    #expect(event.consume() == 3)
    #expect(guest.registers.accesses == [.write(0x1000, 4, 0)])
  }

  @Test func doorbellsComeAndGoWhileTheGuestRuns() throws {
    let address = UInt32(deviceAddress) + 0x1000
    let guest = try KVMGuest { code in
      for step in 1...3 {
        code.copy(from: KVMGuest.scratch, to: address, width: 2)
        code.out(devicePort, width: 1, UInt32(step))
      }
      code.halt()
    }
    let event = try EventDescriptor()
    let doorbell = Doorbell(address: UInt64(address), width: 2, event: event)
    let doorbells = guest.machine.doorbells
    // The vCPU waits in this call with the machine lock held, as it does when a guest moves a BAR.
    guest.ports.onWrite = { access in
      if access.value == 1 { doorbells.add(doorbell) } else { doorbells.remove(address: UInt64(address), width: 2) }
    }
    try guest.run(untilPortAccesses: 3)
    #expect(event.consume() == 1)
    #expect(guest.registers.accesses == [.write(0x1000, 2, 0), .write(0x1000, 2, 0)])
  }

  @Test func doorbellsThatWereThereBeforeAreRegistered() throws {
    let address = UInt32(deviceAddress) + 0x1000
    let machine = try makeMachine()
    let ports = try Recorder(machine)
    let event = try EventDescriptor()
    machine.lock.withLock {
      machine.portSpace.map(ports, at: UInt64(devicePort), byteCount: 16)
      machine.doorbells.add(Doorbell(address: UInt64(address), width: 4, event: event))
    }
    let accelerator = try KVMAccelerator(machine: machine, processorCount: 1)
    var code = GuestCode()
    code.copy(from: KVMGuest.scratch, to: address, width: 4)
    code.out(devicePort, width: 1, 1)
    code.halt()
    try machine.memory.write(code.bytes, at: UInt64(KVMGuest.codeAddress))
    try accelerator.boot(entry: KVMGuest.codeAddress, startInfo: 0)
    try accelerator.start()
    #expect(ports.wait(count: 1))
    accelerator.requestStop()
    accelerator.join()
    #expect(event.consume() == 1)
  }

  @Test func aDoorbellThatKVMRefusesExitsToTheDevice() throws {
    let address = UInt32(deviceAddress) + 0x1000
    let guest = try KVMGuest { code in
      code.copy(from: KVMGuest.scratch, to: address, width: 2)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    let event = try EventDescriptor()
    // Three bytes is no width that an ioeventfd has.
    let refused = Doorbell(address: UInt64(address), width: 3, event: event)
    guest.machine.lock.withLock {
      guest.machine.doorbells.add(refused)
      guest.machine.doorbells.remove(address: refused.address, width: refused.width)
    }
    try guest.run(untilPortAccesses: 1)
    #expect(guest.registers.accesses == [.write(0x1000, 2, 0)])
    #expect(event.consume() == 0)
  }

  // MARK: Guests that cannot go on

  @Test func aTripleFaultIsReported() throws {
    let guest = try KVMGuest { code in
      // A table without gates, and an undefined instruction that finds none, nor the faults after it.
      code.loadInterruptTable(at: KVMGuest.scratch)
      code.emit(0x0f, 0x0b)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.start()
    #expect(guest.faulted.wait { !guest.faults.elements.isEmpty })
    guest.stop { $0 == "triple fault" }
    #expect(guest.faults.elements == ["triple fault"])
    #expect(guest.ports.accesses.isEmpty)
  }

  @Test func codeInDeviceMemoryIsAFaultWithItsAddress() throws {
    let guest = try KVMGuest { $0.jump(to: UInt32(deviceAddress) + 0x20) }
    try guest.start()
    #expect(guest.faulted.wait { !guest.faults.elements.isEmpty })
    guest.stop { _ in true }
    let text = try #require(guest.faults.elements.first)
    #expect(text.hasPrefix("processor 0: ") && text.contains("0xd0000020"), "it said: \(text)")
    #expect(!text.contains("\n"))
  }
}
