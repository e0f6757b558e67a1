// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The AHCI controller at 00:1f.2 and one port, for cases that look at registers: commands are issued and waited for,
/// and nothing is acknowledged or repaired behind a case's back.
struct HBAUnderTest {
  typealias Register = AHCIPortRegister

  /// What a command left behind.
  struct Outcome {
    var interruptStatus: UInt32
    var taskFile: UInt32
    var byteCount: UInt32

    var status: UInt8 { UInt8(truncatingIfNeeded: taskFile) }
    var error: UInt8 { UInt8(truncatingIfNeeded: taskFile >> 8) }
    var isGood: Bool {
      taskFile & (AHCITaskFile.busy | AHCITaskFile.dataRequest | AHCITaskFile.error) == 0
        && interruptStatus & AHCIPortInterrupt.errors == 0
    }
    var failed: Bool { interruptStatus & AHCIPortInterrupt.taskFileError != 0 && status & 1 == 1 }
  }

  let context: CaseContext
  let controller: AHCIController<RemoteBus>
  private let chosen: AHCIPort<RemoteBus>?

  /// Finds the controller and lets it decode, nothing more.
  init(_ context: CaseContext) throws {
    self.context = context
    let entry = try context.entry(device: 31, function: 2)
    controller = try AHCIController(topology: context.topology, entry: entry)
    chosen = nil
  }

  /// Resets the controller and brings the device on a port up: by IDENTIFY, commands running, interrupts off.
  init(started context: CaseContext, port number: Int = 0, waitMode: WaitMode = .poll) throws {
    self.context = context
    let entry = try context.entry(device: 31, function: 2)
    controller = try AHCIController(topology: context.topology, entry: entry)
    try controller.start(waitMode: waitMode)
    chosen = controller.ports.first { $0.number == number }
    guard let chosen, chosen.identity != nil else {
      try context.checkTransport()
      throw ConformanceFailure("expected a device on port \(number) that answers IDENTIFY; saw none")
    }
  }

  var bus: RemoteBus { context.bus }
  var port: AHCIPort<RemoteBus> {
    guard let chosen else { preconditionFailure("the case has not started a port") }
    return chosen
  }
  var engine: AHCIPortEngine<RemoteBus> { port.engine }
  var memory: AHCICommandMemory<RemoteBus> { engine.memory }

  /// The last sector of the disk.
  var lastSector: UInt64 { MachineKind.diskBytes / 512 - 1 }

  // MARK: Registers

  /// Reads a register of a port that need not be started.
  func read(port number: Int, _ register: UInt64) -> UInt32 {
    controller.read(AHCIController<RemoteBus>.portOffset(number) + register)
  }

  /// Writes a register of a port that need not be started.
  func write(port number: Int, _ register: UInt64, _ value: UInt32) {
    controller.write(AHCIController<RemoteBus>.portOffset(number) + register, value)
  }

  /// The numbers of the ports that there are.
  var implementedPorts: [Int] {
    let mask = controller.read(AHCIRegister.portsImplemented)
    return (0..<32).filter { mask >> UInt32($0) & 1 == 1 }
  }

  /// Clears PxIS, PxSERR and the port's bit of IS.
  func clearEvents() {
    engine.write(Register.linkError, .max)
    engine.write(Register.interruptStatus, .max)
    controller.write(AHCIRegister.interruptStatus, 1 << UInt32(port.number))
  }

  // MARK: Commands

  /// Writes a command into a slot and issues it.
  func issue(_ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0) {
    memory.prepare(slot: slot, command, buffer, packet: packet)
    start(slots: 1 << UInt32(slot), isQueued: ATACommand.isQueued(command.opcode))
  }

  /// Issues slots that are written.
  func start(slots: UInt32, isQueued: Bool = false) {
    clearEvents()
    engine.issue(slots, queued: isQueued ? slots : 0)
  }

