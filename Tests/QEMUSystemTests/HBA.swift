// SPDX-License-Identifier: Apache-2.0
// A test program's AHCI driver: four-byte accesses to the registers by `read` and `write`, and polling.
import Testing

/// A command: its FIS, and which way data goes.
struct Command {
  var fis = [UInt8](repeating: 0, count: 20)
  var packet: [UInt8] = []
  var isWrite = false
  /// NCQ: completes by PxSACT.
  var isQueued = false

  /// A command of 48 bits of address, with all registers set.
  init(_ code: UInt8, sector: UInt64 = 0, count: Int = 0, features: UInt16 = 0, device: UInt8 = 0x40) {
    fis[0] = 0x27
    fis[1] = 0x80
    fis[2] = code
    fis[3] = UInt8(features & 0xff)
    for (index, place) in [4, 5, 6, 8, 9, 10].enumerated() {
      fis[place] = UInt8(truncatingIfNeeded: sector >> (8 * UInt64(index)))
    }
    fis[7] = device
    fis[11] = UInt8(features >> 8)
    fis[12] = UInt8(count & 0xff)
    fis[13] = UInt8(count >> 8)
  }

  /// A command of 28 bits of address: its top four are in the device register. The count keeps all of its 16 bits.
  init(short code: UInt8, sector: UInt64, count: Int) {
    self.init(code, sector: sector & 0xff_ffff, count: count, device: 0x40 | UInt8(sector >> 24 & 15))
  }

  static func readDMA(sector: UInt64, count: Int) -> Command { Command(0x25, sector: sector, count: count) }
  static func writeDMA(sector: UInt64, count: Int) -> Command {
    var command = Command(0x35, sector: sector, count: count)
    command.isWrite = true
    return command
  }
  static let flush = Command(0xe7)
  static let identify = Command(0xec)

  func writing() -> Command {
    var command = self
    command.isWrite = true
    return command
  }

  /// READ or WRITE FPDMA QUEUED; the tag is set when the slot is known.
  static func queued(_ code: UInt8, sector: UInt64, count: Int) -> Command {
    var command = Command(code, sector: sector, features: UInt16(count))
    command.isWrite = code == 0x61
    command.isQueued = true
    return command
  }

  /// PACKET.
  static func packet(_ bytes: [UInt8], usesDMA: Bool = false, limit: UInt16 = 0) -> Command {
    var command = Command(0xa0, sector: UInt64(limit) << 8, features: usesDMA ? 1 : 0, device: 0)
    command.packet = bytes + [UInt8](repeating: 0, count: 16 - bytes.count)
    return command
  }
}

/// What became of a command.
struct Outcome {
  let data: [UInt8]
  let interruptStatus: UInt32
  let taskFile: UInt32
  let bytesDone: UInt32
  let received: [UInt8]
  let serialErrors: UInt32

  /// The D2H register FIS, and the PIO setup FIS.
  var deviceFIS: [UInt8] { Array(received[0x40..<0x54]) }
  var setupFIS: [UInt8] { Array(received[0x20..<0x34]) }

  func expectSuccess(_ interruptStatus: UInt32? = nil, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(taskFile & 0x89 == 0, "no error, not busy: \(taskFile)", sourceLocation: sourceLocation)
    #expect(serialErrors == 0, sourceLocation: sourceLocation)
    if let interruptStatus { #expect(self.interruptStatus == interruptStatus, sourceLocation: sourceLocation) }
  }
}

/// The controller.
final class HBA {
  static let registers: UInt64 = 0xe000_0000
  let machine: Machine

  init(_ machine: Machine) throws {
    self.machine = machine
    let place = Machine.Place.ahci
    try machine.setConfig(place, 0x24, UInt32(Self.registers))
    try machine.setConfig(place, 0x04, 7, .word)
  }

  /// The controller enabled, the port running.
  func prepared(_ number: Int) throws -> Port {
    try enable()
    return try startedPort(number)
  }

  func register(_ offset: UInt64) throws -> UInt32 { try machine.register(Self.registers + offset) }
  func set(_ offset: UInt64, _ value: UInt32) throws { try machine.setRegister(Self.registers + offset, value) }

  /// Resets, and switches to AHCI with interrupts.
  func enable() throws {
    try set(0x04, 1)
    guard try register(0x04) & 1 == 0 else { throw Trouble("HR is still set") }
    try set(0x04, try register(0x04) | 0x8000_0002)
  }

  /// Resets the controller alone.
  func reset() throws { try set(0x04, 1) }

  func startedPort(_ number: Int) throws -> Port {
    let port = Port(self, number)
    try port.start()
    return port
  }

  /// An ATA string: pairs of characters are swapped.
  static func text(_ bytes: ArraySlice<UInt8>) -> String {
    let bytes = Array(bytes)
    return String(decoding: bytes.indices.map { bytes[$0 ^ 1] }, as: UTF8.self)
  }
}

/// A port and its memory.
final class Port {
  enum Offset {
    static let commandList: UInt64 = 0x00, commandListUpper: UInt64 = 0x04
    static let received: UInt64 = 0x08, receivedUpper: UInt64 = 0x0c
    static let interruptStatus: UInt64 = 0x10, interruptEnable: UInt64 = 0x14
    static let command: UInt64 = 0x18, taskFile: UInt64 = 0x20, signature: UInt64 = 0x24
    static let status: UInt64 = 0x28, control: UInt64 = 0x2c, error: UInt64 = 0x30
    static let active: UInt64 = 0x34, issue: UInt64 = 0x38
  }

  let hba: HBA
  let number: Int
  var machine: Machine { hba.machine }
  let list: UInt64
  let received: UInt64
  private var table: UInt64
  private var nextSlot = 0

