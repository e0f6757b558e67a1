// SPDX-License-Identifier: Apache-2.0
// The driver's side of the controller for tests: it writes registers, command lists and tables as a guest would, good or
// bad, and reads what came back.
import Block
import DeviceTestKit
import EventLoop
import GuestMemory
import Machine

@testable import AHCI

/// A region of guest memory in a command's table.
struct Region {
  var address: UInt64
  var byteCount: UInt32
  init(_ address: UInt64, _ byteCount: UInt32) {
    self.address = address
    self.byteCount = byteCount
  }
}

/// A command as a driver writes it.
struct Command {
  var code: UInt8
  var features: UInt16 = 0
  var lba: UInt64 = 0
  var device: UInt8 = 0x40
  var count: UInt16 = 0
  var packet: [UInt8] = []
  var regions: [Region] = []
  /// What the header says; nil for what is right.
  var fisWords: UInt32 = 5
  var isWrite = false
  var type: UInt8 = 0x27
  var flags: UInt8 = 0x80
  var control: UInt8 = 0

  init(
    _ code: UInt8, features: UInt16 = 0, lba: UInt64 = 0, device: UInt8 = 0x40, count: UInt16 = 0,
    packet: [UInt8] = [], regions: [Region] = [], isWrite: Bool = false
  ) {
    self.code = code
    self.features = features
    self.lba = lba
    self.device = device
    self.count = count
    self.packet = packet
    self.regions = regions
    self.isWrite = isWrite
  }

  /// READ or WRITE FPDMA QUEUED of `sectors` sectors.
  static func queued(
    write: Bool = false, tag: Int, lba: UInt64, sectors: UInt16 = 1, regions: [Region]
  ) -> Command {
    Command(
      write ? 0x61 : 0x60, features: sectors, lba: lba, count: UInt16(tag) << 3, regions: regions, isWrite: write)
  }

  /// The 20 bytes of the register FIS.
  var fis: [UInt8] {
    func byte(_ value: UInt64, _ index: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: value >> (8 * index)) }
    return [
      type, flags, code, UInt8(truncatingIfNeeded: features), byte(lba, 0), byte(lba, 1), byte(lba, 2), device,
      byte(lba, 3), byte(lba, 4), byte(lba, 5), UInt8(features >> 8), UInt8(truncatingIfNeeded: count),
      UInt8(count >> 8), 0, control, 0, 0, 0, 0,
    ]
  }
}

/// A machine with an AHCI controller: a disk that answers when told to on port 0, what the test connects elsewhere.
final class HBAKit {
  static let ramBytes: UInt64 = 8 << 20
  static let abar: UInt64 = 0xe000_0000
  static let ports: UInt64 = 0xc000
  static let data: UInt64 = 0x20_0000

  let memory = GuestMemory()
  let loop: EventLoop
  let machine: Machine
  let controller: AHCIController
  let interrupts = RecordingInterrupts()
  let driver: ScriptedDriver
  let backend: BlockBackend
  private var retained: [AnyObject] = []

  init(
    driver: ScriptedDriver = ScriptedDriver(), configuration: BlockConfiguration = BlockConfiguration(),
    limits: ThrottleLimits = ThrottleLimits(), hasDisk: Bool = true
  ) throws {
    try memory.add(GuestRegion(start: 0, byteCount: Self.ramBytes))
    loop = try EventLoop(name: "test")
    machine = Machine(memory: memory, mainLoop: loop)
    machine.interrupts = interrupts
    self.driver = driver
    let top = limits.isEmpty ? driver : ThrottleDriver(over: driver, limits: limits, loop: loop)
    backend = BlockBackend(driver: top, loop: loop, configuration: configuration)
    controller = AHCIController(name: "ahci", memory: memory, loop: loop)
    if hasDisk { controller.connect(ATADrive(backend: backend), to: 0) }
    machine.lock.lock()
    machine.attach(controller)
    enableFunction()
  }

  deinit {
    // Whatever the test left out comes back before the slots go away.
    driver.completeAll()
    loop.runUntilIdle()
    controller.shutdown()
    machine.lock.unlock()
  }

  /// What firmware does: gives the function its addresses and lets it decode.
  func enableFunction() {
    controller.configurationWrite(offset: 0x24, width: 4, value: UInt32(Self.abar))
    controller.configurationWrite(offset: 0x20, width: 4, value: UInt32(Self.ports))
    controller.configurationWrite(offset: 4, width: 2, value: 7)
  }

