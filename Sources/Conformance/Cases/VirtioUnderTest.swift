// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The virtio disk at 00:04.0 by its registers and one ring that cases write as they like, right or wrong.
final class VirtioUnderTest {
  /// Offsets in the common configuration (virtio 1.3 §4.1.4.3).
  enum Common {
    static let deviceFeatureSelect: UInt64 = 0, deviceFeature: UInt64 = 4
    static let driverFeatureSelect: UInt64 = 8, driverFeature: UInt64 = 12
    static let configurationVector: UInt64 = 16, queueCount: UInt64 = 18, status: UInt64 = 20, generation: UInt64 = 21
    static let queueSelect: UInt64 = 22, queueSize: UInt64 = 24, queueVector: UInt64 = 26, queueEnable: UInt64 = 28
    static let notifyOffset: UInt64 = 30, descriptors: UInt64 = 32, driver: UInt64 = 40, device: UInt64 = 48
  }

  /// Flags of a descriptor.
  enum Flags {
    static let next: UInt16 = 1, write: UInt16 = 2, indirect: UInt16 = 4
  }

  /// A part of a request.
  struct Segment {
    var address: UInt64
    var byteCount: UInt32
    var isWritten = false
  }

  /// How a request has ended.
  struct Completion {
    var status: UInt8
    var usedByteCount: UInt32
  }

  static let noVector: UInt16 = 0xFFFF
  /// What cases take of the offered features unless they say otherwise: no indirect tables, no event index.
  static let plainFeatures: UInt64 = ~(VirtioBlockFeature.indirectDescriptors | VirtioBlockFeature.eventIndex)
  /// Descriptors of queue 0 unless a case says otherwise.
  static let queueSize: UInt16 = 64

  let context: CaseContext
  let entry: PCITopology<RemoteBus>.Entry
  let msix: MSIXTable<RemoteBus>?
  private(set) var blocks: [UInt8: (address: UInt64, byteCount: UInt64)] = [:]
  private(set) var notifyMultiplier: UInt64 = 0
  private(set) var features: UInt64 = 0
  private(set) var size: UInt16 = 0
  private(set) var table: UInt64 = 0
  private(set) var available: UInt64 = 0
  private(set) var used: UInt64 = 0
  /// The next index of the available ring.
  var availableIndex: UInt16 = 0
  /// The next index of the used ring.
  private(set) var usedIndex: UInt16 = 0

  /// Finds the register blocks; the device is left as it is.
  init(_ context: CaseContext) throws {
    self.context = context
    entry = try context.entry(device: 4, function: 0)
    let configuration = context.topology.configuration
    let place = entry.function.address
    configuration.enable(place)
    msix = MSIXTable(configuration: configuration, entry: entry)
    for capability in PCICases.capabilities(context, place) where capability.identifier == 0x09 {
      let type = configuration.read8(place, capability.offset + 3)
      let index = Int(configuration.read8(place, capability.offset + 4))
      guard blocks[type] == nil, let register = entry.baseAddresses.first(where: { $0.index == index }) else {
        continue
      }
      let offset = UInt64(configuration.read32(place, capability.offset + 8))
      blocks[type] = (register.address + offset, UInt64(configuration.read32(place, capability.offset + 12)))
      if type == 2 { notifyMultiplier = UInt64(configuration.read32(place, capability.offset + 16)) }
    }
    for type: UInt8 in 1...4 where blocks[type] == nil {
      throw ConformanceFailure("expected a virtio capability of type \(type); saw none")
    }
  }

  /// Finds the device and brings it up with queue 0.
  convenience init(
    started context: CaseContext, features mask: UInt64 = VirtioUnderTest.plainFeatures,
    size: UInt16 = VirtioUnderTest.queueSize
  ) throws {
    try self.init(context)
    try negotiate(mask)
    try setUpQueue(size: size)
    setStatus(0xF)
  }

  var bus: RemoteBus { context.bus }
  var deviceConfiguration: UInt64 { blocks[4]?.address ?? 0 }
  var isBroken: Bool { status & VirtioStatus.needsReset != 0 }
  var lastSector: UInt64 { MachineKind.diskBytes / 512 - 1 }

  // MARK: Registers

