// SPDX-License-Identifier: Apache-2.0
// The memory-mapped transport (virtio 1.3 §4.2).
import Block
import DeviceTestKit
import EventLoop
import GuestMemory
import Machine
import Testing

@testable import VirtioBlock

/// A machine with a device at the second place of the board.
private final class MMIOKit {
  static let rings: UInt64 = 0x10000
  static let base = VirtioMMIO.address(ofSlot: 1)
  let memory = GuestMemory()
  let loop: EventLoop
  let machine: Machine
  let driver = ScriptedDriver()
  let backend: BlockBackend
  let device: VirtioBlockDevice
  let interrupts = RecordingInterrupts()

  init(queues: Int = 1) throws {
    try memory.add(GuestRegion(start: 0, byteCount: 4 << 20))
    loop = try EventLoop(name: "test")
    machine = Machine(memory: memory, mainLoop: loop)
    machine.interrupts = interrupts
    var options = VirtioBlockOptions()
    options.mmioSlot = 1
    options.queueCount = queues
    backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    device = try VirtioBlockDevice(
      name: "disk", address: PCIAddress(device: 0), backend: backend, memory: memory, options: options)
    machine.lock.lock()
    machine.add(device)
  }

  deinit {
    driver.completeAll()
    device.quiesce()
    loop.runUntilIdle()
    machine.remove(device)
    machine.lock.unlock()
  }

  subscript(_ offset: UInt64) -> UInt64 {
    get { machine.memorySpace.read(Self.base + offset, width: 4) ?? 0xdead }
    set { machine.memorySpace.write(Self.base + offset, width: 4, value: newValue) }
  }

  func start() {
    for status in [0, 1, 3] as [UInt64] { self[0x70] = status }
    self[0x24] = 1
    self[0x20] = 1
    self[0x70] = 0xb
    self[0x30] = 0
    self[0x38] = 16
    for (register, address) in [(0x80, Self.rings), (0x90, Self.rings + 0x1000), (0xa0, Self.rings + 0x2000)]
      as [(UInt64, UInt64)]
    {
      self[register] = address
      self[register + 4] = 0
    }
    self[0x44] = 1
    self[0x70] = 0xf
    loop.runUntilIdle()
  }

  /// Makes a read of the first sector available.
  func submit() throws {
    for (index, (address, length, flags)) in [(0x4_0000, 16, 1), (0x5_0000, 512, 3), (0x6_0000, 1, 2)].enumerated() {
      let descriptor = Self.rings + UInt64(index) * 16
      try memory.store(UInt64(address), at: descriptor)
      try memory.store(UInt32(length), at: descriptor + 8)
      try memory.store(UInt16(flags), at: descriptor + 12)
      try memory.store(UInt16(index + 1), at: descriptor + 14)
    }
    try memory.store(UInt16(1), at: Self.rings + 0x1002)
  }
}

@Suite struct MMIOTests {
  @Test func registersTellWhatItIs() throws {
    // §4.2.2: magic, version 2, block device.
    let kit = try MMIOKit()
    #expect([kit[0], kit[4], kit[8], kit[0xc]] == [0x7472_6976, 2, 2, 0x1af4])
    #expect(kit[0x34] == 256)
    #expect(kit[0x44] == 0)
    #expect([kit[0xb0], kit[0xb4], kit[0xb8], kit[0xbc]] == [UInt64](repeating: 0xffff_ffff, count: 4))
    #expect(kit[0x100] == kit.driver.byteCount / 512)
    #expect(kit.machine.memorySpace.read(MMIOKit.base + 0x100, width: 8) == kit.driver.byteCount / 512)
    kit[0x14] = 1
    #expect(kit[0x10] == 1)
    kit[0x14] = 0
    #expect(kit[0x10] == kit.device.offeredFeatures & 0xffff_ffff)
    #expect(kit.machine.pci.function(at: PCIAddress(device: 0)) !== kit.device)
  }

  @Test func requestGoesThroughTheQueueAndRaisesTheLine() throws {
    let kit = try MMIOKit()
    kit.start()
    #expect(kit[0x70] == 0xf)
    #expect(kit[0x44] == 1)
    try kit.submit()
    #expect(kit.machine.doorbells.ring(address: MMIOKit.base + 0x50, width: 4))
    kit.loop.runUntilIdle()
    kit.driver.completeOne()
    kit.loop.runUntilIdle()
    #expect(try kit.memory.load(UInt16.self, at: MMIOKit.rings + 0x2002) == 1)
    #expect(try kit.memory.load(UInt8.self, at: 0x5_0005) == kit.driver.bytes[5])
    #expect(kit.interrupts.line == [6: true])
    #expect(kit[0x60] == 1)
    // Reading does not acknowledge (§4.2.2.1); other bits do not either.
    #expect(kit[0x60] == 1)
    kit[0x64] = 2
    #expect(kit.interrupts.line == [6: true])
    kit[0x64] = 1
    #expect(kit[0x60] == 0)
    #expect(kit.interrupts.line == [6: false])
  }

