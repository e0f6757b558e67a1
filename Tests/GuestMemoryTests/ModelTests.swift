// SPDX-License-Identifier: Apache-2.0
import Glibc
import GuestMemory
import Testing

/// The same address space as a plain map from addresses to bytes.
private struct Model {
  var bytes: [UInt64: UInt8] = [:]

  func read(_ address: UInt64, _ count: Int) -> [UInt8]? {
    var result: [UInt8] = []
    for index in 0..<count {
      let (position, wraps) = address.addingReportingOverflow(UInt64(index))
      guard !wraps, let byte = bytes[position] else { return nil }
      result.append(byte)
    }
    return result
  }

  mutating func write(_ address: UInt64, _ new: [UInt8]) -> Bool {
    guard read(address, new.count) != nil else { return false }
    for (index, byte) in new.enumerated() { bytes[address + UInt64(index)] = byte }
    return true
  }
}

@Suite struct ModelTests {
  private static let lengthMax = 6000
  private static let pagesMax: UInt64 = 12

  @Test(arguments: 1...12)
  func randomAccessesAgreeWithAMapOfBytes(_ seed: Int) throws {
    var random = Seeded(UInt64(seed))
    let memory = GuestMemory()
    var model = Model()
    // A third of the seeds has its RAM at the top of the address space, where sums wrap.
    let base = seed % 3 == 0 ? 0 &- (ModelTests.pagesMax + 1) * page : 0
    var position: UInt64 = 0
    while position < ModelTests.pagesMax {
      let pages = min(UInt64.random(in: 1...3, using: &random), ModelTests.pagesMax - position)
      // Two thirds of the ranges are RAM, the others are holes.
      if UInt64.random(in: 0..<3, using: &random) > 0 {
        let start = base + position * page
        try memory.add(try GuestRegion(start: start, byteCount: pages * page))
        for offset in 0..<pages * page { model.bytes[start + offset] = 0 }
      }
      position += pages
    }
    for _ in 0..<400 { try step(memory, &model, base, &random) }
    for (address, byte) in model.bytes { #expect(try memory.load(UInt8.self, at: address) == byte) }
  }

  private func step(_ memory: GuestMemory, _ model: inout Model, _ base: UInt64, _ random: inout Seeded) throws {
    let address = base &+ UInt64.random(in: 0..<(ModelTests.pagesMax + 1) * page, using: &random)
    let long = Bool.random(using: &random)
    let count = Int.random(in: 1...(long ? ModelTests.lengthMax : 16), using: &random)
    let expected = model.read(address, count)
    #expect(memory.contains(address: address, byteCount: UInt64(count)) == (expected != nil))
    switch Int.random(in: 0..<5, using: &random) {
    case 0: #expect((try? memory.bytes(at: address, count: count)) == expected)
    case 1:
      let new = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      let done: Void? = try? memory.write(new, at: address)
      #expect((done != nil) == model.write(address, new))
    case 2:
      let value = UInt8.random(in: 0...255, using: &random)
      let new = [UInt8](repeating: value, count: count)
      let done: Void? = try? memory.fill(address: address, byteCount: count, with: value)
      #expect((done != nil) == model.write(address, new))
    case 3:
      let value = UInt32.random(in: 0...UInt32.max, using: &random)
      let new = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
      let done: Void? = try? memory.store(value, at: address)
      #expect((done != nil) == model.write(address, new))
    default:
      var iovecs = [iovec](repeating: iovec(), count: GuestMemory.regionsMax)
      let pieces = memory.translate(
        address: address, byteCount: UInt64(count), into: &iovecs, capacity: iovecs.count)
      let seen = pieces.map { count in
        iovecs[0..<count].flatMap { UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len) }
      }
      #expect(seen == expected)
    }
  }
}