  private var common: UInt64 { blocks[1]?.address ?? 0 }
  func read8(_ offset: UInt64) -> UInt8 { bus.mmioRead8(common + offset) }
  func read16(_ offset: UInt64) -> UInt16 { bus.mmioRead16(common + offset) }
  func read32(_ offset: UInt64) -> UInt32 { bus.mmioRead32(common + offset) }
  func write16(_ offset: UInt64, _ value: UInt16) { bus.mmioWrite16(common + offset, value) }
  func write32(_ offset: UInt64, _ value: UInt32) { bus.mmioWrite32(common + offset, value) }
  func write64(_ offset: UInt64, _ value: UInt64) {
    write32(offset, UInt32(truncatingIfNeeded: value))
    write32(offset + 4, UInt32(value >> 32))
  }
  func read64(_ offset: UInt64) -> UInt64 { UInt64(read32(offset)) | UInt64(read32(offset + 4)) << 32 }

  var status: UInt8 { read8(Common.status) }
  func setStatus(_ value: UInt8) { bus.mmioWrite8(common + Common.status, value) }
  /// Reading clears it.
  var interruptStatus: UInt8 { bus.mmioRead8(blocks[3]?.address ?? 0) }

  func reset() throws {
    setStatus(0)
    try context.wait(until: "the status reads 0 after a reset") { status == 0 }
  }

  func offeredFeatures() -> UInt64 {
    write32(Common.deviceFeatureSelect, 0)
    let low = read32(Common.deviceFeature)
    write32(Common.deviceFeatureSelect, 1)
    return UInt64(low) | UInt64(read32(Common.deviceFeature)) << 32
  }

  func setDriverFeatures(_ value: UInt64) {
    write32(Common.driverFeatureSelect, 0)
    write32(Common.driverFeature, UInt32(truncatingIfNeeded: value))
    write32(Common.driverFeatureSelect, 1)
    write32(Common.driverFeature, UInt32(value >> 32))
  }

  /// Resets the device and goes as far as FEATURES_OK, with those offered features that are in `mask`.
  func negotiate(_ mask: UInt64 = VirtioUnderTest.plainFeatures) throws {
    try reset()
    setStatus(1)
    setStatus(3)
    features = offeredFeatures() & (mask | VirtioBlockFeature.version1)
    setDriverFeatures(features)
    setStatus(0xB)
    try context.expect(status, 0xB, "status with FEATURES_OK")
  }

  func has(_ feature: UInt64) -> Bool { features & feature != 0 }

  // MARK: The ring

  /// Lays a ring out in fresh memory, tells the device of it and enables it. Cases use one queue at a time.
  func setUpQueue(_ index: UInt16 = 0, size wanted: UInt16 = VirtioUnderTest.queueSize, vector: UInt16 = noVector)
    throws
  {
    write16(Common.queueSelect, index)
    size = min(wanted, read16(Common.queueSize))
    try context.expect(size > 0, "queue \(index) exists")
    table = try context.allocate(16 * UInt64(size))
    available = try context.allocate(6 + 2 * UInt64(size))
    used = try context.allocate(6 + 8 * UInt64(size))
    availableIndex = 0
    usedIndex = 0
    write16(Common.queueSize, size)
    write64(Common.descriptors, table)
    write64(Common.driver, available)
    write64(Common.device, used)
    write16(Common.queueVector, vector)
    write16(Common.queueEnable, 1)
    try context.expect(read16(Common.queueEnable), 1, "queue_enable of queue \(index)")
  }

  func notifyAddress(_ index: UInt16 = 0) -> UInt64 {
    write16(Common.queueSelect, index)
    return (blocks[2]?.address ?? 0) + UInt64(read16(Common.notifyOffset)) * notifyMultiplier
  }

  func writeDescriptor(
    _ index: UInt16, _ address: UInt64, _ byteCount: UInt32, flags: UInt16 = 0, next: UInt16 = 0, table: UInt64? = nil
  ) {
    let place = (table ?? self.table) + 16 * UInt64(index)
    bus.ramWrite64(place, address)
    bus.ramWrite64(place + 8, UInt64(byteCount) | UInt64(flags) << 32 | UInt64(next) << 48)
  }

