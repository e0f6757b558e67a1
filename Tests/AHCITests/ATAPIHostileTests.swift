// SPDX-License-Identifier: Apache-2.0
// Packets that no driver would send: every one ends once, with an answer that is well-formed, and moves no more than it
// may. CVE-2015-5154 and CVE-2020-29443 were such packets.
import Testing

@testable import AHCI
@testable import Block

@Suite struct ATAPIHostileTests {
  /// Numbers that look random and are the same each time.
  private struct Sequence: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ state >> 29
    }
  }

  private static let blocks = 8
  /// Room in the guest's list for everything but blocks, which FakeLink's transfers do not put there.
  private static let room = 100

  /// Runs a packet, and checks what holds for all. `FakeLink` traps if a command ends twice or never.
  private func run(_ kit: ATAPIKit, _ packet: [UInt8], features: UInt16, limit: UInt64) {
    kit.link.guestData = packet + packet
    let registers = kit.link.run(0xa0, features: features, lba: limit << 8, packet: packet)
    let slot = kit.link.slot
    let isGood = registers.status == 0x50 && registers.error == 0
    let isChecked = registers.status == 0x41 && registers.error & 0x0f == 0 && registers.error != 0
    let isAborted = registers.status == 0x51 && registers.error == 0x04
    #expect(isGood || isChecked || isAborted, "\(packet)")
    #expect(registers.count == 3, "\(packet)")
    #expect(slot.pointee.deviceBuffer == nil && slot.pointee.pio.blockBytes != 0, "\(packet)")
    let isRead = [0x28, 0xa8].contains(packet[0]) || (packet[0] == 0xbe && packet[9] & 0xf8 == 0x10)
    #expect(kit.link.received.count <= (isRead ? Self.blocks * 2048 : Self.room), "\(packet)")
    if !isGood && !isRead { #expect(kit.link.received.isEmpty, "\(packet)") }
    if features & 1 == 0 && slot.pointee.pio.interrupts {
      #expect(slot.pointee.pio.blockBytes <= min(limit, 0xfffe), "\(packet)")
    }
  }

  private func kits() throws -> [ATAPIKit] {
    let kits = [try ATAPIKit(blocks: Self.blocks), try ATAPIKit.empty()]
    for kit in kits { kit.link.listBytes = Self.room }
    return kits
  }

  /// Known failure 48 (CVE-2015-5154, CVE-2020-29443): no length and no address takes more than the list's room.
  @Test func everyOpcodeWithEveryBitSetOrNone() throws {
    for kit in try kits() {
      for opcode in UInt8.min...UInt8.max {
        for (features, limit) in [(1, 0), (0, 0), (0, 1), (0, 3), (0, 0xffff), (3, 0xffff)] as [(UInt16, UInt64)] {
          run(kit, [opcode] + [UInt8](repeating: 0xff, count: 15), features: features, limit: limit)
          run(kit, [opcode] + [UInt8](repeating: 0, count: 15), features: features, limit: limit)
        }
      }
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func everyOpcodeWithGarbage(seed: UInt64) throws {
    var random = Sequence(state: seed)
    for kit in try kits() {
      for _ in 0..<20 {
        for opcode in UInt8.min...UInt8.max {
          // Bytes that are mostly small reach more of a command than those that are not.
          let rest = (0..<15).map { _ in UInt8.random(in: 0...255, using: &random) & (random.next() & 1 == 0 ? 7 : 0xff)
          }
          let limits: [UInt64] = [0, 1, 2, 3, 2048, 2352, 0xfffe, 0xffff]
          let limit = limits[Int(random.next() % 8)]
          run(kit, [opcode] + rest, features: UInt16(random.next() % 4), limit: limit)
        }
      }
    }
  }

  @Test func allocationLengthOfNoneMovesNothing() throws {
    let kit = try ATAPIKit()
    let commands: [[UInt8]] = [
      [0x03], [0x12], [0x1a, 0, 0x3f], [0x5a, 0, 0x3f], [0x42], [0x43], [0x46], [0x4a, 1, 0, 0, 0x10], [0x51], [0xbd],
    ]
    for command in commands {
      #expect(kit.packet(command, limit: 0).status == 0x50)
      #expect(kit.link.received.isEmpty && kit.link.slot.pointee.pio.blockBytes == 12)
    }
  }
}
