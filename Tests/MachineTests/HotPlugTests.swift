// SPDX-License-Identifier: Apache-2.0
// Functions that come and go on bus 0 (QEMU, docs/specs/acpi_pci_hotplug), and the LPC bridge's registers.
import EventLoop
import Testing

@testable import Machine

/// A function with work in flight until the test says that it is done.
private final class BusyFunction: PCIFunction {
  var isBusy = false
  var log: [String] = []

  init(_ device: UInt8, name: String) {
    super.init(
      name: name, address: PCIAddress(device: device),
      identity: PCIIdentity(vendor: 0x1af4, device: 0x1042, classCode: 0x010000, interruptPin: 1))
    addBAR(0, kind: .io, byteCount: 16, block: RecordingBlock())
  }
  override func quiesce() { log.append("quiesce") }
  override var isQuiet: Bool { !isBusy }
  override func shutdown() {
    super.shutdown()
    log.append("shutdown")
  }
}

private final class Bus {
  let machine: Machine
  let hotPlug = PCIHotPlug()
  var events = 0
  var removed: [String] = []
  var posted: [MachineEvent] = []

  init() throws {
    machine = try makeMachine()
    machine.lock.lock()
    machine.add(hotPlug)
    hotPlug.onEvent = { [unowned self] in events += 1 }
    hotPlug.onRemoved = { [unowned self] in removed.append($0.name) }
    machine.events.observe { [unowned self] in posted.append($0) }
  }
  deinit { machine.lock.unlock() }

  func read(_ port: UInt64) -> UInt64? { machine.portSpace.read(port, width: 4) }
  func write(_ port: UInt64, _ value: UInt64, width: Int = 4) {
    machine.portSpace.write(port, width: width, value: value)
  }
  func vendor(_ device: UInt8) -> UInt32 {
    machine.pci.configurationRead(index: PCIAddress(device: device).index, offset: 0, width: 2)
  }
}

@Suite struct HotPlugTests {
  @Test(arguments: PCIHotPlug.basePorts) func pluggedFunctionIsThereAtOnceAndToldOnce(base: UInt64) throws {
    let bus = try Bus()
    #expect(bus.vendor(6) == 0xffff)
    bus.hotPlug.plug(BusyFunction(6, name: "new"))
    #expect(bus.vendor(6) == 0x1af4)
    #expect(bus.events == 1)
    #expect(bus.read(base + 12) == 0x40)
    #expect(bus.read(base) == 0x40)
    #expect(bus.read(base) == 0)
    #expect(bus.read(base + 4) == 0)
    #expect(bus.read(base + 8) == 0)
  }

  @Test(arguments: PCIHotPlug.basePorts) func ejectedFunctionLeavesWhenItIsQuiet(base: UInt64) throws {
    let bus = try Bus()
    let function = BusyFunction(6, name: "disk")
    bus.hotPlug.plug(function)
    function.isBusy = true
    function.configurationWrite(offset: 0x10, width: 4, value: 0xc000)
    function.configurationWrite(offset: 4, width: 2, value: 1)
    #expect(bus.machine.portSpace.isMapped(0xc000))
    #expect(bus.hotPlug.requestUnplug(function))
    #expect(bus.read(base + 4) == 0x40)
    // Asking is not leaving.
    bus.machine.letQuietFunctionsGo()
    #expect(bus.vendor(6) == 0x1af4)
    bus.write(base + 8, 0x40)
    #expect(bus.vendor(6) == 0xffff)
    #expect(!bus.machine.portSpace.isMapped(0xc000))
    #expect(bus.read(base + 4) == 0)
    #expect(bus.read(base + 12) == 0)
    bus.machine.letQuietFunctionsGo()
    #expect(bus.removed.isEmpty)
    #expect(bus.machine.device(named: "disk") != nil)
    function.isBusy = false
    bus.machine.letQuietFunctionsGo()
    #expect(bus.removed == ["disk"])
    #expect(bus.posted == [.deviceDeleted(device: "disk")])
    #expect(function.log == ["quiesce", "shutdown"])
    #expect(bus.machine.device(named: "disk") == nil)
  }

  @Test func addressIsFreeAsSoonAsItsFunctionIsEjected() throws {
    let bus = try Bus()
    let old = BusyFunction(6, name: "old")
    bus.hotPlug.plug(old)
    old.isBusy = true
    bus.write(0xae08, 0x40)
    let new = BusyFunction(6, name: "new")
    bus.hotPlug.plug(new)
    old.isBusy = false
    bus.machine.letQuietFunctionsGo()
    #expect(bus.removed == ["old"])
    #expect(bus.machine.pci.function(at: PCIAddress(device: 6)) === new)
  }

  @Test func onlyWhatMayLeaveIsEjected() throws {
    let bus = try Bus()
    bus.write(0xae08, 0xffff_ffff)
    bus.machine.letQuietFunctionsGo()
    #expect(bus.vendor(0) == 0x8086)
    #expect(bus.vendor(0x1f) == 0x8086)
    #expect(bus.removed.isEmpty)
    let fixed = TestFunction(5)
    bus.machine.attach(fixed)
    #expect(!bus.hotPlug.requestUnplug(fixed))
    #expect(bus.events == 0)
  }

