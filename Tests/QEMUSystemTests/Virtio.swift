// SPDX-License-Identifier: Apache-2.0
// A test program's virtio-blk driver, over the modern layout of virtio-pci.
import Testing

/// A virtio-blk function.
final class VirtioDisk {
  let machine: Machine
  let place: Machine.Place
  /// Where the client puts BARs: ports, the MSI-X table, and the registers.
  static let ports: UInt64 = 0xc000
  static let table: UInt64 = 0xe010_0000
  static let registers: UInt64 = 0xe020_0000
  /// Addresses of the four structures, and the distance of doorbells.
  private(set) var common: UInt64 = 0, notify: UInt64 = 0, interruptStatus: UInt64 = 0, config: UInt64 = 0
  private(set) var notifyMultiplier: UInt64 = 0
  /// Types of vendor capabilities, with BAR, offset and length.
  private(set) var structures: [(type: UInt32, bar: UInt32, offset: UInt32, length: UInt32)] = []

  init(_ machine: Machine, at place: Machine.Place = .disk, slide: UInt64 = 0) throws {
    self.machine = machine
    self.place = place
    for capability in try machine.capabilities(place) where capability.id == 9 {
      let type = try machine.config(place, capability.offset + 3, .byte)
      let bar = try machine.config(place, capability.offset + 4, .byte)
      let offset = try machine.config(place, capability.offset + 8)
      structures.append((type, bar, offset, try machine.config(place, capability.offset + 12)))
      if type == 2 { notifyMultiplier = UInt64(try machine.config(place, capability.offset + 16)) }
    }
    try machine.setConfig(place, 0x10, UInt32(Self.ports + slide >> 10))
    try machine.setConfig(place, 0x14, UInt32(Self.table + slide))
    try machine.setConfig(place, 0x20, UInt32(Self.registers + slide))
    try machine.setConfig(place, 0x24, 0)
    try machine.setConfig(place, 4, 7, .word)
    func address(_ type: UInt32) throws -> UInt64 {
      guard let found = structures.first(where: { $0.type == type }) else { throw Trouble("no structure \(type)") }
      return Self.registers + slide + UInt64(found.offset)
    }
    common = try address(1)
    notify = try address(2)
    interruptStatus = try address(3)
    config = try address(4)
  }

  // MARK: Registers

  var status: UInt64 {
    get throws { try machine.load(common + 0x14, .byte) }
  }
  func setStatus(_ value: UInt64) throws { try machine.store(common + 0x14, value, .byte) }

  func deviceFeatures() throws -> UInt64 {
    try machine.store(common, 0, .long)
    let low = try machine.load(common + 4, .long)
    try machine.store(common, 1, .long)
    return low | (try machine.load(common + 4, .long)) << 32
  }

  func setDriverFeatures(_ features: UInt64) throws {
    for half in [0, 1] as [UInt64] {
      try machine.store(common + 8, half, .long)
      try machine.store(common + 12, features >> (32 * half) & 0xffff_ffff, .long)
    }
  }

  func driverFeatures() throws -> UInt64 {
    var features: UInt64 = 0
    for half in [0, 1] as [UInt64] {
      try machine.store(common + 8, half, .long)
      features |= try machine.load(common + 12, .long) << (32 * half)
    }
    return features
  }

  func capacity() throws -> UInt64 { try machine.bytes(config, 8).littleEndian64(at: 0) }

  /// Reads, and clears, the interrupt status.
  func takeInterruptStatus() throws -> UInt64 { try machine.load(interruptStatus, .byte) }

  /// Goes through the steps to DRIVER_OK, and checks each.
  /// - Parameter without: features that are left out.
  func start(without: UInt64 = 1 << 29, beforeQueues: () throws -> Void = {}) throws -> Virtqueue {
    for value in [0, 1, 3] as [UInt64] {
      try setStatus(value)
      #expect(try status == value)
    }
    // Bit 30 is one that QEMU's test library never takes.
    let features = try deviceFeatures() & ~(without | 1 << 30)
    try setDriverFeatures(features)
    #expect(try driverFeatures() == features)
    try setStatus(0xb)
    #expect(try status == 0xb)
    try beforeQueues()
    let queue = try Virtqueue(self, hasEventIndex: features & 1 << 29 != 0)
    try setStatus(0xf)
    #expect(try status == 0xf)
    return queue
  }

  // MARK: MSI-X

  /// Enables MSI-X, and gives a message an address and data; the queue or the configuration is given to it by the caller.
  func setMessage(_ vector: UInt64, address: UInt64, data: UInt64, slide: UInt64 = 0) throws {
    let entry = Self.table + slide + 16 * vector
    try machine.store(entry, address, .long)
    try machine.store(entry + 4, 0, .long)
    try machine.store(entry + 8, data, .long)
    try machine.store(entry + 12, try machine.load(entry + 12, .long) & ~1, .long)
  }

  var messageCapability: UInt32 {
    get throws {
      guard let found = try machine.capabilities(place).first(where: { $0.id == 0x11 }) else {
        throw Trouble("no MSI-X")
      }
      return found.offset
    }
  }

  func enableMessages() throws {
    let offset = try messageCapability
    try machine.setConfig(place, offset + 2, try machine.config(place, offset + 2, .word) | 0x8000, .word)
  }
}

