// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory
import HostSystem
import Testing

let page = GuestMemory.pageBytes

@Suite struct RegionTests {
  @Test func newMemoryIsZero() throws {
    let memory = GuestMemory()
    try memory.add(try GuestRegion(start: 0, byteCount: 4 * page))
    #expect(try memory.bytes(at: 0, count: Int(4 * page)) == [UInt8](repeating: 0, count: Int(4 * page)))
    #expect(memory.byteCount == 4 * page)
  }

  @Test(arguments: [
    (start: UInt64(0), pages: UInt64(1)), (start: 0x3000, pages: 2), (start: 0x5000, pages: 1), (start: 0, pages: 16),
  ])
  func overlappingRegionIsRefused(_ range: (start: UInt64, pages: UInt64)) throws {
    let memory = GuestMemory()
    try memory.add(try GuestRegion(start: 0, byteCount: page))
    try memory.add(try GuestRegion(start: 0x4000, byteCount: 2 * page))
    let region = try GuestRegion(start: range.start, byteCount: range.pages * page)
    #expect(throws: GuestMemoryError.badRegion(address: range.start, byteCount: range.pages * page)) {
      try memory.add(region)
    }
    #expect(memory.regions.count == 2)
  }

  @Test func unalignedOrWrappingRegionIsRefused() throws {
    let memory = GuestMemory()
    for start in [UInt64(1), 0x800, 0 &- page] {
      let region = try GuestRegion(start: start, byteCount: page)
      #expect(throws: GuestMemoryError.badRegion(address: start, byteCount: page)) { try memory.add(region) }
    }
    #expect(memory.byteCount == 0)
  }

  @Test(arguments: [UInt64(0), 1 << 62, UInt64(Int.max) + 1, UInt64.max])
  func sizeThatNoHostHasIsAnErrorAndNotATrap(_ byteCount: UInt64) {
    #expect(throws: SystemError.self) { try GuestRegion(start: 0, byteCount: byteCount) }
  }

  @Test func regionsBeyondTheLimitAreRefused() throws {
    let memory = GuestMemory()
    for index in 0..<GuestMemory.regionsMax {
      try memory.add(try GuestRegion(start: UInt64(index) * page, byteCount: page))
    }
    let more = try GuestRegion(start: 1 << 30, byteCount: page)
    #expect(throws: GuestMemoryError.badRegion(address: 1 << 30, byteCount: page)) { try memory.add(more) }
    #expect(memory.contains(address: 0, byteCount: UInt64(GuestMemory.regionsMax) * page))
  }

  @Test func removedRegionIsNoMemoryAnyMoreAndOthersStay() throws {
    let memory = GuestMemory()
    let low = try GuestRegion(start: 0, byteCount: page)
    try memory.add(low)
    try memory.add(try GuestRegion(start: 0x10000, byteCount: page))
    try memory.store(UInt32(7), at: 0x10000)
    memory.remove(low)
    #expect(memory.pointer(at: 0, byteCount: 1) == nil)
    #expect(!memory.contains(address: 0, byteCount: 1))
    #expect(try memory.load(UInt32.self, at: 0x10000) == 7)
  }

  @Test func anotherMappingOfTheDescriptorShowsTheSameBytes() throws {
    let memory = GuestMemory()
    let region = try GuestRegion(start: 0x8000, byteCount: page)
    try memory.add(region)
    try memory.write([1, 2, 3], at: 0x8010)
    let other = try Mapping(descriptor: region.descriptor, byteCount: Int(page), writable: false)
    #expect(UnsafeRawBufferPointer(start: other.base + 0x10, count: 3).elementsEqual([1, 2, 3]))
  }
}
