// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Machine
import Testing

@testable import Accelerators

@Suite(.timeLimit(.minutes(2))) struct AHCITests {
  @Test func identifyTellsOfTheDisk() throws {
    let kit = try QTestKit()
    kit.startAHCI()
    #expect(kit.hba(0x124) == 0x0101)
    kit.prepare(0, command: 0xec, byteCount: 512)
    try kit.run(1)
    #expect(kit.hba(0x110) == 0x3)
    #expect(kit.client.number("readl \(QTestKit.list + 4)") == 512)
    let words = kit.client.bytes(QTestKit.data, 512)
    // Word 60 and on: the number of sectors.
    #expect(words[120..<124] == [64, 0, 0, 0])
    kit.finish()
  }

  @Test func dataGoBothWaysByDMA() throws {
    let kit = try QTestKit()
    kit.startAHCI()
    kit.prepare(0, command: 0xc8, lba: 3, count: 2, byteCount: 1024)
    try kit.run(1)
    #expect(kit.client.bytes(QTestKit.data, 1024) == Array(kit.sata.bytes[3 * 512..<5 * 512]))
    let pattern = (0..<512).map { UInt8(truncatingIfNeeded: 255 - $0) }
    kit.client.write(pattern, at: QTestKit.data)
    kit.prepare(1, command: 0xca, lba: 9, count: 1, byteCount: 512)
    try kit.run(2)
    #expect(Array(kit.sata.bytes[9 * 512..<10 * 512]) == pattern)
    kit.finish()
  }

  @Test func queuedReadsCompleteByOneDeviceBitsFIS() throws {
    let kit = try QTestKit(answersAtOnce: false)
    kit.startAHCI()
    for tag in 0..<4 {
      kit.prepare(
        tag, command: 0x60, features: 1, lba: UInt32(10 + tag), count: UInt16(tag) << 3, byteCount: 512,
        at: QTestKit.data + UInt64(tag) * 512)
    }
    kit.setHBA(0x134, 0xf)
    kit.setHBA(0x138, 0xf)
    #expect(kit.hba(0x134) == 0xf)
    try kit.onLoop { kit.sata.completeAll() }
    try kit.pollUntil { kit.hba(0x134) == 0 }
    #expect(kit.hba(0x110) == 0x8)
    #expect(kit.client.bytes(QTestKit.data, 2048) == Array(kit.sata.bytes[10 * 512..<14 * 512]))
    kit.finish()
  }

  @Test func controllerResetIsOverWhenItIsAnswered() throws {
    let kit = try QTestKit(answersAtOnce: false)
    kit.startAHCI()
    for _ in 0..<2 {
      kit.prepare(0, command: 0xc8, lba: 3, count: 1, byteCount: 512)
      kit.setHBA(0x138, 1)
      kit.client.send("writel \(QTestKit.abar + 4) 0x80000001\nreadl \(QTestKit.abar + 4)\n".utf8)
      try kit.wait { kit.controller.isSettling }
      #expect(try kit.onLoop { !kit.client.hasNews }, "the request in flight is not back, and the reset is not over")
      try kit.onLoop { kit.sata.completeAll() }
      #expect(kit.client.answer() == "OK")
      #expect(kit.client.answer() == "OK 0x0000000080000000")
      #expect(kit.hba(0x120) == 0x7f)
      #expect(kit.hba(0x138) == 0)
      #expect(kit.hba(0x118) & 0xc011 == 0)
      kit.startPort()
    }
    kit.finish()
  }

  @Test func commandListHasStoppedWhenTheWriteIsAnswered() throws {
    let kit = try QTestKit(answersAtOnce: false)
    kit.startAHCI()
    kit.prepare(0, command: 0xc8, lba: 3, count: 1, byteCount: 512)
    kit.setHBA(0x138, 1)
    kit.client.send("writel \(QTestKit.abar + 0x118) 0x10\n".utf8)
    try kit.wait { kit.controller.isSettling }
    try kit.onLoop { kit.sata.completeAll() }
    #expect(kit.client.answer() == "OK")
    #expect(kit.hba(0x118) & 0x8000 == 0)
    #expect(kit.hba(0x138) == 0)
    kit.finish()
  }

  @Test func resetWithNothingInFlightIsAnsweredAtOnce() throws {
    let kit = try QTestKit()
    kit.startAHCI()
    for _ in 0..<2 {
      kit.setHBA(4, 0x8000_0001)
      #expect(kit.hba(4) == 0x8000_0000)
    }
    kit.finish()
  }
}

@Suite(.timeLimit(.minutes(2))) struct VirtioTests {
  @Test func doorbellServesTheQueue() throws {
    let kit = try QTestKit()
    kit.startVirtio()
    #expect(kit.virtioStatus == 0xf)
    kit.readSector(5)
    try kit.pollUntil { kit.usedIndex == 1 }
    #expect(kit.client.bytes(QTestKit.data, 512) == Array(kit.virtio.bytes[5 * 512..<6 * 512]))
    #expect(kit.client.number("readb \(QTestKit.request + 16)") == 0)
    // Capacity, as one access of eight bytes.
    #expect(kit.client.number("readq \(QTestKit.virtioBAR + 0x2000)") == 64)
    #expect(kit.client.ask("read \(QTestKit.virtioBAR + 0x2000) 8") == "OK 0x4000000000000000")
    kit.finish()
  }

  @Test func statusIsZeroAfterTheWriteOfZeroIsAnswered() throws {
    let kit = try QTestKit(answersAtOnce: false)
    kit.startVirtio()
    kit.readSector(5)
    try kit.wait { !kit.virtio.held.isEmpty }
    kit.client.send("writeb \(QTestKit.virtioBAR + 20) 0\nreadb \(QTestKit.virtioBAR + 20)\n".utf8)
    try kit.wait { kit.disk.isSettling }
    #expect(try kit.onLoop { !kit.client.hasNews })
    try kit.onLoop { kit.virtio.completeAll() }
    #expect(kit.client.answer() == "OK")
    #expect(kit.client.answer() == "OK 0x0000000000000000")
    #expect(kit.usedIndex == 0)
    kit.startVirtio()
    #expect(kit.virtioStatus == 0xf)
    kit.finish()
  }

  @Test func messageLandsInRAM() throws {
    let kit = try QTestKit()
    kit.startVirtio(vector: 1)
    // Vector 1 of the table in BAR 1, and MSI-X on: the capability that the guest finds by the list.
    var capability = kit.client.number("readb 0x0")
    kit.client.ask("outl 0xcf8 \(0x8000_0000 | 4 << 11 | 0x34)")
    capability = kit.client.number("inb 0xcfc")
    while capability != 0 {
      kit.client.ask("outl 0xcf8 \(0x8000_0000 | 4 << 11 | capability)")
      if kit.client.number("inb 0xcfc") == 0x11 { break }
      capability = kit.client.number("inb 0xcfd")
    }
    kit.client.ask("outw 0xcfe 0x8000")
    kit.client.ask("writel \(QTestKit.virtioTable + 16) 0x5000")
    kit.client.ask("writel \(QTestKit.virtioTable + 20) 0")
    kit.client.ask("writel \(QTestKit.virtioTable + 24) 0x12345678")
    kit.client.ask("writel \(QTestKit.virtioTable + 28) 0")
    kit.readSector(1)
    try kit.pollUntil { kit.client.number("readl 0x5000") == 0x1234_5678 }
    #expect(kit.usedIndex == 1)
    kit.finish()
  }
}
