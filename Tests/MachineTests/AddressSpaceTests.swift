// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Machine

@Suite struct AddressSpaceTests {
  @Test func blockSeesOffsetsWidthsAndValues() {
    let space = AddressSpace()
    let block = RecordingBlock(answer: 42)
    #expect(space.map(block, at: 0x1000, byteCount: 16))
    #expect(space.read(0x1003, width: 2) == 42)
    #expect(space.write(0x1008, width: 8, value: 7))
    #expect(space.write(0x1004, width: 2, value: 0xabcdef))
    #expect(block.accesses.removeLast() == .init(offset: 4, width: 2, value: 0xcdef))
    #expect(block.accesses == [.init(offset: 3, width: 2, value: nil), .init(offset: 8, width: 8, value: 7)])
  }

  @Test(arguments: [(width: 1, value: UInt64(0x88)), (2, 0x7788), (4, 0x5566_7788), (8, 0x1122_3344_5566_7788)])
  func readCarriesNoMoreThanItsWidth(_ row: (width: Int, value: UInt64)) {
    let space = AddressSpace()
    let block = RecordingBlock()
    space.map(block, at: 0, byteCount: 8)
    #expect(space.read(0, width: row.width) == row.value)
  }

  @Test(arguments: [
    (address: UInt64(0xfff), width: 1), (0x1010, 1), (0x100f, 2), (0x100d, 4), (0x1009, 8), (0xffe, 4),
    (UInt64.max, 8), (0, 1),
  ])
  func accessThatIsNotInsideABlockIsUnclaimed(_ row: (address: UInt64, width: Int)) {
    let space = AddressSpace()
    let block = RecordingBlock()
    space.map(block, at: 0x1000, byteCount: 16)
    #expect(space.read(row.address, width: row.width) == nil)
    #expect(!space.write(row.address, width: row.width, value: 1))
    #expect(block.accesses.isEmpty)
  }

  @Test func emptyOrWrappingRangeIsNotMapped() {
    let space = AddressSpace()
    let block = RecordingBlock()
    #expect(!space.map(block, at: 0x1000, byteCount: 0))
    #expect(!space.map(block, at: UInt64.max - 3, byteCount: 5))
    #expect(!space.map(block, at: 2, byteCount: UInt64.max))
    #expect(space.map(block, at: UInt64.max - 3, byteCount: 4))
    #expect(space.read(UInt64.max - 3, width: 4) != nil)
    #expect(!space.isMapped(0x1000))
  }

  @Test func blockMappedFirstAnswersWhereTwoOverlap() {
    let space = AddressSpace()
    let (first, second) = (RecordingBlock(answer: 1), RecordingBlock(answer: 2))
    space.map(first, at: 0x1010, byteCount: 0x10)
    space.map(second, at: 0x1000, byteCount: 0x40)
    #expect(space.read(0x100f, width: 1) == 2)
    #expect(space.read(0x1010, width: 4) == 1)
    #expect(space.read(0x1020, width: 4) == 2)
    #expect(second.accesses.last == .init(offset: 0x20, width: 4, value: nil))
    space.unmap(first)
    #expect(space.read(0x1010, width: 4) == 2)
  }

  @Test func unmappingOneRangeOfABlockLeavesTheOthers() {
    let space = AddressSpace()
    let block = RecordingBlock()
    space.map(block, at: 0x1000, byteCount: 4)
    space.map(block, at: 0x2000, byteCount: 4)
    space.unmap(block, at: 0x1000)
    #expect(!space.isMapped(0x1000))
    #expect(space.isMapped(0x2000))
    space.unmap(block)
    #expect(!space.isMapped(0x2000))
  }

  @Test func blockThatUnmapsItselfInAWriteFinishesTheWrite() {
    final class Leaving: RegisterBlock {
      let space: AddressSpace
      var wrote = false
      init(_ space: AddressSpace) { self.space = space }
      override func write(offset: UInt64, width: Int, value: UInt64) {
        space.unmap(self)
        wrote = true
      }
    }
    let space = AddressSpace()
    let block = Leaving(space)
    space.map(block, at: 0, byteCount: 4)
    #expect(space.write(0, width: 4, value: 0))
    #expect(block.wrote)
    #expect(!space.write(0, width: 4, value: 0))
  }

  /// The flat table answers as a search through the blocks by age does.
  @Test(arguments: 1...20)
  func randomMappingsAgreeWithASearchByAge(_ seed: UInt64) {
    var state = seed
    func random(_ bound: UInt64) -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return (state >> 33) % bound
    }
    // Half of the seeds work at the top of the space.
    let base = seed % 2 == 0 ? 0 : UInt64.max - 199
    let space = AddressSpace()
    var model: [(start: UInt64, last: UInt64, block: RecordingBlock)] = []
    for round in 0..<60 {
      if random(3) == 0, !model.isEmpty {
        let gone = model.remove(at: Int(random(UInt64(model.count))))
        space.unmap(gone.block)
      } else {
        let start = random(200)
        let count = 1 + random(min(40, 200 - start))
        let block = RecordingBlock(answer: UInt64(round))
        #expect(space.map(block, at: base + start, byteCount: count))
        model.append((base + start, base + (start + count - 1), block))
      }
      for offset in UInt64(0)..<200 {
        let width = [1, 2, 4, 8][Int(random(4))]
        let address = base + offset
        let owner = model.first { $0.start <= address && address <= $0.last }
        let fits = owner.map { UInt64(width) - 1 <= $0.last - address } ?? false
        #expect(space.read(address, width: width) == (fits ? owner?.block.answer : nil))
      }
    }
  }

  @Test func unclaimedPortsReadAllOnesAndUnclaimedMemoryReadsZero() throws {
    let machine = try makeMachine()
    #expect(machine.exitPortRead(0x1234, width: 1) == 0xff)
    #expect(machine.exitPortRead(0, width: 4) == UInt32.max)
    #expect(machine.exitMemoryRead(0xe000_0000, width: 8) == 0)
    machine.exitPortWrite(0x1234, width: 4, value: 1)
    machine.exitMemoryWrite(UInt64.max, width: 8, value: 1)
  }
}