  /// Makes chains available, by their heads, without notifying.
  func publish(_ heads: UInt16...) {
    for head in heads {
      bus.ramWrite16(available + 4 + 2 * UInt64(availableIndex % size), head)
      availableIndex &+= 1
    }
    bus.ramWrite16(available + 2, availableIndex)
  }

  func kick(_ index: UInt16 = 0) { bus.mmioWrite16(notifyAddress(index), index) }

  /// Whether there is something in the used ring that nobody has taken.
  var hasUsed: Bool { bus.ramRead16(used + 2) != usedIndex }

  /// Takes the next element of the used ring, when it has come.
  func takeUsed() throws -> (head: UInt32, byteCount: UInt32) {
    try context.wait(until: "the device uses a buffer") { hasUsed || isBroken }
    guard hasUsed else { throw ConformanceFailure("expected a used buffer; saw DEVICE_NEEDS_RESET") }
    let place = used + 4 + 8 * UInt64(usedIndex % size)
    usedIndex &+= 1
    return (bus.ramRead32(place), bus.ramRead32(place + 4))
  }

  // MARK: Requests

  /// A header in fresh memory.
  func makeHeader(type: UInt32, sector: UInt64) throws -> UInt64 {
    let header = try context.allocate(16)
    bus.ramWrite64(header, UInt64(type))
    bus.ramWrite64(header + 8, sector)
    return header
  }

  /// A status byte in fresh memory, with a value that no device writes.
  func makeStatus() throws -> UInt64 {
    let address = try context.allocate(8)
    bus.ramWrite8(address, VirtioBlockStatus.unwritten)
    return address
  }

  /// Writes a chain of segments from descriptor `first` on.
  func writeChain(_ segments: [Segment], first: UInt16 = 0, table: UInt64? = nil) {
    for (index, segment) in segments.enumerated() {
      let isLast = index == segments.count - 1
      let place = table == nil ? first + UInt16(index) : UInt16(index)
      writeDescriptor(
        place, segment.address, segment.byteCount,
        flags: (segment.isWritten ? Flags.write : 0) | (isLast ? 0 : Flags.next), next: isLast ? 0 : place + 1,
        table: table)
    }
  }

  /// Does a request of header, data segments and status, in descriptors 0 and up of queue `queue`.
  func perform(
    type: UInt32, sector: UInt64 = 0, _ data: [Segment] = [], queue: UInt16 = 0
  ) throws -> Completion {
    let statusAddress = try makeStatus()
    let header = Segment(address: try makeHeader(type: type, sector: sector), byteCount: 16)
    return try perform(
      chain: [header] + data + [Segment(address: statusAddress, byteCount: 1, isWritten: true)], status: statusAddress,
      queue: queue)
  }

  /// Does a request of given segments, and reads the status at `status`.
  func perform(chain: [Segment], status: UInt64, queue: UInt16 = 0) throws -> Completion {
    writeChain(chain)
    publish(0)
    kick(queue)
    let element = try takeUsed()
    try context.expect(element.head, 0, "head in the used ring")
    return Completion(status: bus.ramRead8(status), usedByteCount: element.byteCount)
  }

  /// Reads sectors, which must succeed.
  func read(_ sector: UInt64, byteCount: Int, queue: UInt16 = 0) throws -> [UInt8] {
    let buffer = try context.allocate(UInt64(byteCount))
    let done = try perform(
      type: VirtioBlockType.read, sector: sector,
      [Segment(address: buffer, byteCount: UInt32(byteCount), isWritten: true)], queue: queue)
    try context.expect(done.status, VirtioBlockStatus.ok, "status of a read of sector \(sector)")
    return bus.load(buffer, count: byteCount)
  }

  /// Writes sectors.
  func write(_ sector: UInt64, _ bytes: [UInt8], queue: UInt16 = 0) throws -> Completion {
    try perform(
      type: VirtioBlockType.write, sector: sector,
      [Segment(address: try context.allocate(bytes), byteCount: UInt32(bytes.count))], queue: queue)
  }

  /// The device still does what it should: it reads the pattern.
  func checkAlive() throws {
    try context.expect(
      try read(3, byteCount: 512), MachineKind.pattern(1536..<2048), "sector 3, read after what happened")
  }
}
