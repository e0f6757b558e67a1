// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// An HBA with one port and an ATA disk, which does commands as soon as they are issued; its sectors are the machine's.
final class FakeHBA {
  /// How the HBA and the disk misbehave.
  struct Behaviour {
    /// GHC.HR stays set.
    var keepsReset = false
    /// PxCMD.CR does not follow PxCMD.ST up, or down.
    var neverRuns = false
    var neverStops = false
    /// PxCMD.FR does not follow PxCMD.FRE.
    var neverReceives = false
    var hasDevice = true
    /// BSY stays set after a reset.
    var staysBusy = false
    var completesCommands = true
    /// Nobody clears PxSACT and PxCI with PxCMD.ST.
    var keepsCommandsWhenStopped = false
    /// This sector cannot be read.
    var badSector: UInt64?
    /// READ LOG EXT fails although IDENTIFY says that it is there.
    var refusesLog = false
  }

  static let capabilities: UInt32 = 0xC104_1F00
  static let registerBytes: UInt32 = 0x1000

  var behaviour = Behaviour()
  /// IDENTIFY DEVICE data.
  var identity = FakeHBA.makeIdentity()
  /// Command codes in the order in which they came.
  private(set) var opcodes: [UInt8] = []
  /// Values that were written to PxCI.
  private(set) var issues: [UInt32] = []
  /// How many COMRESETs there were.
  private(set) var deviceResetCount = 0
  private var globalControl: UInt32 = 0x8000_0000
  private var globalStatus: UInt32 = 0
  private var port: [UInt64: UInt32] = [:]
  private var isHalted = false
  private var failedTag: Int?

  init() { resetPort() }

  /// The function at 00:1f.2 with registers in BAR 5, and a 64-bit MSI capability.
  static var function: FakeFunction {
    var function = FakeFunction(
      address: PCIAddress(bus: 0, device: 31, function: 0), vendor: 0x8086, device: 0x2922, classCode: 0x0106,
      programmingInterface: 1)
    function.masks[5] = ~(registerBytes - 1)
    function.put(4, 0x0010_0000)
    function.put(0x34, 0x80)
    function.put(0x80, 0x0080_0005)
    return function
  }