  init(_ hba: HBA, _ number: Int) {
    self.hba = hba
    self.number = number
    list = hba.machine.allocate(1024)
    received = hba.machine.allocate(256)
    table = hba.machine.allocate(0x80 + 16 * 256)
  }

  private var base: UInt64 { 0x100 + 0x80 * UInt64(number) }
  func register(_ offset: UInt64) throws -> UInt32 { try hba.register(base + offset) }
  func set(_ offset: UInt64, _ value: UInt32) throws { try hba.set(base + offset, value) }

  /// Gives the port its memory and starts both of its engines.
  func start() throws {
    try set(Offset.commandList, UInt32(list))
    try set(Offset.received, UInt32(received))
    try set(Offset.interruptEnable, 0xffff_ffff)
    try set(Offset.command, try register(Offset.command) | 0x10)
    guard try register(Offset.command) & 0x4000 != 0 else { throw Trouble("FR is clear") }
    try clearStatus()
    try set(Offset.command, try register(Offset.command) | 1)
    guard try register(Offset.command) & 0x8000 != 0 else { throw Trouble("CR is clear") }
  }

  func stop() throws {
    try set(Offset.command, try register(Offset.command) & ~1)
    try machine.wait("CR") { try register(Offset.command) & 0x8000 == 0 }
  }

  /// Starts the engine again after an error.
  func restart() throws {
    try stop()
    try clearStatus()
    try set(Offset.command, try register(Offset.command) | 1)
  }

  func clearStatus() throws {
    try set(Offset.error, 0xffff_ffff)
    try set(Offset.interruptStatus, 0xffff_ffff)
    try hba.set(0x08, 0xffff_ffff)
  }

  /// A command that is in its slot, with its data.
  struct Issued {
    let slot: Int
    let command: Command
    let buffer: UInt64
    let byteCount: Int
  }

  /// Puts a command in the next slot and issues it.
  /// - Parameters:
  ///   - piece: bytes of each PRD; each has its I bit set, as QEMU's test library does.
  ///   - ownTable: the command does not share its table with others, and may be in flight beside them.
  func issue(
    _ command: Command, reading byteCount: Int = 0, writing data: [UInt8] = [], piece: Int = 4096,
    ownTable: Bool = false
  ) throws -> Issued {
    var command = command
    let slot = nextSlot
    nextSlot = (nextSlot + 1) % 32
    if command.isQueued { command.fis[12] = UInt8(slot << 3) }
    let count = max(byteCount, data.count)
    let buffer = machine.allocate(max(count, 512))
    if data.isEmpty { try machine.fill(buffer, max(count, 512), 0xa5) } else { try machine.setBytes(buffer, data) }
    var descriptors: [UInt8] = []
    var descriptorCount = 0
    for start in stride(from: 0, to: count, by: piece) {
      descriptors += (buffer + UInt64(start)).bytes + UInt32(0).bytes
      descriptors += (UInt32(min(piece, count - start) - 1) | 0x8000_0000).bytes
      descriptorCount += 1
    }
    let table = ownTable || descriptorCount > 256 ? machine.allocate(0x80 + 16 * descriptorCount) : table
    let packet = command.packet + [UInt8](repeating: 0, count: 0x40 - command.packet.count)
    let fis = command.fis + [UInt8](repeating: 0, count: 0x40 - command.fis.count)
    try machine.setBytes(table, fis + packet + descriptors)
    var flags: UInt32 = 5 | UInt32(descriptorCount) << 16
    if command.isWrite { flags |= 0x40 }
    if !command.packet.isEmpty { flags |= 0x20 }
    try machine.setBytes(list + UInt64(32 * slot), flags.bytes + UInt32(0).bytes + table.bytes)
    if command.isQueued { try set(Offset.active, 1 << UInt32(slot)) }
    try set(Offset.issue, 1 << UInt32(slot))
    return Issued(slot: slot, command: command, buffer: buffer, byteCount: count)
  }

  /// Whether a command is still under way, by the register that its kind completes by.
  func isPending(_ issued: Issued) throws -> Bool {
    try register(issued.command.isQueued ? Offset.active : Offset.issue) & (1 << UInt32(issued.slot)) != 0
  }

  func wait(for issued: Issued) throws -> Outcome {
    try machine.wait("command \(issued.command.fis[2])") { try !isPending(issued) }
    return try outcome(issued)
  }

  /// Waits until a command has failed, which leaves its bit set.
  func waitForError(_ issued: Issued) throws -> Outcome {
    try machine.wait("TFES") { try register(Offset.interruptStatus) & 0x4000_0000 != 0 }
    return try outcome(issued)
  }

  private func outcome(_ issued: Issued) throws -> Outcome {
    Outcome(
      data: issued.byteCount == 0 ? [] : try machine.bytes(issued.buffer, issued.byteCount),
      interruptStatus: try register(Offset.interruptStatus), taskFile: try register(Offset.taskFile),
      bytesDone: try machine.bytes(list + UInt64(32 * issued.slot) + 4, 4).littleEndian32(at: 0),
      received: try machine.bytes(received, 256), serialErrors: try register(Offset.error))
  }

  /// Clears what is left of the last command, issues one, and waits for it.
  @discardableResult
  func run(_ command: Command, reading byteCount: Int = 0, writing data: [UInt8] = [], piece: Int = 4096) throws
    -> Outcome
  {
    try machine.fill(received, 256, 0)
    try clearStatus()
    return try wait(for: try issue(command, reading: byteCount, writing: data, piece: piece))
  }

  /// The 512 bytes of IDENTIFY DEVICE.
  func identity(packet: Bool = false) throws -> [UInt8] {
    try run(packet ? Command(0xa1) : .identify, reading: 512).data
  }
}
