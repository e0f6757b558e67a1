// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// The legacy interface of a transitional disk: what a driver from before version 1 finds in the I/O ports of BAR 0.
enum VirtioLegacyCases {
  private typealias Flags = VirtioUnderTest.Flags

  /// Offsets of the registers (virtio 1.3 §4.1.4.10).
  private enum Port {
    static let deviceFeatures: UInt16 = 0, driverFeatures: UInt16 = 4, queueAddress: UInt16 = 8, queueSize: UInt16 = 12
    static let queueSelect: UInt16 = 14, queueNotify: UInt16 = 16, status: UInt16 = 18, interruptStatus: UInt16 = 19
    static let configuration: UInt16 = 20, configurationWithVectors: UInt16 = 24
  }

  private static let pageBytes: UInt64 = 4096
  private static let anyLayout: UInt32 = 1 << 27

  /// Where the ports are.
  private static func base(_ context: CaseContext) throws -> UInt16 {
    let entry = try context.entry(device: 4, function: 0)
    guard entry.function.device == 0x1001 else { try context.skip("the device is not transitional") }
    guard let register = entry.baseAddresses.first(where: { $0.index == 0 }), !register.isMemory else {
      throw ConformanceFailure("expected I/O ports in BAR 0 of a transitional device; saw none")
    }
    context.topology.configuration.write16(entry.function.address, 4, 7)
    return UInt16(register.address)
  }

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "virtio/legacy-registers", "The legacy registers of a transitional device show status, queue size and capacity",
      "virtio 1.3 §4.1.4.10, §4.1.5.1.1.1", .virtio
    ) { context in
      let port = try base(context)
      try context.expect(context.bus.in8(port + Port.status), 0, "status at power on")
      context.bus.out8(port + Port.status, 3)
      try context.expect(context.bus.in8(port + Port.status), 3, "status")
      context.bus.out16(port + Port.queueSelect, 0)
      let size = context.bus.in16(port + Port.queueSize)
      try context.expect(size > 0 && size & (size - 1) == 0, "the size \(size) of queue 0 is a power of two")
      let sectors = context.bus.in32(port + Port.configuration)
      try context.expect(UInt64(sectors), MachineKind.diskBytes / 512, "capacity's low half")
      context.bus.out8(port + Port.status, 0)
      try context.expect(context.bus.in8(port + Port.status), 0, "status after a reset")
    },
    ConformanceCase(
      "virtio/legacy-features", "A transitional device offers ANY_LAYOUT to legacy drivers, and takes what they write",
      "virtio 1.3 §6.3, §4.1.4.10", .virtio
    ) { context in
      let port = try base(context)
      let offered = context.bus.in32(port + Port.deviceFeatures)
      try context.expect(offered, mask: anyLayout, anyLayout, "features")
      context.bus.out8(port + Port.status, 3)
      context.bus.out32(port + Port.driverFeatures, anyLayout | offered & 0x40)
      try context.expect(context.bus.in32(port + Port.driverFeatures), anyLayout | offered & 0x40, "driver's features")
    },
    ConformanceCase(
      "virtio/legacy-any-width", "The device configuration behind the legacy registers reads the same in any width",
      "virtio 1.3 §4.1.4.10", .virtio
    ) { context in
      let port = try base(context) + Port.configuration
      for offset in stride(from: UInt16(0), to: 24, by: 4) {
        let whole = context.bus.in32(port + offset)
        for byte in UInt16(0)..<4 {
          let seen = context.bus.in8(port + offset + byte)
          try context.expect(seen, UInt8(truncatingIfNeeded: whole >> (8 * UInt32(byte))), "byte \(offset + byte)")
        }
        try context.expect(context.bus.in16(port + offset + 2), UInt16(whole >> 16), "word \(offset + 2)")
      }
      try context.expect(context.bus.in32(port) != 0, "the capacity of the disk is not 0 sectors")
    },
    ConformanceCase(
      "virtio/legacy-vectors-move-configuration",
      "While MSI-X is on, two vector registers stand before the device configuration of the legacy interface",
      "virtio 1.3 §4.1.4.10, §4.1.5.1.2.1", .virtio
    ) { context in
      let port = try base(context)
      let device = try VirtioUnderTest(context)
      guard let msix = device.msix else { try context.skip("no MSI-X") }
      context.topology.configuration.write16(device.entry.function.address, 4, 7)
      let sectors = UInt32(MachineKind.diskBytes / 512)
      msix.enable()
      try context.expect(context.bus.in32(port + Port.configurationWithVectors), sectors, "capacity with MSI-X on")
      try context.expect(context.bus.in16(port + Port.configuration), 0xFFFF, "config_msix_vector")
      context.bus.out16(port + Port.configuration, 1)
      try context.expect(context.bus.in16(port + Port.configuration), 1, "config_msix_vector, written")
      msix.disable()
      try context.expect(context.bus.in32(port + Port.configuration), sectors, "capacity with MSI-X off again")
    },
    ConformanceCase(
      "virtio/legacy-read", "A legacy driver reads sectors, even before it sets DRIVER_OK",
      "virtio 1.3 §2.7.2, §3.1.2, §4.1.5.1.3.1", .virtio
    ) { context in
      let port = try base(context)
      let queue = try LegacyQueue(context, port)
      for (sector, status): (UInt64, UInt8) in [(3, 3), (9, 7)] {
        context.bus.out8(port + Port.status, status)
        let start = sector * 512
        try context.expect(try queue.read(sector), MachineKind.pattern(start..<(start + 512)), "sector \(sector)")
        try context.wait(until: "ISR shows the used buffer") { context.bus.in8(port + Port.interruptStatus) & 1 != 0 }
        try context.expect(context.bus.in8(port + Port.interruptStatus), 0, "ISR after it was read")
      }
      context.bus.out8(port + Port.status, 0)
      try context.expect(context.bus.in8(port + Port.status), 0, "status after a reset")
      try context.expect(context.bus.in32(port + Port.queueAddress), 0, "queue address after a reset")
    },
    ConformanceCase(
      "virtio/legacy-absent-queue", "Giving memory to a legacy queue that there is not does no harm",
      "virtio 1.3 §4.1.4.10; known failure 13", .virtio
    ) { context in
      let port = try base(context)
      context.bus.out16(port + Port.queueSelect, 2)
      context.bus.out32(port + Port.queueAddress, 1)
      context.bus.out16(port + Port.queueNotify, 2)
      try VirtioUnderTest(started: context).checkAlive()
    },
  ]

  /// Queue 0 in the layout of the legacy interface: descriptors and available ring, then the used ring on a page of its
  /// own (§2.7.2).
  private final class LegacyQueue {
    let context: CaseContext
    let port: UInt16
    let table: UInt64
    let available: UInt64
    let used: UInt64
    let size: UInt64
    var count: UInt16 = 0

    init(_ context: CaseContext, _ port: UInt16) throws {
      self.context = context
      self.port = port
      context.bus.out8(port + Port.status, 0)
      context.bus.out8(port + Port.status, 1)
      context.bus.out8(port + Port.status, 3)
      context.bus.out32(port + Port.driverFeatures, anyLayout)
      context.bus.out16(port + Port.queueSelect, 0)
      size = UInt64(context.bus.in16(port + Port.queueSize))
      try context.expect(size > 0, "queue 0 exists")
      let usedOffset = (16 * size + 6 + 2 * size + pageBytes - 1) / pageBytes * pageBytes
      table = try context.allocate(usedOffset + 6 + 8 * size)
      available = table + 16 * size
      used = table + usedOffset
      context.bus.out32(port + Port.queueAddress, UInt32(table / pageBytes))
      try context.expect(UInt64(context.bus.in32(port + Port.queueAddress)), table / pageBytes, "queue address")
    }

    private func describe(_ index: UInt64, _ address: UInt64, _ byteCount: UInt64, flags: UInt16, next: UInt16) {
      context.bus.ramWrite64(table + 16 * index, address)
      context.bus.ramWrite64(table + 16 * index + 8, byteCount | UInt64(flags) << 32 | UInt64(next) << 48)
    }

    /// Reads a sector, which must succeed.
    func read(_ sector: UInt64) throws -> [UInt8] {
      let buffer = try context.allocate(4096)
      context.bus.ramWrite64(buffer, UInt64(VirtioBlockType.read))
      context.bus.ramWrite64(buffer + 8, sector)
      let (data, status) = (buffer + 1024, buffer + 16)
      context.bus.ramWrite8(status, 0xFF)
      describe(0, buffer, 16, flags: Flags.next, next: 1)
      describe(1, data, 512, flags: Flags.next | Flags.write, next: 2)
      describe(2, status, 1, flags: Flags.write, next: 0)
      context.bus.ramWrite16(available + 4 + 2 * (UInt64(count) % size), 0)
      count += 1
      context.bus.ramWrite16(available + 2, count)
      context.bus.out16(port + Port.queueNotify, 0)
      try context.wait(until: "the device uses the buffer") { context.bus.ramRead16(used + 2) == count }
      try context.expect(context.bus.ramRead8(status), 0, "status of the read")
      return context.bus.load(data, count: 512)
    }
  }
}