  static func makeIdentity() -> [UInt16] {
    var words = [UInt16](repeating: 0, count: 256)
    words[60] = UInt16(FakeMachine.sectorCount)
    words[75] = 31
    words[76] = 1 << 8
    words[82] = 1 << 5
    words[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10
    words[84] = 1 << 14 | 1 << 6 | 1 << 5
    words[85] = 1 << 5
    words[100] = UInt16(FakeMachine.sectorCount)
    return words
  }

  func offset(_ address: UInt64, in bus: FakeMachine) -> UInt64? {
    guard let function = bus.functions.first(where: { $0.bytes[0x0B] == 1 && $0.bytes[0x0A] == 6 }) else { return nil }
    let base = UInt64(function.read(0x24) & ~15)
    return base != 0 && address >= base && address < base + UInt64(FakeHBA.registerBytes) ? address - base : nil
  }

  private func resetPort() {
    let isPresent = behaviour.hasDevice
    port = [0x18: 0x6, 0x20: 0x7F, 0x24: 0xFFFF_FFFF, 0x28: isPresent ? 0x113 : 0]
    isHalted = false
    failedTag = nil
  }

  /// The device's signature arrives.
  private func sendSignature() {
    guard behaviour.hasDevice else { return }
    port[0x20] = behaviour.staysBusy ? 0x80 : 0x50
    port[0x24] = AHCISignature.ata
    failedTag = nil
  }

  // MARK: Registers

  func read(_ offset: UInt64) -> UInt32 {
    switch offset {
    case AHCIRegister.capabilities: FakeHBA.capabilities
    case AHCIRegister.globalControl: globalControl
    case AHCIRegister.interruptStatus: globalStatus
    case AHCIRegister.portsImplemented: 1
    case AHCIRegister.version: 0x0001_0300
    case 0x100..<0x180: port[offset - 0x100] ?? 0
    default: 0
    }
  }

  func write(_ offset: UInt64, _ value: UInt32, in bus: FakeMachine) {
    switch offset {
    case AHCIRegister.globalControl: writeControl(value)
    case AHCIRegister.interruptStatus: globalStatus &= ~value
    case 0x100..<0x180: writePort(offset - 0x100, value, bus)
    default: break
    }
  }

  private func writeControl(_ value: UInt32) {
    guard value & 1 != 0 else {
      globalControl = value | 0x8000_0000
      return
    }
    globalStatus = 0
    globalControl = behaviour.keepsReset ? 0x8000_0001 : 0x8000_0000
    resetPort()
  }

  private func writePort(_ register: UInt64, _ value: UInt32, _ bus: FakeMachine) {
    switch register {
    case 0x10, 0x30: port[register, default: 0] &= ~value
    case 0x18: writeCommand(value)
    case 0x20, 0x24, 0x28: break
    case 0x2C:
      if port[0x2C, default: 0] & 0xF == 1, value & 0xF == 0 {
        deviceResetCount += 1
        port[0x34] = 0
        port[0x38] = 0
        sendSignature()
      }
      port[0x2C] = value
    case 0x34: port[0x34, default: 0] |= value
    case 0x38:
      issues.append(value)
      port[0x38, default: 0] |= value
      process(bus)
    default: port[register] = value
    }
  }

  private func writeCommand(_ value: UInt32) {
    let old = port[0x18, default: 0]
    var new = value & ~(AHCIPortCommand.listRuns | AHCIPortCommand.receiveRuns | AHCIPortCommand.listOverride)
    if new & AHCIPortCommand.receive != 0, !behaviour.neverReceives { new |= AHCIPortCommand.receiveRuns }
    if new & AHCIPortCommand.start != 0, !behaviour.neverRuns { new |= AHCIPortCommand.listRuns }
    if behaviour.neverStops { new |= old & AHCIPortCommand.listRuns }
    port[0x18] = new
    if new & AHCIPortCommand.start == 0 {
      isHalted = false
      if !behaviour.keepsCommandsWhenStopped {
        port[0x34] = 0
        port[0x38] = 0
      }
    }
    if old & AHCIPortCommand.receive == 0, new & AHCIPortCommand.receive != 0 { sendSignature() }
  }

  private func raise(_ bits: UInt32, _ bus: FakeMachine) {
    port[0x10, default: 0] |= bits
    guard bits & port[0x14, default: 0] != 0 else { return }
    globalStatus |= 1
    if globalControl & 2 != 0 { bus.interrupt() }
  }

  // MARK: Commands

  private func process(_ bus: FakeMachine) {
    guard behaviour.completesCommands else { return }
    for slot in 0..<32 where port[0x38, default: 0] >> UInt32(slot) & 1 != 0 && !isHalted {
      execute(slot, bus)
    }
  }

  private func execute(_ slot: Int, _ bus: FakeMachine) {
    let list = UInt64(port[0x00, default: 0])
    let header = list + UInt64(32 * slot)
    let table = bus.ramRead64(header + 8)
    func byte(_ index: UInt64) -> UInt64 { UInt64(bus.ramRead8(table + index)) }
    let opcode = UInt8(byte(2))
    opcodes.append(opcode)
    let isQueued = ATACommand.isQueued(opcode)
    let low = byte(4) | byte(5) << 8 | byte(6) << 16
    let is28Bit = [0x20, 0x30, 0xC8, 0xCA].contains(opcode)
    let lba = low | (is28Bit ? (byte(7) & 0xF) << 24 : byte(8) << 24 | byte(9) << 32 | byte(10) << 40)
    let count = isQueued ? byte(3) | byte(11) << 8 : byte(12) | byte(13) << 8
    if isQueued { port[0x38, default: 0] &= ~(1 << UInt32(slot)) }
    guard failedTag == nil || opcode == 0x2F, let bytes = perform(opcode, lba, count, header, table, byte(3), bus)
    else {
      fail(slot, isQueued, bus)
      return
    }
    port[0x20] = 0x50
    if !isQueued { bus.ramWrite32(header + 4, UInt32(bytes)) }
    port[isQueued ? 0x34 : 0x38, default: 0] &= ~(1 << UInt32(slot))
    raise(isQueued ? AHCIPortInterrupt.deviceBits : AHCIPortInterrupt.registerFIS, bus)
  }

  private func fail(_ slot: Int, _ isQueued: Bool, _ bus: FakeMachine) {
    if isQueued, failedTag == nil { failedTag = slot }
    isHalted = true
    // The slot that has failed, for PxCMD.CCS.
    port[0x18] = port[0x18, default: 0] & ~0x1F00 | UInt32(slot) << 8
    port[0x20] = 0x0441
    raise(AHCIPortInterrupt.taskFileError, bus)
  }

  /// Does a command.
  /// - Returns: how many bytes it moved; nil where it fails.
  private func perform(
    _ opcode: UInt8, _ lba: UInt64, _ count: UInt64, _ header: UInt64, _ table: UInt64, _ feature: UInt64,
    _ bus: FakeMachine
  ) -> Int? {
    switch opcode {
    case 0xEC:
      return give(identity.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }, header, table, bus)
    case 0x2F:
      guard let tag = failedTag, !behaviour.refusesLog else { return nil }
      failedTag = nil
      var page = [UInt8](repeating: 0, count: 512)
      page[0] = UInt8(tag)
      page[2] = 0x41
      page[3] = 0x04
      page[511] = 0 &- page.reduce(0, &+)
      return give(page, header, table, bus)
    case 0xE7, 0xEA: return 0
    case 0xEF:
      identity[85] = feature == 0x02 ? 1 << 5 : 0
      return 0
    case 0xF8, 0x27:
      let fis = UInt64(port[0x08, default: 0]) + AHCIReceivedFIS.register
      bus.ramWrite32(fis + 4, UInt32(FakeMachine.sectorCount - 1))
      bus.ramWrite32(fis + 8, 0)
      return 0
    case 0x20, 0x24, 0x25, 0xC8, 0x60: return move(lba, count, header, table, isWrite: false, bus)
    case 0x35, 0x3D, 0x61: return move(lba, count, header, table, isWrite: true, bus)
    default: return nil
    }
  }