  @Test func ejectingTwiceRemovesOnce() throws {
    let bus = try Bus()
    let function = BusyFunction(6, name: "disk")
    bus.hotPlug.plug(function)
    function.isBusy = true
    bus.write(0xae08, 0x40)
    bus.write(0x0cc8, 0x40)
    #expect(!bus.hotPlug.requestUnplug(function))
    function.isBusy = false
    bus.machine.letQuietFunctionsGo()
    #expect(bus.removed == ["disk"])
  }

  @Test func resetLetsGoWhatWasAskedFor() throws {
    let bus = try Bus()
    let (asked, kept) = (BusyFunction(6, name: "asked"), BusyFunction(7, name: "kept"))
    bus.hotPlug.plug(asked)
    bus.hotPlug.plug(kept)
    bus.hotPlug.requestUnplug(asked)
    bus.hotPlug.reset()
    bus.machine.letQuietFunctionsGo()
    #expect(bus.removed == ["asked"])
    #expect(bus.read(0xae00) == 0)
    #expect(bus.vendor(7) == 0x1af4)
  }

  @Test func otherBusesAndWidthsDoNothing() throws {
    let bus = try Bus()
    bus.hotPlug.plug(BusyFunction(6, name: "disk"))
    bus.write(0xae10, 1)
    #expect(bus.read(0xae10) == 1)
    #expect(bus.read(0xae0c) == 0)
    bus.write(0xae08, 0x40)
    #expect(bus.vendor(6) == 0x1af4)
    bus.write(0xae10, 0)
    bus.write(0xae08, 0x40, width: 1)
    bus.write(0xae00, 0xffff_ffff)
    #expect(bus.vendor(6) == 0x1af4)
    #expect(bus.read(0xae00) == 0x40)
  }

  @Test func runningMachineRemovesWhatItsGuestEjects() throws {
    let bus = try Bus()
    bus.hotPlug.plug(BusyFunction(6, name: "disk"))
    bus.write(0xae08, 0x40)
    bus.machine.events.observe { [machine = bus.machine] event in
      if event == .deviceDeleted(device: "disk") { machine.requestShutdown(.hostRequest) }
    }
    bus.machine.lock.unlock()
    defer { bus.machine.lock.lock() }
    #expect(try bus.machine.run() == .hostRequest)
    #expect(bus.removed == ["disk"])
  }
}

@Suite struct ISABridgeTests {
  private func withBridge(_ body: (ISABridge) throws -> Void) throws {
    let machine = try makeMachine()
    try machine.lock.withLock { try body(machine.pci.isaBridge) }
  }

  @Test func powerBlockIsWherePMBASESaysOnceItIsEnabled() throws {
    // ICH9 data sheet, sections 13.1.13 and 13.1.14.
    try withBridge { bridge in
      var moves: [UInt64?] = []
      bridge.onPowerBlockMoved = { moves.append($0) }
      #expect(bridge.configurationRead(offset: 0x40, width: 4) == 1)
      bridge.configurationWrite(offset: 0x40, width: 4, value: 0xffff_ffff)
      #expect(bridge.configurationRead(offset: 0x40, width: 4) == 0xff81)
      bridge.configurationWrite(offset: 0x40, width: 4, value: 0x600)
      #expect(moves.isEmpty)
      bridge.configurationWrite(offset: 0x44, width: 1, value: 0x80)
      bridge.configurationWrite(offset: 0x41, width: 1, value: 0x07)
      bridge.configurationWrite(offset: 0x44, width: 1, value: 0)
      #expect(moves == [0x600, 0x700, nil])
    }
  }

  @Test(arguments: [(0, 9), (1, 10), (2, 11), (3, 9), (4, 20), (5, 21), (6, 9), (7, 9)] as [(UInt32, Int)])
  func powerInterruptHasTheInputThatIsSelected(select: UInt32, line: Int) throws {
    try withBridge { bridge in
      bridge.configurationWrite(offset: 0x44, width: 1, value: 0x80 | select)
      #expect(bridge.powerInterruptLine == line)
    }
  }

  @Test(arguments: zip(16..<24, [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b]))
  func eachLineHasItsRouteRegister(line: Int, register: Int) throws {
    // Section 13.1.17: disabled after power-on, and some inputs are reserved.
    try withBridge { bridge in
      #expect(bridge.configurationRead(offset: register, width: 1) == 0x80)
      #expect(bridge.legacyInput(ofLine: line) == nil)
      bridge.configurationWrite(offset: register, width: 1, value: 0x0b)
      #expect(bridge.legacyInput(ofLine: line) == 11)
      for reserved in [0, 1, 2, 8, 13, 0x8b] as [UInt32] {
        bridge.configurationWrite(offset: register, width: 1, value: reserved)
        #expect(bridge.legacyInput(ofLine: line) == nil)
      }
      #expect(bridge.legacyInput(ofLine: line - 16) == nil)
    }
  }

  @Test func rootComplexBaseKeepsItsWritableBits() throws {
    try withBridge { bridge in
      bridge.configurationWrite(offset: 0xf0, width: 4, value: 0xffff_ffff)
      #expect(bridge.configurationRead(offset: 0xf0, width: 4) == 0xffff_c001)
      bridge.reset()
      #expect(bridge.configurationRead(offset: 0xf0, width: 4) == 0)
    }
  }
}
