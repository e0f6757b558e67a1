// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import GuestMemory
import Machine
import VirtioBlock

/// Drives a virtio-blk device over the null driver on one thread, so that the way from descriptor to used ring can be
/// counted instruction by instruction (`Tools/instructions` runs it under callgrind, which counts inside
/// `spindle_device_pass` only).
public struct HotPath {
  /// Requests that one pass of the device serves.
  public static let batch: UInt16 = 16
  private static let entries: UInt16 = 256
  private static let ramBytes: UInt64 = 4 << 20
  private static let bar: UInt64 = 0xe000_0000
  /// Guest addresses of the descriptor table, the available ring, the used ring, headers, status bytes and data.
  private enum Place {
    static let descriptors: UInt64 = 0x10000
    static let available: UInt64 = 0x12000
    static let used: UInt64 = 0x14000
    static let headers: UInt64 = 0x20000
    static let statuses: UInt64 = 0x30000
    static let data: UInt64 = 0x100000
  }

  private let memory = GuestMemory()
  private let machine: Machine
  private let loop: EventLoop
  private let device: VirtioBlockDevice
  private var availableIndex: UInt16 = 0

  /// Puts the machine together and takes the device through its handshake.
  public init() throws {
    try memory.add(GuestRegion(start: 0, byteCount: Self.ramBytes))
    loop = try EventLoop(name: "hot-path")
    machine = Machine(memory: memory, mainLoop: loop)
    let backend = BlockBackend(
      driver: NullDriver(byteCount: 1 << 30, loop: loop), loop: loop, configuration: BlockConfiguration())
    device = try VirtioBlockDevice(
      name: "null", address: PCIAddress(device: 3, function: 0), backend: backend, memory: memory)
    machine.lock.lock()
    machine.attach(device)
    device.configurationWrite(offset: 0x20, width: 4, value: UInt32(Self.bar))
    device.configurationWrite(offset: 0x24, width: 4, value: 0)
    device.configurationWrite(offset: 4, width: 2, value: 6)
    try writeRequests()
    startDevice()
  }

  /// Three descriptors for each request of a batch: header, 4 KiB of data, status.
  private func writeRequests() throws {
    for request in 0..<UInt64(Self.batch) {
      let header = Place.headers + request * 16
      try memory.store(UInt64(0), at: header)
      try memory.store(request * 8, at: header + 8)
      let parts: [(address: UInt64, byteCount: UInt32, flags: UInt16)] = [
        (header, 16, 1), (Place.data + request * 4096, 4096, 3), (Place.statuses + request, 1, 2),
      ]
      for (part, descriptor) in parts.enumerated() {
        let index = request * 3 + UInt64(part)
        try memory.store(descriptor.address, at: Place.descriptors + index * 16)
        try memory.store(descriptor.byteCount, at: Place.descriptors + index * 16 + 8)
        try memory.store(descriptor.flags, at: Place.descriptors + index * 16 + 12)
        try memory.store(UInt16(index + 1), at: Place.descriptors + index * 16 + 14)
      }
    }
    for slot in 0..<UInt64(Self.entries) {
      try memory.store(UInt16(slot % UInt64(Self.batch) * 3), at: Place.available + 4 + slot * 2)
    }
    // The driver polls: no interrupts (virtio 1.3 §2.7.6).
    try memory.store(UInt16(1), at: Place.available)
  }

  private func startDevice() {
    func write(_ offset: UInt64, _ width: Int, _ value: UInt64) {
      machine.memorySpace.write(Self.bar + offset, width: width, value: value)
    }
    for status in [0, 1, 3] as [UInt64] { write(20, 1, status) }
    write(8, 4, 1)
    write(12, 4, 1)
    write(20, 1, 0xb)
    write(22, 2, 0)
    write(24, 2, UInt64(Self.entries))
    write(32, 8, Place.descriptors)
    write(40, 8, Place.available)
    write(48, 8, Place.used)
    write(28, 2, 1)
    write(20, 1, 0xf)
    while loop.runOnce(mayBlock: false) {}
  }

  /// Serves `passes` batches.
  /// - Returns: requests completed, as the used ring tells.
  public mutating func run(passes: Int) throws -> Int {
    var completed = 0
    var lastUsed: UInt16 = try memory.load(at: Place.used + 2)
    for _ in 0..<passes {
      availableIndex &+= Self.batch
      try memory.store(availableIndex, at: Place.available + 2)
      devicePass(device)
      let used: UInt16 = try memory.load(at: Place.used + 2)
      completed += Int(used &- lastUsed)
      lastUsed = used
    }
    return completed
  }
}

/// One look of the device at its queue and everything that follows, up to the published used ring. A symbol of its own,
/// never inlined, so that callgrind can be told to count inside it.
@inline(never) @_cdecl("spindle_device_pass")
func devicePass(_ device: UnsafeRawPointer) {
  Unmanaged<VirtioBlockDevice>.fromOpaque(device)._withUnsafeGuaranteedRef { $0.processQueue(0) }
}

private func devicePass(_ device: VirtioBlockDevice) {
  devicePass(UnsafeRawPointer(Unmanaged.passUnretained(device).toOpaque()))
}
