// SPDX-License-Identifier: Apache-2.0
import GuestMemory
import Machine
import Testing

@Suite struct MachineMemoryTests {
  private struct Region: Equatable {
    var start: UInt64
    var byteCount: UInt64
  }

  private func layout(_ memory: GuestMemory) -> [Region] {
    memory.regions.map { Region(start: $0.start, byteCount: $0.byteCount) }
  }

  @Test(arguments: [2 << 20, 256 << 20, 2 << 30] as [UInt64])
  func upTo2GiBIsOneRegion(byteCount: UInt64) throws {
    #expect(layout(try MachineMemory.make(byteCount: byteCount)) == [Region(start: 0, byteCount: byteCount)])
  }

  @Test func whatIsBeyond2GiBLiesAbove4GiB() throws {
    let memory = try MachineMemory.make(byteCount: 2 << 30 + 4096)
    #expect(layout(memory) == [Region(start: 0, byteCount: 2 << 30), Region(start: 4 << 30, byteCount: 4096)])
    #expect(!memory.contains(address: 2 << 30, byteCount: 1))
  }

  @Test func memoryIsZero() throws {
    let memory = try MachineMemory.make(byteCount: 2 << 20)
    #expect(try memory.bytes(at: 0, count: 2 << 20).allSatisfy { $0 == 0 })
  }

  @Test(
    arguments: [
      (0, "a guest needs at least 2M"), (2 << 20 - 4096, "a guest needs at least 2M"),
      (2 << 20 + 1, "not a multiple of 4096 bytes; round it"),
    ] as [(UInt64, String)])
  func sizesThatNoGuestCanUseAreRefused(byteCount: UInt64, text: String) throws {
    let error = try #require(throws: MachineMemory.SizeError.self) { try MachineMemory.check(byteCount: byteCount) }
    #expect(error.description == text)
  }

  @Test(arguments: [MachineMemory.hostBytes + 4096, 1 << 62, UInt64.max])
  func moreThanTheHostHasIsRefused(byteCount: UInt64) throws {
    let error = try #require(throws: MachineMemory.SizeError.self) { try MachineMemory.check(byteCount: byteCount) }
    #expect(error.description == "the host has \(MachineMemory.hostBytes >> 20)M; ask for less")
  }

  @Test func allThatTheHostHasIsAllowed() throws {
    try MachineMemory.check(byteCount: MachineMemory.hostBytes)
    try MachineMemory.check(byteCount: MachineMemory.bytesMin)
  }
}