  @Test func writeToQueueNotifyRingsItsQueue() throws {
    let kit = try MMIOKit(queues: 2)
    kit.start()
    try kit.submit()
    #expect(!kit.machine.doorbells.ring(address: MMIOKit.base + 0x50, width: 4))
    kit[0x50] = 2
    kit[0x50] = 0xffff_ffff
    kit.loop.runUntilIdle()
    #expect(kit.driver.held.isEmpty)
    kit[0x50] = 0
    kit.loop.runUntilIdle()
    #expect(kit.driver.held.count == 1)
  }

  @Test func resetReleasesTheLineAndTheQueue() throws {
    let kit = try MMIOKit()
    kit.start()
    try kit.submit()
    kit[0x50] = 0
    kit.loop.runUntilIdle()
    kit.driver.completeOne()
    kit.loop.runUntilIdle()
    kit[0x70] = 0
    #expect([kit[0x70], kit[0x44], kit[0x60]] == [0, 0, 0])
    #expect(kit.interrupts.line == [6: false])
  }

  @Test func queueThatDoesNotExistHasNoSize() throws {
    let kit = try MMIOKit()
    for queue in [1, 0xffff, 0x1_0000, 0xffff_ffff] as [UInt64] {
      kit[0x30] = queue
      #expect(kit[0x34] == 0)
      kit[0x44] = 1
      #expect(kit[0x44] == 0)
    }
  }

  @Test func valuesThatDoNotFitTheirRegisterMeanNothing() throws {
    let kit = try MMIOKit()
    kit.start()
    kit[0x70] = 0x100
    #expect(kit[0x70] == 0xf)
  }

  @Test func ringsOutsideMemoryBreakTheDevice() throws {
    let kit = try MMIOKit()
    kit[0x70] = 3
    kit[0x30] = 0
    kit[0x84] = 0xffff_ffff
    kit[0x44] = 1
    #expect(kit[0x44] == 0)
    #expect(kit[0x70] == 0x43)
    #expect(kit[0x60] == 2)
  }

  @Test func queueThatIsTakenBackIsNotLookedAtUntilItIsSetUpAgain() throws {
    // §4.2.2.1: QueueReady is 0.
    let kit = try MMIOKit()
    kit.start()
    try kit.submit()
    kit[0x50] = 0
    kit.loop.runUntilIdle()
    #expect(kit.driver.held.count == 1)
    // A request is out: the register says so, and what comes back does not reach the guest.
    kit[0x44] = 0
    #expect(kit[0x44] == 1)
    kit.driver.completeAll()
    kit.loop.runUntilIdle()
    #expect(kit[0x44] == 0)
    #expect(try kit.memory.load(at: MMIOKit.rings + 0x2002) as UInt16 == 0)
    #expect(kit[0x60] == 0)
    kit[0x50] = 0
    kit.loop.runUntilIdle()
    #expect(kit.driver.held.isEmpty)
    // Enabled again, it begins with the ring's first entry, which is still there.
    kit[0x44] = 1
    kit.loop.runUntilIdle()
    #expect(kit[0x44] == 1)
    #expect(kit.driver.held.count == 1)
    kit.driver.completeAll()
    kit.loop.runUntilIdle()
    #expect(try kit.memory.load(at: MMIOKit.rings + 0x2002) as UInt16 == 1)
    // With nothing out it is taken back at once; and not at all after a reset.
    kit[0x44] = 0
    #expect(kit[0x44] == 0)
    #expect(kit[0x70] == 0xf)
    kit[0x70] = 0
    #expect(kit[0x70] == 0)
  }

  @Test func generationGoesOnWithTheConfiguration() throws {
    // §4.2.2.1, ConfigGeneration.
    let kit = try MMIOKit()
    kit.start()
    _ = kit[0x100]
    let generation = kit[0xfc]
    try kit.backend.resize(to: 128 * 512)
    #expect(kit[0x100] == 128)
    #expect(kit[0xfc] != generation)
    let later = kit[0xfc]
    kit[0xfc] = generation
    #expect(kit[0xfc] == later)
  }

  @Test func otherWidthsAreIgnored() throws {
    let kit = try MMIOKit()
    kit.start()
    for offset in 0..<0x100 as Range<UInt64> {
      for width in [1, 2, 8] where !(0x44..<0x48).contains(offset + UInt64(width)) {
        kit.machine.memorySpace.write(MMIOKit.base + offset, width: width, value: 0)
        _ = kit.machine.memorySpace.read(MMIOKit.base + offset, width: width)
      }
    }
    #expect(kit[0x70] == 0xf)
  }
}
