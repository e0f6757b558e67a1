// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// A machine in memory with one scripted virtio-blk function, for drivers to be tested against.
///
/// Accesses are handled at once on the caller's thread. What the device does is plain data in `behaviour`, so a test
/// can make it silent, refuse things or break its rings.
final class FakeMachine: SleepingBus {
  /// How the device misbehaves.
  struct Behaviour {
    var offersVersion1 = true
    var keepsFeaturesOK = true
    var refusesVectors = false
    var completesRequests = true
    /// Added to every used id.
    var usedIdentifierOffset: UInt32 = 0
    /// Added to the used index after each notification.
    var usedIndexJump: UInt16 = 0
    /// A capability list that leads back to its first entry.
    var loopsCapabilities = false
    /// Chains are used in the opposite order of their submission.
    var completesBackwards = false
  }

  static let ramBase: UInt64 = 0x10_0000
  static let ramBytes = 4 << 20
  static let configurationAddress = PCIAddress(bus: 0, device: 3, function: 0)
  static let sectorCount = 256
  static let queueSize: UInt16 = 16

  var behaviour = Behaviour()
  /// Where it is set, one access in `garbageInterval` to what the device answers gives anything at all.
  var garbage: XorShift64?
  var garbageInterval: UInt64 = 64
  var isStopping = false
  /// Each read of `ticks` is this much later than the one before.
  var ticksPerRead: UInt64 = 1000
  private(set) var relaxCount = 0
  private(set) var notificationCount = 0
  private(set) var interruptCounts: [UInt32] = Array(repeating: 0, count: 8)
  var disk: [UInt8]
  var text: [UInt8] = []
  /// What was written to the diagnostic port, and the time at each write.
  private(set) var marks: [(value: UInt8, nanoseconds: UInt64)] = []
  let ram: UnsafeMutableRawPointer
  var functions: [FakeFunction] = []
  var device = FakeVirtioRegisters()
  /// The HBA, where there is one.
  var hba: FakeHBA?
  private var allocated: UInt64 = FakeMachine.ramBase
  private var time: UInt64 = 0
  /// The time that `sleep` alone lets pass.
  private(set) var nanoseconds: UInt64 = 0
  private var interrupts: UInt32 = 0
  private var configurationSelector: UInt32 = 0
  private var ports: [UInt16: UInt8] = [:]

  init() {
    ram = UnsafeMutableRawPointer.allocate(byteCount: FakeMachine.ramBytes, alignment: 4096)
    ram.initializeMemory(as: UInt8.self, repeating: 0, count: FakeMachine.ramBytes)
    disk = (0..<(FakeMachine.sectorCount * 512)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }
    functions = [FakeFunction.hostBridge, FakeFunction.virtioBlock]
  }

  deinit { ram.deallocate() }

  /// A machine whose only disk is an ATA disk at an HBA.
  static func withHBA() -> FakeMachine {
    let bus = FakeMachine()
    bus.functions[1] = FakeHBA.function
    bus.hba = FakeHBA()
    return bus
  }

  func sleep(nanoseconds: UInt64) -> Bool {
    self.nanoseconds += nanoseconds
    return !isStopping
  }

  /// Tells the processor of the device's message.
  func interrupt() { interruptCounts[0] &+= 1 }

  // MARK: Ports

  func in8(_ port: UInt16) -> UInt8 {
    if port >= 0xCFC, port <= 0xCFF {
      return UInt8(truncatingIfNeeded: readConfiguration() >> UInt32(8 * (port & 3)))
    }
    switch port {
    case 0x3FD: return 0x60
    case 0x3FA: return 0x01
    default: return ports[port] ?? 0xFF
    }
  }
  func in16(_ port: UInt16) -> UInt16 {
    port >= 0xCFC && port <= 0xCFE ? UInt16(truncatingIfNeeded: readConfiguration() >> UInt32(8 * (port & 2))) : 0xFFFF
  }
  func in32(_ port: UInt16) -> UInt32 { port == 0xCFC ? readConfiguration() : 0xFFFF_FFFF }
  func out8(_ port: UInt16, _ value: UInt8) {
    if port == 0x3F8 { text.append(value) }
    if port == ThinkMark.port { marks.append((value, nanoseconds)) }
    ports[port] = value
    writeConfiguration(port, UInt32(value), byteCount: 1)
  }
  func out16(_ port: UInt16, _ value: UInt16) { writeConfiguration(port, UInt32(value), byteCount: 2) }
  func out32(_ port: UInt16, _ value: UInt32) {
    if port == 0xCF8 {
      configurationSelector = value
    } else {
      writeConfiguration(port, value, byteCount: 4)
    }
  }

