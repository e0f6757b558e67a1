// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// A virtio disk on the board by its memory-mapped registers (virtio 1.3 §4.2.2) and one ring.
final class MMIOUnderTest {
  /// Offsets of the registers.
  enum Register {
    static let magic: UInt64 = 0x000, version: UInt64 = 0x004, deviceID: UInt64 = 0x008
    static let deviceFeatures: UInt64 = 0x010, deviceFeaturesSelect: UInt64 = 0x014
    static let driverFeatures: UInt64 = 0x020, driverFeaturesSelect: UInt64 = 0x024
    static let queueSelect: UInt64 = 0x030, queueSizeMax: UInt64 = 0x034, queueSize: UInt64 = 0x038
    static let queueReady: UInt64 = 0x044, queueNotify: UInt64 = 0x050
    static let interruptStatus: UInt64 = 0x060, interruptAcknowledge: UInt64 = 0x064, status: UInt64 = 0x070
    static let descriptors: UInt64 = 0x080, driver: UInt64 = 0x090, device: UInt64 = 0x0A0
    static let generation: UInt64 = 0x0FC, configuration: UInt64 = 0x100
  }

  static let magic: UInt32 = 0x7472_6976
  /// Where boards of this kind have their devices: nothing tells a driver, so it looks at each place.
  private static let places = (0..<24).map { UInt64(0xFEB0_0000 + $0 * 0x200) }
  private static let size: UInt16 = 16

  let context: CaseContext
  let base: UInt64
  private(set) var table: UInt64 = 0
  private(set) var available: UInt64 = 0
  private(set) var used: UInt64 = 0
  private var availableIndex: UInt16 = 0
  private var usedIndex: UInt16 = 0

  /// Finds the disk; it is left as it is.
  init(_ context: CaseContext) throws {
    self.context = context
    let bus = context.bus
    let found = Self.places.first {
      bus.mmioRead32($0) == Self.magic && bus.mmioRead32($0 + Register.deviceID) == 2
    }
    try context.checkTransport()
    guard let found else { throw ConformanceFailure("expected a virtio disk on the board; saw none") }
    base = found
  }

  /// Finds the disk and brings it up with queue 0.
  convenience init(started context: CaseContext) throws {
    try self.init(context)
    try negotiate()
    try setUpQueue()
    self[Register.status] = 0xF
  }

  var bus: RemoteBus { context.bus }

  subscript(_ register: UInt64) -> UInt32 {
    get { bus.mmioRead32(base + register) }
    set { bus.mmioWrite32(base + register, newValue) }
  }

  var isBroken: Bool { self[Register.status] & UInt32(VirtioStatus.needsReset) != 0 }
  var hasUsed: Bool { bus.ramRead16(used + 2) != usedIndex }

  func reset() throws {
    self[Register.status] = 0
    try context.wait(until: "the status reads 0 after a reset") { self[Register.status] == 0 }
  }

  /// Half of the features that are offered.
  func offeredFeatures(_ half: UInt32) -> UInt32 {
    self[Register.deviceFeaturesSelect] = half
    return self[Register.deviceFeatures]
  }

  /// Resets the device and agrees on VERSION_1 alone.
  func negotiate() throws {
    try reset()
    self[Register.status] = 1
    self[Register.status] = 3
    for (half, value): (UInt32, UInt32) in [(0, 0), (1, 1)] {
      self[Register.driverFeaturesSelect] = half
      self[Register.driverFeatures] = value
    }
    self[Register.status] = 0xB
    try context.expect(self[Register.status], 0xB, "status with FEATURES_OK")
  }

  /// Lays a ring out in fresh memory and tells the device of it.
  func setUpQueue(ready: Bool = true) throws {
    self[Register.queueSelect] = 0
    try context.expect(self[Register.queueReady], 0, "QueueReady before the queue is set up")
    try context.expect(self[Register.queueSizeMax] >= Self.size, "QueueSizeMax is at least \(Self.size)")
    table = try context.allocate(4096)
    available = try context.allocate(4096)
    used = try context.allocate(4096)
    availableIndex = 0
    usedIndex = 0
    self[Register.queueSize] = UInt32(Self.size)
    for (register, address) in [
      (Register.descriptors, table), (Register.driver, available), (Register.device, used),
    ] {
      self[register] = UInt32(truncatingIfNeeded: address)
      self[register + 4] = UInt32(address >> 32)
    }
    guard ready else { return }
    self[Register.queueReady] = 1
    try context.expect(self[Register.queueReady], 1, "QueueReady")
  }

  /// Makes a head available and notifies.
  func publish(_ head: UInt16) {
    bus.ramWrite16(available + 4 + 2 * UInt64(availableIndex % Self.size), head)
    availableIndex &+= 1
    bus.ramWrite16(available + 2, availableIndex)
    self[Register.queueNotify] = 0
  }

  /// Makes a read of a sector available and notifies.
  /// - Returns: where the data will be; the status byte is behind it.
  func submitRead(_ sector: UInt64) throws -> UInt64 {
    let buffer = try context.allocate(4096)
    bus.ramWrite64(buffer + 1024, UInt64(VirtioBlockType.read))
    bus.ramWrite64(buffer + 1032, sector)
    bus.ramWrite8(buffer + 512, VirtioBlockStatus.unwritten)
    let next = UInt64(VirtioUnderTest.Flags.next)
    let write = UInt64(VirtioUnderTest.Flags.write)
    let chain: [(address: UInt64, byteCount: UInt64, flags: UInt64)] = [
      (buffer + 1024, 16, next), (buffer, 512, next | write), (buffer + 512, 1, write),
    ]
    for (index, part) in chain.enumerated() {
      bus.ramWrite64(table + 16 * UInt64(index), part.address)
      bus.ramWrite64(table + 16 * UInt64(index) + 8, part.byteCount | part.flags << 32 | UInt64(index + 1) << 48)
    }
    publish(0)
    return buffer
  }

  /// Waits for a read and checks what it brought, which must be the pattern.
  func finishRead(_ sector: UInt64, _ buffer: UInt64) throws {
    try context.wait(until: "the device uses a buffer") { hasUsed || isBroken }
    try context.expect(hasUsed, "a buffer is used")
    usedIndex &+= 1
    try context.expect(bus.ramRead8(buffer + 512), VirtioBlockStatus.ok, "status of a read of sector \(sector)")
    try context.expect(
      bus.load(buffer, count: 512), MachineKind.pattern((sector * 512)..<(sector * 512 + 512)), "sector \(sector)")
  }

  /// The device still does what it should: it reads the pattern.
  func checkAlive() throws { try finishRead(3, try submitRead(3)) }
}
