// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem
import Machine
import Testing

@testable import Accelerators

@Suite struct HostedProcessorTests {
  @Test func eachProcessorHasABusOfItsOwn() throws {
    let seen = Collected<Int>()
    try HostedGuest.run(processorCount: 4) { bus in
      #expect(bus.processorCount == 4)
      guard let interrupt = bus.allocateInterrupt(processor: 0) else { return }
      for index in 1..<4 {
        let started = bus.startProcessor(index) { other in
          seen.add(other.processor)
          other.accelerator.controller.send(MSIMessage(address: interrupt.address, data: interrupt.data))
        }
        #expect(started)
      }
      while bus.interruptCount(interrupt) < 3 {
        guard bus.waitForInterrupt(interrupt, after: bus.interruptCount(interrupt)) else { return }
      }
      seen.add(bus.processor)
    }
    #expect(seen.elements.sorted() == [0, 1, 2, 3])
  }

  @Test func aProcessorStartsOnceAndOnlyWhereThereIsOne() throws {
    let answers = Collected<Bool>()
    try HostedGuest.run(processorCount: 2) { bus in
      for index in [-1, 0, 2, 1, 1] { answers.add(bus.startProcessor(index) { _ in }) }
    }
    #expect(answers.elements == [false, false, false, true, false])
  }

  @Test func stopEndsSpinningAndSleepingProcessors() throws {
    let ready = try Signal()
    let started = Collected<Int>()
    let waits = Collected<Bool>()
    let guest = try HostedGuest(processorCount: 3) { bus in
      for index in 1..<3 {
        _ = bus.startProcessor(index) { bus in
          guard let interrupt = bus.allocateInterrupt(processor: index) else { return }
          started.add(index)
          ready.send()
          while bus.waitForInterrupt(interrupt, after: 0) {}
          waits.add(bus.waitForInterrupt(interrupt, after: 0))
        }
      }
      started.add(0)
      ready.send()
      while bus.relax() {}
      waits.add(bus.startProcessor(2) { _ in })
    }
    try guest.accelerator.start()
    #expect(ready.wait { started.elements.count == 3 })
    guest.accelerator.requestStop()
    guest.accelerator.requestStop()
    guest.accelerator.join()
    #expect(waits.elements == [false, false, false])
  }

  @Test func aStopThatComesFirstIsNotLost() throws {
    let waits = Collected<Bool>()
    let guest = try HostedGuest { bus in
      guard let interrupt = bus.allocateInterrupt(processor: 0) else { return }
      waits.add(bus.waitForInterrupt(interrupt, after: 0))
      waits.add(bus.relax())
    }
    guest.accelerator.requestStop()
    try guest.accelerator.start()
    guest.accelerator.join()
    #expect(waits.elements == [false, false])
  }

  /// The stop comes at every moment of falling asleep, over the rounds; a lost one would hang in `join`.
  @Test func noStopIsLostWhileProcessorsFallAsleep() throws {
    for round in 0..<500 {
      let ready = HostedGuest.Flag()
      let guest = try HostedGuest { bus in
        guard let interrupt = bus.allocateInterrupt(processor: 0) else { return }
        ready.set()
        while bus.waitForInterrupt(interrupt, after: 0) {}
      }
      try guest.accelerator.start()
      while !ready.isSet {}
      for _ in 0..<(round * 13 % 997) { _ = HostClock.nanoseconds }
      guest.accelerator.requestStop()
      guest.accelerator.join()
    }
  }

  @Test func aProcessorThatIsStartedDuringTheStopIsJoined() throws {
    for _ in 0..<100 {
      let running = Collected<Int>()
      let ended = Collected<Int>()
      let guest = try HostedGuest(processorCount: 2) { bus in
        running.add(0)
        if bus.startProcessor(
          1,
          { bus in
            while bus.relax() {}
            ended.add(1)
          })
        {
          running.add(1)
        }
        ended.add(0)
      }
      try guest.accelerator.start()
      while running.elements.isEmpty {}
      guest.accelerator.requestStop()
      guest.accelerator.join()
      #expect(ended.elements.sorted() == running.elements.sorted())
    }
  }

  @Test func theStoppedMachineLetsGoOfEverything() throws {
    weak var accelerator: HostedAccelerator?
    weak var machine: Machine?
    do {
      let guest = try HostedGuest { bus in while bus.relax() {} }
      accelerator = guest.accelerator
      machine = guest.machine
      guest.machine.vcpus = guest.accelerator
      try guest.accelerator.start()
      guest.accelerator.requestStop()
      guest.accelerator.join()
    }
    #expect(accelerator == nil && machine == nil)
  }
}
