// SPDX-License-Identifier: Apache-2.0
import Accelerators
import HostSystem
import Machine
import Testing

@Suite struct KVMProbeTests {
  @Test func theProbeIsUsableOrSaysWhyInOneLine() {
    switch KVMAccelerator.probe() {
    case .usable: #expect(kvmWorks)
    case .unusable(let reason):
      #expect(!kvmWorks && reason.contains("/dev/kvm") && !reason.contains("\n"))
    }
  }
}

@Suite(.enabled(if: kvmWorks, "KVM works here")) struct KVMProcessorTests {
  @Test(arguments: [0, -1, 256])
  func aNumberOfProcessorsThatKVMCannotMakeIsRefused(count: Int) throws {
    let machine = try makeMachine()
    let error = try #require(throws: KVMError.self) { _ = try KVMAccelerator(machine: machine, processorCount: count) }
    #expect(error.description.hasPrefix("/dev/kvm: a machine here has 1 to "))
    #expect(error.description.hasSuffix(" processors, not \(count)"))
  }

  /// The test guest sleeps by these; a machine here has no interval timer that it could measure them with.
  @Test func theGuestIsToldHowFastItsClocksRun() throws {
    let guest = try KVMGuest { code in
      code.cpuid(0x4000_0000, to: KVMGuest.scratch)
      code.cpuid(0x4000_0010, to: KVMGuest.scratch + 8)
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.run(untilPortAccesses: 1)
    #expect(try guest.load(UInt32.self, KVMGuest.scratch) >= 0x4000_0010)
    // kHz: a counter of 100 MHz to 10 GHz, and the bus of a nanosecond that KVM's timers count.
    #expect((100_000...10_000_000).contains(try guest.load(UInt32.self, KVMGuest.scratch + 8)))
    #expect(try guest.load(UInt32.self, KVMGuest.scratch + 12) == 1_000_000)
  }

  // MARK: Stopping. The pass condition of each test is that `join` returns.

  @Test func stopEndsAGuestThatSpins() throws {
    let guest = try KVMGuest { code in
      code.out(devicePort, width: 1, 1)
      code.spin()
    }
    try guest.run(untilPortAccesses: 1)
  }

  @Test func stopEndsAGuestThatHaltsWithInterruptsOff() throws {
    let guest = try KVMGuest { code in
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.run(untilPortAccesses: 1)
  }

  @Test func stopEndsAGuestThatWaitsForInterrupts() throws {
    let guest = try KVMGuest.withInterrupts()
    try guest.run(untilPortAccesses: 1)
  }

  @Test func stopEndsAGuestThatExitsAllTheTime() throws {
    let guest = try KVMGuest { code in
      code.out(devicePort, width: 1, 1)
      // in al, dx; back to it
      code.emit(0xec, 0xeb, 0xfd)
    }
    try guest.run(untilPortAccesses: 20)
  }

  @Test func stopEndsProcessorsThatWereNeverStarted() throws {
    let guest = try KVMGuest(processorCount: 4) { code in
      code.out(devicePort, width: 1, 1)
      code.halt()
    }
    try guest.run(untilPortAccesses: 1)
    #expect(guest.ports.accesses.count == 1)
  }

  @Test func aStopThatComesFirstKeepsTheGuestFromRunning() throws {
    let guest = try KVMGuest { code in
      code.out(devicePort, width: 1, 1)
      code.spin()
    }
    guest.accelerator.requestStop()
    try guest.start()
    guest.accelerator.join()
    #expect(guest.ports.accesses.isEmpty)
  }

  /// The stop meets every moment of a thread's start and of its way into the guest, over the rounds.
  @Test func noStopIsLostWhileProcessorsStart() throws {
    for round in 0..<150 {
      let guest = try KVMGuest(processorCount: 2) { code in
        if round % 2 == 0 { code.spin() } else { code.halt() }
      }
      try guest.start()
      for _ in 0..<(round * 37 % 1009) { _ = HostClock.nanoseconds }
      guest.accelerator.requestStop()
      guest.accelerator.requestStop()
      guest.accelerator.join()
    }
  }

  @Test func theStoppedMachineLetsGoOfEverything() throws {
    weak var accelerator: KVMAccelerator?
    weak var machine: Machine?
    do {
      let guest = try KVMGuest { $0.halt() }
      let route = guest.machine.interrupts.makeRoute()
      route.update(MSIMessage(address: 0xfee0_0000, data: 0x41))
      accelerator = guest.accelerator
      machine = guest.machine
      guest.machine.vcpus = guest.accelerator
      guest.accelerator.onTripleFault = { [machine = guest.machine] in machine.requestReset() }
      try guest.start()
      guest.stop()
      route.close()
    }
    #expect(accelerator == nil && machine == nil)
  }

  // MARK: Several processors

  @Test func applicationProcessorsStartByINITAndSIPIWithNumbersOfTheirOwn() throws {
    let page: UInt32 = 0x8000
    let guest = try KVMGuest(processorCount: 3) { code in
      for processor in UInt32(1)...2 { KVMGuest.startProcessor(processor, at: page, &code) }
      // cpuid leaf 1; mov eax, ebx
      code.set(.eax, 1)
      code.emit(0x0f, 0xa2, 0x89, 0xd8)
      code.set(.edx, UInt32(devicePort))
      code.outAccumulator(width: 4)
      code.halt()
    }
    // The same in real mode, where 32-bit operands need a prefix: mov eax, 1; cpuid; mov eax, ebx; mov dx, port;
    // out dx, eax; cli; hlt; back to hlt.
    try guest.machine.memory.write(
      [
        0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0xba, UInt8(devicePort & 0xff), UInt8(devicePort >> 8),
        0x66, 0xef, 0xfa, 0xf4, 0xeb, 0xfd,
      ], at: UInt64(page))
    try guest.run(untilPortAccesses: 3)
    #expect(guest.ports.written.map { $0 >> 24 }.sorted() == [0, 1, 2])
  }

  @Test func interruptsReachTheProcessorTheyNameAndNoOther() throws {
    let page: UInt32 = 0x8000
    let guest = try KVMGuest(processorCount: 2) { code in
      KVMGuest.startProcessor(1, at: page, &code)
      code.halt()
    }
    try guest.writeInterruptTables()
    // The second processor goes to protected mode (lgdt, cr0, far jump to 8:0x8040), and takes interrupts there.
    try guest.machine.memory.write(
      [
        0x31, 0xc0, 0x8e, 0xd8, 0x66, 0x0f, 0x01, 0x16, 0x40, 0x50, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0,
        0x66, 0xea, 0x40, 0x80, 0x00, 0x00, 0x08, 0x00,
      ], at: UInt64(page))
    var code = GuestCode()
    // Data segments from selector 16.
    code.set(.eax, 16)
    code.emit(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0)
    KVMGuest.enableInterrupts(&code)
    code.haltForInterrupts()
    try guest.machine.memory.write(code.bytes, at: UInt64(page) + 0x40)
    try guest.start()
    try #require(guest.ports.wait(count: 1))
    let interrupts = guest.machine.interrupts
    let routes = (0..<2).map { _ in interrupts.makeRoute() }
    routes[0].update(MSIMessage(address: 0xfee0_0000, data: 0x41))
    routes[1].update(MSIMessage(address: 0xfee0_1000, data: 0x42))
    for round in 1...20 {
      routes[0].fire()
      routes[1].fire()
      try #require(guest.ports.wait(count: 1 + round))
    }
    guest.stop()
    routes.forEach { $0.close() }
    #expect(guest.vectors == [UInt64](repeating: 0x42, count: 20))
  }
}