  private var selectedFunction: Int? {
    let selector = configurationSelector
    guard selector & 0x8000_0000 != 0 else { return nil }
    let address = PCIAddress(
      bus: UInt8(truncatingIfNeeded: selector >> 16), device: UInt8(truncatingIfNeeded: selector >> 11) & 31,
      function: UInt8(truncatingIfNeeded: selector >> 8) & 7)
    return functions.firstIndex { $0.address == address }
  }

  private func readConfiguration() -> UInt32 {
    guard let index = selectedFunction else { return 0xFFFF_FFFF }
    if behaviour.loopsCapabilities, configurationSelector & 0xFC == 0x40 { return 0x0000_4005 }
    return functions[index].read(Int(configurationSelector & 0xFC))
  }

  private func writeConfiguration(_ port: UInt16, _ value: UInt32, byteCount: Int) {
    guard port >= 0xCFC, port <= 0xCFF, let index = selectedFunction else { return }
    functions[index].write(Int(configurationSelector & 0xFC) + Int(port & 3), value, byteCount: byteCount)
  }

  // MARK: Device memory: the registers of the virtio function, wherever its registers put them

  private func deviceOffset(_ address: UInt64) -> UInt64? {
    guard let function = functions.first(where: { $0.address == FakeMachine.configurationAddress }) else { return nil }
    let base = function.memoryBase(4)
    return base != 0 && address >= base && address < base + 0x4000 ? address - base : nil
  }

