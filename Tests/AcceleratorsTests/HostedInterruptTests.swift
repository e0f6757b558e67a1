// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem
import Machine
import Testing

@testable import Accelerators

/// A message, and the vector of processor 1 (of 2) that it reaches; nil for none.
private struct Delivery: Sendable, CustomTestStringConvertible {
  var testDescription: String
  var address: UInt64
  var data: UInt32
  var vector: Int?
}

@Suite struct HostedInterruptTests {
  private static let deliveries = [
    Delivery(testDescription: "fixed", address: 0xfee0_1000, data: 0x41, vector: 0x41),
    Delivery(testDescription: "lowest priority", address: 0xfee0_1000, data: 0x141, vector: 0x41),
    Delivery(testDescription: "level-triggered", address: 0xfee0_1000, data: 0xc041, vector: 0x41),
    Delivery(testDescription: "the highest vector", address: 0xfee0_1000, data: 0xff, vector: 0xff),
    Delivery(testDescription: "the lowest vector", address: 0xfee0_1000, data: 0x10, vector: 0x10),
    Delivery(testDescription: "an illegal vector", address: 0xfee0_1000, data: 0x0f),
    Delivery(testDescription: "NMI", address: 0xfee0_1000, data: 0x441),
    Delivery(testDescription: "INIT", address: 0xfee0_1000, data: 0x541),
    Delivery(testDescription: "a processor that is not there", address: 0xfee0_2000, data: 0x41),
    Delivery(testDescription: "all processors", address: 0xfeef_f000, data: 0x41),
    Delivery(testDescription: "beside the window", address: 0xfed0_1000, data: 0x41),
    Delivery(testDescription: "above 4 GiB", address: 0x1_fee0_1000, data: 0x41),
    Delivery(testDescription: "address 0", address: 0, data: 0x41),
  ]

  @Test(arguments: deliveries)
  private func messagesAreDecodedAsALocalAPICDoesIt(_ delivery: Delivery) {
    let controller = HostedInterruptController(processorCount: 2)
    let route = controller.makeRoute()
    let message = MSIMessage(address: delivery.address, data: delivery.data)
    controller.send(message)
    route.update(message)
    route.fire()
    let counts = (0..<512).filter { controller.counters[$0] != 0 }
    #expect(counts == (delivery.vector.map { [256 + $0] } ?? []))
    #expect(counts.allSatisfy { controller.counters[$0] == 2 })
  }

  @Test func aRouteFollowsItsMessage() {
    let controller = HostedInterruptController(processorCount: 2)
    let route = controller.makeRoute()
    route.fire()
    route.update(HostedInterruptController.message(processor: 0, vector: 0x30))
    route.fire()
    route.update(HostedInterruptController.message(processor: 1, vector: 0x31))
    route.fire()
    route.update(MSIMessage(address: 0, data: 0))
    route.fire()
    #expect((0..<512).filter { controller.counters[$0] != 0 } == [0x30, 256 + 0x31])
    #expect(controller.counters[0x30] == 1 && controller.counters[256 + 0x31] == 1)
  }

  @Test func aFunctionsMSIReachesTheProcessorThatItsRegistersName() throws {
    let guest = try HostedGuest.run(processorCount: 2) { _ in }
    let function = MessageFunction()
    guest.machine.lock.withLock { guest.machine.attach(function) }
    func fire(_ processor: Int, _ vector: UInt32) {
      let message = HostedInterruptController.message(processor: processor, vector: vector)
      guest.machine.lock.withLock { function.program(message) }
      function.msi?.notify()
    }
    fire(0, 0x30)
    fire(1, 0x31)
    fire(1, 0x31)
    guest.machine.lock.withLock { function.disable() }
    function.msi?.notify()
    let counters = guest.accelerator.controller.counters
    #expect((0..<512).filter { counters[$0] != 0 } == [0x30, 256 + 0x31])
    #expect(counters[0x30] == 1 && counters[256 + 0x31] == 2)
  }

  @Test func linesAreCountedByRisingEdge() throws {
    let guest = try HostedGuest.run { _ in }
    for asserted in [false, true, true, false, true] { guest.machine.interrupts.setLine(4, asserted: asserted) }
    guest.machine.interrupts.setLine(-1, asserted: true)
    guest.machine.interrupts.setLine(24, asserted: true)
    #expect(guest.accelerator.assertions(ofLine: 4) == 2)
    #expect([-1, 5, 24].allSatisfy { guest.accelerator.assertions(ofLine: $0) == 0 })
  }

  @Test func vectorsAreDistinctPerProcessorAndRunOut() throws {
    let taken = Collected<MessageInterrupt>()
    try HostedGuest.run(processorCount: 2) { bus in
      #expect(bus.allocateInterrupt(processor: 2) == nil)
      #expect(bus.allocateInterrupt(processor: -1) == nil)
      while let interrupt = bus.allocateInterrupt(processor: 1) { taken.add(interrupt) }
      #expect(bus.allocateInterrupt(processor: 0) != nil)
    }
    let vectors = taken.elements.map(\.number)
    #expect(vectors.count > 64 && Set(vectors).count == vectors.count)
    #expect(vectors.allSatisfy { (0x30...0xfe).contains($0) })
    #expect(taken.elements.allSatisfy { $0.address == 0xfee0_1000 && $0.data == $0.number })
  }

