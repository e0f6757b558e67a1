// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory
import Testing

/// RAM at [0, 0x2000) in two regions that touch, and at [0x4000, 0x5000).
func memoryWithSeamAndHole() throws -> GuestMemory {
  let memory = GuestMemory()
  for start in [UInt64(0x1000), 0x4000, 0] { try memory.add(try GuestRegion(start: start, byteCount: 0x1000)) }
  return memory
}

@Suite struct AccessTests {
  @Test(arguments: [UInt64(0x10), 0x11, 0xffc, 0xffd, 0xfff, 0x1ff8])
  func integersAreLittleEndianAtAnyAddress(_ address: UInt64) throws {
    let memory = try memoryWithSeamAndHole()
    try memory.store(UInt64(0x8877_6655_4433_2211), at: address)
    #expect(try memory.bytes(at: address, count: 8) == [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
    #expect(try memory.load(UInt64.self, at: address) == 0x8877_6655_4433_2211)
    #expect(try memory.load(UInt32.self, at: address) == 0x4433_2211)
    #expect(try memory.load(UInt16.self, at: address) == 0x2211)
    #expect(try memory.load(UInt8.self, at: address) == 0x11)
    try memory.store(Int16(-2), at: address)
    #expect(try memory.load(Int16.self, at: address) == -2)
  }

  @Test(arguments: [UInt64(0x1ffd), 0x2000, 0x3fff, 0x4ffd, UInt64.max, UInt64.max - 3, 0xffff_ffff])
  func integerThatIsNotAllMemoryIsRefused(_ address: UInt64) throws {
    let memory = try memoryWithSeamAndHole()
    let failure = GuestMemoryError.outsideMemory(address: address, byteCount: 4)
    #expect(throws: failure) { try memory.load(UInt32.self, at: address) }
    #expect(throws: failure) { try memory.store(UInt32.max, at: address) }
  }

  @Test func nothingIsWrittenUnlessTheWholeRangeIsMemory() throws {
    let memory = try memoryWithSeamAndHole()
    #expect(throws: GuestMemoryError.outsideMemory(address: 0xff0, byteCount: 0x1011)) {
      try memory.write([UInt8](repeating: 0xff, count: 0x1011), at: 0xff0)
    }
    #expect(throws: GuestMemoryError.outsideMemory(address: 0x1ff0, byteCount: 0x2020)) {
      try memory.fill(address: 0x1ff0, byteCount: 0x2020, with: 0xff)
    }
    #expect(throws: GuestMemoryError.outsideMemory(address: 0x1ff0, byteCount: 0x2020)) {
      try memory.bytes(at: 0x1ff0, count: 0x2020)
    }
    #expect(try memory.bytes(at: 0, count: 0x2000).allSatisfy { $0 == 0 })
    #expect(try memory.bytes(at: 0x4000, count: 0x1000).allSatisfy { $0 == 0 })
  }

  @Test func emptyAccessIsAllowedAnywhere() throws {
    let memory = try memoryWithSeamAndHole()
    try memory.write([], at: 0x3000)
    try memory.fill(address: UInt64.max, byteCount: 0, with: 1)
    #expect(try memory.bytes(at: 0x3000, count: 0) == [])
  }
}

@Suite struct TranslationTests {
  @Test(arguments: [
    (address: UInt64(0), byteCount: UInt64(0), capacity: 0, pieces: [Int]() as [Int]?),
    (0x3000, 0, 4, []),
    (0, 0x1000, 1, [0x1000]),
    (0, 0x1001, 2, [0x1000, 1]),
    (0xfff, 2, 2, [1, 1]),
    (0, 0x2000, 2, [0x1000, 0x1000]),
    (0xfff, 2, 1, nil),
    (0xff0, 0x10, 0, nil),
    (0, 0x2001, 4, nil),
    (0x1fff, 0x2002, 4, nil),
    (0x2000, 1, 4, nil),
    (0x4fff, 2, 4, nil),
    (0x4000, UInt64.max, 4, nil),
    (0x10, UInt64.max - 0xf, 4, nil),
    (UInt64.max, 1, 4, nil),
    (UInt64.max, 2, 4, nil),
  ])
  func rangeBecomesPiecesOrNothing(
    _ row: (address: UInt64, byteCount: UInt64, capacity: Int, pieces: [Int]?)
  ) throws {
    let memory = try memoryWithSeamAndHole()
    // One entry more than the capacity, to see that nothing is written there.
    var iovecs = [iovec](repeating: iovec(iov_base: nil, iov_len: 12345), count: row.capacity + 1)
    let count = memory.translate(
      address: row.address, byteCount: row.byteCount, into: &iovecs, capacity: row.capacity)
    #expect(count == row.pieces?.count)
    #expect(iovecs[row.capacity].iov_len == 12345)
    guard let count else { return }
    #expect(iovecs[0..<count].map { Int($0.iov_len) } == row.pieces)
    var address = row.address
    for vector in iovecs[0..<count] {
      #expect(vector.iov_base == memory.pointer(at: address, byteCount: 1))
      address += UInt64(vector.iov_len)
    }
  }

  @Test(arguments: [
    (address: UInt64(0), byteCount: UInt64(0x2000), isMemory: true), (0, 0x2001, false), (0x4000, 0x1000, true),
    (0x1fff, 0x2002, false), (0x4fff, 2, false), (0x10, UInt64.max, false), (UInt64.max, 1, false),
    (0x1000, 0, true), (0x2000, 0, false),
  ])
  func containsSaysWhetherEveryByteIsMemory(_ row: (address: UInt64, byteCount: UInt64, isMemory: Bool)) throws {
    #expect(
      try memoryWithSeamAndHole().contains(address: row.address, byteCount: row.byteCount) == row.isMemory)
  }
}
