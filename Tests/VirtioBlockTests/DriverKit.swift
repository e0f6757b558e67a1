// SPDX-License-Identifier: Apache-2.0
// The driver's side of the device for tests: it writes registers, rings and requests as a guest would, good or bad.
import Block
import DeviceTestKit
import EventLoop
import GuestMemory
import Machine
import Testing

@testable import VirtioBlock

/// A buffer of a chain: where it is, how long, and who writes it.
struct Buffer {
  var address: UInt64
  var byteCount: UInt32
  var deviceWrites: Bool
  static func readable(_ address: UInt64, _ byteCount: UInt32) -> Buffer {
    Buffer(address: address, byteCount: byteCount, deviceWrites: false)
  }
  static func writable(_ address: UInt64, _ byteCount: UInt32) -> Buffer {
    Buffer(address: address, byteCount: byteCount, deviceWrites: true)
  }
}

/// A machine with one virtio-blk device and a driver for it.
final class DriverKit {
  static let ramBytes: UInt64 = 4 << 20
  static let bar: UInt64 = 0xe000_0000
  static let ports: UInt64 = 0xc000
  static let msixBAR: UInt64 = 0xe001_0000
  static let rings: UInt64 = 0x10000
  static let headers: UInt64 = 0x40000
  static let statuses: UInt64 = 0x50000
  static let data: UInt64 = 0x100000
  static let slot = PCIAddress(device: 4, function: 0)

  let memory = GuestMemory()
  let loop: EventLoop
  let machine: Machine
  let driver: ScriptedDriver
  let backend: BlockBackend
  let device: VirtioBlockDevice
  let interrupts = RecordingInterrupts()
  var entries: UInt16 = 16
  private var nextHead: UInt16 = 0
  private var availableIndex: UInt16 = 0
  private var seenUsed: UInt16 = 0

  init(
    queues: Int = 1, readOnly: Bool = false, driver: ScriptedDriver = ScriptedDriver(), serial: String = "",
    interface: VirtioInterface = .modern
  ) throws {
    try memory.add(GuestRegion(start: 0, byteCount: Self.ramBytes))
    loop = try EventLoop(name: "test")
    machine = Machine(memory: memory, mainLoop: loop)
    machine.interrupts = interrupts
    self.driver = driver
    var configuration = BlockConfiguration()
    configuration.isReadOnly = readOnly
    configuration.serial = serial
    backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
    var options = VirtioBlockOptions()
    options.queueCount = queues
    options.queueEntries = 256
    options.interface = interface
    device = try VirtioBlockDevice(
      name: "disk", address: Self.slot, backend: backend, memory: memory, options: options)
    machine.lock.lock()
    machine.attach(device)
    if interface != .modern { device.configurationWrite(offset: 0x10, width: 4, value: UInt32(Self.ports)) }
    device.configurationWrite(offset: 0x20, width: 4, value: UInt32(Self.bar))
    device.configurationWrite(offset: 0x24, width: 4, value: 0)
    device.configurationWrite(offset: 0x14, width: 4, value: UInt32(Self.msixBAR))
    device.configurationWrite(offset: 4, width: 2, value: 7)
  }

  deinit {
    // Whatever the test left out comes back before the slots go away.
    completeAll()
    loop.runUntilIdle()
    device.shutdown()
    machine.lock.unlock()
  }

  // MARK: Registers

  func read(_ offset: UInt64, _ width: Int) -> UInt64 { machine.memorySpace.read(Self.bar + offset, width: width) ?? 0 }
  func write(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    machine.memorySpace.write(Self.bar + offset, width: width, value: value)
  }
  var status: UInt8 {
    get { UInt8(read(20, 1)) }
    set { write(20, 1, UInt64(newValue)) }
  }
  var offeredFeatures: UInt64 {
    write(0, 4, 0)
    let low = read(4, 4)
    write(0, 4, 1)
    return low | read(4, 4) << 32
  }

  func negotiate(_ features: UInt64) {
    status = 0
    status = 1
    status = 3
    write(8, 4, 0)
    write(12, 4, features & 0xffff_ffff)
    write(8, 4, 1)
    write(12, 4, features >> 32)
    status = 0xb
  }

  func ringBase(_ queue: Int) -> UInt64 { Self.rings + UInt64(queue) * 0x8000 }
  func available(_ queue: Int = 0) -> UInt64 { ringBase(queue) + 0x2000 }
  func used(_ queue: Int = 0) -> UInt64 { ringBase(queue) + 0x4000 }

