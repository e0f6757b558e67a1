// SPDX-License-Identifier: Apache-2.0
// The memory-mapped transport for drivers from before version 1 (virtio 1.3 §4.2.4).
import Block
import DeviceTestKit
import EventLoop
import GuestMemory
import Machine
import Testing

@testable import VirtioBlock

private final class LegacyKit {
  static let base = VirtioMMIO.address(ofSlot: 0)
  let memory = GuestMemory()
  let loop: EventLoop
  let machine: Machine
  let driver = ScriptedDriver()
  let device: VirtioBlockDevice

  init() throws {
    try memory.add(GuestRegion(start: 0, byteCount: 4 << 20))
    loop = try EventLoop(name: "test")
    machine = Machine(memory: memory, mainLoop: loop)
    machine.interrupts = RecordingInterrupts()
    var options = VirtioBlockOptions()
    options.mmioSlot = 0
    options.interface = .legacy
    device = try VirtioBlockDevice(
      name: "disk", address: PCIAddress(device: 0),
      backend: BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration()), memory: memory,
      options: options)
    machine.lock.lock()
    machine.add(device)
  }

  deinit {
    loop.runUntilIdle()
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
}

@Suite struct LegacyMMIOTests {
  @Test func registersTellWhatItIs() throws {
    let kit = try LegacyKit()
    #expect([kit[0], kit[4], kit[8], kit[0xc]] == [0x7472_6976, 1, 2, 0x1af4])
    #expect(kit[0x10] == kit.device.offeredFeatures & 0xffff_ffff | Feature.anyLayout)
    kit[0x14] = 1
    #expect(kit[0x10] == 0)
    #expect(kit[0x100] == kit.driver.byteCount / 512)
    kit[0x30] = 1
    #expect(kit[0x34] == 0)
    kit[0x30] = 0
    #expect(kit[0x34] == 256)
  }

  @Test func queueIsPlacedByPageSizeAndAlignment() throws {
    let kit = try LegacyKit()
    (kit[0x70], kit[0x70]) = (1, 3)
    // No page size yet.
    kit[0x40] = 4
    #expect(kit[0x40] == 0)
    kit[0x28] = 0x1000
    // Neither is a power of two, nor is 512 a size that the queue can have.
    (kit[0x28], kit[0x3c]) = (0x1800, 0)
    (kit[0x38], kit[0x38], kit[0x38]) = (17, 512, 16)
    kit[0x3c] = 0x2000
    kit[0x40] = 0x11
    #expect(kit[0x40] == 0x11)
    let queue = kit.device.queueRegisters[0]
    #expect([queue.descriptors, queue.available, queue.used] == [0x1_1000, 0x1_1100, 0x1_2000])
    #expect(queue.size == 16)
    #expect(queue.isEnabled)
    // It stays where it is until it is taken back, which resets the device.
    kit[0x40] = 0x20
    #expect(kit[0x40] == 0x11)
    kit[0x40] = 0
    #expect([kit[0x40], kit[0x70]] == [0, 0])
    #expect(kit.device.queueRegisters[0].size == 256)
  }

  @Test func featuresThatWereNotOfferedAreLeftOut() throws {
    let kit = try LegacyKit()
    kit[0x20] = 0xffff_ffff
    #expect(kit.device.driverFeatures == kit.device.legacyFeatures)
    kit[0x24] = 1
    kit[0x20] = 0
    #expect(kit.device.driverFeatures == kit.device.legacyFeatures)
  }

  @Test func doorbellStartsADeviceWhoseDriverHasNotSaidThatItIsReady() throws {
    let kit = try LegacyKit()
    kit[0x50] = 0
    #expect(!kit.device.hasStarted)
    (kit[0x70], kit[0x28], kit[0x40]) = (3, 0x1000, 0x10)
    (kit[0x50], kit[0x50]) = (0xffff_ffff, 1)
    #expect(!kit.device.hasStarted)
    kit[0x50] = 0
    #expect(kit.device.hasStarted)
  }

  @Test func guestMayWriteAnythingAnywhere() throws {
    let kit = try LegacyKit()
    for value in [0, 1, 0x8000_0000, 0xffff_ffff] as [UInt64] {
      for offset in stride(from: UInt64(0), to: 0x200, by: 4) {
        kit[offset] = value
        _ = kit[offset]
        kit.machine.memorySpace.write(LegacyKit.base + offset, width: 1, value: value & 0xff)
        _ = kit.machine.memorySpace.read(LegacyKit.base + offset, width: 8)
      }
      kit.loop.runUntilIdle()
    }
    kit[0x70] = 0
    #expect(kit[0] == 0x7472_6976)
  }
}
