// SPDX-License-Identifier: Apache-2.0
import Accelerators
import HostSystem
import Machine
import Testing

@Suite(.enabled(if: kvmWorks, "KVM works here")) struct KVMInterruptTests {
  private func message(_ vector: UInt32, processor: UInt64 = 0) -> MSIMessage {
    MSIMessage(address: 0xfee0_0000 | processor << 12, data: vector)
  }

  /// Starts the guest and waits until it takes interrupts.
  private func start(_ guest: KVMGuest) throws {
    try guest.start()
    try #require(guest.ports.wait(count: 1))
    #expect(guest.ports.accesses == [.write(15, 1, KVMGuest.isReady)])
  }

  @Test func aRouteDeliversEachOfItsInterrupts() throws {
    let guest = try KVMGuest.withInterrupts()
    let route = guest.machine.interrupts.makeRoute()
    defer { route.close() }
    route.update(message(0x41))
    try start(guest)
    for round in 1...50 {
      route.fire()
      try #require(guest.ports.wait(count: 1 + round))
    }
    guest.stop()
    #expect(guest.vectors == [UInt64](repeating: 0x41, count: 50))
  }

  @Test func routesKeepTheirVectorsApartAndFollowChanges() throws {
    let guest = try KVMGuest.withInterrupts()
    let routes = (0..<8).map { _ in guest.machine.interrupts.makeRoute() }
    defer { routes.forEach { $0.close() } }
    for (index, route) in routes.enumerated() { route.update(message(0x40 + UInt32(index))) }
    try start(guest)
    var expected: [UInt64] = []
    func fire(_ route: InterruptRoute, _ vector: UInt64) throws {
      route.fire()
      expected.append(vector)
      try #require(guest.ports.wait(count: 1 + expected.count))
    }
    for (index, route) in routes.enumerated() { try fire(route, 0x40 + UInt64(index)) }
    routes[3].update(message(0x93))
    routes[3].update(message(0x93))
    try fire(routes[3], 0x93)
    try fire(routes[4], 0x44)
    guest.stop()
    #expect(guest.vectors == expected)
  }

  @Test(arguments: [0, 0x1000, 0x1_fee0_0000, 0xfed0_0000, UInt64.max])
  func aRouteToNoLocalAPICDeliversNothingUntilItHasOneAgain(address: UInt64) throws {
    let guest = try KVMGuest.withInterrupts()
    let route = guest.machine.interrupts.makeRoute()
    let other = guest.machine.interrupts.makeRoute()
    defer {
      route.close()
      other.close()
    }
    // The higher vector would be seen first.
    route.update(message(0x71))
    other.update(message(0x42))
    try start(guest)
    route.update(MSIMessage(address: address, data: 0x71))
    route.fire()
    other.fire()
    try #require(guest.ports.wait(count: 2))
    route.update(message(0x43))
    route.fire()
    try #require(guest.ports.wait(count: 3))
    guest.stop()
    #expect(guest.vectors == [0x42, 0x43])
  }

  @Test func aFunctionsMSIReachesTheGuestWhereItsRegistersSay() throws {
    let guest = try KVMGuest.withInterrupts()
    let function = MessageFunction()
    guest.machine.lock.withLock { guest.machine.attach(function) }
    defer { guest.machine.lock.withLock { function.shutdown() } }
    try start(guest)
    func fire(_ message: MSIMessage, count: Int) throws {
      guest.machine.lock.withLock { function.program(message) }
      function.msi?.notify()
      try #require(guest.ports.wait(count: 1 + count))
    }
    try fire(message(0x41), count: 1)
    try fire(message(0x52), count: 2)
    // Disabled, it sends nothing; the next message is the first that comes.
    guest.machine.lock.withLock { function.disable() }
    function.msi?.notify()
    try fire(message(0x43), count: 3)
    guest.stop()
    #expect(guest.vectors == [0x41, 0x52, 0x43])
  }

  @Test func aClosedRoutesPlaceServesTheNextOne() throws {
    let guest = try KVMGuest.withInterrupts()
    try start(guest)
    for round in 0..<40 {
      let route = guest.machine.interrupts.makeRoute()
      route.update(message(0x50 + UInt32(round)))
      route.fire()
      try #require(guest.ports.wait(count: 2 + round))
      route.close()
    }
    guest.stop()
    #expect(guest.vectors == (0..<40).map { 0x50 + $0 })
  }

  @Test func aMessageCanBeSentWithoutARoute() throws {
    let guest = try KVMGuest.withInterrupts()
    try start(guest)
    // Lost: a processor that is not there, and addresses that are no interrupt's.
    guest.machine.interrupts.send(message(0x71, processor: 9))
    for address in [0, 0x1_fee0_0000, 0xfed0_0000] as [UInt64] {
      guest.machine.interrupts.send(MSIMessage(address: address, data: 0x72))
    }
    guest.machine.interrupts.send(message(0x62))
    try #require(guest.ports.wait(count: 2))
    guest.stop()
    #expect(guest.vectors == [0x62])
  }

  /// A device that asserts its line until the guest's handler acknowledges it; guarded by the machine lock.
  private final class LineDevice: @unchecked Sendable {
    static let line = 4
    private let interrupts: InterruptController
    private var isAsserted = false
    let acknowledged = Collected<UInt64>()

    init(_ interrupts: InterruptController) { self.interrupts = interrupts }

    func assert() {
      isAsserted = true
      interrupts.setLine(Self.line, asserted: true)
    }

    func acknowledge(_ vector: UInt64) {
      // A level-triggered input may interrupt more often than its line rises; what counts is what it finds.
      guard isAsserted else { return }
      isAsserted = false
      interrupts.setLine(Self.line, asserted: false)
      acknowledged.add(vector)
    }
  }

  /// A guest whose I/O APIC sends the device's line to processor 0, and the device.
  private func guestWithLine(entry: UInt32) throws -> (KVMGuest, LineDevice) {
    let ioAPIC: UInt32 = 0xfec0_0000
    let line = UInt32(LineDevice.line)
    let guest = try KVMGuest.withInterrupts { code in
      // The redirection entry's upper half, then its lower (82093AA, section 3.2.4).
      code.write32(ioAPIC, 0x11 + 2 * line)
      code.write32(ioAPIC + 0x10, 0)
      code.write32(ioAPIC, 0x10 + 2 * line)
      code.write32(ioAPIC + 0x10, entry)
      code.out(devicePort + 14, width: 1, UInt32(KVMGuest.isReady))
    }
    let device = LineDevice(guest.machine.interrupts)
    guest.ports.onWrite = { access in if access.offset == 0 { device.acknowledge(access.value ?? 0) } }
    return (guest, device)
  }

  @Test(arguments: [0x8044, 0x44] as [UInt32])
  func aLineInterruptsThroughTheIOAPICEachTimeItIsAsserted(entry: UInt32) throws {
    let (guest, device) = try guestWithLine(entry: entry)
    try guest.start()
    try #require(guest.ports.wait(count: 2))
    for round in 1...20 {
      guest.machine.lock.withLock { device.assert() }
      try #require(guest.ports.wait { device.acknowledged.elements.count == round })
    }
    guest.stop()
    #expect(device.acknowledged.elements == [UInt64](repeating: 0x44, count: 20))
  }

  @Test func anEdgeIsDeliveredOnce() throws {
    let (guest, device) = try guestWithLine(entry: 0x44)
    let route = guest.machine.interrupts.makeRoute()
    defer { route.close() }
    route.update(message(0x30))
    try guest.start()
    try #require(guest.ports.wait(count: 2))
    guest.machine.lock.withLock { device.assert() }
    try #require(guest.ports.wait(count: 3))
    // A lower vector comes after everything that is pending.
    route.fire()
    try #require(guest.ports.wait(count: 4))
    guest.stop()
    #expect(guest.vectors == [0x44, 0x30])
  }

  @Test func linesThatAPCDoesNotHaveAreIgnored() throws {
    let guest = try KVMGuest.withInterrupts()
    try start(guest)
    guest.machine.lock.withLock {
      for line in [-1, 24, 1 << 40, Int.min] { guest.machine.interrupts.setLine(line, asserted: true) }
    }
    guest.machine.interrupts.send(message(0x62))
    try #require(guest.ports.wait(count: 2))
    guest.stop()
    #expect(guest.vectors == [0x62])
  }
}