  func setUpQueue(_ queue: Int = 0, vector: UInt16 = 0xffff) {
    write(22, 2, UInt64(queue))
    write(24, 2, UInt64(entries))
    write(26, 2, UInt64(vector))
    write(32, 8, ringBase(queue))
    write(40, 8, available(queue))
    write(48, 8, used(queue))
    write(28, 2, 1)
  }

  /// Goes through the whole handshake of virtio 1.3 §3.1.1.
  func start(features: UInt64 = Feature.version1 | Feature.flush, queues: Int = 1) throws {
    for queue in 0..<queues { try memory.fill(address: ringBase(queue), byteCount: 0x8000, with: 0) }
    restartIndices()
    negotiate(features)
    for queue in 0..<queues { setUpQueue(queue) }
    status = 0xf
    loop.runUntilIdle()
  }

  /// Forgets how far the rings had come.
  func restartIndices() {
    nextHead = 0
    availableIndex = 0
    seenUsed = 0
  }

  // MARK: Rings

  func writeDescriptor(_ index: UInt16, _ buffer: Buffer, flags: UInt16 = 0, next: UInt16 = 0, table: UInt64? = nil)
    throws
  {
    let base = (table ?? ringBase(0)) + UInt64(index) * 16
    try memory.store(buffer.address, at: base)
    try memory.store(buffer.byteCount, at: base + 8)
    try memory.store(flags | (buffer.deviceWrites ? 2 : 0), at: base + 12)
    try memory.store(next, at: base + 14)
  }

  /// Writes a chain into free descriptors and returns its head.
  @discardableResult
  func writeChain(_ buffers: [Buffer]) throws -> UInt16 {
    let head = nextHead
    for (position, buffer) in buffers.enumerated() {
      let index = (head + UInt16(position)) % entries
      let isLast = position == buffers.count - 1
      try writeDescriptor(index, buffer, flags: isLast ? 0 : 1, next: (index + 1) % entries)
    }
    nextHead = (head + UInt16(buffers.count)) % entries
    return head
  }

  func makeAvailable(_ head: UInt16) throws {
    try memory.store(head, at: available() + 4 + UInt64(availableIndex % entries) * 2)
    availableIndex &+= 1
    try memory.store(availableIndex, at: available() + 2)
  }

  func kick(_ queue: Int = 0) {
    _ = machine.doorbells.ring(address: Self.bar + 0x3000 + UInt64(queue) * 4, width: 2)
    loop.runUntilIdle()
  }

  /// Writes a request's header into its own place and returns the address.
  func header(_ type: UInt32, sector: UInt64, index: UInt64 = 0) throws -> UInt64 {
    let address = Self.headers + index * 16
    try memory.store(type, at: address)
    try memory.store(UInt32(0), at: address + 4)
    try memory.store(sector, at: address + 8)
    return address
  }

  /// Submits an ordinary three-part request and kicks.
  @discardableResult
  func submit(_ type: UInt32, sector: UInt64, data: [Buffer], index: UInt64 = 0) throws -> UInt16 {
    try memory.store(UInt8(0xee), at: Self.statuses + index)
    let head = try writeChain(
      [.readable(try header(type, sector: sector, index: index), 16)] + data + [.writable(Self.statuses + index, 1)])
    try makeAvailable(head)
    kick()
    return head
  }

  func requestStatus(_ index: UInt64 = 0) throws -> UInt8 { try memory.load(at: Self.statuses + index) }

  /// The next used entry, or nil where the device returned nothing new.
  func takeUsed() throws -> (head: UInt32, written: UInt32)? {
    let index: UInt16 = try memory.load(at: used() + 2)
    if index == seenUsed { return nil }
    let entry = used() + 4 + UInt64(seenUsed % entries) * 8
    seenUsed &+= 1
    return (try memory.load(at: entry), try memory.load(at: entry + 4))
  }

  // MARK: The disk

  /// Completes the request held longest, moving bytes as a disk would.
  func completeOne(result: Int32 = 0) {
    driver.completeOne(result: result)
    loop.runUntilIdle()
  }

  func completeAll() { while !driver.held.isEmpty { completeOne() } }
}

extension EventLoop {
  /// Runs rounds until one has nothing to do.
  func runUntilIdle() { while runOnce(mayBlock: false) {} }
}

extension DriverKit {
  /// Submits a read as the first request of a new life of the rings.
  func submitAfterRestart() throws {
    restartIndices()
    try submit(RequestType.read, sector: 0, data: [.writable(Self.data, 512)])
  }
}