  func mmioRead8(_ address: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: mmioRead(address)) }
  func mmioRead16(_ address: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: mmioRead(address)) }
  func mmioRead32(_ address: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: mmioRead(address)) }
  func mmioRead64(_ address: UInt64) -> UInt64 { mmioRead(address) }
  func mmioWrite8(_ address: UInt64, _ value: UInt8) { mmioWrite(address, UInt64(value)) }
  func mmioWrite16(_ address: UInt64, _ value: UInt16) { mmioWrite(address, UInt64(value)) }
  func mmioWrite32(_ address: UInt64, _ value: UInt32) { mmioWrite(address, UInt64(value)) }
  func mmioWrite64(_ address: UInt64, _ value: UInt64) { mmioWrite(address, value) }

  private func mmioRead(_ address: UInt64) -> UInt64 {
    if let hba, let offset = hba.offset(address, in: self) {
      return nextGarbage() ?? UInt64(hba.read(offset))
    }
    guard let offset = deviceOffset(address) else { return UInt64.max }
    if let value = nextGarbage() { return value }
    return device.read(offset, behaviour)
  }

  private func nextGarbage() -> UInt64? {
    guard garbage != nil, garbage?.next(below: garbageInterval) == 0 else { return nil }
    return garbage?.next()
  }

  private func mmioWrite(_ address: UInt64, _ value: UInt64) {
    if let hba, let offset = hba.offset(address, in: self) {
      hba.write(offset, UInt32(truncatingIfNeeded: value), in: self)
      return
    }
    guard let offset = deviceOffset(address) else { return }
    if offset >= 0x3000 {
      notificationCount += 1
      serve()
    } else {
      device.write(offset, value, behaviour)
    }
  }

  // MARK: RAM

  private func pointer(_ address: UInt64, _ byteCount: UInt64) -> UnsafeMutableRawPointer {
    precondition(address % byteCount == 0, "RAM accesses are naturally aligned")
    precondition(address >= FakeMachine.ramBase && address - FakeMachine.ramBase < UInt64(FakeMachine.ramBytes))
    return ram + Int(address - FakeMachine.ramBase)
  }

  func ramRead8(_ address: UInt64) -> UInt8 { pointer(address, 1).load(as: UInt8.self) }
  func ramRead16(_ address: UInt64) -> UInt16 { pointer(address, 2).load(as: UInt16.self) }
  func ramRead32(_ address: UInt64) -> UInt32 { pointer(address, 4).load(as: UInt32.self) }
  func ramRead64(_ address: UInt64) -> UInt64 { pointer(address, 8).load(as: UInt64.self) }
  func ramWrite8(_ address: UInt64, _ value: UInt8) { pointer(address, 1).storeBytes(of: value, as: UInt8.self) }
  func ramWrite16(_ address: UInt64, _ value: UInt16) { pointer(address, 2).storeBytes(of: value, as: UInt16.self) }
  func ramWrite32(_ address: UInt64, _ value: UInt32) { pointer(address, 4).storeBytes(of: value, as: UInt32.self) }
  func ramWrite64(_ address: UInt64, _ value: UInt64) { pointer(address, 8).storeBytes(of: value, as: UInt64.self) }

  func fullBarrier() {}
  func storeBarrier() {}
  func loadBarrier() {}

  func allocate(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    let address = (allocated + alignment - 1) & ~(alignment - 1)
    guard address + byteCount <= FakeMachine.ramBase + UInt64(FakeMachine.ramBytes) else { return nil }
    allocated = address + byteCount
    return address
  }

  // MARK: Interrupts, processors

  func allocateInterrupt(processor: Int) -> MessageInterrupt? {
    guard interrupts < 8 else { return nil }
    defer { interrupts += 1 }
    return MessageInterrupt(number: interrupts, address: 0xFEE0_0000, data: 0x40 + interrupts)
  }
  func interruptCount(_ interrupt: MessageInterrupt) -> UInt32 { interruptCounts[Int(interrupt.number)] }
  func waitForInterrupt(_ interrupt: MessageInterrupt, after seen: UInt32) -> Bool { !isStopping }
  func relax() -> Bool {
    relaxCount += 1
    return !isStopping
  }
  var processorCount: Int { 1 }
  func startProcessor(_ index: Int, _ program: @escaping @Sendable (FakeMachine) -> Void) -> Bool { false }
  var ticks: UInt64 {
    time += ticksPerRead
    return time
  }

  // MARK: The device's side of the ring

  /// Uses every available chain.
  func serve() {
    guard behaviour.completesRequests, device.isQueueEnabled else { return }
    var heads: [UInt16] = []
    while device.availSeen != ramRead16(device.availRing + 2) {
      heads.append(ramRead16(device.availRing + 4 + 2 * UInt64(device.availSeen % device.queueSize)))
      device.availSeen &+= 1
    }
    if behaviour.completesBackwards { heads.reverse() }
    for head in heads {
      let byteCount = execute(head)
      let element = device.usedRing + 4 + 8 * UInt64(device.usedNext % device.queueSize)
      ramWrite32(element, UInt32(head) &+ behaviour.usedIdentifierOffset)
      ramWrite32(element + 4, byteCount)
      if let value = nextGarbage() { ramWrite64(element, value) }
      device.usedNext &+= 1
    }
    ramWrite16(device.usedRing + 2, device.usedNext &+ behaviour.usedIndexJump)
    if let value = nextGarbage() { ramWrite16(device.usedRing + 2, UInt16(truncatingIfNeeded: value)) }
    // The event for "notify me at the next one".
    ramWrite16(device.usedRing + 4 + 8 * UInt64(device.queueSize), device.availSeen)
    guard !heads.isEmpty else { return }
    interruptCounts[0] &+= 1
    // Without EVENT_IDX, the driver's flag says whether it wants to be told.
    if ramRead16(device.availRing) & 1 == 0 { device.interruptStatus |= 1 }
  }

  /// Does one request.
  /// - Returns: bytes written to the guest.
  private func execute(_ head: UInt16) -> UInt32 {
    var chain: [(address: UInt64, byteCount: Int, isWritable: Bool)] = []
    var table = device.descriptorTable
    var index = UInt64(head)
    while true {
      let place = table + 16 * index
      let word = ramRead64(place + 8)
      let flags = UInt16(truncatingIfNeeded: word >> 32)
      if flags & 4 != 0 {
        table = ramRead64(place)
        index = 0
        continue
      }
      chain.append((ramRead64(place), Int(UInt32(truncatingIfNeeded: word)), flags & 2 != 0))
      guard flags & 1 != 0 else { break }
      index = word >> 48
    }
    let type = ramRead32(chain[0].address)
    let sector = ramRead64(chain[0].address + 8)
    let dataBytes = chain.dropFirst().dropLast().reduce(0) { $0 + $1.byteCount }
    var written: UInt32 = 1
    guard
      type >= 2
        || dataBytes % 512 == 0 && sector < UInt64(FakeMachine.sectorCount)
          && Int(sector) * 512 + dataBytes <= disk.count
    else {
      ramWrite8(chain[chain.count - 1].address, VirtioBlockStatus.ioError)
      return written
    }
    var cursor = type < 2 ? Int(sector) * 512 : 0
    for part in chain.dropFirst().dropLast() {
      for offset in 0..<part.byteCount where type < 2 {
        if part.isWritable {
          ramWrite8(part.address + UInt64(offset), disk[cursor])
          written += 1
        } else {
          disk[cursor] = ramRead8(part.address + UInt64(offset))
        }
        cursor += 1
      }
    }
    ramWrite8(chain[chain.count - 1].address, type < 2 ? 0 : 2)
    return written
  }
}
