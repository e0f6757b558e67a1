// SPDX-License-Identifier: Apache-2.0
// A disk on the board, by the registers that QEMU's test library knows: the memory-mapped transport before version 1.
import Testing

@Suite struct BoardDiskTests {
  private static let base: UInt64 = 0xfeb0_0000

  private func machine(_ folder: Folder, _ more: String = "") throws -> Machine {
    try Machine(
      "-M pc -device virtio-blk-device,drive=drive0 -drive if=none,id=drive0,file=\(try folder.image()),format=raw,"
        + "auto-read-only=off \(more)", folder: folder)
  }

  private struct Registers {
    let machine: Machine
    subscript(_ offset: UInt64) -> UInt64 {
      get throws { try machine.load(BoardDiskTests.base + offset, .long) }
    }
    func set(_ offset: UInt64, _ value: UInt64) throws { try machine.store(BoardDiskTests.base + offset, value, .long) }
  }

  @Test func diskServesTheLibrarysDriver() throws {
    let machine = try machine(try Folder())
    let registers = Registers(machine: machine)
    #expect(try [registers[0], registers[4], registers[8]] == [0x7472_6976, 1, 2])
    try registers.set(0x28, 4096)
    for status in [0, 1, 3] as [UInt64] {
      try registers.set(0x70, status)
      #expect(try registers[0x70] == status)
    }
    try registers.set(0x14, 0)
    // Without indirect descriptors and event indexes.
    let features = try registers[0x10] & ~(3 << 28)
    #expect(features & 1 << 27 != 0, "any layout")
    try registers.set(0x24, 0)
    try registers.set(0x20, features)
    #expect(try machine.load(Self.base + 0x100, .quad) == 64 << 11)
    try registers.set(0x30, 0)
    #expect(try registers[0x40] == 0)
    try registers.set(0x3c, 4096)
    let size = Int(try registers[0x34])
    try registers.set(0x38, UInt64(size))
    let ring = machine.allocate(16384)
    try registers.set(0x40, ring / 4096)
    #expect(try registers[0x40] == ring / 4096)
    try registers.set(0x70, 7)
    #expect(try registers[0x70] == 7)
    let available = ring + UInt64(16 * size)
    let used = (available + UInt64(6 + 2 * size) + 4095) & ~4095
    // Writes, then reads the second sector.
    let data = pattern(512)
    for (index, isRead) in [false, true].enumerated() {
      let request = machine.allocate(1024)
      try machine.setBytes(
        request,
        UInt32(isRead ? 0 : 1).bytes + UInt32(1).bytes + UInt64(1).bytes
          + (isRead ? [UInt8](repeating: 0, count: 512) : data) + [0xff])
      for (part, (offset, count, flags)) in [(0, 16, 1), (16, 512, isRead ? 3 : 1), (528, 1, 2)].enumerated() {
        let entry = ring + UInt64(16 * (3 * index + part))
        try machine.store(entry, request + UInt64(offset), .quad)
        try machine.store(entry + 8, UInt64(count), .long)
        try machine.store(entry + 12, UInt64(flags), .word)
        try machine.store(entry + 14, UInt64(3 * index + part + 1), .word)
      }
      try machine.store(available + 4 + UInt64(2 * index), UInt64(3 * index), .word)
      try machine.store(available + 2, UInt64(index + 1), .word)
      try registers.set(0x50, 0)
      try machine.wait("the queue's interrupt") { try registers[0x60] & 1 != 0 }
      try registers.set(0x64, 1)
      #expect(try registers[0x60] == 0)
      #expect(try machine.load(used + 2, .word) == UInt64(index + 1))
      #expect(try machine.load(used + 4 + UInt64(8 * index), .long) == UInt64(3 * index))
      #expect(try machine.load(request + 528, .byte) == 0)
      if isRead { #expect(try machine.bytes(request + 16, 512) == data) }
    }
    try machine.monitor.execute("block_resize", ["device": "drive0", "size": 32 << 20])
    try machine.wait("the configuration's interrupt") { try registers[0x60] & 2 != 0 }
    #expect(try machine.load(Self.base + 0x100, .quad) == 32 << 11)
    #expect(machine.process.end() == 0)
  }

  @Test func modernRegistersAreThereWhereTheOldAreNotForced() throws {
    let machine = try machine(try Folder(), "-global virtio-mmio.force-legacy=off")
    #expect(try machine.load(Self.base + 4, .long) == 2)
  }
}
