// SPDX-License-Identifier: Apache-2.0
// The PCI bus, and the configuration space of the AHCI function.
import Testing

@Suite struct PCITests {
  private let place = Machine.Place.ahci

  @Test(arguments: ["-M pc", "-M q35"]) func ahciFunctionHasItsResetValues(_ board: String) throws {
    let machine = try Machine(board)
    #expect(try machine.config(place, 0x00) == 0x2922_8086)
    #expect(try machine.config(place, 0x04, .word) & 0x0547 == 0, "command")
    #expect(try machine.config(place, 0x06, .word) == 0x0010, "status")
    #expect(try machine.config(place, 0x09, .byte) == 0x01)
    #expect(try machine.config(place, 0x0a, .word) == 0x0106)
    #expect(try machine.config(place, 0x0c, .byte) == 0, "cache line size")
    #expect(try machine.config(place, 0x0d, .byte) == 0, "latency timer")
    #expect(try machine.config(place, 0x0e, .byte) & 0x7f == 0, "header type")
    #expect(try machine.config(place, 0x0f, .byte) == 0, "self-test")
    #expect(try machine.config(place, 0x24) == 0, "BAR 5")
    #expect(try machine.config(place, 0x34) & 0xffff_ff00 == 0)
    #expect(try machine.config(place, 0x38) == 0)
    #expect(try machine.config(place, 0x3c, .byte) == 0, "interrupt line")
  }

  @Test func ahciCapabilitiesAreMSIAndSATA() throws {
    let machine = try Machine("-M q35")
    let capabilities = try machine.capabilities(place)
    #expect(capabilities.first?.id == 0x05)
    #expect(capabilities.first?.offset == 0x80)
    let msi = try #require(capabilities.first).offset
    let control = try machine.config(place, msi + 2, .word)
    #expect(control & 0x0071 == 0, "enable and multiple messages")
    #expect(control & 0xff00 == 0, "no masks, nothing reserved")
    #expect(control & 0x0080 != 0, "64-bit")
    for offset in [4, 8, 12] as [UInt32] { #expect(try machine.config(place, msi + offset) & 0xffff == 0) }
    let sata = try #require(capabilities.first { $0.id == 0x12 }).offset
    #expect(sata == 0xa8)
    #expect(try machine.config(place, sata + 2, .word) == 0x0010)
    #expect([4, 5, 6, 7, 8, 9, 15].contains(try machine.config(place, sata + 4) & 15))
    if let power = capabilities.first(where: { $0.id == 1 })?.offset {
      #expect(try machine.config(place, power + 2, .word) & 0x0608 == 0, "no PME clock, D1, D2")
      #expect(try machine.config(place, power + 4, .word) & 3 == 0, "state D0")
    }
  }

  @Test func portEnablesReadBack() throws {
    let machine = try Machine("-M q35")
    try machine.setConfig(place, 0x92, 0x3f, .byte)
    #expect(try machine.config(place, 0x92, .byte) & 0x3f == 0x3f)
  }

  @Test func lowBitsOfTheOffsetCountWhereTheyAre() throws {
    let machine = try Machine("-M q35")
    #expect(try machine.config(place, 0x02, .word) == 0x2922)
    #expect(try machine.config(place, 0x01, .byte) == 0x80)
    // In the port as well.
    try machine.output(0xcf8, 0x8000_fa00)
    #expect(try machine.input(0xcfe, .word) == 0x2922)
  }

  @Test func absentFunctionIsAllOnes() throws {
    let machine = try Machine("-M q35")
    for width in [Machine.Width.byte, .word, .long] {
      let ones = width == .byte ? 0xff : width == .word ? 0xffff : UInt32.max
      #expect(try machine.config(.init(device: 9, function: 0), 0, width) == ones)
    }
  }

  @Test func baseAddressIsFourKibibytesOfMemory() throws {
    let machine = try Machine("-M q35")
    try machine.setConfig(place, 0x24, 0xffff_ffff)
    #expect(try machine.config(place, 0x24) == 0xffff_f000)
  }

  @Test func commandBitsReadBack() throws {
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=null-co://,format=raw -device virtio-blk-pci,id=drv0,drive=drive0,addr=4.0")
    for place in [place, .disk] {
      for bits in [0, 1, 2, 3, 4, 7] as [UInt32] {
        try machine.setConfig(place, 4, bits, .word)
        #expect(try machine.config(place, 4, .word) & 7 == bits)
      }
    }
  }

  @Test func baseAddressMovesWhileItIsDecoded() throws {
    let machine = try Machine("-M q35")
    let hba = try HBA(machine)
    let capabilities = try hba.register(0)
    #expect(capabilities != 0)
    try machine.setConfig(place, 0x24, 0xe800_0000)
    #expect(try machine.register(0xe800_0000) == capabilities)
    #expect(try machine.register(HBA.registers) == 0)
    // What is past it reads as zero too.
    #expect(try machine.register(0xe800_1000) == 0)
  }
}