  /// A drive on a disk in memory, kept alive for the test.
  func memoryDrive(sectors: Int = 64, initial: [UInt8] = []) throws -> ATADrive {
    let driver = try MemoryDriver(byteCount: UInt64(sectors) * 512, initial: initial)
    return ATADrive(backend: BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration()))
  }

  // MARK: Registers

  func hba(_ offset: UInt64, width: Int = 4) -> UInt64 {
    machine.memorySpace.read(Self.abar + offset, width: width) ?? 0xbad
  }
  func setHBA(_ offset: UInt64, _ value: UInt64, width: Int = 4) {
    machine.memorySpace.write(Self.abar + offset, width: width, value: value)
  }
  func port(_ register: UInt64, _ number: Int = 0) -> UInt32 {
    UInt32(truncatingIfNeeded: hba(0x100 + UInt64(number) * 0x80 + register))
  }
  func setPort(_ register: UInt64, _ value: UInt32, _ number: Int = 0) {
    setHBA(0x100 + UInt64(number) * 0x80 + register, UInt64(value))
    loop.runUntilIdle()
  }

  var isr: UInt32 { port(PortRegister.interruptStatus) }
  var taskFile: UInt32 { port(PortRegister.taskFile) }
  var issued: UInt32 { port(PortRegister.commandIssue) }
  var active: UInt32 { port(PortRegister.sataActive) }

  // MARK: Memory that is shared with a port

  static func list(_ number: Int = 0) -> UInt64 { 0x1_0000 + UInt64(number) * 0x1_0000 }
  static func received(_ number: Int = 0) -> UInt64 { list(number) + 0x400 }
  static func table(_ slot: Int, _ number: Int = 0) -> UInt64 { list(number) + 0x1000 + UInt64(slot) * 0x400 }

  /// Brings a port up as a driver does (AHCI 1.3.1 §10.1.2), interrupts on, nothing pending.
  func start(_ number: Int = 0) {
    setPort(PortRegister.commandList, UInt32(Self.list(number)), number)
    setPort(PortRegister.receivedFIS, UInt32(Self.received(number)), number)
    setPort(PortRegister.command, PortCommand.receiveEnable, number)
    setPort(PortRegister.sataError, UInt32.max, number)
    setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.start, number)
    setPort(PortRegister.interruptEnable, UInt32.max, number)
    setHBA(HBARegister.control, UInt64(HBAControl.interruptEnable))
    clearInterrupts(number)
  }

  func clearInterrupts(_ number: Int = 0) {
    setPort(PortRegister.interruptStatus, UInt32.max, number)
    setHBA(HBARegister.interruptStatus, UInt64(UInt32.max))
    interrupts.messages = []
  }

  /// ST off and on again, as after an error (§6.2.2.1).
  func restart(_ number: Int = 0) {
    setPort(PortRegister.command, PortCommand.receiveEnable, number)
    clearInterrupts(number)
    setPort(PortRegister.command, PortCommand.receiveEnable | PortCommand.start, number)
  }

  /// Writes a command into a slot's header and table.
  func prepare(_ slot: Int, _ command: Command, _ number: Int = 0) throws {
    let header = Self.list(number) + UInt64(slot) * 32
    var flags = command.fisWords | UInt32(command.regions.count) << 16
    if !command.packet.isEmpty { flags |= 0x20 }
    if command.isWrite { flags |= 0x40 }
    try memory.store(flags, at: header)
    try memory.store(UInt32(0xdead_beef), at: header + 4)
    try memory.store(Self.table(slot, number), at: header + 8)
    try memory.write(command.fis, at: Self.table(slot, number))
    if !command.packet.isEmpty { try memory.write(command.packet, at: Self.table(slot, number) + 0x40) }
    for (index, region) in command.regions.enumerated() {
      let entry = Self.table(slot, number) + 0x80 + UInt64(index) * 16
      try memory.store(region.address, at: entry)
      try memory.store(UInt32(0), at: entry + 8)
      try memory.store(region.byteCount &- 1 | 1 << 31, at: entry + 12)
    }
  }

  /// Issues slots; for queued commands their bits in PxSACT first.
  func issue(_ slots: UInt32, queued: Bool = false, _ number: Int = 0) {
    if queued { setPort(PortRegister.sataActive, slots, number) }
    setPort(PortRegister.commandIssue, slots, number)
  }

  /// Runs one command in slot 0 to its end, the disk answering at once.
  func run(_ command: Command, _ number: Int = 0) throws {
    try prepare(0, command, number)
    issue(1, number)
    completeAll()
  }

  func completeOne(at index: Int = 0, result: Int32 = 0) {
    driver.completeOne(at: index, result: result)
    loop.runUntilIdle()
  }

  func completeAll() {
    loop.runUntilIdle()
    while !driver.held.isEmpty { completeOne() }
  }

  /// PRDBC of a slot.
  func moved(_ slot: Int = 0, _ number: Int = 0) throws -> UInt32 {
    try memory.load(at: Self.list(number) + UInt64(slot) * 32 + 4)
  }

  /// Bytes of the received FIS area.
  func fis(_ offset: Int, _ count: Int, _ number: Int = 0) throws -> [UInt8] {
    try memory.bytes(at: Self.received(number) + UInt64(offset), count: count)
  }

  func bytes(_ count: Int, at address: UInt64 = HBAKit.data) throws -> [UInt8] {
    try memory.bytes(at: address, count: count)
  }
}

extension EventLoop {
  /// Runs rounds until one has nothing to do.
  func runUntilIdle() { while runOnce(mayBlock: false) {} }
}
