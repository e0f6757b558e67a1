// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct PCITests {
  @Test func enumerationFindsTheFunctionsInOrder() {
    let bus = FakeMachine()
    var extra = FakeFunction(
      address: PCIAddress(bus: 0, device: 31, function: 2), vendor: 0x8086, device: 0x2922, classCode: 0x0106)
    extra.bytes[0x0E] = 0
    var first = FakeFunction(
      address: PCIAddress(bus: 0, device: 31, function: 0), vendor: 0x8086, device: 0x2918, classCode: 0x0601)
    first.bytes[0x0E] = 0x80
    bus.functions += [first, extra]
    let found = PCIConfiguration(bus: bus).enumerate()
    #expect(found.map(\.device) == [0x29C0, 0x1042, 0x2918, 0x2922])
    #expect(found[3].address == PCIAddress(bus: 0, device: 31, function: 2))
    #expect(found[3].classCode == 0x0106)
  }

  @Test func furtherFunctionsOfASingleFunctionDeviceAreNotAsked() {
    let bus = FakeMachine()
    bus.functions.append(
      FakeFunction(
        address: PCIAddress(bus: 0, device: 3, function: 1), vendor: 0x1AF4, device: 0x1042, classCode: 0x0100))
    #expect(PCIConfiguration(bus: bus).enumerate().count == 2)
  }

  @Test func busesBehindBridgesAreVisitedOnceAndLoopsEnd() {
    let bus = FakeMachine()
    for (number, secondary) in [(0, 1), (1, 0)] as [(UInt8, UInt8)] {
      var bridge = FakeFunction(
        address: PCIAddress(bus: number, device: 1, function: 0), vendor: 0x1B36, device: 0x000C, classCode: 0x0604)
      bridge.bytes[0x0E] = 1
      bridge.bytes[0x19] = secondary
      bus.functions.append(bridge)
    }
    let found = PCIConfiguration(bus: bus).enumerate()
    #expect(found.count == 4)
    #expect(found.filter { $0.address.bus == 1 }.count == 1)
  }

  @Test func a64BitRegisterWithoutAnAddressIsAssignedBelow4GiBAndDecodes() throws {
    let bus = FakeMachine()
    let topology = PCITopology(bus: bus)
    let register = try #require(topology.entries[1].baseAddresses.first)
    #expect(register.index == 4 && register.kind == .memory64 && register.byteCount == 0x4000)
    #expect(register.address == PCIAddressWindow.memoryBase)
    #expect(bus.functions[1].memoryBase(4) == register.address)
    #expect(bus.functions[1].read(4) & 2 != 0)
    #expect(topology.assignedCount == 1 && topology.unassignedCount == 0)
  }

  @Test func aRegisterAbove4GiBIsMovedBelow() {
    let bus = FakeMachine()
    bus.functions[1].put(0x24, 0x8)
    let topology = PCITopology(bus: bus)
    #expect(topology.entries[1].baseAddresses[0].address == PCIAddressWindow.memoryBase)
    #expect(bus.functions[1].read(0x24) == 0)
  }

  @Test func firmwaresAddressIsKept() {
    let bus = FakeMachine()
    bus.functions[1].put(0x20, 0xFEB0_0004)
    let topology = PCITopology(bus: bus)
    #expect(topology.entries[1].baseAddresses[0].address == 0xFEB0_0000)
    #expect(topology.assignedCount == 0)
    #expect(bus.functions[1].read(0x20) == 0xFEB0_0004)
  }

  @Test func ecamIsReadFromTheHostBridgeAndKeptClearOf() {
    let bus = FakeMachine()
    bus.functions[0].put(0x60, 0xE000_0001)
    let topology = PCITopology(bus: bus)
    #expect(topology.ecam?.base == 0xE000_0000 && topology.ecam?.byteCount == 256 << 20)
    #expect(topology.entries[1].baseAddresses[0].address == 0xF000_0000)
  }

  @Test func windowSkipsWhatIsTakenAlignsAndEnds() {
    var window = PCIAddressWindow(base: 0x1000, end: 0x8000)
    window.reserve(0x2800, byteCount: 0x100)
    #expect(window.take(byteCount: 0x1000) == 0x1000)
    #expect(window.take(byteCount: 0x1000) == 0x3000)
    #expect(window.take(byteCount: 0x4000) == 0x4000)
    #expect(window.take(byteCount: 0x1000) == nil)
    #expect(window.take(byteCount: 0x800) == 0x2000)
    #expect(window.take(byteCount: 0x300) == nil)
    #expect(window.take(byteCount: 0) == nil)
  }

  @Test func aCapabilityListThatLoopsEnds() {
    let bus = FakeMachine()
    bus.behaviour.loopsCapabilities = true
    var visited = 0
    let found = PCIConfiguration(bus: bus).findCapability(FakeMachine.configurationAddress) { _, _ in
      visited += 1
      return false
    }
    #expect(found == nil && visited == 48)
  }
}
