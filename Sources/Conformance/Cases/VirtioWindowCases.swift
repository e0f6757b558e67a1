// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The PCI configuration access capability of a virtio disk: a window through which configuration space reaches the
/// registers behind a base address register.
enum VirtioWindowCases {
  private typealias Common = VirtioUnderTest.Common

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/configuration-access-window",
      "The configuration access capability reads 1, 2 and 4 bytes of the registers behind a base address register",
      "virtio 1.3 §4.1.4.9.1", .virtio, shares: true
    ) { context in
      let window = try Window(context)
      let device = window.device
      try device.reset()
      device.setStatus(3)
      try context.expect(try window.read(1, Common.status, byteCount: 1) & 0xFF, 3, "status by the window")
      try context.expect(
        try window.read(1, Common.queueCount, byteCount: 2) & 0xFFFF, UInt32(device.read16(Common.queueCount)),
        "num_queues by the window")
      try context.expect(
        try window.read(4, 0, byteCount: 4), UInt32(MachineKind.diskBytes / 512), "capacity by the window")
      try context.expect(
        try window.read(4, 4, byteCount: 4), 0, "capacity's high half by the window")
    },
    ConformanceCase(
      "virtio/configuration-access-writes",
      "The configuration access capability writes 1, 2 and 4 bytes, and no more than its length says",
      "virtio 1.3 §4.1.4.9.1", .virtio, shares: true
    ) { context in
      let window = try Window(context)
      let device = window.device
      try device.reset()
      device.write16(Common.queueSelect, 0)
      try window.write(1, Common.status, byteCount: 1, 0x0505_0503)
      try context.expect(device.status, 3, "status, written by the window")
      try context.expect(device.read16(Common.queueSelect), 0, "queue_select behind it")
      try window.write(1, Common.queueSelect, byteCount: 2, 0x0008_0007)
      try context.expect(device.read16(Common.queueSelect), 7, "queue_select, written by the window")
      try window.write(1, Common.deviceFeatureSelect, byteCount: 4, 1)
      try context.expect(device.read32(Common.deviceFeature), mask: 1, 1, "features with the select written: VERSION_1")
      try window.write(1, Common.status, byteCount: 1, 0)
      try context.wait(until: "the status reads 0 after a reset by the window") { device.status == 0 }
    },
  ]

  /// The capability, and the device that it belongs to.
  private struct Window {
    let device: VirtioUnderTest
    private let offset: UInt8
    private let configuration: PCIConfiguration<RemoteBus>
    private let place: PCIAddress

    init(_ context: CaseContext) throws {
      device = try VirtioUnderTest(context)
      place = device.entry.function.address
      configuration = context.topology.configuration
      let configuration = configuration
      let place = place
      let found = PCICases.capabilities(context, place).first {
        $0.identifier == 0x09 && configuration.read8(place, $0.offset + 3) == 5
      }
      guard let found else { throw ConformanceFailure("expected a configuration access capability; saw none") }
      offset = found.offset
    }

    /// Points the window at an offset of the structure of a type.
    private func point(_ type: UInt8, _ register: UInt64, byteCount: UInt32) throws {
      guard let block = device.blocks[type],
        let register = device.entry.baseAddresses.filter({ $0.address <= block.address + register })
          .max(by: { $0.address < $1.address }).map({ (UInt8($0.index), block.address + register - $0.address) })
      else { throw ConformanceFailure("expected a structure of type \(type); saw none") }
      configuration.write8(place, offset + 4, register.0)
      configuration.write32(place, offset + 8, UInt32(register.1))
      configuration.write32(place, offset + 12, byteCount)
    }

    func read(_ type: UInt8, _ register: UInt64, byteCount: UInt32) throws -> UInt32 {
      try point(type, register, byteCount: byteCount)
      return configuration.read32(place, offset + 16)
    }

    func write(_ type: UInt8, _ register: UInt64, byteCount: UInt32, _ value: UInt32) throws {
      try point(type, register, byteCount: byteCount)
      configuration.write32(place, offset + 16, value)
    }
  }
}