  private func move(
    _ lba: UInt64, _ count: UInt64, _ header: UInt64, _ table: UInt64, isWrite: Bool, _ bus: FakeMachine
  ) -> Int? {
    guard lba + count <= UInt64(FakeMachine.sectorCount), isWrite == (bus.ramRead32(header) & 1 << 6 != 0) else {
      return nil
    }
    if let bad = behaviour.badSector, bad >= lba, bad < lba + count { return nil }
    let begin = Int(lba) * 512
    guard isWrite else {
      return give(Array(bus.disk[begin..<begin + Int(count) * 512]), header, table, bus)
    }
    var cursor = begin
    forEachByte(Int(count) * 512, header, table, bus) {
      bus.disk[cursor] = bus.ramRead8($0)
      cursor += 1
    }
    return cursor - begin
  }

  private func give(_ bytes: [UInt8], _ header: UInt64, _ table: UInt64, _ bus: FakeMachine) -> Int {
    var cursor = 0
    forEachByte(bytes.count, header, table, bus) {
      bus.ramWrite8($0, bytes[cursor])
      cursor += 1
    }
    return cursor
  }

  private func forEachByte(
    _ byteCount: Int, _ header: UInt64, _ table: UInt64, _ bus: FakeMachine, _ body: (UInt64) -> Void
  ) {
    var left = byteCount
    for index in 0..<UInt64(bus.ramRead32(header) >> 16) where left > 0 {
      let descriptor = table + 0x80 + 16 * index
      let bytes = min(left, Int(bus.ramRead32(descriptor + 12) & 0x3F_FFFF) + 1)
      let address = bus.ramRead64(descriptor)
      for offset in 0..<UInt64(bytes) { body(address + offset) }
      left -= bytes
    }
  }
}
