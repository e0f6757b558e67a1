// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Machine

@Suite struct PCIBARTests {
  /// A machine with one function with one BAR.
  private struct Board {
    let machine: Machine
    let function = TestFunction()
    let block = RecordingBlock(answer: 0x5a)
    let kind: BARKind

    init(_ kind: BARKind, byteCount: UInt64) throws {
      machine = try makeMachine()
      self.kind = kind
      function.addBAR(0, kind: kind, byteCount: byteCount, block: block)
      machine.attach(function)
    }

    func program(_ address: UInt64) {
      function.configurationWrite(offset: 0x10, width: 4, value: UInt32(truncatingIfNeeded: address))
      if kind.is64Bit { function.configurationWrite(offset: 0x14, width: 4, value: UInt32(address >> 32)) }
    }

    func answers(_ address: UInt64) -> Bool {
      kind.isIO
        ? machine.exitPortRead(UInt16(truncatingIfNeeded: address), width: 1) == 0x5a
        : machine.exitMemoryRead(address, width: 1) == 0x5a
    }
  }

  @Test(arguments: [
    (kind: BARKind.io, byteCount: UInt64(32), low: UInt32(0xffff_ffe1), high: UInt32(0)),
    (.io, 4, 0xffff_fffd, 0),
    (.memory32, 16, 0xffff_fff0, 0),
    (.memory32, 4096, 0xffff_f000, 0),
    (.memory32(prefetchable: true), 1 << 20, 0xfff0_0008, 0),
    (.memory32, 1 << 31, 0x8000_0000, 0),
    (.memory64, 16384, 0xffff_c004, 0xffff_ffff),
    (.memory64(prefetchable: true), 16384, 0xffff_c00c, 0xffff_ffff),
    (.memory64, 1 << 33, 0x0000_0004, 0xffff_fffe),
  ])
  func allOnesShowTheSize(_ row: (kind: BARKind, byteCount: UInt64, low: UInt32, high: UInt32)) throws {
    let board = try Board(row.kind, byteCount: row.byteCount)
    for decoding in [UInt16(0), PCICommand.io | PCICommand.memory] {
      board.function.command = decoding
      board.function.configurationWrite(offset: 0x10, width: 4, value: UInt32.max)
      board.function.configurationWrite(offset: 0x14, width: 4, value: UInt32.max)
      #expect(board.function.configurationRead(offset: 0x10, width: 4) == row.low)
      #expect(board.function.configurationRead(offset: 0x14, width: 4) == row.high)
    }
    // The register was all ones while decoding was on; nothing was mapped at what that looks like.
    #expect(board.function.barAddress(0) == nil)
  }

  @Test(arguments: [
    (kind: BARKind.io, byteCount: UInt64(32), address: UInt64(0xc000), isMapped: true),
    (.io, 32, 0xffe0, true),
    (.io, 32, 0x1_0000, false),
    (.io, 32, 0xffff_ffe0, false),
    (.io, 32, 0, false),
    (.memory32, 4096, 0xe000_0000, true),
    (.memory32, 4096, 0xe000_0fff, true),
    (.memory32, 4096, 0xffff_f000, false),
    (.memory32, 4096, 0, false),
    (.memory32, 4096, ramBytes - 4096, false),
    (.memory32, 4096, ramBytes, true),
    (.memory32, 4 << 20, 0x0040_0000, true),
    (.memory64, 16384, 0xe000_0000, true),
    (.memory64, 16384, 0x10_0000_0000, true),
    (.memory64, 16384, 0x7fff_ffff_ffff_c000, true),
    (.memory64, 16384, 0xffff_ffff_ffff_c000, false),
    (.memory64, 16384, ramBytes / 2, false),
    (.memory64, 1 << 40, 0x100_0000_0000, true),
  ])
  func addressIsMappedUnlessItIsOutsideOrOverRAM(
    _ row: (kind: BARKind, byteCount: UInt64, address: UInt64, isMapped: Bool)
  ) throws {
    let board = try Board(row.kind, byteCount: row.byteCount)
    board.program(row.address)
    #expect(board.function.events.isEmpty)
    board.function.command = PCICommand.io | PCICommand.memory
    let aligned = row.address & ~(row.byteCount - 1)
    #expect(board.function.barAddress(0) == (row.isMapped ? aligned : nil))
    #expect(board.function.events == (row.isMapped ? [.mapped(0, aligned)] : []))
    #expect(board.answers(aligned) == row.isMapped)
  }