  /// Waits until slots are done or the port has met an error.
  func finish(slots: UInt32 = 1, isQueued: Bool = false, counting slot: Int = 0) throws -> Outcome {
    let register = isQueued ? Register.active : Register.issue
    try context.wait(until: "slots \(CaseContext.hexadecimal(slots)) end") {
      engine.read(register) & slots == 0
        || engine.read(Register.interruptStatus) & (AHCIPortInterrupt.errors | AHCIPortInterrupt.overflow) != 0
    }
    return Outcome(
      interruptStatus: engine.read(Register.interruptStatus), taskFile: engine.read(Register.taskFile),
      byteCount: memory.byteCount(slot))
  }

  /// Does a command to its end, good or bad.
  func perform(
    _ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0
  ) throws -> Outcome {
    issue(command, buffer, packet: packet, slot: slot)
    return try finish(
      slots: 1 << UInt32(slot), isQueued: ATACommand.isQueued(command.opcode), counting: slot)
  }

  /// Does a command that must succeed.
  @discardableResult
  func succeed(
    _ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0
  ) throws -> Outcome {
    let outcome = try perform(command, buffer, packet: packet, slot: slot)
    try context.expect(
      outcome.isGood,
      "command \(hexadecimal(command.opcode)) succeeds, having PxTFD "
        + "\(hexadecimal(outcome.taskFile)) and PxIS \(hexadecimal(outcome.interruptStatus))")
    return outcome
  }

  /// Does a command that must fail with ERR and TFES.
  @discardableResult
  func refuse(
    _ command: ATACommand, _ buffer: AHCIBuffer = .none, packet: ATAPIPacket? = nil, slot: Int = 0
  ) throws -> Outcome {
    let outcome = try perform(command, buffer, packet: packet, slot: slot)
    try context.expect(
      outcome.failed,
      "command \(hexadecimal(command.opcode)) fails with ERR and TFES, having PxTFD "
        + "\(hexadecimal(outcome.taskFile)) and PxIS \(hexadecimal(outcome.interruptStatus))")
    return outcome
  }

  /// Does a command that must be aborted.
  func abort(_ command: ATACommand, _ buffer: AHCIBuffer = .none) throws {
    let outcome = try refuse(command, buffer)
    try context.expect(outcome.error, mask: 4, 4, "ABRT of command \(hexadecimal(command.opcode))")
    try restart()
  }

  /// Stops the port, clears its errors and lets it go on, as a driver does after an error (AHCI 1.3.1 §6.2.2.1).
  func restart() throws {
    try engine.stop()
    clearEvents()
    try engine.start()
  }

  /// Recovers the port however it is stuck, by COMRESET.
  func resetPort() throws { try port.reset() }

  /// The port still does what it should: it reads the pattern.
  func checkAlive() throws {
    let buffer = try context.allocate(512)
    try succeed(ATACommand(ATAOpcode.readDMAExt, lba: 3, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
    try context.expect(
      bus.load(buffer, count: 512), MachineKind.pattern(1536..<2048), "sector 3, read after what happened before")
  }

  /// Reads sectors by READ DMA EXT.
  func readSectors(_ sector: UInt64, _ count: UInt16) throws -> [UInt8] {
    let byteCount = UInt32(count) << 9
    let buffer = try context.allocate(UInt64(byteCount))
    try succeed(
      ATACommand(ATAOpcode.readDMAExt, lba: sector, count: count), AHCIBuffer(address: buffer, byteCount: byteCount))
    return bus.load(buffer, count: Int(byteCount))
  }

  /// Writes whole sectors by WRITE DMA EXT.
  func writeSectors(_ sector: UInt64, _ bytes: [UInt8]) throws {
    let buffer = try context.allocate(bytes)
    try succeed(
      ATACommand(ATAOpcode.writeDMAExt, lba: sector, count: UInt16(bytes.count >> 9)),
      AHCIBuffer(address: buffer, byteCount: UInt32(bytes.count), writes: true))
  }

  private func hexadecimal<T: FixedWidthInteger>(_ value: T) -> String { CaseContext.hexadecimal(value) }
}