/// Queue 0.
final class Virtqueue {
  let disk: VirtioDisk
  let size: Int
  let descriptors: UInt64
  let available: UInt64
  let used: UInt64
  private var machine: Machine { disk.machine }
  private var freeDescriptor = 0
  private var availableIndex: UInt16 = 0
  private(set) var usedIndex: UInt16 = 0

  init(_ disk: VirtioDisk, hasEventIndex: Bool) throws {
    self.disk = disk
    let machine = disk.machine
    try machine.store(disk.common + 0x16, 0, .word)
    size = Int(try machine.load(disk.common + 0x18, .word))
    guard size > 0, size & (size - 1) == 0 else { throw Trouble("a queue of \(size) entries") }
    // One after the other, as the old layout has them.
    descriptors = machine.allocate(16 * size)
    available = machine.allocate(6 + 2 * size)
    used = machine.allocate(6 + 8 * size)
    for (offset, address) in [(UInt64(0x20), descriptors), (0x28, available), (0x30, used)] {
      try machine.store(disk.common + offset, address & 0xffff_ffff, .long)
      try machine.store(disk.common + offset + 4, address >> 32, .long)
    }
    try machine.store(disk.common + 0x1c, 1, .word)
    doorbell = disk.notify + disk.notifyMultiplier * (try machine.load(disk.common + 0x1e, .word))
  }

  private let doorbell: UInt64

  /// A part of a chain.
  struct Part {
    var address: UInt64
    var count: Int
    var isWritten = false
  }

  private func entry(_ part: Part, next: Int?, flags: UInt16 = 0) -> [UInt8] {
    let flags = flags | (part.isWritten ? 2 : 0) | (next == nil ? 0 : 1)
    return part.address.bytes + UInt32(part.count).bytes + flags.bytes + UInt16(next ?? 0).bytes
  }

  /// Makes a chain available.
  /// - Returns: its head.
  @discardableResult func add(_ parts: [Part], isIndirect: Bool = false, rings: Bool = true) throws -> Int {
    let head = freeDescriptor
    if isIndirect {
      let table = machine.allocate(16 * parts.count)
      for (index, part) in parts.enumerated() {
        try machine.setBytes(
          table + UInt64(16 * index), entry(part, next: index + 1 < parts.count ? index + 1 : nil))
      }
      let whole = entry(Part(address: table, count: 16 * parts.count), next: nil, flags: 4)
      try machine.setBytes(descriptors + UInt64(16 * head), whole)
      freeDescriptor += 1
    } else {
      for (index, part) in parts.enumerated() {
        let place = freeDescriptor + index
        try machine.setBytes(
          descriptors + UInt64(16 * place), entry(part, next: index + 1 < parts.count ? place + 1 : nil))
      }
      freeDescriptor += parts.count
    }
    guard freeDescriptor <= size else { throw Trouble("no descriptor is free") }
    try machine.store(available + 4 + 2 * (UInt64(availableIndex) % UInt64(size)), UInt64(head), .word)
    availableIndex &+= 1
    try machine.store(available + 2, UInt64(availableIndex), .word)
    if rings { try ring() }
    return head
  }

  func ring() throws { try machine.store(doorbell, 0, .word) }

  var deviceUsedIndex: UInt16 {
    get throws { UInt16(try machine.load(used + 2, .word)) }
  }

  func setUsedEvent(_ index: UInt16) throws {
    try machine.store(available + 4 + 2 * UInt64(size), UInt64(index), .word)
  }
  var availableEvent: UInt16 {
    get throws { UInt16(try machine.load(used + 4 + 8 * UInt64(size), .word)) }
  }

  /// Waits for the next used element.
  func next() throws -> (head: Int, count: Int) {
    try machine.wait("used ring") {
      _ = try machine.ask("clock_step 100")
      return try deviceUsedIndex != usedIndex
    }
    let element = try machine.bytes(used + 4 + 8 * (UInt64(usedIndex) % UInt64(size)), 8)
    usedIndex &+= 1
    return (Int(element.littleEndian32(at: 0)), Int(element.littleEndian32(at: 4)))
  }

  // MARK: Requests

  /// A request in memory: header, data, status.
  struct Request {
    let address: UInt64
    let dataCount: Int
    var data: UInt64 { address + 16 }
    var status: UInt64 { address + 16 + UInt64(dataCount) }
  }

  func makeRequest(_ type: UInt32, sector: UInt64, data: [UInt8]) throws -> Request {
    let address = machine.allocate(17 + data.count)
    // A priority, which no device looks at.
    try machine.setBytes(address, type.bytes + UInt32(1).bytes + sector.bytes + data + [0xff])
    return Request(address: address, dataCount: data.count)
  }

  /// Runs a request of three descriptors.
  /// - Returns: its status and its data.
  @discardableResult
  func run(_ type: UInt32, sector: UInt64, data: [UInt8]) throws -> (status: UInt8, data: [UInt8]) {
    let request = try makeRequest(type, sector: sector, data: data)
    let head = try add([
      Part(address: request.address, count: 16),
      Part(address: request.data, count: data.count, isWritten: type == 0),
      Part(address: request.status, count: 1, isWritten: true),
    ])
    guard try next().head == head else { throw Trouble("another head") }
    let bytes = try machine.bytes(request.data, data.count + 1)
    return (bytes[data.count], Array(bytes.dropLast()))
  }
}