  @Test(arguments: [
    (kind: BARKind.io, enable: PCICommand.io, other: PCICommand.memory, address: UInt64(0xc000)),
    (.memory32, PCICommand.memory, PCICommand.io, 0xe000_0000),
    (.memory64, PCICommand.memory, PCICommand.io, 0x8_0000_0000),
  ])
  func commandRegisterTurnsDecodingOnAndOff(
    _ row: (kind: BARKind, enable: UInt16, other: UInt16, address: UInt64)
  ) throws {
    let board = try Board(row.kind, byteCount: 64)
    board.program(row.address)
    board.function.command = row.other
    #expect(!board.answers(row.address))
    board.function.command = row.enable
    #expect(board.answers(row.address))
    #expect(board.answers(row.address + 63))
    #expect(!board.answers(row.address + 64))
    board.function.command = 0
    #expect(!board.answers(row.address))
    #expect(board.function.events == [.mapped(0, row.address), .unmapped(0)])
    #expect(board.function.configurationRead(offset: 0x10, width: 4) & ~0xf == UInt32(truncatingIfNeeded: row.address))
  }

  @Test func registerMovesWhileDecodingIsOn() throws {
    let board = try Board(.memory32, byteCount: 4096)
    board.function.command = PCICommand.memory
    board.program(0xe000_0000)
    #expect(board.answers(0xe000_0000))
    board.program(0xe100_0000)
    #expect(!board.answers(0xe000_0000))
    #expect(board.answers(0xe100_0000))
    // Over RAM it is not seen, and it comes back when it leaves.
    board.program(0x1000)
    #expect(board.function.barAddress(0) == nil)
    board.program(0xe000_0000)
    #expect(
      board.function.events == [
        .mapped(0, 0xe000_0000), .unmapped(0), .mapped(0, 0xe100_0000), .unmapped(0), .mapped(0, 0xe000_0000),
      ])
    // The same address again is no change.
    board.program(0xe000_0000)
    #expect(board.function.events.count == 5)
  }

  @Test func halfOfA64BitRegisterMovesTheWholeRange() throws {
    let board = try Board(.memory64, byteCount: 4096)
    board.function.command = PCICommand.memory
    board.program(0x12_e000_0000)
    #expect(board.answers(0x12_e000_0000))
    board.function.configurationWrite(offset: 0x16, width: 1, value: 0x01)
    #expect(board.function.barAddress(0) == 0x1_0012_e000_0000)
    board.function.configurationWrite(offset: 0x14, width: 4, value: 0)
    #expect(board.answers(0xe000_0000))
  }

  @Test func blockSeesOffsetsFromTheStartOfTheRange() throws {
    let board = try Board(.memory32, byteCount: 4096)
    board.function.command = PCICommand.memory
    board.program(0xe000_0000)
    board.machine.exitMemoryWrite(0xe000_0124, width: 4, value: 9)
    #expect(board.block.accesses == [.init(offset: 0x124, width: 4, value: 9)])
    board.machine.exitMemoryWrite(0xe000_0ffe, width: 4, value: 9)
    #expect(board.block.accesses.count == 1)
  }

  @Test func functionMappedFirstAnswersWhereTwoRegistersOverlap() throws {
    let board = try Board(.memory32, byteCount: 4096)
    let other = TestFunction(5, name: "other")
    let otherBlock = RecordingBlock(answer: 0x77)
    other.addBAR(0, kind: .memory32, byteCount: 4096, block: otherBlock)
    board.machine.attach(other)
    for function in [board.function, other] {
      function.configurationWrite(offset: 0x10, width: 4, value: 0xe000_0000)
      function.command = PCICommand.memory
    }
    #expect(board.answers(0xe000_0000))
    board.function.command = 0
    #expect(board.machine.exitMemoryRead(0xe000_0000, width: 1) == 0x77)
  }

  @Test func registerCannotHideFixedPorts() throws {
    let board = try Board(.io, byteCount: 16)
    board.function.command = PCICommand.io
    board.program(0xcf0)
    #expect(board.answers(0xcf0))
    board.machine.exitPortWrite(0xcf8, width: 4, value: 0x8000_0000)
    #expect(board.machine.exitPortRead(0xcfc, width: 4) == 0x29c0_8086)
  }

  @Test func resetAndShutdownUnmap() throws {
    let board = try Board(.memory32, byteCount: 4096)
    board.program(0xe000_0000)
    board.function.command = PCICommand.memory
    board.function.reset()
    #expect(!board.answers(0xe000_0000))
    #expect(board.function.configurationRead(offset: 0x10, width: 4) == 0)
    board.program(0xe000_0000)
    board.function.command = PCICommand.memory
    board.machine.remove(board.function)
    #expect(!board.answers(0xe000_0000))
    #expect(
      board.function.events == [
        .mapped(0, 0xe000_0000), .unmapped(0), .mapped(0, 0xe000_0000), .unmapped(0),
      ])
    #expect(board.machine.pci.function(at: board.function.address) == nil)
  }
}