  @Test(arguments: [0, 1_000_000_000] as [UInt64])
  func anInterruptFromAnotherThreadEndsAWait(spinNs: UInt64) throws {
    let counts = Collected<UInt32>()
    let guest = try HostedGuest { bus in
      bus.spinNs = spinNs
      guard let interrupt = bus.allocateInterrupt(processor: 0) else { return }
      // Tells the device what to send; the answer comes while this processor waits, or just before.
      bus.mmioWrite64(deviceAddress, interrupt.address | UInt64(interrupt.data) << 32)
      while bus.interruptCount(interrupt) == 0, bus.waitForInterrupt(interrupt, after: 0) {}
      counts.add(bus.interruptCount(interrupt))
    }
    let controller = guest.machine.interrupts
    let device = Collected<HostThread>()
    guest.registers.onWrite = { access in
      let word = access.value ?? 0
      let message = MSIMessage(address: word & 0xffff_ffff, data: UInt32(word >> 32))
      if let thread = try? HostThread(name: "device", { controller.send(message) }) { device.add(thread) }
    }
    try guest.run()
    device.elements.forEach { $0.join() }
    #expect(counts.elements == [1])
  }

  @Test func whatADeviceWroteBeforeItsInterruptIsVisibleAfterwards() throws {
    let rounds: UInt32 = 20_000
    let wrong = Collected<UInt32>()
    try HostedGuest.run(processorCount: 2) { bus in
      guard let request = bus.allocateInterrupt(processor: 1), let answer = bus.allocateInterrupt(processor: 0),
        let slot = bus.allocate(byteCount: 8, alignment: 8)
      else { return }
      // Processor 1 plays the device: it answers each request in memory and then by interrupt.
      let started = bus.startProcessor(1) { device in
        for round in 0..<rounds {
          while device.interruptCount(request) == round {
            guard device.waitForInterrupt(request, after: round) else { return }
          }
          device.ramWrite32(slot, round &* 7)
          device.send(answer)
        }
      }
      #expect(started)
      for round in 0..<rounds {
        bus.send(request)
        while bus.interruptCount(answer) == round {
          guard bus.waitForInterrupt(answer, after: round) else { return }
        }
        if bus.ramRead32(slot) != round &* 7 { wrong.add(round) }
      }
    }
    #expect(wrong.elements.isEmpty)
  }

  /// Processor 0 falls asleep while processor 1, which never sleeps, answers it a little later in each round than in the
  /// round before: the answers meet every moment of falling asleep. A single lost wakeup stops both for good.
  @Test func noWakeupIsLostInAHundredThousand() throws {
    let delaysMax: UInt32 = 251
    try exchange(rounds: 100_000) { bus, ping, round in
      while bus.interruptCount(ping) == round { guard bus.relax() else { return false } }
      for _ in 0..<round % delaysMax { _ = bus.ramRead32(0) }
      return true
    }
  }

  /// Both sleep until the other has interrupted them.
  @Test func twoSleepersWakeEachOther() throws {
    try exchange(rounds: 20_000) { bus, ping, round in
      while bus.interruptCount(ping) == round {
        guard bus.waitForInterrupt(ping, after: round) else { return false }
      }
      return true
    }
  }

  /// Processor 0 interrupts processor 1 and sleeps until that interrupts it, `rounds` times.
  /// - Parameter awaitPing: what processor 1 does until a round's interrupt is there; false where the machine ends.
  private func exchange(
    rounds: UInt32, awaitPing: @escaping @Sendable (HostedBus, MessageInterrupt, UInt32) -> Bool
  ) throws {
    let finished = Collected<UInt32>()
    try HostedGuest.run(processorCount: 2) { bus in
      guard let ping = bus.allocateInterrupt(processor: 1), let pong = bus.allocateInterrupt(processor: 0) else {
        return
      }
      let started = bus.startProcessor(1) { bus in
        for round in 0..<rounds {
          guard awaitPing(bus, ping, round) else { return }
          bus.send(pong)
        }
      }
      #expect(started)
      for round in 0..<rounds {
        bus.send(ping)
        while bus.interruptCount(pong) == round {
          guard bus.waitForInterrupt(pong, after: round) else { return }
        }
      }
      finished.add(bus.interruptCount(pong))
    }
    #expect(finished.elements == [rounds])
  }
}

extension HostedBus {
  /// Sends an interrupt as a device does.
  fileprivate func send(_ interrupt: MessageInterrupt) {
    accelerator.controller.send(MSIMessage(address: interrupt.address, data: interrupt.data))
  }
}
