// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Machine

@Suite struct DoorbellTests {
  private final class Observer: DoorbellObserver {
    var events: [String] = []
    func doorbellAdded(_ doorbell: Doorbell) { events.append("+\(doorbell.address)/\(doorbell.width)") }
    func doorbellRemoved(_ doorbell: Doorbell) { events.append("-\(doorbell.address)/\(doorbell.width)") }
  }

  @Test func writeOfTheRightWidthRings() throws {
    let table = DoorbellTable()
    let event = try EventDescriptor()
    #expect(table.add(Doorbell(address: 0x1000, width: 2, event: event)))
    for (address, width) in [(UInt64(0x1000), 1), (0x1000, 4), (0x1001, 2), (0xfff, 2), (0, 2)] {
      #expect(!table.ring(address: address, width: width))
    }
    #expect(event.consume() == 0)
    #expect(table.ring(address: 0x1000, width: 2))
    #expect(table.ring(address: 0x1000, width: 2))
    #expect(event.consume() == 2)
  }

  @Test func twoWidthsAtOneAddressAreTwoDoorbells() throws {
    let table = DoorbellTable()
    let (narrow, wide) = (try EventDescriptor(), try EventDescriptor())
    table.add(Doorbell(address: 0x1000, width: 2, event: narrow))
    table.add(Doorbell(address: 0x1000, width: 4, event: wide))
    #expect(table.ring(address: 0x1000, width: 4))
    #expect(narrow.consume() == 0)
    #expect(wide.consume() == 1)
    table.remove(address: 0x1000, width: 4)
    #expect(!table.ring(address: 0x1000, width: 4))
    #expect(table.ring(address: 0x1000, width: 2))
  }

  @Test func observerLearnsOfAllThatComesAndGoes() throws {
    let table = DoorbellTable()
    let observer = Observer()
    let event = try EventDescriptor()
    table.add(Doorbell(address: 1, width: 2, event: event))
    table.setObserver(observer)
    table.add(Doorbell(address: 2, width: 4, event: event))
    table.remove(address: 1, width: 4)
    table.remove(address: 1, width: 2)
    table.remove(address: 1, width: 2)
    #expect(observer.events == ["+1/2", "+2/4", "-1/2"])
    #expect(table.doorbells.map(\.address) == [2])
  }

  @Test func fullTableRefusesAndFreePlacesAreUsedAgain() throws {
    let table = DoorbellTable()
    let event = try EventDescriptor()
    let count = UInt64(DoorbellTable.doorbellsMax)
    for index in 1...count { #expect(table.add(Doorbell(address: index, width: 2, event: event))) }
    #expect(!table.add(Doorbell(address: count + 1, width: 2, event: event)))
    #expect(!table.ring(address: count + 1, width: 2))
    table.remove(address: 7, width: 2)
    #expect(table.add(Doorbell(address: count + 1, width: 2, event: event)))
    #expect(table.ring(address: count + 1, width: 2))
    #expect(!table.add(Doorbell(address: 0, width: 2, event: event)))
  }

  /// The event of a removed doorbell may be closed at once: no ring of it is under way.
  @Test(.timeLimit(.minutes(2)))
  func removedDoorbellIsNotRungByAnyThread() throws {
    let table = DoorbellTable()
    let stop = Gate()
    let rings = Atomic<Int>(0)
    let threads = try (0..<2).map { index in
      try HostThread(name: "ring-\(index)") {
        while !stop.isOpen { if table.ring(address: 0x1000, width: 2) { rings.add(1, ordering: .relaxed) } }
      }
    }
    var counted: UInt64 = 0
    var late: UInt64 = 0
    var round = 0
    // Some rounds at least, and as many as it takes until the threads have rung.
    while round < 300 || rings.load(ordering: .relaxed) < 100 {
      round += 1
      let event = try EventDescriptor()
      table.add(Doorbell(address: 0x1000, width: 2, event: event))
      let before = rings.load(ordering: .relaxed)
      if round % 10 == 0 { while rings.load(ordering: .relaxed) == before { sched_yield() } }
      table.remove(address: 0x1000, width: 2)
      counted += event.consume()
      // Every ring of the doorbell has reached the event by now.
      for _ in 0..<20 { sched_yield() }
      late += event.consume()
    }
    stop.open()
    threads.forEach { $0.join() }
    #expect(late == 0)
    #expect(counted == UInt64(rings.load(ordering: .relaxed)))
  }
}
